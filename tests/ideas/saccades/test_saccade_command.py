"""The command `saccades`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from evocompress.checkpoint.packing import pack
from evocompress.checkpoint.weight_files import write_weights
from evocompress.data import Examples, Splits
from evocompress.errors import ConfigError, EvocompressError, ModelError
from evocompress.evolve.config import load_config
from evocompress.ideas.saccades import command
from evocompress.ideas.saccades.networks import SaccadeCNN, saccade_sequence
from evocompress.networks import build

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "saccades_fashion_mnist.toml"
NETWORK = "evocompress.ideas.saccades.networks:SaccadeCNN"
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


def test_a_picture_of_other_sides_is_not_stretched(tmp_path: Path) -> None:
    examples = Examples(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    picture = Image.new("L", (60, 20))
    picture.paste(255, (20, 0, 40, 20))  # white where the middle is
    picture.save(tmp_path / "p.png")
    assert command._picture(tmp_path / "p.png", SaccadeCNN(width=4), examples).min() > 200


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_16_bits_is_seen_as_one_of_8(tmp_path: Path, channels: int) -> None:
    levels = np.outer(np.arange(16), np.arange(16)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "narrow.png")
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "wide.png")
    network = SaccadeCNN(in_channels=channels, width=4)
    narrow, wide = (command._picture(tmp_path / f"{name}.png", network, None) for name in ("narrow", "wide"))
    assert torch.equal(narrow, wide) and narrow.shape == (1, channels, 16, 16) and narrow.std() > 0.5


def colours(seed: int) -> Splits:
    """Three examples of three channels, which a network of one cannot take."""
    examples = Examples(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64))
    return Splits("colours", 1, examples, examples, examples)


def test_options_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "w.safetensors"
    write_weights(saccade_sequence(k=3, block=2, width=8).state_dict(), path)
    words = (path, "--model", "saccade_sequence", "--data", "digits", "-o", tmp_path / "map.png")
    done = invoke(*words, "--set", "k=3", "--set", "block=2", "--set", "width=8")
    assert done.exit_code == 0, done.output
    assert "4×4 blocks of 2×2, 3 of them read" in done.output


def test_a_run_says_which_network_and_which_data(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    config = load_config(CONFIG, ['data="digits"']).model_dump(mode="json")
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "config": config}))
    path = tmp_path / "w.evc"
    path.write_bytes(pack(build(config["model"], config["model_options"]).state_dict(), 1e-4))
    done = invoke(path, "--run", tmp_path, "--index", 2, "-o", tmp_path / "map.png")
    assert done.exit_code == 0, done.output
    assert "saccades.0: 2×2 blocks of 4×4: nothing" in done.output
    error = invoke(path, "--run", tmp_path, "--set", "width=8", "-o", tmp_path / "map.png").exception
    assert isinstance(error, ModelError) and "does not fit the model" in str(error)
    assert "The network is saccade_cnn with width=8, " in str(error)
    assert str(error).endswith("; --set gives it others, --run those of a run.")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "block=7", "--set", "reduction=7"], "the same options. The network is saccade_cnn with block=7, "),
        (["--set", "width=8"], "and 22 more. The network is saccade_cnn with width=8; "),
        (["--model", "saccade_sequence"], "in the model). The network is saccade_sequence with its default options; "),
    ],
)
def test_a_network_that_does_not_fit_is_told_in_sentences(
    weights: Path, tmp_path: Path, words: list[str], expected: str
) -> None:
    Image.new("L", (20, 20)).save(tmp_path / "p.png")
    error = invoke(weights, "--image", tmp_path / "p.png", "-o", tmp_path / "map.png", *words).exception
    assert isinstance(error, ModelError) and expected in str(error) and ".." not in str(error)


def test_mistakes(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.png"
    (tmp_path / "text.png").write_text("no picture")
    picture = tmp_path / "p.png"
    Image.new("L", (20, 20)).save(picture)
    before = picture.read_bytes()
    write_weights(build("digits_cnn").state_dict(), tmp_path / "plain.safetensors")
    for words, kind, expected in [
        ((weights,), ConfigError, "There is no image: give --image PICTURE"),
        ((weights, "--image", tmp_path / "none.png"), EvocompressError, "No such file"),
        ((weights, "--image", tmp_path / "text.png"), EvocompressError, "is no picture that pillow knows"),
        ((weights, "--data", "digits", "--index", 9999), ConfigError, "--index 9999: digits has"),
        ((weights, "--data", "digits", "-o", tmp_path / "map.jpg"), ConfigError, "must end in .png"),
        ((weights, "--image", picture, "-o", picture), ConfigError, "is the input itself"),
        ((weights, "--image", picture, "-o", tmp_path / "new" / "map.png"), ConfigError, "its folder does not exist"),
        ((weights, "--image", picture, "--run", tmp_path), ConfigError, "--run and --model exclude each other"),
        ((weights, "--image", picture, "--set", "width"), ConfigError, "override 'width'"),
        ((weights, "--image", picture, "--set", "wide=8"), ModelError, "wide"),
        ((weights, "--image", picture, "--set", "block=7", "--set", "reduction=7"), ModelError, "with block 4"),
        (
            (weights, "--data", f"{__name__}:colours"),
            ModelError,
            "colours 0 (class 0) does not fit the network: images",
        ),
        ((weights, "--image", picture, "--data", f"{__name__}:colours"), ModelError, "p.png does not fit the network"),
    ]:
        error = invoke("-o", output, "--model", NETWORK, *words).exception
        assert isinstance(error, kind) and expected in str(error), (words, error)
    assert picture.read_bytes() == before and not (tmp_path / "new").exists()
    error = invoke(tmp_path / "plain.safetensors", "--model", "digits_cnn", "--data", "digits").exception
    assert isinstance(error, ModelError) and "no saccade layers" in str(error)
    assert not output.exists()


def test_a_missing_matplotlib_is_said_before_the_work(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib" or name in (
            "evocompress.support.figure_style",
            "evocompress.ideas.saccades.figure",
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("evocompress.checkpoint.loading.load", lambda *_: pytest.fail("worked first"))
    error = invoke(weights, "--data", "digits").exception
    assert isinstance(error, EvocompressError) and "evocompress[report]" in str(error)
