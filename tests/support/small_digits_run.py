"""The smallest real run: three segments of an epoch each, of a narrow network on the digits, in this process."""

from __future__ import annotations

from typing import Any

__all__ = ["small_digits_run"]


def small_digits_run(*, search: dict[str, Any] | None = None, genes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Its configuration; what is given comes over it."""
    return {
        "name": "small",
        "model": "digits_cnn",
        "model_options": {"width": 4},
        "data": "digits",
        "reference_epochs": 0,
        "search": {"segments": 3, "initial": 2, "probes": 0, **(search or {})},
        "genes": {"epochs": 1, "rate_weight": [0.03, 3.0], **(genes or {})},
        "resources": {"executor": "inline"},
    }
