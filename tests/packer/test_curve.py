"""Rate-distortion curves: every row is a real file, the ladder follows the weights, the command writes CSV and PNG."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from commands import invoke_caught

from evocompress.checkpoint.packing import Array, pack, unpack
from evocompress.checkpoint.presets import PRESETS
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.checkpoint.weight_files import read_weights
from evocompress.codecs import CODECS
from evocompress.errors import CodecError, ConfigError, EvocompressError
from evocompress.packer.curve import CurvePoint, bits_at, by_codec, curve_points, preset_label, rate_weights, write_csv
from evocompress.packer.curve_figure import curve_figure
from evocompress.support.figure_style import COLOURS


def state(scale: float = 1.0) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    return {
        "conv.weight": (scale * generator.normal(size=(16, 8, 3, 3))).astype(np.float32),
        "conv.bias": (scale * generator.normal(size=16)).astype(np.float32),
        "fc.weight": (0.3 * scale * generator.laplace(size=(10, 64))).astype(np.float16),
        "steps": np.array(7),
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    safetensors.numpy.save_file(state(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_a_point_is_a_real_file() -> None:
    arrays = state()
    (point,) = curve_points(arrays, ["dct"], [1e-3])
    data = pack(arrays, Recipe(1e-3, (Rule(codecs=("dct",), dims="matrix"),)))
    decoded = unpack(data, framework="numpy")
    matrices = ("conv.weight", "fc.weight")
    error = sum(np.square(arrays[name].astype(float) - decoded[name]).sum() for name in matrices)
    signal = sum(np.square(arrays[name].astype(float)).sum() for name in matrices)
    assert (point.codec, point.rate_weight, point.nbytes) == ("dct", 1e-3, len(data))
    assert point.bits_per_weight == 8 * len(data) / sum(array.size for array in arrays.values())
    assert point.squared_error == pytest.approx(error)
    assert point.snr_db == pytest.approx(10 * math.log10(signal / error))
    assert point.pack_seconds > 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_the_ladder_spans_the_same_rates_whatever_the_scale(scale: float) -> None:
    arrays = {"w": (scale * np.random.default_rng(1).normal(size=(128, 128))).astype(np.float32)}
    ladder = rate_weights(arrays)
    assert len(ladder) == 8 and np.ptp(np.diff(np.log(ladder))) < 1e-9 and ladder[0] < ladder[-1]
    fine, rough = curve_points(arrays, ["deadzone"], (ladder[0], ladder[-1]))
    assert 7.5 < fine.bits_per_weight < 8.7 and 0.3 < rough.bits_per_weight < 0.8


def test_a_ladder_for_zeros_and_for_vectors() -> None:
    assert len(rate_weights({"w": np.zeros((4, 4))}, count=3)) == 3
    vectors = {"a": np.random.default_rng(2).normal(size=4000), "b": np.random.default_rng(3).normal(size=4000)}
    points = list(curve_points(vectors, ["deadzone", "dct"], rate_weights(vectors, count=2)))
    assert [p.nbytes for p in points[:2]] == [p.nbytes for p in points[2:]]
    assert 7 < points[0].bits_per_weight < 9 and points[1].bits_per_weight < 1


def test_what_has_no_curve() -> None:
    with pytest.raises(ConfigError, match="no curve"):
        list(curve_points(state(), ["deadzone", "lossless"], [1e-3]))
    with pytest.raises(EvocompressError, match="floating"):
        list(curve_points({"n": np.arange(4)}, ["deadzone"], [1e-3]))
    with pytest.raises(CodecError, match="Did you mean 'deadzone'"):
        list(curve_points(state(), ["deadzon"], [1e-3]))
    with pytest.raises(CodecError, match="Did you mean 'best'"):
        list(curve_points(state(), ["deadzone"], [1e-3], ["bst"]))
    with pytest.raises(CodecError, match="'w' holds NaN"):
        list(curve_points({"w": np.full((2, 2), np.nan)}, ["deadzone"], rate_weights({"w": np.full((2, 2), np.nan)})))


def test_bits_are_interpolated_between_the_points_and_not_beyond() -> None:
    def point(nbytes: int, snr: float) -> CurvePoint:
        return CurvePoint("deadzone", 1.0, nbytes, 8 * nbytes / 1000, 1.0, snr, 0.0)

    curve = [point(400, 30.0), point(100, 10.0), point(200, 20.0), point(300, 15.0), point(500, math.inf)]
    low, first, middle, last, high = bits_at(curve, [9.0, 10.0, 15.0, 30.0, 31.0])
    assert math.isnan(low) and math.isnan(high)
    assert (first, last) == pytest.approx((0.8, 3.2)) and middle == pytest.approx(0.8 * math.sqrt(2), rel=0.1)
    assert math.isnan(bits_at(curve[:1], [30.0])[0])


def test_csv_rows(tmp_path: Path) -> None:
    points = list(curve_points(state(), ["deadzone", "dct(axes=matrix)+deadzone"], [1e-4, 1e-2]))
    write_csv(points, tmp_path / "c.csv")
    rows = read_rows(tmp_path / "c.csv")
    assert list(rows[0]) == "codec rate_weight bytes bits_per_weight squared_error snr_db pack_seconds".split()
    assert [(r["codec"], float(r["rate_weight"]), int(r["bytes"]), float(r["snr_db"])) for r in rows] == [
        (p.codec, p.rate_weight, p.nbytes, p.snr_db) for p in points
    ]
    assert {codec: len(curve) for codec, curve in by_codec(points).items()} == {"deadzone": 2, points[2].codec: 2}


def test_the_command_writes_csv_and_picture(weights: Path, tmp_path: Path) -> None:
    done = invoke_caught(
        "curve", weights, "-o", tmp_path / "out.v1", "--codecs", "dct,deadzone, dct(axes=matrix)+deadzone"
    )
    assert done.exit_code == 0, done.output
    rows = read_rows(tmp_path / "out.v1.csv")
    assert len(rows) == 3 * 8 and {row["codec"] for row in rows} == {"dct", "deadzone", "dct(axes=matrix)+deadzone"}
    picture = (tmp_path / "out.v1.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    assert "smaller than deadzone" in done.output and "20 dB" in done.output and "24 files" in done.output
    assert "\x1b" not in done.output


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_point_is_the_file_that_pack_writes(name: str, weights: Path, tmp_path: Path) -> None:
    done = invoke_caught("pack", weights, "-o", tmp_path / "w.evc", "--preset", name, "--rate-weight", 2e-3)
    assert done.exit_code == 0, done.output
    (point,) = curve_points(read_weights(weights), [], [2e-3], [name])
    assert (point.codec, point.rate_weight) == (preset_label(name), 2e-3)
    assert point.nbytes == (tmp_path / "w.evc").stat().st_size
    arrays, decoded = state(), unpack((tmp_path / "w.evc").read_bytes(), framework="numpy")
    error = sum(np.square(arrays[name].astype(float) - decoded[name]).sum() for name in ("conv.weight", "fc.weight"))
    assert point.squared_error == pytest.approx(error)


def test_presets_come_after_the_codecs(weights: Path, tmp_path: Path) -> None:
    words = ("--codecs", "dct,deadzone", "--rate-weights", "1e-4,1e-2,1e-1", "--presets", "best, fast,best")
    done = invoke_caught("curve", weights, "-o", tmp_path / "c", *words)
    assert done.exit_code == 0, done.output
    expected = ["dct", "deadzone", "preset best", "preset fast"]
    assert [row["codec"] for row in read_rows(tmp_path / "c.csv")] == [name for name in expected for _ in range(3)]
    assert "smaller than deadzone" in done.output and "preset best" in done.output and "12 files" in done.output
    assert "Presets spend more bits" in done.output


def test_presets_are_heavy_lines_in_colours_of_their_own() -> None:
    curves = by_codec(curve_points(state(), ["deadzone", "dct"], [1e-4, 1e-2], ["fast"]))
    for axes in curve_figure(curves, "deadzone", "t", heavy=["preset fast"]).axes:
        lines = {line.get_color(): float(line.get_linewidth()) for line in axes.get_lines()}
        assert len(lines) == 3 and sorted(lines.values())[-1] > 1.5 * sorted(lines.values())[-2]
        assert lines[COLOURS[0]] == max(lines.values())


def test_all_lossy_codecs_by_default(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke_caught("curve", weights, "--rate-weights", "1e-2,1e-3", "--no-png")
    assert done.exit_code == 0, done.output
    rows = read_rows(tmp_path / "w_curve.csv")
    assert {row["codec"] for row in rows} == set(CODECS) - {"lossless"}
    assert {float(row["rate_weight"]) for row in rows} == {1e-2, 1e-3}
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    "arrays",
    [{"b": np.linspace(-1, 1, 300)}, {"w": np.zeros((8, 8), np.float32)}, {"s": np.array(3.5, np.float32)}],
    ids=["vectors", "zeros", "scalar"],
)
def test_odd_checkpoints_do_not_crash(arrays: dict[str, Array], tmp_path: Path) -> None:
    safetensors.numpy.save_file(arrays, tmp_path / "odd.safetensors")
    done = invoke_caught("curve", tmp_path / "odd.safetensors", "-o", tmp_path, "--codecs", "deadzone,dct")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "odd_curve.csv").exists() and (tmp_path / "odd_curve.png").stat().st_size > 5000
    assert ("all curves are alike" in done.output) == ("w" not in arrays)


def test_mistakes(weights: Path, tmp_path: Path) -> None:
    for words, expected in [
        (("--codecs", "dtc"), "Did you mean 'dct'"),
        (("--codecs", ","), "--codecs is empty"),
        (("--codecs", "lossless"), "no curve"),
        (("--presets", "fsat"), "Did you mean 'fast'"),
        (("--presets", " , "), "--presets is empty; name at least one of fast, balanced, best"),
        (("--rate-weights", "1e-3,x"), "positive numbers"),
        (("--rate-weights", "0"), "positive numbers"),
        (("-o", tmp_path / "none" / "c"), "folder does not exist"),
    ]:
        error = invoke_caught("curve", weights, "-o", tmp_path / "c", *words).exception
        assert isinstance(error, EvocompressError) and expected in str(error), (words, error)
    assert not list(tmp_path.glob("c.*"))


def test_a_missing_matplotlib_is_said_before_the_work(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib" or name in (
            "evocompress.support.figure_style",
            "evocompress.packer.curve_figure",
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("evocompress.packer.curve.curve_points", lambda *_: pytest.fail("worked first"))
    error = invoke_caught("curve", weights, "-o", tmp_path / "c").exception
    assert isinstance(error, EvocompressError) and "evocompress[report]" in str(error)
