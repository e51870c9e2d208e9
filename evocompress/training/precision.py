"""Precision of a network's passes in training: float32, or torch's mixed precision with bfloat16."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

__all__ = ["Precision", "mixed_precision"]

Precision: TypeAlias = Literal["float32", "bfloat16"]


def mixed_precision(device: torch.device, precision: Precision) -> torch.autocast:
    """A context for the network's passes alone; in "float32" it changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
