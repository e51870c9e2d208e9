"""Configuration: what is accepted, and what an error says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from evocompress.errors import ConfigError
from evocompress.evolve.config import Config, load_config, override_values, parse_config
from evocompress.search.settings import USER_SETTINGS, SearchSettings

CONFIGS = [Path(__file__).parents[2] / "configs" / f"{name}.toml" for name in ("digits", "fashion_mnist", "cifar10")]
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
        ({**LEAST, "epochs": 3}, "epochs: there is no such key. Did you mean 'genes.epochs' or 'teacher.epochs'?"),
        ({**LEAST, "learning_rate": 3}, "Did you mean 'genes.learning_rate'"),
        ({**LEAST, "zzzz": 3}, "zzzz: there is no such key. Known: name, model"),
        ({"data": "digits"}, "model: is missing"),
        ({**LEAST, "model": " "}, "model: is empty"),
        ({**LEAST, "search": {"segments": 0}}, "search.segments: must be at least 1 (got 0)"),
        ({**LEAST, "search": {"minutes": float("inf")}}, "search.minutes: must be above 0 and finite (got inf)"),
        ({**LEAST, "search": {"probe_share": 1}}, "search.probe_share: must be above 0 and below 1 (got 1"),
        ({**LEAST, "search": {"tournament_share": 0}}, "must be above 0, as the other rules fall back on it"),
        ({**LEAST, "search": {"tournamnet_size": 3}}, "Did you mean 'search.tournament_size'"),
        (
            {**LEAST, "search": {"selection": "dominence"}},
            "search.selection: selection 'dominence' is unknown. Did you",
        ),
        ({**LEAST, "search": {"byte_budget": "16 potatoes"}}, "search.byte_budget: size='16 potatoes' is not a number"),
        ({**LEAST, "search": {"ratio_range": [8, 4]}}, "search.ratio_range: must be two numbers, the first below"),
        ({**LEAST, "search": {"ratio_range": [0, 4]}}, "search.ratio_range: must be above 0"),
        ({**LEAST, "search": {"error_range": [0.5, 0.5]}}, "search.error_range: must be two numbers, the first below"),
        ({**LEAST, "search": {"reference": [1.1, 0]}}, "search.reference: must be above 0"),
        (
            {**LEAST, "search": {"continue_share": 0, "mutate_share": 0, "crossover_share": 0}},
            "continue_share, mutate_share and crossover_share are all 0; raise at least one",
        ),
        ({**LEAST, "search": {"bytes_range": [1, 2]}}, "search.bytes_range: there is no such key"),
        (
            {**LEAST, "resources": {"executor": "rya"}},
            "resources.executor: executor 'rya' is unknown. Did you mean 'ray'",
        ),
        ({**LEAST, "search": {"segments": "many"}}, "search.segments"),
        ({**LEAST, "search": 3}, "search"),
        (
            {**LEAST, "genes": {"epochs": [3, 3]}},
            "genes.epochs: the first number must be below the second; write 3 to fix it (got [3, 3])",
        ),
        (
            {**LEAST, "genes": {"model_options": {"width": [8, 8]}}},
            "width: the first number must be below the second; write 8 to fix it",
        ),
        (
            {**LEAST, "genes": {"model_options": {"width": [0, 8]}}},
            "width: must be two numbers, 0 < low < high, as a range is drawn on a log axis",
        ),
        (
            {**LEAST, "genes": {"label_smoothing": [0, 0.2]}},
            "genes.label_smoothing.0: must be above 0: a range is drawn on a log axis, which has no 0. Write a small "
            "number instead, such as 0.001; or only 0, without a range, which switches it off (got 0)",
        ),
        ({**LEAST, "genes": {"rate_weight": [0.0, 1.0]}}, "genes.rate_weight"),
        ({**LEAST, "genes": {"learning_rate": float("nan")}}, "genes.learning_rate"),
        ({**LEAST, "genes": {"projection": []}}, "give at least one option"),
        ({**LEAST, "genes": {"codecs": {"convs": ["dct"]}}}, "there is no layer group 'convs'"),
        ({**LEAST, "genes": {"codecs": {"conv": ["dtc"]}}}, "Did you mean 'dct'"),
        ({**LEAST, "genes": {"codecs": {"conv": ["deadzone(stepscale=2)"]}}}, "Did you mean 'step_scale'"),
        ({**LEAST, "resources": {"gpus": -1}}, "resources.gpus"),
        ({**LEAST, "seed": -1}, "seed"),
        ({**LEAST, "seed": 2**63}, "seed"),
    ],
)
def test_a_wrong_configuration_says_what_to_do(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(data, "x.toml")
    assert expected in str(caught.value)
    assert str(caught.value).startswith("x.toml:")


def test_all_problems_are_told_at_once_in_our_own_words() -> None:
    wrong = {
        "model": 5,
        "search": {"segments": "three", "deterministic": "maybe", "ratio_range": [4]},
        "resources": {"workers": -1, "gpus": "many", "precision": "bfloat61"},
        "genes": {
            "epochs": "three", "learning_rate": [1e-3, "x"], "rate_weight": [1e-3, 1e-5], "l1": [0, 1],
            "optimiser": "adamm", "schedule": ["cosin"], "sensitivity": [], "epoch": 3,
            "codecs": {"foo": ["dct"], "dense": []},
        },
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        parse_config({**LEAST, **wrong})
    lines = {line.strip() for line in str(caught.value).splitlines()[1:]}
    groups = "groups are first, conv, dense, last, vector"
    assert lines == {
        "model: must be text (got 5)",
        "search.segments: must be a whole number (got 'three')",
        "search.deterministic: must be true or false (got 'maybe')",
        "search.ratio_range: must be two numbers [low, high] (got [4])",
        "resources.workers: must be at least 0 (got -1)",
        "resources.gpus: must be a number, or 'auto' (got 'many')",
        "resources.precision: must be 'float32' or 'bfloat16'; did you mean 'bfloat16'? (got 'bfloat61')",
        "genes.epochs: must be a whole number, or two numbers [low, high] (got 'three')",
        "genes.learning_rate.1: must be a number (got 'x')",
        "genes.rate_weight: the first number must be below the second (got [0.001, 1e-05])",
        "genes.l1.0: must be above 0: a range is drawn on a log axis, which has no 0. Write a small number instead, "
        "such as 0.001; or only 0, without a range, which switches it off (got 0)",
        "genes.optimiser: must be a list of some of 'adam', 'adamw', 'sgd' (got 'adamm')",
        "genes.schedule.0: must be 'constant' or 'cosine'; did you mean 'cosine'? (got 'cosin')",
        "genes.sensitivity: give at least one option, each once (got [])",
        "genes.epoch: there is no such key. Did you mean 'genes.epochs'?",
        f"genes.codecs: there is no layer group 'foo'; {groups}; group 'dense' has no options; give at least one codec "
        "(got {'foo': ['dct'], 'dense': []})",
    }


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
    with pytest.raises(ConfigError, match="override"):
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


def test_every_setting_of_the_search_that_people_set_reaches_it() -> None:
    changed: dict[str, Any] = {
        "segments": 7, "minutes": 1.5, "initial": 3, "pool_size": 5, "probes": 1, "probe_share": 0.3, "lag": 4,
        "deterministic": True, "selection": "scalar", "byte_budget": "16kB", "error_range": [0.1, 0.9],
        "reference": [1.2, 1.3], "tournament_size": 3, "size_bins": 4, "tournament_share": 0.5, "size_bin_share": 0.2,
        "lineage_share": 0.6, "lineage_turns": 2, "lineage_start": [0.5, 0.75], "lineage_step": 0.25,
        "give_up_after": 5,
        "budget_share": 0.25, "continue_share": 0.2, "mutate_share": 0.7, "crossover_share": 0.3, "mutation_rate": 0.4,
        "mutation_sigma": 0.2,
    }  # fmt: skip
    assert {*changed, "ratio_range"} == set(USER_SETTINGS)
    search = parse_config({**LEAST, "search": {**changed, "ratio_range": [2, 100]}}).search
    settings = search.settings(seed=9, float32_bytes=10_000).to_json()
    assert settings == {**changed, "byte_budget": 16_000, "seed": 9, "bytes_range": [100.0, 5000.0]}
    assert all(field.description for field in type(search).model_fields.values())


def test_settings_that_nobody_sets_have_the_defaults_of_the_search() -> None:
    settings = parse_config(LEAST).search.settings(seed=0, float32_bytes=1 << 20)
    other = {"segments": 200, "lineage_share": 0.5, "error_range": (0.0, 0.5), "bytes_range": (2048.0, 262144.0)}
    assert settings == dataclasses.replace(SearchSettings(), **other)  # type: ignore[arg-type]
