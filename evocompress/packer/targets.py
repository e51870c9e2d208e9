"""The rate weight λ that meets a target: a size in bytes, or a loss. Always measured on files, never estimated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple, TypeAlias

from evocompress.errors import ConfigError

__all__ = ["TRIES", "LossLimit", "SizeLimit", "Target", "TargetMissed", "Try", "best", "find_rate_weight"]

TRIES = 12
_GROWTH = 8.0


class TargetMissed(ConfigError):
    """None of the files that were tried meets the target."""


class Try(NamedTuple):
    """One λ that was tried: its file, whether that meets the target, and its loss where that was measured.

    `refined` says that it comes from the search's second, dearer way of quantising; `zeroed` names the tensors that are
    not zero and decode to zeros.
    """

    rate_weight: float
    data: bytes
    meets: bool
    loss: float | None = None
    refined: bool = False
    zeroed: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SizeLimit:
    """A file of at most `limit` bytes; among those that are, the largest is the best."""

    limit: int
    small_is_good: ClassVar[bool] = True
    #: A refined search knows nearly where to look: tries, growth of the bracket, and how much larger λ may about be.
    near: ClassVar[tuple[int, float]] = (8, 1.25)
    headroom: ClassVar[float] = 1.0

    def __str__(self) -> str:
        return f"at most {self.limit} byte{'' if self.limit == 1 else 's'}"

    def judged(self, found: Try) -> Try:
        """The same, with whether it meets the target."""
        return found._replace(meets=len(found.data) <= self.limit)

    def missed(self, tried: Sequence[Try]) -> TargetMissed:
        """What to say where no file meets it."""
        least = min(tried, key=lambda found: len(found.data))
        return TargetMissed(
            f"No file meets the target, {self}: the smallest that these options reached has {len(least.data)} bytes, "
            f"at λ = {least.rate_weight:.3g}. --max-bytes must be at least that."
        )


@dataclasses.dataclass(frozen=True)
class LossLimit:
    """A file whose network loses at most `increase` more than the checkpoint's; the smallest of them is the best.

    `measure` gives what a file's network loses, `before` is the checkpoint's own, and `name` is what that is called.
    """

    measure: Callable[[bytes], float]
    name: str
    before: float
    increase: float
    small_is_good: ClassVar[bool] = False
    #: As a size limit's; layers that make good each other's errors allow for a larger λ.
    near: ClassVar[tuple[int, float]] = (7, 1.4)
    headroom: ClassVar[float] = 1.4

    def __str__(self) -> str:
        return f"a {self.name} of at most {self.before + self.increase:.5g}"

    def judged(self, found: Try) -> Try:
        """The same, with its loss, and whether that meets the target."""
        loss = self.measure(found.data)
        return found._replace(meets=loss <= self.before + self.increase, loss=loss)

    def missed(self, tried: Sequence[Try]) -> TargetMissed:
        """What to say where no file meets it."""
        losses = [found.loss for found in tried if found.loss is not None and math.isfinite(found.loss)]
        start = f"No file meets the target, {self}: "
        if not losses:
            return TargetMissed(f"{start}of the {len(tried)} that were tried, none has a {self.name} that is finite.")
        return TargetMissed(
            f"{start}the least increase that these options reached is {_rounded_up(min(losses) - self.before)}. "
            "--max-loss-increase must be at least that."
        )


Target: TypeAlias = SizeLimit | LossLimit


def best(tried: Iterable[Try], *, small_is_good: bool) -> Try | None:
    """Of the files that meet the target the largest (a size limit; refined ones before others), or the smallest (a
    loss limit); None where none does.
    """
    meeting = [found for found in tried if found.meets]
    if small_is_good:
        return max(meeting, key=lambda found: (found.refined, len(found.data)), default=None)
    return min(meeting, key=lambda found: len(found.data), default=None)


def find_rate_weight(
    attempt: Callable[[float], Try],
    *,
    start: float,
    small_is_good: bool,
    tries: int = TRIES,
    tolerance: float = 0.005,
    growth: float = 8.0,
) -> Try:
    """The best of the files tried: the largest that meets a size limit, or the smallest that meets a loss limit.

    The bracket first grows from `start` by a factor of `growth`, which is squared each time up to 8, so that a start
    far off costs a few tries more, and no bytes. Then it is halved on a log axis until `tries` are used up or the two
    ends' files differ by less than `tolerance` in size. A loss need not rise steadily with λ, so that all tries count.

    Args:
        attempt: Packs at a λ (and measures, if need be).
        start: The λ to begin with.
        small_is_good: Whether a larger λ meets the target sooner (a size limit), or later (a loss limit).
        tries: How often to call `attempt` at most.
        tolerance: Of the size, relative.
        growth: How far the bracket grows at a time; nearer to 1 where `start` is a good guess.

    Raises:
        TargetMissed: No λ that was tried meets the target.
    """
    tried = [attempt(start)]
    good, bad = (tried[0], None) if tried[0].meets else (None, tried[0])
    while len(tried) < tries:
        if good is not None and bad is not None:
            if abs(len(good.data) - len(bad.data)) <= tolerance * len(good.data):
                break
            found = attempt(math.sqrt(good.rate_weight * bad.rate_weight))
        else:
            upwards = (good is None) == small_is_good  # from what meets it to what does not, or the other way round
            found = attempt(tried[-1].rate_weight * (growth if upwards else 1 / growth))
            growth = max(growth, min(growth**2, _GROWTH))
            if len(found.data) == len(tried[-1].data):
                tried.append(found)
                break  # nothing changes any more at this end
        tried.append(found)
        good, bad = (found, bad) if found.meets else (good, found)
    meeting = best(tried, small_is_good=small_is_good)
    if meeting is None:
        sizes = [len(found.data) for found in tried]
        raise TargetMissed(f"No file meets the target: {len(tried)} were tried, of {min(sizes)} to {max(sizes)} bytes.")
    return meeting


def _rounded_up(number: float) -> str:
    """A positive number in three digits that is not below it, so that it can be given as a limit.

    >>> _rounded_up(0.0123401), _rounded_up(0.5), _rounded_up(2e-7)
    ('0.0124', '0.5', '2e-07')
    """
    unit = 10.0 ** (math.floor(math.log10(number)) - 2)
    return f"{math.ceil(number / unit * (1 - 1e-12)) * unit:.3g}"
