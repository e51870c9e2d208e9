"""Small pictures of kernels, of their frequency responses and of what they make of an image, sorted by class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import scipy  # its parts are imported when they are first used, which takes half a second
from numpy.typing import NDArray

from evocompress.ideas.kernels.analysis import KernelRow, kernels_of, short_name
from evocompress.ideas.kernels.classify import CLASSES, Kernel, KernelClass
from evocompress.ideas.kernels.response import frequency_response
from evocompress.ideas.kernels.shapes import Floats
from evocompress.support.pictures import read_pixels

__all__ = ["Picture", "Section", "Tile", "described", "read_picture", "sections"]

Picture: TypeAlias = NDArray[np.uint8]
"""Red, green and blue (height, width, 3)."""

_SIDE = 64  # pixels of a panel
_DIVERGING = np.array([[33, 84, 160], [146, 190, 222], [250, 250, 248], [240, 160, 130], [170, 24, 43]], float)
_RISING = np.array([[28, 16, 68], [79, 18, 123], [181, 54, 122], [251, 135, 97], [252, 253, 191]], float)


@dataclasses.dataclass(frozen=True)
class Tile:
    """A kernel in the gallery: pictures of 64×64 pixels with their names, and lines of text."""

    panels: tuple[tuple[str, Picture], ...]
    caption: tuple[str, ...]
    changed: bool
    became_zero: bool
    is_zero: bool


@dataclasses.dataclass(frozen=True)
class Section:
    """The kernels of one class: `tiles` of `total`, in the order that `heading` says."""

    kernel_class: KernelClass
    total: int
    tiles: tuple[Tile, ...]
    changed: int = 0
    became_zero: int = 0
    zero: int = 0

    @property
    def heading(self) -> str:
        """How many there are and are shown, and what became of them; `changed` are those of another class, not zero.

        >>> Section("gabor", 9, (), changed=3, became_zero=2).heading
        '0 of 9: 0 of 3 that changed class, 0 of 2 that became zero'
        >>> Section("none", 9, (), zero=7).heading
        '0 of 9: 0 of 7 that are zero'
        """
        shown = len(self.tiles)
        count = str(shown) if shown == self.total else f"{shown} of {self.total}"
        zeros, blank = sum(tile.became_zero for tile in self.tiles), sum(tile.is_zero for tile in self.tiles)
        changed = sum(tile.changed and not tile.became_zero for tile in self.tiles)
        parts = [f"{changed} of {self.changed} that changed class"] if self.changed else []
        parts += [f"{zeros} of {self.became_zero} that became zero"] if self.became_zero else []
        parts += [f"{blank} of {self.zero} that are zero"] if self.zero else []
        if not parts:
            return count if shown == self.total else f"{count}, the surest"
        rest = shown - changed - zeros - blank
        return f"{count}: " + ", ".join([*parts, f"{rest} others"] if rest else parts)


def read_picture(path: Path) -> Floats:
    """Red, green and blue in [0, 1] of an image (h, w, 3) as `read_pixels` has it, made smaller and square.

    Raises:
        EvocompressError: It cannot be read, or pillow is missing.
    """
    return read_pixels(path, size=(_SIDE, _SIDE)) / 255


def sections(
    rows: Sequence[KernelRow],
    before: Mapping[str, object],
    after: Mapping[str, object] | None = None,
    *,
    image: Floats | None = None,
    per_class: int = 48,
) -> list[Section]:
    """The gallery's contents: for each class that occurs, at most `per_class` tiles.

    Args:
        rows: What was found.
        before: The state dict that the rows are of, and `after` the second one, if the rows have it.
        image: Picture to filter, from `read_picture`.
        per_class: The most tiles in a section.
    """
    made = []
    layers = {row.layer for row in rows}
    exact = {name: kernels_of(name, before[name]) for name in layers}
    lossy = {name: kernels_of(name, after[name]) for name in layers} if after is not None else None
    for kernel_class in CLASSES:
        class_rows = [row for row in rows if row.kernel.kernel_class == kernel_class]
        if class_rows:
            tiles = [_tile(row, exact, lossy, image) for row in _shown(class_rows, per_class)]
            changed = sum(row.changed and not row.became_zero for row in class_rows)
            zeros, blank = sum(row.became_zero for row in class_rows), sum(_is_blank(row) for row in class_rows)
            made.append(Section(kernel_class, len(class_rows), tuple(tiles), changed, zeros, blank))
    return made


def _is_blank(row: KernelRow) -> bool:
    """Whether it is zero and no other class came of it, which is nothing to look at."""
    return row.is_zero and not row.changed


def _shown(rows: Sequence[KernelRow], number: int) -> list[KernelRow]:
    """Those that changed class, then zeros, which tell little, on at most a quarter of the page, then the surest."""
    ordered = sorted(rows, key=lambda row: (not row.changed, -row.kernel.confidence))
    zeros = [row for row in ordered if row.became_zero] + [row for row in ordered if _is_blank(row)]
    changed = [row for row in ordered if row.changed and not row.became_zero]
    rest = [row for row in ordered if not row.changed and not row.became_zero and not _is_blank(row)]
    unchanged_count = max(number // 4, number - len(changed) - len(rest))
    return [*changed, *zeros[:unchanged_count], *rest][:number]


def _tile(
    row: KernelRow, before: Mapping[str, Floats], after: Mapping[str, Floats] | None, image: Floats | None
) -> Tile:
    scale = _scale(before[row.layer][row.output], row)
    panels = _panels(before[row.layer][row.output, row.input] / scale, row, image, "")
    caption = [f"{short_name(row.layer)} {row.output},{row.input}", "zero" if row.is_zero else described(row.kernel)]
    if row.colour == "opponent" or row.colour == "colour":
        caption[0] += f" ({row.colour})"
    if after is not None and row.after is not None:
        panels += _panels(after[row.layer][row.output, row.input] / scale, row, image, " after")
        became = described(row.after) if row.changed else "the same class"
        caption.append(f"→ {'zero' if row.became_zero else became}")
    return Tile(tuple(panels), tuple(caption), row.changed, row.became_zero, _is_blank(row))


def described(kernel: Kernel) -> str:
    """A class in a few words.

    >>> described(Kernel("derivative", 0.98, order=1, orientation_degrees=45.0))
    'derivative 1, 45°, 98 %'
    """
    words = kernel.kernel_class + (f" {kernel.order}" if kernel.order else "")
    if kernel.orientation_degrees is not None:
        words += f", {kernel.orientation_degrees:.0f}°"
    if kernel.kernel_class == "gabor" and kernel.frequency is not None:
        words += f", {kernel.frequency:.2f}/px"
    return f"{words}, {100 * kernel.confidence:.0f} %"


def _scale(kernels: Floats, row: KernelRow) -> float:
    """The largest weight of a kernel, or of its filter where the channels belong together: (I, h, w)."""
    return float(np.abs(kernels if row.colour is not None else kernels[row.input]).max()) or 1.0


def _panels(kernel: Floats, row: KernelRow, image: Floats | None, when: str) -> list[tuple[str, Picture]]:
    """Of a kernel over its scale, so that what a codec took away is seen."""
    response = frequency_response(kernel[None], _SIDE)[0]
    panels = [
        (f"kernel{when}", _coloured(_enlarged(np.clip(0.5 + 0.5 * kernel, 0, 1)), _DIVERGING)),
        (f"response{when}", _coloured(_enlarged(response / (float(response.max()) or 1.0)), _RISING)),
    ]
    if image is not None:
        panels.append((f"filtered{when}", _filtered(image, kernel, row)))
    return panels


def _filtered(image: Floats, kernel: Floats, row: KernelRow) -> Picture:
    """As the layer does it, by correlation: of its own channel for a filter in colour, else of the grey picture."""
    grey = image[:, :, row.input] if row.colour is not None else image.mean(axis=2)
    made = scipy.ndimage.correlate(grey, kernel, mode="nearest")
    low, high = float(made.min()), float(made.max())
    scaled = (made - low) / (high - low) if high - low > 1e-9 else np.full_like(made, 0.5)
    return np.repeat(np.rint(255 * scaled).astype(np.uint8)[:, :, None], 3, axis=2)


def _enlarged(values: Floats) -> Floats:
    """Pixels as squares, on a square panel: a kernel that is not square has a border without colour (NaN)."""
    times = max(1, _SIDE // max(values.shape))
    large = np.kron(values, np.ones((times, times)))
    if max(large.shape) > _SIDE:
        large = scipy.ndimage.zoom(large, _SIDE / max(large.shape), order=0)
    panel = np.full((_SIDE, _SIDE), np.nan)
    top, left = ((_SIDE - side) // 2 for side in large.shape)
    panel[top : top + large.shape[0], left : left + large.shape[1]] = large
    return panel


def _coloured(values: Floats, colours: Floats) -> Picture:
    """Values in [0, 1] on a ramp of colours; NaN is white."""
    filled = np.nan_to_num(values, nan=0.0)
    at = np.linspace(0, 1, len(colours))
    ramp = np.stack([np.interp(filled, at, colours[:, channel]) for channel in range(3)], axis=2)
    return np.where(np.isnan(values)[:, :, None], 255, np.rint(ramp)).astype(np.uint8)
