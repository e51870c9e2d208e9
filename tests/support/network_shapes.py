"""What images the built-in networks take by default."""

from __future__ import annotations

__all__ = ["image_shape"]

_SHAPES = {
    "connected_cnn": (1, 28, 28),
    "digits_cnn": (1, 8, 8),
    "lenet5_caffe": (1, 28, 28),
    "saccade_cnn": (1, 28, 28),
    "saccade_sequence": (1, 28, 28),
    "small_cnn": (1, 28, 28),
}


def image_shape(name: str) -> tuple[int, int, int]:
    """Channels, height and width for a network by its name."""
    return _SHAPES.get(name, (3, 32, 32))
