"""A picture of where a network looked: the image, and over it what each saccade layer chose."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from evocompress.errors import ModelError
from evocompress.ideas.saccades.gate import Reading
from evocompress.support.atomic_files import write_bytes
from evocompress.support.figure_style import COLOURS, FAINT, INK, plain

__all__ = ["saccade_figure", "saccade_png", "write_saccade_png"]

Pixels: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"

_LEFT_OUT = 0.3  # how much of the image's contrast stays where a gate chose nothing
_PAPER = 1.0
_PANEL = 3.1  # inches
_MOST_FRAMED = 20  # blocks along a side: of more, frames would hide the image, and blocks are tinted
_TINT = 0.4


def saccade_figure(image: Tensor, readings: Mapping[str, Reading], title: str, subtitle: str = "") -> Figure:
    """The image, and beside it one panel for each layer, in which all but the chosen blocks is faded.

    Frames are blue for 3×3 and red for 5×5; blocks of a sequence carry their places in it instead. Where a side has
    more than 20 blocks, these have the colour itself in place of a frame, and no number.

    Args:
        image: (c, h, w) of any numbers; least is shown black, largest white. Three channels are colours.
        readings: As `saccade_maps` gives them, for this image alone.
        title, subtitle: Two lines above.

    Raises:
        ModelError: A reading is of more than one image.
    """
    several = [name for name, reading in readings.items() if len(reading.choices) != 1]
    if several:
        raise ModelError(f"readings of {', '.join(several)} are of several images; give those of one image")
    shown = _shown(image)
    figure = Figure(figsize=((len(readings) + 1) * _PANEL, _PANEL + 0.85), facecolor="white", layout="constrained")
    figure.suptitle(plain(title), x=0.02, ha="left", fontsize=13, fontweight="bold", color=INK)
    axes = figure.subplots(1, len(readings) + 1, squeeze=False)[0]
    axes[0].imshow(shown, interpolation="nearest")
    _dress(axes[0], "image")
    for panel, (name, reading) in zip(axes[1:], readings.items(), strict=True):
        _map(panel, shown, reading)
        _dress(
            panel, f"{plain(name) or 'whole network'}, {reading.size[0]}×{reading.size[1]}: {_chosen_share(reading)}"
        )
    figure.supxlabel(plain(subtitle or _legend(readings)), fontsize=9, color=FAINT)
    return figure


def saccade_png(
    image: Tensor, readings: Mapping[str, Reading], title: str, *, subtitle: str = "", dpi: int = 150
) -> bytes:
    """`saccade_figure` as the bytes of a PNG."""
    file = io.BytesIO()
    saccade_figure(image, readings, title, subtitle).savefig(file, dpi=dpi, format="png")
    return file.getvalue()


def write_saccade_png(
    image: Tensor, readings: Mapping[str, Reading], title: str, path: Path, *, subtitle: str = "", dpi: int = 150
) -> None:
    """Write `saccade_figure` as a PNG to `path`, whole or not at all."""
    write_bytes(path, saccade_png(image, readings, title, subtitle=subtitle, dpi=dpi))


def _shown(image: Tensor) -> Pixels:
    """(h, w, 3) from 0 to 1."""
    values = image.detach().double().cpu().permute(1, 2, 0).numpy()
    if values.shape[2] != 3:
        values = np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2)
    span = float(np.ptp(values))
    return (values - values.min()) / span if span > 0 else np.full(values.shape, 0.5)


def _map(axes: Axes, shown: Pixels, reading: Reading) -> None:
    height, width = shown.shape[:2]
    choices = reading.on_pixels(reading.choices, (height, width))[0].cpu().numpy()[..., None]
    picture = np.where(choices > 0, shown, _PAPER + _LEFT_OUT * (shown - _PAPER))
    framed = max(reading.choices.shape[1:]) <= _MOST_FRAMED
    if not framed:
        for choice in np.unique(choices[choices > 0]):
            tint = np.array(to_rgb(_colour(reading, int(choice))))
            picture = np.where(choices == choice, picture + _TINT * (tint - picture), picture)
    axes.imshow(picture, interpolation="nearest")
    if framed:
        _frames(axes, reading, (height, width))


def _frames(axes: Axes, reading: Reading, size: tuple[int, int]) -> None:
    """A frame around each chosen block, and its place in a sequence; thinner and smaller where blocks are."""
    height, width = size
    down, across = reading.block * height / reading.size[0], reading.block * width / reading.size[1]
    points = 72 * _PANEL * min(down, across) / max(size)
    for (row, column), choice in np.ndenumerate(reading.choices[0].cpu().numpy()):
        if not choice:
            continue
        # Blocks may reach beyond the image, frames not; and neighbours' frames must not lie on each other.
        left, top = column * across - 0.5, row * down - 0.5
        sides = min(across, width - 0.5 - left), min(down, height - 0.5 - top)
        inset = 0.04 * min(across, down)
        colour = _colour(reading, int(choice))
        axes.add_patch(
            Rectangle(
                (left + inset, top + inset),
                sides[0] - 2 * inset,
                sides[1] - 2 * inset,
                fill=False,
                edgecolor=colour,
                linewidth=min(1.6, 0.06 * points),
            )
        )
        if _is_sequence(reading):
            box = {"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": "none"}
            place, font = (left + sides[0] / 2, top + sides[1] / 2), min(9.0, 0.5 * points)
            axes.text(*place, str(choice), color="white", fontsize=font, ha="center", va="center", bbox=box)


def _colour(reading: Reading, choice: int) -> str:
    return COLOURS[0] if _is_sequence(reading) or choice == 1 else COLOURS[1]


def _is_sequence(reading: Reading) -> bool:
    return reading.probabilities.shape[1] == 1


def _chosen_share(reading: Reading) -> str:
    return f"{float((reading.choices > 0).float().mean()):.0%} of blocks".replace("%", " %")


def _legend(readings: Mapping[str, Reading]) -> str:
    if any(_is_sequence(reading) for reading in readings.values()):
        return "blue: read, numbers say in which order; faded: not read"
    return "blue: 3×3; red: 5×5; faded: nothing computed"


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
