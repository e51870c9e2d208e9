"""The command `saccades`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from evocompress.cli import saccades as command
from evocompress.errors import ConfigError, EvocompressError, ModelError
from evocompress.networks import build
from evocompress.networks.saccade_cnn import SaccadeCNN
from evocompress.weights import write_weights

NETWORK = "evocompress.networks.saccade_cnn:SaccadeCNN"
pytestmark = pytest.mark.usefixtures("seeded")


def invoke(*words: object) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    return CliRunner().invoke(app, ["saccades", *map(str, words)])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    write_weights(SaccadeCNN().state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_the_command_draws_an_image_of_the_data(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    output = tmp_path / "map.png"
    done = invoke(weights, "--model", NETWORK, "--data", "digits", "--index", 3, "-o", output)
    assert done.exit_code == 0, done.output
    assert output.read_bytes().startswith(b"\x89PNG")
    assert "saccades.0: 2×2 blocks of 4×4: nothing" in done.output and "multiply-adds" in done.output


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_command_draws_a_picture(weights: Path, tmp_path: Path, mode: str) -> None:
    Image.radial_gradient("L").resize((21, 30)).convert(mode).save(tmp_path / "p.png")
    done = invoke(weights, "--model", NETWORK, "--image", tmp_path / "p.png", "-o", tmp_path / "map.png")
    assert done.exit_code == 0, done.output
    assert "saccades.0: 8×6 blocks of 4×4" in done.output and (tmp_path / "map.png").stat().st_size > 5000


def test_a_picture_is_made_like_the_data(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    Image.new("RGB", (300, 200), "white").save(tmp_path / "p.png")
    words = ("--image", tmp_path / "p.png", "--data", "digits", "-o", tmp_path / "map.png")
    done = invoke(weights, "--model", NETWORK, *words)
    assert done.exit_code == 0, done.output
    assert "saccades.0: 2×2 blocks" in done.output


def test_mistakes(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.png"
    (tmp_path / "text.png").write_text("no picture")
    write_weights(build("digits_cnn").state_dict(), tmp_path / "plain.safetensors")
    for words, kind, expected in [
        ((weights,), ConfigError, "There is no image: give --image PICTURE"),
        ((weights, "--image", tmp_path / "none.png"), EvocompressError, "No such file"),
        ((weights, "--image", tmp_path / "text.png"), EvocompressError, "cannot identify image file"),
        ((weights, "--data", "digits", "--index", 9999), ConfigError, "--index 9999: digits has"),
        ((weights, "--data", "digits", "-o", tmp_path / "map.jpg"), ConfigError, "must end in .png"),
    ]:
        error = invoke("-o", output, "--model", NETWORK, *words).exception
        assert isinstance(error, kind) and expected in str(error), (words, error)
    error = invoke(tmp_path / "plain.safetensors", "--model", "digits_cnn", "--data", "digits").exception
    assert isinstance(error, ModelError) and "no saccade layers" in str(error)
    assert not output.exists()


def test_a_missing_matplotlib_is_said_before_the_work(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib" or name in (
            "evocompress.figure_style",
            "evocompress.layers.saccade_figure",
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("evocompress.loading.load", lambda *_: pytest.fail("worked first"))
    error = invoke(weights, "--data", "digits").exception
    assert isinstance(error, EvocompressError) and "evocompress[report]" in str(error)
