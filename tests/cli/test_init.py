"""The command `init`: configurations are in the package, and whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from ideas_present import with_all_ideas
from typer.testing import CliRunner

from evocompress.cli import app
from evocompress.errors import ConfigError
from evocompress.evolve.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"


def init(*words: str) -> str:
    return CliRunner().invoke(app, ["init", *words], catch_exceptions=False).output


def test_the_template_is_read_and_runs_by_the_command_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert init() == "experiment.toml: evocompress run experiment.toml\n"
    config = load_config(tmp_path / "experiment.toml")
    assert (config.model, config.name) == ("digits_cnn", "experiment")


@with_all_ideas
@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.toml")))
def test_every_configuration_is_written_as_it_is(name: str, tmp_path: Path) -> None:
    init(name, "-o", str(tmp_path / "a.toml"))
    assert (tmp_path / "a.toml").read_bytes() == (CONFIGS / f"{name}.toml").read_bytes()
    load_config(tmp_path / "a.toml")


def test_nothing_is_overwritten_and_an_unknown_name_lists_all(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("mine")
    error = CliRunner().invoke(app, ["init", "digits", "-o", str(path)]).exception
    assert isinstance(error, ConfigError) and "is there already" in str(error) and path.read_text() == "mine"
    error = CliRunner().invoke(app, ["init", "digit"]).exception
    assert isinstance(error, ConfigError) and "Did you mean 'digits'?" in str(error) and "cifar10" in str(error)
