"""Defaults of packing one checkpoint, for the command as for Python; apart, so that naming them imports no codec."""

from __future__ import annotations

__all__ = ["CALIBRATION_SAMPLES", "DEFAULT_PRESET", "RELATIVE_RATE_WEIGHT"]

#: What packs where nothing else is asked for: of `pack` in Python, and of the command `pack`.
DEFAULT_PRESET = "balanced"

#: λ as a share of the weights' mean square, where nobody says λ.
RELATIVE_RATE_WEIGHT = 1e-3

#: How many training examples sensitivities are measured on.
CALIBRATION_SAMPLES = 1024
