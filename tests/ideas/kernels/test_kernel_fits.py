"""The Gabor fit's convention and reach, second derivatives, kernels of one row, and zeros in a gallery of one file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from typer.testing import CliRunner

from evocompress.cli import app
from evocompress.ideas.kernels import Kernel, classify
from evocompress.ideas.kernels.shapes import Floats

SOBEL = np.outer([1.0, 2, 1], [-1, 0, 1])
SECOND_SOBEL = np.outer([1.0, 2, 1], [1, -2, 1])


def one(kernel: NDArray[np.floating]) -> Kernel:
    return classify(kernel[None])[0]


def gabor(size: tuple[int, int], frequency: float, degrees: float, sigma: float, phase: float) -> Floats:
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    x, y = x - (size[1] - 1) / 2, y - (size[0] - 1) / 2
    u = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    made: Floats = np.exp(-(x**2 + y**2) / 2 / sigma**2) * np.cos(2 * np.pi * frequency * u + phase)
    return made


@pytest.mark.parametrize("degrees", [0.0, 1e-9, 179.997, 30.0, 90.0, 150.0])
@pytest.mark.parametrize(("side", "frequency"), [(7, 0.2), (11, 0.25), (15, 0.3)])
def test_the_phase_is_along_the_orientation_that_is_told(side: int, frequency: float, degrees: float) -> None:
    for phase in (0.7, -0.7, 2.5):
        found = one(gabor((side, side), frequency, degrees, side / 5, phase))
        assert found.kernel_class == "gabor" and found.orientation_degrees == found.fit_orientation_degrees
        assert found.orientation_degrees is not None and round(found.orientation_degrees, 2) < 180
        expected = -phase if degrees > 179 else phase  # it is told as 0
        assert found.phase is not None and abs(np.exp(1j * found.phase) - np.exp(1j * expected)) < 0.02


def test_the_fit_of_another_class_has_an_orientation_of_its_own(tmp_path: Path) -> None:
    prewitt = np.outer([1.0, 1, 1], [-1, 0, 1])
    diagonal = np.array([[0.0, 1, 2], [-1, 0, 1], [-2, -1, 0]])
    kernels = np.stack([prewitt, SOBEL, diagonal])
    save_file({"conv.weight": kernels[:, None].astype(np.float32)}, tmp_path / "w.safetensors")
    out = tmp_path / "k.json"
    assert CliRunner().invoke(app, ["kernels", str(tmp_path / "w.safetensors"), "--json", str(out)]).exit_code == 0
    for row, kernel in zip(json.loads(out.read_text()), kernels, strict=True):
        assert row["class"] == "derivative" and row["r2"] > 0.99
        y, x = np.mgrid[-1:2, -1:2]
        angle = np.radians(row["fit_orientation_degrees"])
        u = x * np.cos(angle) + y * np.sin(angle)
        wave = np.cos(2 * np.pi * row["frequency"] * u + row["phase"])
        assert np.sum(wave * kernel) > 0.8 * np.linalg.norm(wave) * np.linalg.norm(kernel)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_the_second_sobel_derivative(size: int) -> None:
    rng = np.random.default_rng(0)
    for kernel, degrees in ((SECOND_SOBEL, 0.0), (SECOND_SOBEL.T, 90.0)):
        unit = np.pad(kernel, (size - 3) // 2) / np.linalg.norm(kernel)
        exact = one(unit)
        assert (exact.kernel_class, exact.order, exact.orientation_degrees) == ("derivative", 2, degrees)
        assert exact.confidence > 0.95
        found = classify(unit + 0.2 / size * rng.standard_normal((100, size, size)))
        assert np.mean([(each.kernel_class, each.order) == ("derivative", 2) for each in found]) > 0.9
    stripes = np.tile((-1.0) ** np.arange(size), (size, 1))
    for kernel in (stripes, stripes.T, stripes * stripes.T):
        assert one(kernel).kernel_class == "high-pass"


@pytest.mark.parametrize(("sigma", "frequency", "degrees"), [(5, 0.4, 0), (5, 0.4, 1), (5, 0.4, 5), (7.5, 0.42, 0)])
def test_fine_gabor_functions_in_wide_windows(sigma: float, frequency: float, degrees: float) -> None:
    found = one(gabor((15, 15), frequency, degrees, sigma, 0.2))
    assert found.kernel_class == "gabor" and found.r2 is not None and found.r2 > 0.999
    assert found.frequency == pytest.approx(frequency, abs=0.002)
    assert found.orientation_degrees == pytest.approx(degrees, abs=0.1)


@pytest.mark.parametrize("side", [7, 15])
def test_the_finest_stripes_are_fitted(side: int) -> None:
    found = one(np.tile((-1.0) ** np.arange(side), (side, 1)))
    assert found.kernel_class == "high-pass" and found.r2 is not None and found.r2 > 0.97
    assert found.frequency == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("length", [7, 9, 11, 15])
def test_kernels_of_one_row(length: int) -> None:
    cosine = gabor((1, length), 0.25, 0, 1e6, 0)
    x = np.arange(length) - length // 2
    for kernel, degrees in ((cosine, 0.0), (cosine.T, 90.0)):
        assert (one(kernel).kernel_class, one(kernel).orientation_degrees) == ("gabor", degrees)
    for sigma in (length / 6, length / 8, length / 5):
        gauss = np.exp(-(x**2) / 2 / sigma**2)
        curved = (x**2 / sigma**2 - 1) * gauss
        kernel = (curved - gauss * curved.sum() / gauss.sum())[None]
        for turned, degrees in ((kernel, 0.0), (kernel.T, 90.0)):
            found = one(turned)
            assert (found.kernel_class, found.order, found.orientation_degrees) == ("derivative", 2, degrees)
            assert found.isotropic is False


def test_zeros_take_a_quarter_of_a_gallery_and_a_column_of_the_table(tmp_path: Path) -> None:
    weights = np.zeros((1, 60, 3, 3), np.float32)
    weights[0, 40:] = np.random.default_rng(2).standard_normal((20, 3, 3))
    save_file({"conv.weight": weights}, tmp_path / "w.safetensors")
    page = tmp_path / "k.html"
    done = CliRunner().invoke(
        app, ["kernels", str(tmp_path / "w.safetensors"), "--html", str(page), "--per-class", "8"]
    )
    assert done.exit_code == 0, done.output
    header, counts = (line.split() for line in done.output.splitlines()[:2])
    assert dict(zip(header, counts, strict=True))["zero"] == "40"
    text = page.read_text()
    assert re.search(r"8 of 5\d: 2 of 40 that are zero, 6 others", text)
    assert len(re.findall(r">zero<", text)) == 2
