"""`evocompress kernels` on files of every kind: other networks, layers without a class, factors; what became zero."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from kernels_command import invoke, objects
from PIL import Image

from evocompress.checkpoint.packing import pack
from evocompress.checkpoint.recipe import Recipe
from evocompress.errors import ConfigError, EvocompressError
from evocompress.ideas.kernels import with_banks

SOBEL = np.outer([1.0, 2, 1], [-1, 0, 1])
ROUND = np.outer([1.0, 2, 1], [1, 2, 1])


@pytest.mark.parametrize(
    ("names", "kept", "expected"),
    [
        (True, 3, "to compare with has no tensor 'a0'"),
        (False, 3, "packed without names, and they were not those"),
        (None, 2, "has 2 tensors with numbers for names, and the first file has 3"),
    ],
)
def test_another_network_is_refused(names: bool | None, kept: int, expected: str, tmp_path: Path) -> None:
    kernels = {str(number): SOBEL[None, None].astype(np.float32) for number in range(3)}
    safetensors.numpy.save_file({f"a{name}": kernel for name, kernel in kernels.items()}, tmp_path / "a.safetensors")
    other = {f"{'' if names is None else 'b'}{name}": kernels[name] for name in list(kernels)[:kept]}
    (tmp_path / "b.evc").write_bytes(pack(other, Recipe(1e-7, names=names is not False)))
    error = invoke(tmp_path / "a.safetensors", "--compare", tmp_path / "b.evc").exception
    assert isinstance(error, ConfigError) and expected in str(error), error


def test_layers_without_a_class_are_left_out_unless_named(tmp_path: Path) -> None:
    broken = {
        "big.weight": np.ones((1, 1, 1, 1090), np.float32),
        "conv.weight": SOBEL[None, None],
        "nan.weight": np.full((1, 1, 3, 3), np.nan),
    }
    safetensors.numpy.save_file(broken, tmp_path / "w.safetensors")
    done = invoke(tmp_path / "w.safetensors")
    assert done.exit_code == 0 and "derivative" in done.output
    assert "left out: big.weight has kernels of 1×1090, more than 1089 numbers" in done.output
    assert "left out: nan.weight holds NaN or infinity" in done.output
    for name, reason in (("big", "1×1090"), ("nan", "NaN")):
        error = invoke(tmp_path / "w.safetensors", "--layer", name).exception
        assert isinstance(error, EvocompressError) and reason in str(error)


@pytest.mark.parametrize(
    "options", [{"alpha": 0.5}, {"alpha": 0.5, "rank": 0.5, "groups": 2}, {"alpha": 0.25, "mask": [3, 6]}], ids=str
)
def test_the_whole_bank_of_a_linear_conv(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    from evocompress.ideas.linearconv import LinearConv2d

    mask = options.pop("mask", None)
    layer = LinearConv2d(4, 8, (3, 5), **options)
    if mask is not None:
        layer.is_primary = torch.isin(torch.arange(8), torch.tensor(mask))
    factors = {f"features.0.{name}": value for name, value in layer.state_dict().items()}
    tensors = with_banks({"first.kernel": SOBEL, **factors, "last.primary": SOBEL})
    assert list(tensors) == ["first.kernel", "features.0.weight", "features.0.bias", "last.primary"]
    bank = tensors["features.0.weight"]
    assert isinstance(bank, np.ndarray) and np.allclose(bank, layer.weight.detach().numpy(), atol=1e-6)
    unfit = {"x.primary": np.ones((3, 1, 3, 3)), "x.coefficients": np.ones((2, 2))}
    assert with_banks(unfit) == unfit


def test_factors_and_kernels_are_layers_too(tmp_path: Path) -> None:
    made = {
        "conv1.kernel": SOBEL[None, None],
        "conv2.primary": SOBEL[None, None],
        "conv2.coefficients": np.array([[-2.0]]),
    }
    safetensors.numpy.save_file(made, tmp_path / "w.safetensors")
    words = ["--layer", "conv1", "--layer", "conv2", "--json", tmp_path / "k.json"]
    done = invoke(tmp_path / "w.safetensors", *words)
    assert done.exit_code == 0, done.output
    rows = [(row["layer"], row["output"], row["class"]) for row in objects(tmp_path / "k.json")]
    assert rows == [
        (name, o, "derivative") for name, o in (("conv1.kernel", 0), ("conv2.weight", 0), ("conv2.weight", 1))
    ]


def test_a_gallery_begins_with_what_became_another_class(tmp_path: Path) -> None:
    before = np.tile(SOBEL, (9, 1, 1, 1))
    after = before * np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])[:, None, None, None]
    after[5] = ROUND
    for name, values in (("a", before), ("b", after)):
        safetensors.numpy.save_file({"conv.weight": values}, tmp_path / f"{name}.safetensors")
    page = tmp_path / "k.html"
    words = ["--compare", tmp_path / "b.safetensors", "--html", page, "--per-class", 4, "--json", tmp_path / "k.json"]
    done = invoke(tmp_path / "a.safetensors", *words)
    assert done.exit_code == 0 and re.search("5  derivative 1 → zero", done.output), done.output
    text = page.read_text()
    assert "4 of 9: 1 of 1 that changed class, 1 of 5 that became zero, 2 others<" in text
    assert re.findall("→ (low-pass|zero|the same)", text) == ["low-pass", "zero", "the same", "the same"]
    assert [row["norm_after"] == 0 for row in objects(tmp_path / "k.json")] == [True] * 5 + [False] * 4


def test_responses_on_request(tmp_path: Path) -> None:
    weights, words = tmp_path / "w.safetensors", ["--json", tmp_path / "k.json"]
    safetensors.numpy.save_file({"conv.weight": np.stack([SOBEL, ROUND])[:, None]}, weights)
    assert invoke(weights, *words, "--response").exit_code == 0
    edge, blur = (row["response"] for row in objects(tmp_path / "k.json")[:2])
    assert len(edge) == len(blur) == 17 and edge[0] < 0.1 * max(edge) and blur[0] == pytest.approx(16, rel=0.01)
    assert blur == sorted(blur, reverse=True)
    assert invoke(weights, *words).exit_code == 0 and "response" not in objects(tmp_path / "k.json")[0]


def test_a_picture_of_16_bits_is_filtered_as_one_of_8(tmp_path: Path) -> None:
    levels = np.outer(np.arange(16), np.arange(16)).astype(np.uint8)
    safetensors.numpy.save_file({"conv.weight": SOBEL[None, None]}, tmp_path / "w.safetensors")
    for name, values in (("narrow", levels), ("wide", levels.astype(np.uint16) * 257)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
        words = ("--html", tmp_path / f"{name}.html", "--image", tmp_path / f"{name}.png")
        assert invoke(tmp_path / "w.safetensors", *words).exit_code == 0
    assert (tmp_path / "wide.html").read_text() == (tmp_path / "narrow.html").read_text()


def test_outputs_that_would_be_written_over_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"")
    for words, message in (
        (("--json", weights), "is the input itself"),
        (("--json", tmp_path / "k", "--csv", tmp_path / "k"), "is written already"),
    ):
        failure = invoke(weights, *words).exception
        assert isinstance(failure, ConfigError) and message in str(failure)
