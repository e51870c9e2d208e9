"""Events of the pack job, which its observer hears beside those of `protocols.reporting`."""

from __future__ import annotations

import dataclasses

from evocompress.checkpoint.recipe import Rule
from evocompress.packer.calibrated import HeldOut
from evocompress.packer.targets import Target, Try
from evocompress.packer.temperature_scaling import Confidence

__all__ = [
    "ConfidenceFitted",
    "HeldOutMeasured",
    "PhaseBegan",
    "Searched",
    "StoppedEarly",
    "TargetMissed",
    "TensorsZeroed",
    "Tried",
]


@dataclasses.dataclass(frozen=True)
class ConfidenceFitted:
    """The logits of checkpoint and network have been scaled."""

    confidence: Confidence


@dataclasses.dataclass(frozen=True)
class PhaseBegan:
    """A part of the work has begun, the `number`th of so many."""

    what: str
    number: int = 1
    phases: int = 1


@dataclasses.dataclass(frozen=True)
class Tried:
    """A search has made a file and judged it."""

    attempt: Try


@dataclasses.dataclass(frozen=True)
class Searched:
    """A phase of a search has ended, perhaps by an interrupt; `tried` are its files, `loss_name` what their loss is."""

    tried: tuple[Try, ...]
    loss_name: str


@dataclasses.dataclass(frozen=True)
class TargetMissed:
    """No file met the target, of so many `tries`; the `nearest` is the result."""

    target: Target
    nearest: Try
    tries: int

    def __str__(self) -> str:
        return self.target.miss(self.nearest, self.tries)


@dataclasses.dataclass(frozen=True)
class StoppedEarly:
    """A search was interrupted; the result is the `best` of so many `tries`, which meets the target."""

    best: Try
    tries: int


@dataclasses.dataclass(frozen=True)
class TensorsZeroed:
    """Tensors that are not zero decode to zeros; the rule `keep` gives the first of them more bits.

    `target` is what λ was searched for; None where λ was given.
    """

    names: tuple[str, ...]
    keep: Rule
    target: Target | None = None


@dataclasses.dataclass(frozen=True)
class HeldOutMeasured:
    """What a file loses on held-out examples has been measured."""

    held_out: HeldOut
