"""Figure style: colours, title and axes of every figure.

Figures are made without pyplot, so nothing global changes and no display is needed.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["COLOURS", "FAINT", "GRID", "INK", "new_figure", "plain", "style_axes"]

#: Of what is to be read first: titles, labels of axes, the line that others are compared with.
INK = "#1b2430"
#: Of what is to be read last: ticks, notes, reference lines.
FAINT = "#6b7685"
GRID = "#e4e8ee"
#: Of lines that are compared, in this order.
COLOURS = ("#0b62d6", "#d1495b", "#2a9d5c", "#8450ba", "#c77700", "#008c95", "#7a5c48", "#b83280")


def new_figure(title: str, subtitle: str = "") -> tuple[Figure, Axes]:
    """A white figure of 8.4 × 5.2 inches and its only axes, with a bold title and a faint line below it.

    Without a subtitle, what follows the first line of the title is the faint line.
    """
    figure = Figure(figsize=(8.4, 5.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    head, _, tail = title.partition("\n")
    axes.set_title(plain(head), loc="left", fontsize=13, fontweight="bold", color=INK, pad=24)
    axes.text(0.0, 1.025, plain(subtitle or tail), transform=axes.transAxes, fontsize=9.5, color=FAINT)
    return figure, axes


def style_axes(axes: Axes) -> None:
    """A faint grid below everything, ticks without marks, and no box but for the line at the bottom."""
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def plain(text: str) -> str:
    r"""Somebody's text without mathtext: a dollar sign in a network's name is only a dollar sign.

    >>> print(plain("$x$"))
    \$x\$
    """
    return text.replace("$", r"\$")
