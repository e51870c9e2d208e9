"""Shipped configurations that switch an idea on, one for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from evocompress.evolve.config import load_config, parse_config
from evocompress.training.genes import gene_specs

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("connections_fashion_mnist", {"near", "far", "decay", "thin"}),
        ("linearconv_fashion_mnist", {"alpha"}),
        ("saccades_fashion_mnist", set()),
        ("symmetry_fashion_mnist", {"symmetry"}),
    ],
)
def test_it_loads_and_comes_back_from_json(name: str, genes: set[str]) -> None:
    config = load_config(CONFIGS / f"{name}.toml")
    assert config.name == name and parse_config(config.model_dump(mode="json")) == config
    plain = {name: spec.plain for name, spec in gene_specs().items()}
    assert genes <= {name for name in config.genes if config.genes[name] != plain.get(name)}


def test_none_is_left_out() -> None:
    core = {"digits", "mnist", "fashion_mnist", "cifar10", "text", "template"}
    ideas = {"connections", "linearconv", "saccades", "symmetry"}
    assert {path.stem for path in CONFIGS.glob("*.toml")} == core | {f"{idea}_fashion_mnist" for idea in ideas}
