"""The rate weight λ that meets a target: a size in bytes, or a loss. Always measured on files, never estimated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from evocompress.errors import ConfigError

__all__ = ["TRIES", "Try", "find_rate_weight"]

TRIES = 12


class Try(NamedTuple):
    """One λ that was tried: its file, whether that meets the target, its loss where that was measured, and how."""

    rate_weight: float
    data: bytes
    meets: bool
    loss: float | None = None
    layerwise: bool = False


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

    The bracket first grows from `start` by factors of `growth`, then is halved on a log axis until `tries` are used up
    or the two ends' files differ by less than `tolerance` in size. A loss need not rise steadily with λ, so that all
    tries count.

    Args:
        attempt: Packs at a λ (and measures, if need be).
        start: The λ to begin with.
        small_is_good: Whether a larger λ meets the target sooner (a size limit), or later (a loss limit).
        tries: How often to call `attempt` at most.
        tolerance: Of the size, relative.
        growth: How far the bracket grows at a time; nearer to 1 where `start` is a good guess.

    Raises:
        ConfigError: No λ that was tried meets the target.
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
            if len(found.data) == len(tried[-1].data):
                tried.append(found)
                break  # nothing changes any more at this end
        tried.append(found)
        good, bad = (found, bad) if found.meets else (good, found)
    meeting = [found for found in tried if found.meets]
    if not meeting:
        sizes = [len(found.data) for found in tried]
        raise ConfigError(f"No file meets the target: {len(tried)} were tried, of {min(sizes)} to {max(sizes)} bytes.")
    return (max if small_is_good else min)(meeting, key=lambda found: len(found.data))
