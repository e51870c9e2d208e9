"""`evocompress kernels`: which layers, what the tables say, galleries, the comparison with a compressed file."""

from __future__ import annotations

import csv
import html.parser
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from kernels_command import invoke, objects

from evocompress.checkpoint.packing import Array, pack, unpack
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.errors import ConfigError, EvocompressError
from evocompress.ideas.kernels import analyse, compare, frequency_response
from evocompress.ideas.kernels.analysis import chosen_layers

SOBEL = np.outer([1.0, 2, 1], [-1, 0, 1])
ROUND = np.outer([1.0, 2, 1], [1, 2, 1])
KEYS = "layer output input class order orientation_degrees confidence frequency bandwidth phase r2".split()


def state() -> dict[str, Array]:
    noise = np.random.default_rng(2).standard_normal((3, 3))
    blob = np.stack([ROUND, -ROUND, 0 * ROUND])
    edge = np.stack([SOBEL.T] * 3)
    return {
        "conv1.weight": np.stack([blob, edge]).astype(np.float32),
        "conv1.bias": np.zeros(2, np.float32),
        "layer1.0.conv.weight": np.stack([[SOBEL, ROUND], [0 * SOBEL, noise]]).astype(np.float16),
        "pointwise.weight": np.ones((4, 2, 1, 1), np.float32),
        "sequence.weight": np.array([[[-1.0, 0, 1]]], np.float32),
        "fc.weight": np.ones((3, 4), np.float32),
        "steps": np.array(7),
    }


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    safetensors.numpy.save_file(state(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    y, x = np.mgrid[:40, :60]
    image.fromarray(np.stack([4 * x, 6 * y, x + y], axis=2).astype(np.uint8)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_json_says_what_each_kernel_does(weights: Path, tmp_path: Path) -> None:
    done = invoke(weights, "--json", tmp_path / "k.json")
    assert done.exit_code == 0, done.output
    rows = objects(tmp_path / "k.json")
    assert [(row["layer"], row["output"], row["input"]) for row in rows] == [
        *(("conv1.weight", o, i) for o in range(2) for i in range(3)),
        *(("layer1.0.conv.weight", o, i) for o in range(2) for i in range(2)),
    ]
    assert all(list(row)[: len(KEYS)] == KEYS for row in rows)
    assert [row["class"] for row in rows] == ["blob"] * 3 + ["derivative"] * 4 + ["low-pass", "none", "none"]
    edge = rows[3]
    assert (edge["order"], edge["orientation_degrees"], edge["colour"]) == (1, 90.0, "luminance")
    assert rows[0]["colour"] == "opponent" and rows[6]["colour"] is None and rows[6]["orientation_degrees"] == 0.0
    assert rows[8]["confidence"] == 1.0 and rows[8]["frequency"] is None and rows[8]["norm"] == 0.0
    assert all(0 <= row["confidence"] <= 1 for row in rows)
    assert "conv1 " in done.output and "10 kernels" in done.output and "\x1b" not in done.output


def test_csv_has_the_same_rows(weights: Path, tmp_path: Path) -> None:
    assert invoke(weights, "--json", tmp_path / "k.json", "--csv", tmp_path / "k.csv").exit_code == 0
    with (tmp_path / "k.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, other in zip(rows, objects(tmp_path / "k.json"), strict=True):
        assert row == {key: "" if value is None else str(value) for key, value in other.items()}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["conv1"], ["conv1.weight"]),
        (["conv1.weight"], ["conv1.weight"]),
        (["layer1*", "conv1"], ["conv1.weight", "layer1.0.conv.weight"]),
        (["*conv*"], ["conv1.weight", "layer1.0.conv.weight"]),
        (["pointwise"], ["pointwise.weight"]),
        (["sequence"], ["sequence.weight"]),
        ([], ["conv1.weight", "layer1.0.conv.weight"]),
    ],
)
def test_layers_by_name_or_glob(patterns: list[str], expected: list[str]) -> None:
    assert chosen_layers(state(), patterns) == expected


def test_kernels_of_one_row_are_shown_where_there_are_no_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kernels = {"0.weight": rng.normal(size=(2, 3, 5)), "positions": rng.normal(size=(1, 9, 6)), "0.bias": np.ones(2)}
    assert chosen_layers(kernels) == ["0.weight"]
    safetensors.numpy.save_file(kernels, tmp_path / "sequences.safetensors")
    done = invoke(tmp_path / "sequences.safetensors", "--json", tmp_path / "k.json")
    assert done.exit_code == 0 and len(objects(tmp_path / "k.json")) == 6


def test_volumes_are_named_and_left_out(tmp_path: Path) -> None:
    volumes, others = np.ones((2, 3, 3, 3, 3)), {"1.weight": np.ones((1, 1, 3, 3))}
    path = tmp_path / "volumes.safetensors"
    safetensors.numpy.save_file({"0.weight": volumes} | others, path)
    done = invoke(path)
    assert done.exit_code == 0 and "left out: 0.weight has kernels of 3×3×3, which are volumes" in done.stderr
    assert "which are volumes; its kernels have no class" in str(invoke(path, "--layer", "0").exception)
    safetensors.numpy.save_file({"0.weight": volumes}, path)
    error = invoke(path).exception
    assert isinstance(error, ConfigError) and "'0.weight' has kernels of 3×3×3, which are volumes" in str(error)


def test_layers_of_one_pixel_and_of_one_row() -> None:
    rows = analyse(state(), ["pointwise.weight", "sequence.weight"])
    assert [row.kernel.kernel_class for row in rows] == ["identity"] * 8 + ["derivative"]
    assert rows[-1].kernel.orientation_degrees == 0


def test_an_evc_file_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "w.evc").write_bytes(pack(state(), 1e-7))
    done = invoke(tmp_path / "w.evc", "--json", tmp_path / "k.json", "--layer", "layer1.0.conv")
    assert done.exit_code == 0, done.output
    assert [row["class"] for row in objects(tmp_path / "k.json")] == ["derivative", "low-pass", "none", "none"]


def test_comparison_says_which_kernels_changed(weights: Path, tmp_path: Path) -> None:
    after = state()
    after["layer1.0.conv.weight"] = after["layer1.0.conv.weight"].copy()
    after["layer1.0.conv.weight"][0, 0] = ROUND
    after["layer1.0.conv.weight"][1, 0, 1, 1] = 1
    (tmp_path / "w.evc").write_bytes(pack(after, Recipe(1e-9, (Rule(codecs=("lossless",)),))))
    page, table = tmp_path / "k.html", tmp_path / "k.json"
    done = invoke(weights, "--compare", tmp_path / "w.evc", "--json", table, "--html", page)
    assert done.exit_code == 0, done.output
    assert "2 of 10 kernels changed class (20.0 %)" in done.output and "derivative 1 → low-pass" in done.output
    rows = objects(table)
    assert [row["changed"] for row in rows] == [False] * 6 + [True, False, True, False]
    assert (rows[6]["class"], rows[6]["class_after"]) == ("derivative", "low-pass")
    assert rows[6]["relative_error"] == pytest.approx(np.linalg.norm(SOBEL - ROUND) / np.linalg.norm(SOBEL), abs=1e-4)
    assert rows[0]["relative_error"] == 0 and rows[8]["relative_error"] is None  # infinite
    text = page.read_text()
    assert text.count('class="changed"') == 2 and text.count('alt="kernel after"') == 10
    assert "→ low-pass" in text and "→ the same class" in text


def test_a_file_without_names_is_compared_by_their_fingerprint_or_in_order(weights: Path, tmp_path: Path) -> None:
    nameless = pack(state(), Recipe(1e-7, names=False))
    (tmp_path / "w.evc").write_bytes(nameless)
    done = invoke(weights, "--compare", tmp_path / "w.evc")
    assert done.exit_code == 0 and "0 of 10 kernels changed class" in done.output and "order" not in done.output
    safetensors.numpy.save_file(unpack(nameless, "numpy"), tmp_path / "numbered.safetensors")
    done = invoke(weights, "--compare", tmp_path / "numbered.safetensors")
    assert done.exit_code == 0 and "0 of 10 kernels changed class" in done.output
    assert "paired with 7 tensors by their order" in done.output
    assert "0 of 10" in invoke(tmp_path / "w.evc", "--compare", tmp_path / "numbered.safetensors").output


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.headings = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.headings += tag == "h2"
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]


def test_galleries(weights: Path, tmp_path: Path, picture: Path) -> None:
    page, image = tmp_path / "k.html", tmp_path / "k.png"
    done = invoke(weights, "--html", page, "--png", image, "--image", picture, "--per-class", 2)
    assert done.exit_code == 0, done.output
    parser = _Page()
    parser.feed(page.read_text())
    assert parser.headings == 4 and all(source.startswith(("data:image/png;", "#")) for source in parser.sources)
    assert len([source for source in parser.sources if source.startswith("data:")]) == 3 * (2 + 2 + 1 + 2)
    assert "2 of 4, the surest" in page.read_text()
    order = re.findall(r'<h2 id="([^"]+)"', page.read_text())
    assert order == ["low-pass", "derivative", "blob", "none"]
    assert image.read_bytes().startswith(b"\x89PNG") and image.stat().st_size > 10_000


def test_names_of_layers_are_no_markup(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    name = "<script>alert(1)</script>$x$.weight"
    safetensors.numpy.save_file({name: SOBEL[None, None]}, tmp_path / "w.safetensors")
    done = invoke(tmp_path / "w.safetensors", "--html", tmp_path / "k.html", "--png", tmp_path / "k.png")
    assert done.exit_code == 0, done.output
    _Page().feed((tmp_path / "k.html").read_text())


def test_the_filtered_picture_is_what_a_layer_makes_of_it() -> None:
    torch = pytest.importorskip("torch")
    from evocompress.ideas.kernels.panels import sections

    generator = np.random.default_rng(4)
    image, weight = generator.random((64, 64, 3)), generator.standard_normal((1, 1, 3, 3))
    tensors = {"conv.weight": weight}
    rows = analyse(tensors)
    panels = dict(sections(rows, tensors, image=image)[0].tiles[0].panels)
    made = torch.nn.functional.conv2d(torch.tensor(image.mean(axis=2))[None, None], torch.tensor(weight))[0, 0].numpy()
    shown = panels["filtered"][1:-1, 1:-1, 0].astype(float)
    assert np.corrcoef(made.ravel(), shown.ravel())[0, 1] > 0.999


def test_frequency_response_of_known_kernels() -> None:
    across = frequency_response(SOBEL[None], 8)[0]
    assert across[4, 4] == pytest.approx(0) and across[4, 2] == pytest.approx(8) and across[2, 4] == pytest.approx(0)
    assert frequency_response(np.ones((1, 3, 3)), 64).max() == pytest.approx(9)
    assert frequency_response(np.ones((1, 1, 70)), 64).shape == (1, 70, 70)


def test_compare_in_python() -> None:
    before, after = {"w": SOBEL[None, None]}, {"w": -2 * SOBEL[None, None]}
    (row,) = compare(before, after, ["w"])
    assert not row.changed and row.relative_error == pytest.approx(3) and row.after is not None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--layer", "conv2"], "Did you mean 'conv1'"),
        (["--layer", "fc"], r"'fc.weight' has the shape \(3, 4\)"),
        (["--layer", "zzz"], "fits no tensor. Layers: conv1.weight"),
        (["--json", "no/k.json"], "--json no/k.json: its folder does not exist"),
        (["--png", "."], "--png . is a folder"),
        (["--image", "x.png"], "--image needs a gallery"),
        (["--png", "a.txt"], "--png a.txt: must end in .png"),
        (["--response"], "--response is written to a JSON file"),
    ],
)
def test_mistakes(weights: Path, words: list[str], expected: str) -> None:
    error = invoke(weights, *words).exception
    assert isinstance(error, ConfigError) and re.search(expected, str(error)), error


def test_files_that_do_not_fit(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"conv1.weight": np.ones((2, 3, 5, 5))}, other)
    error = invoke(weights, "--compare", other, "--layer", "conv1").exception
    assert isinstance(error, ConfigError) and "(2, 3, 5, 5) in the file to compare with, not (2, 3, 3, 3)" in str(error)
    error = invoke(weights, "--compare", other).exception
    assert isinstance(error, ConfigError) and "compare" in str(error)
    safetensors.numpy.save_file({"fc.weight": np.ones((2, 3))}, other)
    assert "no tensor of four dimensions" in str(invoke(other).exception)
    safetensors.numpy.save_file({"conv1.weight": np.full((1, 1, 3, 3), np.inf)}, other)
    assert "'conv1.weight' holds NaN or infinity" in str(invoke(other).exception)
    (tmp_path / "text.png").write_text("no picture")
    error = invoke(weights, "--html", tmp_path / "k.html", "--image", tmp_path / "text.png").exception
    assert isinstance(error, EvocompressError) and "no picture" in str(error)
    error = invoke(weights, "--html", tmp_path / "k.html", "--image", tmp_path / "none.png").exception
    assert isinstance(error, EvocompressError) and "No such file" in str(error)
    assert not (tmp_path / "k.html").exists()


def test_a_missing_matplotlib_is_said_before_the_work(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib" or name == "evocompress.ideas.kernels.gallery_png":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("evocompress.ideas.kernels.analysis.analyse", lambda *_: pytest.fail("worked first"))
    error = invoke(weights, "--png", tmp_path / "k.png").exception
    assert isinstance(error, EvocompressError) and "evocompress[report]" in str(error)
    monkeypatch.undo()
    assert invoke(weights, "--json", tmp_path / "k.json").exit_code == 0
