"""evocompress: train, compress and evolve neural networks in one loop.

`pack` and `unpack` turn a state dict into the bytes of an `.evc` file and back, `load` puts such a file into a torch
module; `Cycle` puts lossy compression into a training loop of one's own; the command `evocompress run` evolves a
population. Importing this package imports neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from evocompress.errors import EvocompressError

if TYPE_CHECKING:
    from evocompress.cycle import Cycle
    from evocompress.loading import load
    from evocompress.packing import pack, unpack
    from evocompress.recipe import Recipe, Rule

__version__ = "0.1.0"
__all__ = ["Cycle", "EvocompressError", "Recipe", "Rule", "__version__", "load", "pack", "unpack"]

_HOMES = {
    "Cycle": "cycle",
    "Recipe": "recipe",
    "Rule": "recipe",
    "load": "loading",
    "pack": "packing",
    "unpack": "packing",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"evocompress.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'evocompress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
