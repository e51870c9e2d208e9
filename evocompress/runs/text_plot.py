"""Plots made of characters, for a terminal: a sparkline and a scatter of braille dots."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["braille_scatter", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The last value of each of `width` equal stretches as a bar; a flat line stays low.

    >>> sparkline([0, 1, 2, 3], 4)
    '▁▃▅█'
    """
    count = min(width, len(values))
    sampled = [values[(number + 1) * len(values) // count - 1] for number in range(count)]
    low, high = min(sampled, default=0.0), max(sampled, default=0.0)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[int((value - low) * scale)] for value in sampled)


def braille_scatter(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """Points (x, y) as `height` rows of `width` characters, y upwards, both axes scaled to what is there.

    >>> braille_scatter([(0, 0), (1, 1)], 2, 1)
    ['⡀⠈']
    """
    cells = [[0] * width for _ in range(height)]
    columns = _scaled([x for x, _ in points], 2 * width)
    rows = _scaled([y for _, y in points], 4 * height)
    for column, row in zip(columns, rows, strict=True):
        down = 4 * height - 1 - row
        cells[down // 4][column // 2] |= _DOTS[down % 4][column % 2]
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in line) for line in cells]


def _scaled(values: Sequence[float], steps: int) -> list[int]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (steps - 1) / (high - low) if high > low else 0.0
    return [round((value - low) * scale) for value in values]
