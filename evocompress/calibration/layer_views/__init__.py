"""Layer views for calibration: one file per kind of layer.

`evocompress.extensions.LAYER_VIEWS` lists them, those of ideas and of installed packages among them.
"""

from __future__ import annotations

import functools

from torch import nn

from evocompress.extensions import LAYER_VIEWS
from evocompress.protocols import LayerView

__all__ = ["view_of"]


@functools.cache
def _views() -> tuple[LayerView, ...]:
    return tuple(kind() for kind in LAYER_VIEWS.values())


def view_of(module: nn.Module) -> LayerView | None:
    """The view of a module; None for kinds without one, and for subclasses that compute in a way of their own.

    >>> type(view_of(nn.Linear(2, 2))).__name__, view_of(nn.ReLU())
    ('LinearView', None)
    """
    for view in _views():
        for kind in view.kinds:
            if isinstance(module, kind) and type(module).forward is kind.forward:
                return view
    return None
