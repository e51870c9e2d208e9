"""Probe control: how many probes a segment can afford, from what the last ones cost."""

from __future__ import annotations

import math
import statistics
from collections import deque

from evocompress.search.records import Outcome
from evocompress.search.settings import SearchSettings

__all__ = ["ProbeControl"]

_WINDOW = 16


class ProbeControl:
    """K such that (1 + K) recipes take at most `probe_share` of a segment.

    With r = training seconds over seconds per recipe, the share of n recipes is n / (n + r), so n may be at most
    r * share / (1 - share). r is the median of the last outcomes. Deterministic mode keeps K fixed: timings differ from
    machine to machine and must not decide.
    """

    def __init__(self, settings: SearchSettings) -> None:
        self._settings = settings
        self.ratios: deque[float] = deque(maxlen=_WINDOW)

    def observe(self, outcome: Outcome, recipes: int) -> None:
        """Take in an outcome whose segment tried `recipes` recipes."""
        share = outcome.encode_fraction
        if outcome.status == "ok" and 0.0 < share < 1.0:
            self.ratios.append((1.0 - share) / share * recipes)

    @property
    def count(self) -> int:
        """K for the next segment."""
        most = self._settings.probes
        if self._settings.deterministic or not self.ratios:
            return most
        share = self._settings.probe_share
        return min(most, max(0, math.floor(statistics.median(self.ratios) * share / (1.0 - share)) - 1))
