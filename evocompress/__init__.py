"""evocompress: train, compress and evolve neural networks in one loop.

`pack` and `unpack` turn a state dict into the bytes of an `.evc` file and back, `save` writes such a file of a torch
module, `load` puts it into one, `evaluate` says how good that is on data, and `from_pretrained` makes a model of
transformers with it; `RateTerm` and `Cycle` put the rate of the file and lossy compression into a training loop of
one's own; the command `evocompress run` evolves a population. Importing this
package imports neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from evocompress.errors import EvocompressError

if TYPE_CHECKING:
    from evocompress.checkpoint.loading import load, save
    from evocompress.checkpoint.packing import pack, unpack
    from evocompress.checkpoint.pretrained import from_pretrained
    from evocompress.checkpoint.recipe import Recipe, Rule
    from evocompress.packer.evaluation import evaluate
    from evocompress.runs.opened_run import open_run
    from evocompress.training.cycle import Cycle
    from evocompress.training.quantised_training import RateTerm

__version__ = "0.1.0"
__all__ = [
    "Cycle",
    "EvocompressError",
    "RateTerm",
    "Recipe",
    "Rule",
    "__version__",
    "evaluate",
    "from_pretrained",
    "load",
    "open_run",
    "pack",
    "save",
    "unpack",
]

_HOMES = {
    "Cycle": "training.cycle",
    "RateTerm": "training.quantised_training",
    "Recipe": "checkpoint.recipe",
    "Rule": "checkpoint.recipe",
    "evaluate": "packer.evaluation",
    "from_pretrained": "checkpoint.pretrained",
    "load": "checkpoint.loading",
    "open_run": "runs.opened_run",
    "pack": "checkpoint.packing",
    "save": "checkpoint.loading",
    "unpack": "checkpoint.packing",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"evocompress.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'evocompress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
