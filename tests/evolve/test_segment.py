"""The segment, on the real digits network: what it writes is what it says, twice the same."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evocompress.checkpoint.grid import grid_of
from evocompress.checkpoint.loading import load_state
from evocompress.checkpoint.packing import unpack
from evocompress.checkpoint.recipe import Rule
from evocompress.errors import EvocompressError, ModelError
from evocompress.evolve import segment as segment_module
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import Prepared, prepare
from evocompress.evolve.segment import Segment, state_hash
from evocompress.search.records import Genome, Leaf, Parent, SegmentTask
from evocompress.tasks.classification import evaluate


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(parse_config({"model": "digits_cnn", "data": "digits", "genes": {"epochs": 8}}))


@pytest.fixture(scope="module")
def genome(prepared: Prepared) -> Genome:
    space = prepared.segment.reader.space()
    drawn = space.sample(np.random.default_rng(0))
    return {**drawn, "learning_rate": 2e-3, "l1": 1e-4, "noise": 0.05, "weight_decay": 1e-4, "rate_weight": 0.1}


@pytest.mark.parametrize("limit", ["x", [1, 2], {"a": 1}])
def test_a_machine_without_the_data_is_found_out(prepared: Prepared, limit: Any) -> None:
    prepared.segment.check_machine()
    elsewhere = dataclasses.replace(prepared.segment.experiment, data_options={"limit": limit})
    with pytest.raises(EvocompressError):
        dataclasses.replace(prepared.segment, experiment=elsewhere).check_machine()


def task_of(genome: Genome, *probes: Genome, parents: tuple[Parent, ...] = (), seed: int = 1) -> SegmentTask:
    return SegmentTask(0, "s", "initial", "none", parents, genome, probes, seed, 0)


def test_leaves_are_the_files_that_were_evaluated(prepared: Prepared, genome: Genome, tmp_path: Path) -> None:
    probes = [{**genome, "rate_weight": weight} for weight in (0.05, 1.0, 20.0)]
    outcome = prepared.segment(task_of(genome, *probes), str(tmp_path), ())
    assert outcome.status == "ok" and len(outcome.leaves) >= 2
    model, splits = prepared.segment.experiment.network(), prepared.segment.experiment.splits()
    for leaf in outcome.leaves:
        data = (tmp_path / leaf.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (leaf.nbytes, leaf.sha256)
        load_state(model, unpack(data, names=model.state_dict()), leaf.path)
        result = evaluate(model, splits.validation)
        counts = {"correct": result.correct, "total": result.total}
        assert leaf.measurements["details"].items() >= counts.items()
        assert leaf.quality == result.accuracy and leaf.error == 1 - result.accuracy
        assert state_hash(unpack(data, names=model.state_dict())) == leaf.weights_sha256
        layers = leaf.measurements["layers"]
        taken = sum(row["payload_bytes"] + row["side_bytes"] for row in layers) + leaf.measurements["header_bytes"]
        assert taken == pytest.approx(leaf.nbytes, abs=0.1)
        assert leaf.measurements["float32_bytes"] == 4 * 38282
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(leaf.path for leaf in outcome.leaves)
    assert_not_dominated(outcome.leaves)
    assert 0 < outcome.encode_fraction < 1 and outcome.metrics["float_quality"] > 0.5


def test_learning_curves_on_validation_data_change_no_file(tmp_path: Path) -> None:
    small = {
        "model": "digits_cnn",
        "model_options": {"width": 4},
        "data": "digits",
        "genes": {"epochs": 2, "noise": 0.3},
    }
    made = prepare(parse_config({**small, "curve_examples": 50}))
    assert made.segment.curve_examples == 50
    genome = made.segment.reader.space().sample(np.random.default_rng(0))
    outcomes = []
    for count in (0, 50):
        (tmp_path / str(count)).mkdir()
        segment = dataclasses.replace(made.segment, curve_examples=count)
        outcomes.append(segment(task_of(genome), str(tmp_path / str(count)), ()))
    without, measured = outcomes
    assert [leaf.sha256 for leaf in without.leaves] == [leaf.sha256 for leaf in measured.leaves] != []
    assert without.metrics["curves"]["validation_quality"] == []
    curve = np.array(measured.metrics["curves"]["validation_quality"])
    assert len(curve) == 2 and np.allclose(50 * curve % 1, 0) and 0 < curve[-1] <= 1


def assert_not_dominated(leaves: tuple[Leaf, ...]) -> None:
    for leaf in leaves[1:]:  # the first is kept whatever it is like
        assert not any(
            other.nbytes <= leaf.nbytes and other.error <= leaf.error
            and (other.nbytes, other.error) != (leaf.nbytes, leaf.error)
            for other in leaves
        )  # fmt: skip


def test_a_segment_is_a_function_of_its_arguments(prepared: Prepared, genome: Genome, tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        segment = pickle.loads(pickle.dumps(prepared.segment))
        runs.append(segment(task_of(genome), str(tmp_path / name), ()))
    assert [leaf.sha256 for leaf in runs[0].leaves] == [leaf.sha256 for leaf in runs[1].leaves]
    other = prepared.segment(task_of(genome, seed=2), str(tmp_path), ())
    assert other.leaves[0].sha256 != runs[0].leaves[0].sha256


def test_training_goes_on_from_the_decoded_parent(prepared: Prepared, genome: Genome, tmp_path: Path) -> None:
    outcome = prepared.segment(task_of(genome), str(tmp_path), ())
    first = outcome.leaves[0]
    data = (tmp_path / first.path).read_bytes()
    parent = Parent(first.leaf_id, first.path, first.sha256, first.depth, first.epochs, first.seconds)
    (tmp_path / "next").mkdir()
    child = prepared.segment(task_of(genome, parents=(parent,)), str(tmp_path / "next"), (data,))
    assert child.leaves[0].depth == 2 and child.leaves[0].epochs == 16
    assert child.leaves[0].seconds > first.seconds
    losses = [result.metrics["curves"]["train_loss"][0] for result in (child, outcome)]
    assert losses[0] < 0.9 * losses[1]  # a fresh network's first epoch is worse


def test_each_fresh_start_has_weights_of_its_own(prepared: Prepared, genome: Genome) -> None:
    plain = prepared.segment.experiment.network()

    def begins(segment: Segment, seed: int) -> str:
        return state_hash(segment._start(plain, task_of(genome, seed=seed), ()).state_dict())

    assert begins(prepared.segment, 1) == begins(prepared.segment, 1) != begins(prepared.segment, 2)
    trained = dataclasses.replace(prepared.segment, trained=True)
    given = state_hash(unpack(trained.initial, names=plain.state_dict()))
    assert begins(trained, 1) == begins(trained, 2) == given


def test_divergence_is_a_result(prepared: Prepared, genome: Genome, tmp_path: Path) -> None:
    segment = dataclasses.replace(
        prepared.segment, reader=dataclasses.replace(prepared.segment.reader, genes=_wild(prepared))
    )
    outcome = segment(task_of({**genome, "learning_rate": 1e30}), str(tmp_path), ())
    assert outcome.status == "diverged" and outcome.leaves == () and list(tmp_path.iterdir()) == []


def _wild(prepared: Prepared) -> dict[str, Any]:
    return {**prepared.segment.reader.genes, "learning_rate": (1.0, 1e31)}


def test_weights_that_do_not_fit_are_listed_on_both_sides(prepared: Prepared) -> None:
    model = prepared.segment.experiment.network()
    state = dict(model.state_dict())
    state["extra"] = state.pop("fc2.bias")
    with pytest.raises(
        ModelError, match=r"x\.evc does not fit.*missing in the file: fc2\.bias; unknown to the model: extra"
    ):
        load_state(model, state, "x.evc")
    assert state_hash({"a": torch.zeros(2)}) != state_hash({"a": torch.zeros(2, dtype=torch.float16)})


def test_the_trained_grid_is_the_file_and_the_child_goes_on_from_it(
    prepared: Prepared, genome: Genome, tmp_path: Path
) -> None:
    template = prepared.segment.experiment.network().state_dict()
    exact = {**genome, "grid": "exact", "rate_weight": 0.3}
    outcome = prepared.segment(task_of(exact), str(tmp_path), ())
    data = (tmp_path / outcome.leaves[0].path).read_bytes()
    grid = grid_of(data, template)
    assert {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"} <= grid.keys() <= template.keys()
    symbols = {name: unpack(data, names=template)[name] / step for name, step in grid.items()}
    assert all(bool((value - value.round()).abs().max() < 1e-3) for value in symbols.values())
    assert outcome.metrics["float_quality"] == outcome.leaves[0].quality  # nothing is lost between training and file
    first = outcome.leaves[0]
    parent = Parent(first.leaf_id, first.path, first.sha256, first.depth, first.epochs, first.seconds)
    (tmp_path / "next").mkdir()
    child = prepared.segment(task_of({**exact, "rate_weight": 1.0}, parents=(parent,)), str(tmp_path / "next"), (data,))
    assert child.metrics["trained_parameters"] < outcome.metrics["trained_parameters"] == 38282
    smaller = (tmp_path / "next" / child.leaves[0].path).read_bytes()
    assert len(smaller) < 0.8 * len(data) and child.leaves[0].quality > 0.5
    assert unpack(smaller, names=template).keys() == template.keys()  # names and shapes of the plain network


def test_symbol_trials_leave_the_file_that_there_was_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_module, "is_nondominated", lambda points: np.ones(len(points), bool))
    segments = {}
    for trials in (0, 12):
        genes = {"epochs": 4, "rate_weight": 1.0, "symbol_trials": trials, "start_width": 0.5}
        config = {"model": "digits_cnn", "data": "digits", "genes": genes}
        segments[trials] = prepare(parse_config(config)).segment

    genome = segments[0].reader.space().sample(np.random.default_rng(0))

    def files(trials: int, name: str, *parents: Path) -> list[Path]:
        (tmp_path / name).mkdir()
        recorded = tuple(Parent("p/0", str(path), "", 1, 4, 0.0) for path in parents)
        task, data = task_of(genome, parents=recorded), tuple(path.read_bytes() for path in parents)
        leaves = segments[trials](task, str(tmp_path / name), data).leaves
        return [tmp_path / name / leaf.path for leaf in leaves if not leaf.measurements["probe"]]

    (plain,), (tried, untried) = files(0, "without"), files(12, "with")
    assert untried.read_bytes() == plain.read_bytes() != tried.read_bytes()
    # The same for a child, whose dead parts are cut out while it trains.
    (plain,), (tried, untried) = files(0, "child without", tried), files(12, "child with", tried)
    assert untried.read_bytes() == plain.read_bytes() != tried.read_bytes()


def test_files_hold_names_where_they_are_asked_to(prepared: Prepared, genome: Genome, tmp_path: Path) -> None:
    experiment = dataclasses.replace(prepared.segment.experiment, named_files=True)
    outcome = dataclasses.replace(prepared.segment, experiment=experiment)(task_of(genome), str(tmp_path), ())
    assert unpack((tmp_path / outcome.leaves[0].path).read_bytes()).keys() == experiment.network().state_dict().keys()


def test_segments_from_random_weights_may_train_longer(prepared: Prepared, genome: Genome, tmp_path: Path) -> None:
    longer = {**genome, "epochs": 1, "first_epochs": 3}
    for name in "abc":
        (tmp_path / name).mkdir()
    outcome = prepared.segment(task_of(longer), str(tmp_path / "a"), ())
    leaf = outcome.leaves[0]
    assert len(outcome.metrics["curves"]["train_loss"]) == 3 == leaf.epochs
    data = (tmp_path / "a" / leaf.path).read_bytes()
    parent = Parent(leaf.leaf_id, leaf.path, leaf.sha256, 1, leaf.epochs, 1.0, leaf.weights_sha256)
    child = prepared.segment(task_of(longer, parents=(parent,)), str(tmp_path / "b"), (data,))
    assert len(child.metrics["curves"]["train_loss"]) == 1 and child.leaves[0].epochs == 4
    trained = dataclasses.replace(prepared.segment, trained=True)  # with weights that know something
    assert trained(task_of(longer), str(tmp_path / "c"), ()).leaves[0].epochs == 1


def test_segments_from_random_weights_begin_narrow_and_live_parts_come_first(
    prepared: Prepared, genome: Genome, tmp_path: Path
) -> None:
    narrow = {**genome, "start_width": 0.5, "grid": "exact"}
    (tmp_path / "a").mkdir()
    outcome = prepared.segment(task_of(narrow), str(tmp_path / "a"), ())
    assert outcome.metrics["trained_parameters"] == 9802
    data = (tmp_path / "a" / outcome.leaves[0].path).read_bytes()
    template = prepared.segment.experiment.network().state_dict()
    decoded = unpack(data, names=template)
    # Half of the channels are dead, so that the file is cropped; those that live come first.
    assert data[3] == 5 and not decoded["conv1.bias"][8:].any() and not decoded["fc2.weight"][:, 32:].any()
    # A child is as wide as its parent is, and weights that know something are never thinned.
    leaf = outcome.leaves[0]
    parent = Parent(leaf.leaf_id, leaf.path, leaf.sha256, 1, 8, 1.0, leaf.weights_sha256)
    (tmp_path / "b").mkdir()
    child = prepared.segment(task_of({**narrow, "epochs": 1}, parents=(parent,)), str(tmp_path / "b"), (data,))
    assert child.metrics["trained_parameters"] <= 9802
    trained = dataclasses.replace(prepared.segment, trained=True)
    (tmp_path / "c").mkdir()
    whole = trained(task_of({**narrow, "epochs": 1}), str(tmp_path / "c"), ())
    assert whole.metrics["trained_parameters"] == 38282


def test_rules_of_the_configuration_come_before_the_genes(tmp_path: Path) -> None:
    config = {
        "model": "digits_cnn",
        "data": "digits",
        "genes": {"epochs": 2},
        "rules": ["fc2.*=lossless", "conv1*=dct@0.5"],
    }
    segment = prepare(parse_config(config)).segment
    genome = segment.reader.space().sample(np.random.default_rng(0))
    outcome = segment(task_of({**genome, "rate_weight": 0.1, "grid": "codecs"}), str(tmp_path), ())
    codecs = {row["name"]: row["codec"] for row in outcome.leaves[0].measurements["layers"]}
    assert codecs["fc2.weight"] == codecs["fc2.bias"] == "lossless" and "lossless" not in codecs["fc1.weight"]
    assert segment.reader.recipe(genome, examples=9).rules[1] == Rule.parse("conv1*=dct@0.5")


@pytest.mark.parametrize(
    ("rule", "message"),
    [("fc7*=lossless", "no tensor matches 'fc7"), ("fc2=dtc", "Did you mean 'dct'"), ("x", "GLOB=CODEC")],
)
def test_rules_that_cannot_be(rule: str, message: str) -> None:
    with pytest.raises(EvocompressError, match=message):
        prepare(parse_config({"model": "digits_cnn", "data": "digits", "rules": [rule]}))
