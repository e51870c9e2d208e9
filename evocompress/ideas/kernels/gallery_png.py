"""The gallery of kernels as one PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evocompress.ideas.kernels.panels import Section
from evocompress.support.atomic_files import replacing

__all__ = ["gallery_figure", "write_gallery_png"]

_INK, _FAINT, _CHANGED = "#1b2430", "#6b7685", "#b3261e"
_PANEL, _GAP, _LINE, _HEAD = 0.62, 0.05, 0.13, 0.42  # inches
_WIDTH = 13.0  # at most


def gallery_figure(sections: Sequence[Section], title: str) -> Figure:
    """Kernels by class, each with its response and whatever else its tile has; those that changed in red."""
    panels = max((len(tile.panels) for section in sections for tile in section.tiles), default=1)
    lines = max((len(tile.caption) for section in sections for tile in section.tiles), default=2)
    wide = max(panels * (_PANEL + _GAP), 1.55) + 0.2
    high = _PANEL + lines * _LINE + 0.16
    columns = max(1, int((_WIDTH - 0.3) / wide))
    most = max((len(section.tiles) for section in sections), default=1)
    width = max(0.3 + min(columns, most) * wide, 9.5)  # the legend's
    height = 0.75 + sum(_HEAD + math.ceil(len(section.tiles) / columns) * high for section in sections)
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    top = height - 0.42
    _text(figure, 0.25, top, title, 14, _INK, weight="bold")
    _text(figure, 0.25, top - 0.2, _legend(sections), 9, _FAINT)
    top -= 0.3
    for section in sections:
        shown = len(section.tiles)
        _text(figure, 0.25, top - 0.28, f"{section.kernel_class}  ({section.heading})", 11.5, _INK, weight="bold")
        top -= _HEAD
        for number, tile in enumerate(section.tiles):
            left, upper = 0.25 + number % columns * wide, top - number // columns * high
            colour = _CHANGED if tile.changed else _FAINT
            for place, (_, picture) in enumerate(tile.panels):
                _panel(figure, left + place * (_PANEL + _GAP), upper - _PANEL, picture)
            for line, words in enumerate(tile.caption):
                _text(figure, left, upper - _PANEL - 0.13 - line * _LINE, words, 7, _INK if line == 0 else colour)
        top -= math.ceil(shown / columns) * high
    return figure


def write_gallery_png(sections: Sequence[Section], title: str, path: Path, *, dpi: int = 110) -> None:
    """Write `gallery_figure` as a PNG to `path`, whole or not at all."""
    with replacing(path) as temporary:
        gallery_figure(sections, title).savefig(temporary, dpi=dpi, format="png")


def _legend(sections: Sequence[Section]) -> str:
    names = [name for section in sections for tile in section.tiles[:1] for name, _ in tile.panels]
    shown = list(dict.fromkeys(names))
    return "left to right: " + ", ".join(shown) + ".  Kernels: blue negative, red positive.  Responses: 0 in the middle"


def _panel(figure: Figure, left: float, bottom: float, picture: np.ndarray) -> None:
    """A picture at inches from the figure's lower left corner."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / height, _PANEL / width, _PANEL / height))
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#c9d0d9")
        spine.set_linewidth(0.6)


def _text(
    figure: Figure, left: float, base: float, words: str, size: float, colour: str, weight: str = "normal"
) -> None:
    width, height = figure.get_size_inches()
    figure.text(left / width, base / height, words.replace("$", r"\$"), fontsize=size, color=colour, weight=weight)
