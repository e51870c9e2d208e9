"""Search for the rate weight λ that meets a size or a loss: always measured on files, never estimated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple, TypeAlias

__all__ = ["TRIES", "LossLimit", "SizeLimit", "Target", "Try", "best", "fill", "find_rate_weight"]

TRIES = 12
_GROWTH = 8.0
_FULL = 0.99  # of a limit: as much of it as a file need use
_SMALL_STEP, _LARGE_STEP = 0.15, 0.85  # of the bracket's width: how near to its ends the next try may lie


class Try(NamedTuple):
    """One λ that was tried: its file, whether that meets the target, and its loss where that was measured.

    `refined` says that it comes from the search's second, dearer way of quantising; `zeroed` names the tensors that are
    not zero and decode to zeros. `in_vain`: such tensors are among those that were given more bytes so as to be kept.
    """

    rate_weight: float
    data: bytes
    meets: bool
    loss: float | None = None
    refined: bool = False
    zeroed: tuple[str, ...] = ()
    in_vain: bool = False


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

    def judged(self, file: Try) -> Try:
        """The same, with whether it meets the target."""
        return file._replace(meets=len(file.data) <= self.limit)

    def nearest(self, tried: Sequence[Try]) -> Try:
        """The file to take where none meets the target: the smallest."""
        return min(tried, key=lambda file: (len(file.data), file.rate_weight))

    def within_reach(self, nearest: Try) -> str:
        """The least limit that the nearest file meets."""
        return str(len(nearest.data))

    def miss(self, nearest: Try, tries: int) -> str:
        """What to say where no file meets it."""
        nbytes = len(nearest.data)
        return (
            f"No file meets the target, {self}: the smallest of the {tries} that were tried has {nbytes} bytes, "
            f"{nbytes - self.limit} more, at λ = {nearest.rate_weight:.3g}."
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

    def judged(self, file: Try) -> Try:
        """The same, with its loss, and whether that meets the target."""
        loss = self.measure(file.data)
        return file._replace(meets=loss <= self.before + self.increase, loss=loss)

    def nearest(self, tried: Sequence[Try]) -> Try:
        """The file to take where none meets the target: the one that loses least; the finest if no loss is finite."""
        return min(tried, key=lambda file: (_finite_or_inf(file.loss), file.rate_weight))

    def within_reach(self, nearest: Try) -> str:
        """The least increase that the nearest file meets; empty where its loss is not finite."""
        loss = _finite_or_inf(nearest.loss)
        return "" if loss == math.inf else _rounded_up(loss - self.before)

    def miss(self, nearest: Try, tries: int) -> str:
        """What to say where no file meets it."""
        start = f"No file meets the target, {self}: "
        if not (increase := self.within_reach(nearest)):
            return f"{start}of the {tries} that were tried, none has a {self.name} that is finite."
        return (
            f"{start}the least of the {tries} that were tried is {nearest.loss:.5g}, an increase of {increase} where "
            f"{self.increase:.3g} is allowed, at λ = {nearest.rate_weight:.3g}."
        )


Target: TypeAlias = SizeLimit | LossLimit


def best(tried: Iterable[Try], *, small_is_good: bool) -> Try | None:
    """Of the files that meet the target the largest (a size limit; refined ones before others, and those last that were
    made `in_vain`), or the smallest (a loss limit); None where none does.
    """
    candidates = [file for file in tried if file.meets]
    if small_is_good:
        return max(candidates, key=lambda file: (file.refined, not file.in_vain, len(file.data)), default=None)
    return min(candidates, key=lambda file: len(file.data), default=None)


def find_rate_weight(
    attempt: Callable[[float], Try],
    *,
    start: float,
    small_is_good: bool,
    tries: int = TRIES,
    tolerance: float = 0.005,
    growth: float = 8.0,
) -> Try | None:
    """The best of the files tried: the largest that meets a size limit, or the smallest that meets a loss limit.

    None where no λ that was tried meets the target.

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
    """
    tried = [attempt(start)]
    meeting, missing = (tried[0], None) if tried[0].meets else (None, tried[0])
    while len(tried) < tries:
        if meeting is not None and missing is not None:
            if abs(len(meeting.data) - len(missing.data)) <= tolerance * len(meeting.data):
                break
            file = attempt(math.sqrt(meeting.rate_weight * missing.rate_weight))
        else:
            upwards = (meeting is None) == small_is_good  # from what meets it to what does not, or the other way round
            file = attempt(tried[-1].rate_weight * (growth if upwards else 1 / growth))
            growth = max(growth, min(growth**2, _GROWTH))
            if len(file.data) == len(tried[-1].data):
                tried.append(file)
                break  # nothing changes any more at this end
        tried.append(file)
        meeting, missing = (file, missing) if file.meets else (meeting, file)
    return best(tried, small_is_good=small_is_good)


def fill(attempt: Callable[[float], Try], too_large: int, limit: int, *, tries: int, first: float = 1.1) -> Try | None:
    """The largest file that meets a size limit, along a factor on λ from 1 on, with which sizes fall little by little.

    None where none of those that were tried meets it. The bracket's end grows from `first`, its logarithm twofold at a
    time; then log sizes are interpolated between its ends, until a file uses 99 % of the limit.

    Args:
        attempt: Packs at a factor above 1.
        too_large: Size of the file at factor 1, in bytes.
        limit: Which is below that, in bytes.
        tries: How often to call `attempt` at most.
        first: The factor to begin with.
    """
    (low, low_size), high, best_file = (0.0, too_large), None, None
    at = math.log(first)
    for _ in range(tries):
        file = attempt(math.exp(at))
        if not file.meets:
            low, low_size = at, len(file.data)
        else:
            high = at, len(file.data)
            if best_file is None or len(file.data) > len(best_file.data):
                best_file = file
            if len(file.data) >= _FULL * limit:
                break
        if high is None:
            at = 2 * at
            continue
        wanted, span = (1 + _FULL) / 2 * limit, math.log(low_size / high[1])
        share = math.log(low_size / wanted) / span if span > 0 else 0.5
        at = low + min(max(share, _SMALL_STEP), _LARGE_STEP) * (high[0] - low)
    return best_file


def _finite_or_inf(loss: float | None) -> float:
    return math.inf if loss is None or not math.isfinite(loss) else loss


def _rounded_up(number: float) -> str:
    """A positive number in three digits that is not below it, so that it can be given as a limit.

    >>> _rounded_up(0.0123401), _rounded_up(0.5), _rounded_up(2e-7)
    ('0.0124', '0.5', '2e-07')
    """
    unit = 10.0 ** (math.floor(math.log10(number)) - 2)
    return f"{math.ceil(number / unit * (1 - 1e-12)) * unit:.3g}"
