"""Configuration: what is accepted, and what an error says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evocompress.errors import ConfigError
from evocompress.evolve.config import Config, load_config, override_values, parse_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
LEAST: dict[str, Any] = {"model": "digits_cnn", "data": "digits"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_load_and_come_back_from_json(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert parse_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({**LEAST, "serach": {}}, "serach: there is no such key. Did you mean 'search'"),
        ({**LEAST, "search": {"segmnts": 3}}, "search.segmnts: there is no such key. Did you mean 'search.segments'"),
        ({**LEAST, "segments": 3}, "segments: there is no such key. Did you mean 'search.segments'"),
        ({**LEAST, "learning_rate": 3}, "Did you mean 'genes.learning_rate'"),
        ({**LEAST, "zzzz": 3}, "zzzz: there is no such key. Known: name, model"),
        ({"data": "digits"}, "model: is missing"),
        ({**LEAST, "model": " "}, "model: is empty"),
        ({**LEAST, "search": {"segments": 0}}, "search.segments"),
        ({**LEAST, "search": {"segments": "many"}}, "search.segments"),
        ({**LEAST, "search": 3}, "search"),
        ({**LEAST, "genes": {"epochs": [3, 3]}}, "epochs = [3, 3]: the first number must be below the second"),
        ({**LEAST, "genes": {"rate_weight": [0.0, 1.0]}}, "genes.rate_weight"),
        ({**LEAST, "genes": {"learning_rate": float("nan")}}, "genes.learning_rate"),
        ({**LEAST, "genes": {"projection": []}}, "give at least one option"),
        ({**LEAST, "genes": {"codecs": {"convs": ["dct"]}}}, "there is no layer group 'convs'"),
        ({**LEAST, "genes": {"codecs": {"conv": ["dtc"]}}}, "Did you mean 'dct'"),
        ({**LEAST, "genes": {"codecs": {"conv": ["deadzone(stepscale=2)"]}}}, "Did you mean 'step_scale'"),
        ({**LEAST, "resources": {"gpus": -1}}, "resources.gpus"),
        ({**LEAST, "seed": -1}, "seed"),
    ],
)
def test_a_wrong_configuration_says_what_to_do(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(data, "x.toml")
    assert expected in str(caught.value)
    assert str(caught.value).startswith("x.toml:")


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**LEAST, "seed": -1, "search": {"segmnts": 3}, "resources": {"threads": 0}})
    assert all(key in str(caught.value) for key in ("seed", "search.segmnts", "resources.threads"))


def test_overrides_are_toml_or_bare_words() -> None:
    changed = override_values(
        LEAST, ["search.deterministic=true", "genes.epochs=[1, 2]", "resources.executor=inline", "search.segments = 7"]
    )
    config = parse_config(changed)
    assert config.search.deterministic and config.genes["epochs"] == (1, 2) and config.search.segments == 7
    assert config.resources.executor == "inline"
    assert "search" not in LEAST


@pytest.mark.parametrize("text", ["search.segments", "=3", "search..x=1", "model.x=3"])
def test_a_malformed_override_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        override_values(LEAST, [text])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("model = [")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b"model = '\xff'")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_a_configuration_is_immutable() -> None:
    config = parse_config(LEAST)
    with pytest.raises(Exception, match="frozen"):
        config.seed = 3
    assert isinstance(config, Config)
