"""The pictures of symmetries, and the numbers behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evocompress.codecs.symmetry_groups import SYMMETRIES, group
from evocompress.errors import ModelError

pytest.importorskip("matplotlib", reason="the extra `report`")
from evocompress.ideas.symmetry.figure import nearness_figure, symmetry_gallery, symmetry_ratios, write_png


def weights() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    noise = np.random.default_rng(0).normal(size=(60, 50, 3, 3))
    mirrored = group("left-right", 3, 3).project(noise.reshape(-1, 9)).reshape(noise.shape)
    zero, flat = np.zeros((2, 2, 1, 5)), np.ones((4, 4))
    return {"noise": noise, "$mirrored$": mirrored, "zero": zero, "flat": flat, "point": np.ones((3, 3, 1, 1))}


def test_ratios_are_one_for_noise_and_zero_for_what_is_exact() -> None:
    table = symmetry_ratios(weights())
    assert set(table) == {"noise", "$mirrored$", "zero"} and not {"none", "zero"} & set(table["noise"])
    assert all(abs(ratio - 1) < 0.05 for ratio in table["noise"].values())
    assert table["$mirrored$"]["left-right"] < 1e-9 and table["$mirrored$"]["left-right-odd"] > 1.3
    assert set(table["zero"].values()) == {0.0} and "transpose" not in table["zero"]


def test_the_map_has_a_row_for_each_layer_with_kernels() -> None:
    axes = nearness_figure(weights(), "three layers").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["noise", r"\$mirrored\$", "zero"]
    values = axes.images[0].get_array()
    assert values is not None and values.shape == (3, len(axes.get_xticklabels()))
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert np.ma.getmaskarray(values)[2, names.index("transpose")] and not np.ma.getmaskarray(values)[:2].any()
    with pytest.raises(ModelError, match="None of the 1 tensors"):
        nearness_figure({"fc": np.ones((3, 3))}, "none")


def test_the_gallery_shows_every_symmetry(tmp_path: Path) -> None:
    figure = symmetry_gallery(3)
    assert len(figure.axes) == len(SYMMETRIES) + 1
    write_png(figure, tmp_path / "gallery.png", dpi=50)
    assert (tmp_path / "gallery.png").read_bytes()[:4] == b"\x89PNG"
