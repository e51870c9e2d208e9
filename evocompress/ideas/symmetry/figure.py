"""Two pictures of kernel symmetries: what each of them looks like, and how near a network's layers are to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from evocompress.codecs.symmetry import kernel_shape
from evocompress.codecs.symmetry_groups import SYMMETRIES, group, groups, nearness
from evocompress.errors import ModelError
from evocompress.support.atomic_files import replacing
from evocompress.support.figure_style import FAINT, GRID, INK, new_figure, plain

__all__ = ["nearness_figure", "symmetry_gallery", "symmetry_ratios", "write_png"]

_COLUMNS = 8  # of the gallery
_CHANCE = 1.0


def symmetry_ratios(weights: Mapping[str, npt.NDArray[np.floating]]) -> dict[str, dict[str, float]]:
    """How much of each layer's kernels a symmetry loses, over what it would lose of white noise: 1 is chance, 0 exact.

    Both as shares of the layer's energy; a layer without energy loses nothing.

    Returns:
        For each tensor with kernels of more than one place, by name: the ratio for each symmetry that it can have, but
        "none", and "zero", which loses everything.
    """
    table = dict[str, dict[str, float]]()
    for layer, weight in weights.items():
        size = kernel_shape(weight.shape)
        if size is None:
            continue
        kernels = np.asarray(weight, np.float64).reshape(-1, *size)
        energy = (kernels**2).sum(axis=(1, 2))
        loss_shares = (nearness(kernels) ** 2 * energy[:, None]).sum(axis=0) / (float(energy.sum()) or 1.0)
        table[layer] = {
            name: float(share) / (1 - symmetry.n_free / (size[0] * size[1]))
            for share, (name, symmetry) in zip(loss_shares, groups(*size).items(), strict=True)
            if name not in ("none", "zero")
        }
    return table


def symmetry_gallery(size: int = 5, seed: int = 0) -> Figure:
    """One random kernel (size, size), made symmetric in every way, with how many numbers are left free."""
    kernel = np.random.default_rng(seed).normal(size=(1, size * size)) * (1 + np.arange(size * size) / size**2)
    figure, first = new_figure("One random kernel, snapped to each symmetry", "in brackets: how many numbers stay free")
    figure.set_size_inches(11, 5.6)
    first.set_axis_off()
    rows = -(-len(SYMMETRIES) // _COLUMNS)
    grid = figure.add_gridspec(rows, _COLUMNS)
    first.set_subplotspec(grid[:, :])
    limit = float(np.abs(kernel).max())
    for place, name in enumerate(SYMMETRIES):
        symmetry = group(name, size, size)
        axes = figure.add_subplot(grid[divmod(place, _COLUMNS)])
        picture = symmetry.project(kernel).reshape(size, size)
        axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        label = name.replace("-odd-", "-odd,\n").replace("identical-", "identical-\n").replace("anti-", "anti-\n")
        axes.set_xlabel(f"{label} ({symmetry.n_free})", fontsize=8.5, color=INK)
        _bare(axes)
    return figure


def nearness_figure(weights: Mapping[str, npt.NDArray[np.floating]], title: str) -> Figure:
    """`symmetry_ratios` as a map, a row for each layer: blue is nearer to a symmetry than chance, red is further.

    Raises:
        ModelError: No tensor has kernels of more than one place.
    """
    table = symmetry_ratios(weights)
    if not table:
        raise ModelError(f"None of the {len(weights)} tensors has kernels of more than one place: nothing to draw.")
    names = [name for name in SYMMETRIES if any(name in row for row in table.values())]
    values = np.array([[row.get(name, np.nan) for name in names] for row in table.values()])
    figure, axes = new_figure(title, "energy that snapping loses, over what it would lose of white noise")
    figure.set_size_inches(11, 2.6 + 0.26 * len(table))
    norm = TwoSlopeNorm(_CHANCE, min(0.5, float(np.nanmin(values))), max(1.5, float(np.nanmax(values))))
    image = axes.imshow(values, cmap="RdBu_r", norm=norm, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(len(table)), [plain(layer) for layer in table], fontsize=9)
    axes.set_facecolor(GRID)  # where a layer cannot have a symmetry
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.ax.tick_params(labelsize=9, colors=FAINT)
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def write_png(figure: Figure, path: Path, *, dpi: int = 130) -> None:
    """Write a figure as a PNG to `path`, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(GRID)
