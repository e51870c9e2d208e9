"""The teacher of a run: a file beside the run's others, of given weights or of a network that the run trains first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from evocompress.checkpoint.forms import loaded
from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.networks import build
from evocompress.search.storage import Storage
from evocompress.support.modules import tensors_of

__all__ = ["TEACHER", "TeacherFile", "without_loss"]

#: Where it lies below the storage's root.
TEACHER = "teacher.evc"


def without_loss(state: Mapping[str, Tensor]) -> bytes:
    """A state dict in a file, every bit."""
    return pack(state, Recipe(rules=(Rule(codecs=("lossless",)),)))


@dataclasses.dataclass(frozen=True)
class TeacherFile:
    """Where the teacher's weights lie, and of which network they are; picklable, for workers."""

    storage: Storage
    model: str
    model_options: Mapping[str, Any]
    path: str = TEACHER

    def network(self) -> nn.Module:
        """The network with its weights."""
        plain = build(self.model, self.model_options)
        return loaded(plain, unpack(self.storage.read(self.path), names=tensors_of(plain)), "the teacher's file")
