"""Plans of connections as genes: layers that change their plan, files that say theirs, thinning in a lineage."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configured_genes import configured_genes
from torch import nn

from evocompress.checkpoint.forms import changed, loaded
from evocompress.checkpoint.packing import unpack
from evocompress.data.examples import Examples
from evocompress.errors import ConfigError, ModelError
from evocompress.evolve.config import load_config, parse_config
from evocompress.evolve.driver import prepare, run_experiment
from evocompress.evolve.genome import GenomeReader
from evocompress.evolve.layer_groups import groups_of
from evocompress.evolve.segment import state_hash
from evocompress.ideas.connections import overprovisioned
from evocompress.ideas.connections import replan as overprovisioned_replan
from evocompress.ideas.connections.drawing import connect, mask
from evocompress.ideas.connections.form import PlanForm
from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d, OverProvisionedLinear, hold
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.connections.replan import replanned
from evocompress.networks import build
from evocompress.protocols import Genes
from evocompress.search.history import read_history
from evocompress.search.records import Genome, SegmentTask
from evocompress.training.trainer import TrainingGenes, train

BASE = ConnectionPlan(kernel=3, near=0.3, decay=0.5, far=0.02)
LOCAL = ConnectionPlan(kernel=3, near=0.2, far=0.01, period=0, shared=False)
PLAIN: Genes = {}
DENSER: Genes = {"near": 0.5, "far": 0.04}
SPARSER: Genes = {"near": 0.1, "far": 0.0}
FORM = PlanForm()
SHAPE = 4, 6, 7


def layer_of(plan: ConnectionPlan) -> OverProvisionedConv2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return OverProvisionedConv2d(2, 4, plan, in_size=(6, 7))


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        local = ConnectionPlan(kernel=0, near=0.3, shared=False, seed=5)
        parts = OverProvisionedConv2d(2, 4, BASE, in_size=(6, 7)), nn.Flatten(), OverProvisionedLinear(168, 5, local)
        return nn.Sequential(*parts)


@pytest.mark.parametrize(
    ("old", "genes"),
    [
        (BASE, {"near": 0.6}),
        (BASE, {"near": 0.5, "decay": 0.8, "far": 0.1}),
        (BASE, {"near": 0.0, "far": 0.0}),
        (BASE, {"kernel": 5}),
        (BASE, {"period": 2}),
        (ConnectionPlan(kernel=5, near=0.3), {"kernel": 3}),
        (ConnectionPlan(), {"shared": False}),
        (LOCAL, {"near": 0.4, "far": 0.05}),
        (LOCAL, {"kernel": 2, "seed": 3}),
        (LOCAL.from_genes(LOCAL.genes() | {"kernel": 0}), {"kernel": 3, "near": 0.0, "far": 0.0}),
    ],
)
def test_what_both_plans_connect_keeps_its_weight(old: ConnectionPlan, genes: dict[str, Any]) -> None:
    layer, plan = layer_of(old), ConnectionPlan.from_genes(old.genes() | genes)
    state = torch.random.get_rng_state()
    new = replanned(layer, plan)
    assert torch.equal(torch.random.get_rng_state(), state)
    before, after = layer.matrix().detach(), new.matrix().detach()
    both = torch.from_numpy(mask(plan, SHAPE, layer.in_shape) & mask(old, SHAPE, layer.in_shape))
    fresh = torch.from_numpy(mask(plan, SHAPE, layer.in_shape) & ~mask(old, SHAPE, layer.in_shape))
    assert both.any() and torch.equal(after[both], before[both])
    assert fresh.sum() == 0 or 0 < after[fresh].abs().max() <= 0.1 * new.bound
    assert torch.equal(new.state_dict()["bias"], layer.state_dict()["bias"]) and new.genes == plan
    assert state_hash(replanned(layer, plan).state_dict()) == state_hash(new.state_dict())
    assert list(new.state_dict()) == [name for name in ("kernel", "links", "bias", "plan") if name in new.state_dict()]


def test_values_that_become_one_are_their_mean() -> None:
    """The nearest in least squares; a connection that was not there counts as zero."""
    old = ConnectionPlan(kernel=3, near=0.4, far=0.03, period=0, shared=False)
    layer, plan = layer_of(old), ConnectionPlan(kernel=3, near=0.4, far=0.03)
    new, before = replanned(layer, plan), layer.matrix().detach().double().numpy()
    found = connect(plan, SHAPE, layer.in_shape)
    parts = [part.detach().flatten() for part in (new.kernel, new.links) if part is not None]
    values = torch.cat(parts).double().numpy()
    for value in range(0, len(values), 7):
        mine = found.weights == value
        had = before[found.outputs[mine], found.inputs[mine]]
        assert not had.any() or values[value] == pytest.approx(had.mean(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("architecture", [PLAIN, DENSER, SPARSER, {"kernel": 5, "period": 2}], ids=str)
def test_a_file_says_its_plans(architecture: Genes, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = network()
    there = changed(plain, plain, architecture)
    assert state_hash(changed(there, plain, architecture).state_dict()) == state_hash(there.state_dict())
    with monkeypatch.context() as patch:  # what a file's values replace at once is not made
        patch.setattr(overprovisioned_replan, "_carried", None)
        again = loaded(plain, there.state_dict(), "x.evc")
    images = torch.randn(3, 2, 6, 7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again(images), there(images))
    back = changed(again, plain, PLAIN)
    kernels = [net.state_dict()["0.kernel"] for net in (plain, back)]
    assert torch.equal(*kernels)
    plans = [net.state_dict()["2.plan"].tolist() for net in (plain, back)]
    assert plans[0] == plans[1] and (plans[0] == again.state_dict()["2.plan"].tolist()) == (architecture == PLAIN)


@pytest.mark.parametrize(
    "plan",
    [
        torch.tensor([9, 9], dtype=torch.uint8),
        torch.zeros(0, dtype=torch.uint8),
        torch.tensor([0.5, 1e9]),
        torch.tensor([[300, 1]]),
        torch.tensor(list(ConnectionPlan(kernel=9, stride=3).to_bytes()), dtype=torch.uint8),
        torch.tensor(list(ConnectionPlan(groups=3).to_bytes()), dtype=torch.uint8),
    ],
)
def test_a_plan_that_fits_no_layer_is_refused(plan: torch.Tensor) -> None:
    plain = network()
    with pytest.raises(ModelError, match=r"(?s)x\.evc does not fit the model: .*0\.plan"):
        loaded(plain, {**plain.state_dict(), "0.plan": plan}, "x.evc")


@pytest.mark.parametrize(
    "genes", [{"near": 1.0, "decay": 1.0}, {"kernel": 5}, {"kernel": 1}, {"period": 2}, {"period": 0, "shared": False}]
)
def test_a_plan_of_other_values_is_refused_before_its_connections_are_drawn(
    genes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, drawn = network(), list[ConnectionPlan]()
    monkeypatch.setattr(overprovisioned, "connect", lambda plan, *_, **__: drawn.append(plan))
    plan = ConnectionPlan.from_genes(BASE.genes() | genes).to_bytes()
    state = {**plain.state_dict(), "0.plan": torch.tensor(list(plan), dtype=torch.uint8)}
    with pytest.raises(ModelError, match=r"x\.evc does not fit the model: .*0\.plan"):
        loaded(plain, state, "x.evc")
    assert drawn == []


def test_genes_are_rounded_to_coarse_plans() -> None:
    genes = configured_genes(near=(0.0, 0.5), decay=(0.0, 1.0), far=(1e-5, 0.05), kernel=(1, 5))
    reader = GenomeReader(genes, {"conv1.kernel": "conv"})
    space, usual = reader.space(), GenomeReader(configured_genes(), {"conv1.kernel": "conv"}).space()
    assert set(space.genes) - set(usual.genes) == {"near", "decay", "far", "kernel"} and space.recipe == usual.recipe
    genome = space.sample(np.random.default_rng(0)) | {"near": 0.02, "decay": 0.45, "far": 0.012, "kernel": 4}
    expected = {"near": 0.0, "decay": 0.5, "far": 2**-6, "kernel": 4}

    def plan_genes(genome: Genome) -> Genes:
        return {name: value for name, value in reader.architecture(genome).items() if name not in ("alpha", "rank")}

    assert plan_genes(genome) == expected
    assert plan_genes({**genome, "near": 0.029, "decay": 0.55, "far": 0.015}) == expected
    fixed = GenomeReader(configured_genes(near=0.02, far=0.0), {})
    assert {"near": 0.02, "far": 0.0}.items() <= fixed.architecture({}).items()
    assert FORM.plan(LOCAL, expected).genes() == LOCAL.genes() | {"near": 0.0, "decay": 0.5, "far": 2**-6, "kernel": 4}


def test_a_search_over_plans_reaches_the_plain_network() -> None:
    config = load_config("configs/connections_fashion_mnist.toml")
    reader, rng = GenomeReader(config.genes, {"conv1.kernel": "conv"}), np.random.default_rng(0)
    space, own = reader.space(), ConnectionPlan()
    plans = [FORM.plan(own, reader.architecture(space.sample(rng))) for _ in range(1000)]
    assert 0.05 < np.mean([plan.far == 0 for plan in plans]) < 0.3
    assert own in [dataclasses.replace(plan, decay=own.decay) for plan in plans]


@pytest.mark.parametrize(
    ("genes", "name", "message"),
    [
        ({"near": (0.1, 0.5)}, "digits_cnn", "genes near: the network has no OverProvisionedConv2d"),
        ({"far": 0.01, "thin": 0.2}, "digits_cnn", r'genes far: .* such as model = "connected_cnn"'),
        ({"thin": (0.1, 0.3)}, "lenet5_caffe", "genes thin: "),
        ({"alpha": 0.5}, "connected_cnn", "alpha is 0.5, but no convolution"),
        (
            {"kernel": (1, 70000)},
            "connected_cnn",
            r"genes kernel = 70000 do not fit layer 'conv1': kernel is 70000; it",
        ),
    ],
)
def test_genes_without_anything_to_act_on_are_refused(genes: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        GenomeReader(configured_genes(**genes), {}).check(build(name))
    GenomeReader(configured_genes(near=(0.0, 0.5), far=(1e-5, 0.01), thin=0.2), {}).check(build("connected_cnn"))


def test_a_run_without_anything_to_act_on_does_not_begin() -> None:
    with pytest.raises(ModelError, match="genes near, far: the network has no OverProvisionedConv2d"):
        prepare(parse_config({**CONFIG, "model": "digits_cnn", "model_options": {}}))


def test_a_plan_that_would_connect_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="near = 0, far = 0 do not fit layer '2': kernel, near and far are all 0"):
        FORM.check(network(), {"near": 0.0, "far": 0.0}, {"near": 0.0, "far": 0.0})


def examples() -> Examples:
    images = torch.randn(64, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    return Examples(images, torch.arange(64) % 5)


def living(module: nn.Module) -> list[int]:
    return [int((p != 0).sum()) for name, p in module.state_dict().items() if name.endswith(("kernel", "links"))]


def test_thinning_ends_training_and_lasts() -> None:
    model = network()
    for start, genes in ((1.0, TrainingGenes(thin=0.25, weight_decay=0.1)), (0.75, TrainingGenes(thin=0.25, l1=1e-9))):
        before = {name: value != 0 for name, value in model.state_dict().items()}
        train(model, examples(), genes, epochs=2, seed=0)
        after = model.state_dict()
        assert sum(living(model)) == pytest.approx(0.75 * start * sum(living(network())), abs=3)
        assert not any((after[name][~alive] != 0).any() for name, alive in before.items() if "bias" not in name)
        copy = network()
        copy.load_state_dict(after)  # a child begins with a file, which has zeros and no mask
        model = copy
    train(model, examples(), TrainingGenes(), epochs=1, seed=0)
    assert sum(living(model)) > 0.9 * sum(living(network()))  # without the gene they grow again
    assert hold(model) == sum(living(model))


@pytest.mark.parametrize("thin", [1.0, -0.1, float("nan")])
def test_a_share_that_cannot_be_dropped_is_refused(thin: float) -> None:
    with pytest.raises(ConfigError, match="thin"):
        TrainingGenes(thin=thin)
    with pytest.raises(ModelError, match="nothing to thin"):
        train(nn.Linear(3, 2), examples(), TrainingGenes(thin=0.5), epochs=1, seed=0)


CONFIG: dict[str, Any] = {
    "model": "connected_cnn",
    "model_options": {"image_size": 8, "width": 4},
    "data": "digits",
    "reference_epochs": 0,
    "resources": {"executor": "inline"},
    "search": {"segments": 6, "initial": 3, "probes": 1, "deterministic": True, "lag": 1},
    "genes": {"epochs": 1, "near": [0.0, 0.5], "far": [1e-5, 0.03], "thin": [0.05, 0.3], "rate_weight": [0.03, 3.0]},
}


def test_a_child_begins_with_what_its_parent_knows(tmp_path: Path) -> None:
    segment = prepare(parse_config(CONFIG)).segment
    genome = segment.reader.space().sample(np.random.default_rng(0))

    def task(near: float) -> SegmentTask:
        return SegmentTask(0, "s", "initial", "none", (), {**genome, "near": near, "far": 0.002}, (), 1, 0)

    outcome = segment(task(0.25), str(tmp_path), ())
    data = (tmp_path / outcome.leaves[0].path).read_bytes()
    plain = segment.experiment.network()
    same = segment._start(plain, task(0.26), (data,))
    assert state_hash(same.state_dict()) == state_hash(unpack(data))
    other = segment._start(plain, task(0.5), (data,))
    assert torch.equal(other.state_dict()["conv2.kernel"], unpack(data)["conv2.kernel"])
    assert other.state_dict()["conv2.links"].numel() > unpack(data)["conv2.links"].numel()


def test_a_run_with_plans_as_genes(tmp_path: Path) -> None:
    assert run_experiment(parse_config(CONFIG), tmp_path / "run").finished
    history = read_history(tmp_path / "run")
    assert [outcome.status for outcome in history.outcomes] == ["ok"] * 6
    states = [unpack(history.storage.read(leaf.path)) for leaf in history.leaves.values()]
    assert len({bytes(state["conv1.plan"].tolist()) for state in states}) >= 3
    plain = build("connected_cnn", CONFIG["model_options"])
    for path in (tmp_path / "run" / "export" / "front").iterdir():
        loaded(plain, unpack(path.read_bytes()), path.name)


def test_links_are_in_the_group_of_their_kernel() -> None:
    names = ["c.kernel", "c.links", "c.plan"]
    assert groups_of(names, {"c.kernel": "conv"}) == {"c.kernel": "conv", "c.links": "conv"}
