"""Options of the network's factory as genes: networks of several sizes on one front, each lineage with its own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evocompress.checkpoint.packing import unpack
from evocompress.errors import ConfigError, ModelError
from evocompress.evolve.certificate import source_of_run
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import prepare, run_experiment
from evocompress.evolve.genome import network_options
from evocompress.networks import build
from evocompress.search.history import read_history
from evocompress.search.space import Choice, Integer, Space
from evocompress.support.modules import tensors_of

OPTIONS: dict[str, Any] = {"width": [4, 12], "depth": [1, 2], "activation": ["relu", "tanh"]}


def config(**changes: Any) -> Any:
    plain: dict[str, Any] = {
        "model": "option_networks:tower",
        "data": "digits",
        "reference_epochs": 1,
        "reference_packs": False,
        "search": {"segments": 8, "initial": 4, "probes": 1, "deterministic": True, "lag": 1, "lineage_share": 0.3},
        "genes": {"epochs": 1, "rate_weight": [0.01, 1.0], "model_options": OPTIONS},
        "resources": {"executor": "inline"},
    }
    return parse_config({**plain, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options") / "run"
    assert run_experiment(config(), folder).finished
    return folder


def options_in(genome: Any) -> dict[str, Any]:
    return {name.removeprefix("option."): value for name, value in genome.items() if name.startswith("option.")}


def test_each_lineage_keeps_its_options_and_the_front_has_files_of_several(run: Path) -> None:
    history = read_history(run)
    begun, children = set(), 0
    assert [outcome.error for outcome in history.outcomes if outcome.status != "ok"] == []
    for task in history.tasks.values():
        assert all(options_in(probe) == options_in(task.genome) for probe in task.probes)
        if task.parents:
            parent = history.tasks[task.parents[0].leaf_id.partition("/")[0]]
            assert options_in(parent.genome) == options_in(task.genome)
            children += 1
        begun.add(tuple(options_in(task.genome).items()))
    assert children >= 2 and len(begun) >= 3
    assert len({leaf.measurements["float32_bytes"] for leaf in history.archive}) == 1  # the run's network, for all


def test_a_front_file_is_read_with_the_options_that_its_row_says(run: Path) -> None:
    with (run / "export" / "front.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows
    for row in rows:
        options = options_in(json.loads(row["genome"]))
        assert set(options) == set(OPTIONS)
        template = tensors_of(build("option_networks:tower", options))
        path = run / row["file"]
        decoded = unpack(path.read_bytes(), names=template)
        assert {name: tensor.shape for name, tensor in decoded.items()} == {n: t.shape for n, t in template.items()}
        network = source_of_run(path, run).network
        assert tensors_of(network).keys() == template.keys()
        assert network_options(config(), json.loads(row["genome"])) == options


def test_a_finished_run_goes_on(run: Path) -> None:
    more = config(search={**config().search.model_dump(), "segments": 9})
    assert run_experiment(more, run, resume=True, override=True).segments == 9


def test_lasting_genes_survive_json_and_children_keep_them() -> None:
    space = Space({"width": Integer(4, 64), "codec": Choice(("a", "b"))}, ["codec"], ["width"])
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space
    assert space.variable_names == ("codec",) and "lasting" not in Space({"a": Integer(0, 9)}).to_json()
    with pytest.raises(ConfigError, match="lasting names"):
        Space({"a": Integer(0, 9)}, lasting=["b"])
    with pytest.raises(ConfigError, match="both of the recipe"):
        Space({"a": Integer(0, 9)}, ["a"], ["a"])


def test_a_fixed_option_is_no_gene() -> None:
    fixed = config(genes={"epochs": 1, "model_options": {"width": 6, "depth": [1, 3]}})
    reader = prepare(fixed).segment.reader
    genome = reader.space().sample(np.random.default_rng(0))
    assert "option.width" not in genome and reader.model_options(genome)["width"] == 6
    assert len(reader.option_ends) == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"width": [12, 4]}, "two numbers, 0 < low < high"),
        ({"width": [0, 4]}, "two numbers, 0 < low < high"),
        ({"activation": ["relu"]}, "or a list of options"),
        ({"activation": ["relu", "relu"]}, "or a list of options"),
        ({"width": {"low": 4}}, "or a list of options"),
        ({"width": True}, "or a list of options"),
    ],
)
def test_what_is_no_range_and_no_list(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config(genes={"model_options": options})


def test_what_does_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model_options and genes.model_options both say 'width'"):
        config(model_options={"width": 8})
    with pytest.raises(ConfigError, match="initial_weights do not fit"):
        config(initial_weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(ModelError, match=r"genes\.model_options: .*breadth"):
        prepare(config(genes={"model_options": {"breadth": [4, 12]}}))
