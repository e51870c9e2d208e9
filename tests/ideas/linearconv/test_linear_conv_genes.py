"""LinearConv's alpha and rank as genes: forms of a network, and segments whose child differs from its parent."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from configured_genes import configured_genes
from torch import nn

from evocompress.checkpoint.forms import changed, formed, loaded
from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.errors import ModelError
from evocompress.evolve.audit import AuditJob
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import Prepared, prepare, run_experiment
from evocompress.evolve.genome import GenomeReader
from evocompress.evolve.layer_groups import groups_of, layer_groups
from evocompress.evolve.segment import state_hash
from evocompress.ideas.linearconv import LinearConv2d, convert, fold
from evocompress.ideas.linearconv.form import LinearConvForm
from evocompress.networks import build
from evocompress.protocols import Genes
from evocompress.search.history import read_history
from evocompress.search.records import Genome, Leaf, Parent, SegmentTask
from evocompress.search.space import Float
from evocompress.search.storage import open_storage
from evocompress.tasks.classification import evaluate

PLAIN: Genes = {}
LOW_RANK: Genes = {"alpha": 0.5, "rank": 0.25}
WHOLE: Genes = {"alpha": 0.5}
ARCHITECTURES: list[Genes] = [
    PLAIN, WHOLE, LOW_RANK, {"alpha": 0.25, "rank": 1.0}, {"alpha": 0.95}, {"alpha": 0.9, "rank": 0.01},
]  # fmt: skip
CONFIG = {
    "model": "digits_cnn",
    "data": "digits",
    "genes": {
        "epochs": [1, 4],
        "alpha": [0.25, 1.0],
        "rank": [0.1, 1.0],
        "correlation": [1e-4, 1e-1],
        "rate_term": ["off"],
    },
}


class Mixed(nn.Module):
    """Grouped, shared, biased and unbiased convolutions, one of them LinearConv from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 16, 3, groups=2, padding="same", bias=False)
        self.again = nn.Conv2d(16, 16, 5, padding=2, padding_mode="reflect", dilation=1)
        self.twice = self.again
        self.own = LinearConv2d(16, 12, 3, stride=2, alpha=0.5)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner = self.twice(self.again(self.grouped(self.first(images))))
        return self.norm(self.own(inner))  # type: ignore[no-any-return]


@pytest.fixture
def plain() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Mixed().eval()


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(parse_config(CONFIG))


@pytest.fixture(scope="module")
def genome(prepared: Prepared) -> Genome:
    drawn = prepared.segment.reader.space().sample(np.random.default_rng(0))
    fixed: Genome = {"learning_rate": 2e-3, "l1": 1e-4, "noise": 0.02, "weight_decay": 1e-4, "rate_weight": 0.1}
    return {**drawn, **fixed, "epochs": 4, "correlation": 1e-3}


@pytest.fixture(scope="module")
def parent(prepared: Prepared, genome: Genome, tmp_path_factory: pytest.TempPathFactory) -> tuple[Leaf, Path]:
    """A parent of alpha 0.75 and its folder."""
    folder = tmp_path_factory.mktemp("parent")
    outcome = prepared.segment(task_of({**genome, "alpha": 0.75, "rank": 1.0}, seed=1), str(folder), ())
    assert outcome.status == "ok"
    return outcome.leaves[0], folder


def task_of(genome: Genome, *probes: Genome, parent: Leaf | None = None, seed: int = 1) -> SegmentTask:
    fields = ("leaf_id", "path", "sha256", "depth", "epochs", "seconds")
    parents = (Parent(*(getattr(parent, field) for field in fields)),) if parent else ()
    return SegmentTask(0, "s", "initial", "none", parents, genome, probes, seed, 0)


def check_alpha(network: nn.Module, alpha: float) -> None:
    LinearConvForm().check(network, {"alpha": alpha}, {"alpha": alpha})


def output(network: nn.Module) -> torch.Tensor:
    images = torch.randn(3, 2, 9, 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.eval()(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_a_state_dict_says_its_own_form(plain: nn.Module, architecture: Genes) -> None:
    network = changed(plain, plain, architecture)
    state = network.state_dict()
    again = formed(plain, state)
    again.load_state_dict(state)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in state.items()}
    assert torch.equal(output(again), output(network))
    assert again.get_submodule("twice") is again.get_submodule("again")
    assert "own.primary" in state and ("again.primary" in state) == (architecture != PLAIN)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_a_network_of_equal_architecture_is_not_touched(plain: nn.Module, architecture: Genes) -> None:
    network = changed(plain, plain, architecture)
    with torch.no_grad():
        for parameter in network.parameters():  # no conversion's result any more, as after training
            parameter.mul_(1.25).add_(0.01)
    again = changed(network, plain, architecture)
    assert state_hash(again.state_dict()) == state_hash(network.state_dict())
    assert again is not network


def test_a_change_is_convert_of_fold(plain: nn.Module) -> None:
    half = changed(plain, plain, WHOLE)
    low = changed(half, plain, LOW_RANK)
    folded = fold(half)
    folded.own = plain.get_submodule("own")  # `fold` folds what the factory made LinearConv too
    by_hand = convert(folded, 0.5, 0.25)
    torch.testing.assert_close(output(low), output(by_hand), rtol=0, atol=0)
    grown = changed(half, plain, {"alpha": 0.75})  # what half can do, more primary filters can
    torch.testing.assert_close(output(grown), output(half), rtol=1e-4, atol=1e-5)
    back = changed(half, plain, PLAIN)
    torch.testing.assert_close(output(back), output(half), rtol=1e-5, atol=1e-6)
    assert list(back.state_dict()) == list(plain.state_dict())


def test_only_layers_whose_form_differs_are_converted(plain: nn.Module) -> None:
    """The grouped layer has 8 filters in a group: alpha 0.9 and 0.95 make all of them primary; of 16, 15 and 16 are."""
    before = changed(plain, plain, {"alpha": 0.9})
    with torch.no_grad():
        before.get_parameter("grouped.primary").add_(0.01)
    after = changed(before, plain, {"alpha": 0.95})
    assert after.get_parameter("again.primary").shape != before.get_parameter("again.primary").shape
    assert torch.equal(after.get_parameter("grouped.primary"), before.get_parameter("grouped.primary"))


def test_the_random_state_is_left_alone(plain: nn.Module) -> None:
    before = torch.random.get_rng_state()
    network = changed(plain, plain, LOW_RANK)
    formed(plain, network.state_dict())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("again.primary", torch.zeros(17, 16, 5, 5)),
        ("again.primary", torch.zeros(())),
        ("again.primary", torch.zeros(0, 16, 5, 5)),
        ("again.primary", torch.zeros(8, 16, 3, 3)),
        ("grouped.primary", torch.zeros(7, 4, 3, 3)),
        ("again.coefficients_right", torch.zeros(9, 8)),
        ("again.coefficients_right", torch.zeros(())),
        ("again.is_primary", torch.zeros(5, dtype=torch.bool)),
        ("again.is_primary", torch.zeros(16, dtype=torch.bool)),
    ],
)
def test_factors_that_fit_no_layer_are_refused(plain: nn.Module, name: str, tensor: torch.Tensor) -> None:
    state = changed(plain, plain, LOW_RANK).state_dict()
    assert name in state
    with pytest.raises(ModelError, match=rf"(?s)x\.evc does not fit the model: .*{name}"):
        loaded(plain, {**state, name: tensor}, "x.evc")


def test_a_network_that_is_one_convolution() -> None:
    """It is the first layer, which stays plain; a file with factors of it can be read nevertheless."""
    plain = nn.Conv2d(8, 8, 3)
    assert isinstance(changed(plain, plain, WHOLE), nn.Conv2d)
    state = convert(plain, 0.5, skip_first=False).state_dict()
    assert isinstance(loaded(plain, state, "x.evc"), LinearConv2d)


def test_a_segment_trains_and_packs_factors(prepared: Prepared, parent: tuple[Leaf, Path]) -> None:
    leaf, folder = parent
    state = unpack((folder / leaf.path).read_bytes())
    assert "conv2.coefficients" in state and "conv2.weight" not in state and "conv1.weight" in state
    plain = prepared.segment.experiment.network()
    network = loaded(plain, state, "x.evc")
    assert evaluate(network, prepared.segment.experiment.splits().validation).accuracy == leaf.quality > 0.8
    assert leaf.measurements["float32_bytes"] == 4 * 38282  # of the plain network, which the file is compared with
    assert leaf.measurements["parameters"] == sum(t.numel() for t in state.values() if t.is_floating_point()) < 38282
    layer = network.get_submodule("conv2")
    assert isinstance(layer, LinearConv2d) and layer.primaries == 24


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_a_child_of_another_alpha_goes_on(
    prepared: Prepared, genome: Genome, parent: tuple[Leaf, Path], tmp_path: Path, alpha: float
) -> None:
    leaf, folder = parent
    child = {**genome, "alpha": alpha, "rank": 1.0, "epochs": 1}
    probe = {**child, "rate_weight": 2.0}
    data = (folder / leaf.path).read_bytes()
    outcome = prepared.segment(task_of(child, probe, parent=leaf), str(tmp_path), (data,))
    assert outcome.status == "ok" and outcome.leaves[0].depth == 2
    fresh = prepared.segment(task_of(child), str(_new(tmp_path / "fresh")), ())
    losses = [result.metrics["curves"]["train_loss"][0] for result in (outcome, fresh)]
    assert losses[0] < 0.6 * losses[1]
    template = prepared.segment.experiment.network().state_dict()
    files = [unpack((tmp_path / leaf.path).read_bytes(), names=template) for leaf in outcome.leaves]
    assert len(files) == 2 and all(("conv2.weight" in state) == (alpha == 1) for state in files)
    assert alpha == 1 or files[0]["conv2.primary"].shape[0] == 14  # 0.4375 · 32


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_child_starts_where_convert_leaves_its_parent(
    prepared: Prepared, genome: Genome, parent: tuple[Leaf, Path]
) -> None:
    leaf, folder = parent
    data = (folder / leaf.path).read_bytes()
    plain = prepared.segment.experiment.network()
    same = prepared.segment._start(plain, task_of({**genome, "alpha": 0.74, "rank": 0.9}, parent=leaf), (data,))
    assert state_hash(same.state_dict()) == state_hash(unpack(data))
    other = prepared.segment._start(plain, task_of({**genome, "alpha": 0.5, "rank": 0.9}, parent=leaf), (data,))
    by_hand = convert(fold(loaded(plain, unpack(data), "x.evc")), 0.5)
    assert state_hash(other.state_dict()) == state_hash(by_hand.state_dict())


def test_a_segment_with_architecture_genes_is_a_function_of_its_arguments(
    prepared: Prepared, genome: Genome, parent: tuple[Leaf, Path], tmp_path: Path
) -> None:
    leaf, folder = parent
    data, hashes = (folder / leaf.path).read_bytes(), []
    task = task_of({**genome, "alpha": 0.5, "rank": 0.3, "epochs": 1}, parent=leaf)
    for name in ("a", "b"):
        segment = pickle.loads(pickle.dumps(prepared.segment))
        torch.rand(3)  # whatever the process did before
        hashes.append([found.sha256 for found in segment(task, str(_new(tmp_path / name)), (data,)).leaves])
    assert hashes[0] == hashes[1] != []


def test_without_the_genes_a_segment_is_what_it_was(prepared: Prepared, genome: Genome, tmp_path: Path) -> None:
    """Alpha fixed to 1, and a reader that knows nothing of alpha, give the same file."""
    usual = {name: value for name, value in genome.items() if name not in ("alpha", "rank")} | {"epochs": 1}
    genes = {**prepared.segment.reader.genes, "alpha": 1.0, "rank": 1.0}
    reader = dataclasses.replace(prepared.segment.reader, genes=genes)
    segment = dataclasses.replace(prepared.segment, reader=reader)
    first = segment(task_of(usual), str(_new(tmp_path / "a")), ())
    second = prepared.segment(task_of({**usual, "alpha": 1.0, "rank": 0.5}), str(_new(tmp_path / "b")), ())
    assert [leaf.sha256 for leaf in first.leaves] == [leaf.sha256 for leaf in second.leaves]


def test_an_audit_reads_files_of_any_form(prepared: Prepared, parent: tuple[Leaf, Path]) -> None:
    leaf, folder = parent
    plain = prepared.segment.experiment.network()
    (folder / "plain.evc").write_bytes(pack(plain.state_dict(), Recipe(rules=(Rule(codecs=("lossless",)),))))
    storage = open_storage(folder)
    plain_hash = hashlib.sha256((folder / "plain.evc").read_bytes()).hexdigest()
    job = AuditJob(prepared.segment.experiment, storage)
    files = {"a": (leaf.path, leaf.sha256), "b": ("plain.evc", plain_hash), "c": (leaf.path, leaf.sha256)}
    judged = job([(name, *file, {}) for name, file in files.items()])
    assert judged["a"] == judged["c"] and judged["a"]["quality"] > 0.8 > 0.5 > judged["b"]["quality"]


def test_a_front_file_is_loaded_as_the_documentation_says(parent: tuple[Leaf, Path]) -> None:
    leaf, folder = parent
    state = unpack((folder / leaf.path).read_bytes())
    network = loaded(build("digits_cnn"), state, leaf.path)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(fold(network.eval())(images), network(images), rtol=1e-4, atol=1e-5)


def test_a_network_without_anything_to_replace(plain: nn.Module) -> None:
    check_alpha(plain, 0.5)
    check_alpha(nn.Linear(2, 2), 1.0)
    with pytest.raises(ModelError, match="alpha is 0.5, but no convolution .*it has none"):
        check_alpha(nn.Linear(2, 2), 0.5)
    with pytest.raises(ModelError, match="the network: the first layer"):
        check_alpha(nn.Conv2d(8, 8, 3), 0.5)
    with pytest.raises(ModelError, match="1: all filters are primary"):
        check_alpha(nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)), 0.95)


def test_a_run_with_architecture_genes(tmp_path: Path) -> None:
    """Generations of several forms, audited and exported."""
    config = CONFIG | {
        "reference_epochs": 1,
        "reference_packs": False,
        "resources": {"executor": "inline"},
        "search": {"segments": 6, "initial": 2, "probes": 1, "deterministic": True, "lag": 1},
        "genes": {"epochs": 1, "alpha": [0.25, 1.0], "rank": [0.1, 1.0], "rate_weight": [0.03, 3.0]},
    }
    assert run_experiment(parse_config(config), tmp_path / "run").finished
    history = read_history(tmp_path / "run")
    assert [outcome.status for outcome in history.outcomes] == ["ok"] * 6
    assert max(leaf.depth for leaf in history.leaves.values()) > 1
    plain = build("digits_cnn")
    template = plain.state_dict()
    states = [unpack(history.storage.read(leaf.path), names=template) for leaf in history.leaves.values()]
    assert len({str(loaded(plain, state, "a leaf").get_submodule("conv2")) for state in states}) >= 2
    for path in (tmp_path / "run" / "export" / "front").iterdir():
        loaded(plain, unpack(path.read_bytes(), names=template), path.name)


SHAPES = {"c1": (8, 1, 3, 3), "c1.b": (8,), "c2[0]": (8, 8, 3, 3), "f1": (16, 8), "f2": (10, 16), "n": ()}


def test_architecture_genes() -> None:
    groups = layer_groups(SHAPES)
    usual = GenomeReader(configured_genes(), groups)
    assert not {"alpha", "rank"} & set(usual.space().genes)
    assert usual.architecture(usual.space().sample(np.random.default_rng(0))) == {"alpha": 1.0, "rank": 1.0}
    reader = GenomeReader(configured_genes(alpha=(0.25, 1.0), rank=(0.1, 1.0)), groups)
    space = reader.space()
    assert set(space.genes) - set(usual.space().genes) == {"alpha", "rank"}
    assert space.recipe == usual.space().recipe  # no probe changes them
    assert space.genes["alpha"] == Float(0.25, 1.0) and space.genes["rank"] == Float(0.1, 1.0, log=True)
    genome = space.sample(np.random.default_rng(0))
    assert reader.architecture({**genome, "alpha": 0.51, "rank": 0.3}) == {"alpha": 0.5625, "rank": 2**-1.5}
    assert reader.training(genome) == usual.training({n: v for n, v in genome.items() if n not in ("alpha", "rank")})
    fixed = GenomeReader(configured_genes(alpha=0.55, rank=0.05), groups)
    assert fixed.architecture(fixed.space().sample(np.random.default_rng(0))) == {"alpha": 0.55, "rank": 0.05}


def test_a_recipe_for_the_names_that_there_are() -> None:
    shapes = {"c1.weight": (8, 1, 3, 3), "c2.weight": (8, 8, 3, 3), "c2.bias": (8,), "f.weight": (10, 8)}
    reader = GenomeReader(configured_genes(alpha=(0.25, 1.0), rank=(0.1, 1.0)), layer_groups(shapes))
    genome = reader.space().sample(np.random.default_rng(0))
    assert reader.recipe(genome, shapes, examples=9) == reader.recipe(genome, examples=9)
    factors = {"c2.primary": 4, "c2.coefficients_left": 2, "c2.coefficients_right": 2}
    state = {"c1.weight": 4, **factors, "c2.bias": 1, "c2.is_primary": 1, "f.weight": 2, "f.coefficients": 2}
    recipe = reader.recipe(genome, state, examples=9)
    groups = groups_of(state, reader.groups)
    assert groups.keys() == state.keys() - {"c2.is_primary"} and groups["f.coefficients"] == "last"
    assert {groups[name] for name in factors} == {"conv"}
    recipe.check(state.items())
    for name, group in groups.items():
        assert recipe.rule(name, state[name]).rate_factor == genome[f"rate_factor.{group}"]
    assert len(recipe.rules) == len(groups)
    assert groups_of(["primary", "coefficients"], {"weight": "conv"}) == {"primary": "conv", "coefficients": "conv"}


def test_forms_are_coarse_upwards() -> None:
    def coarse(alpha: float, rank: float = 1.0) -> Genes:
        return LinearConvForm().coarse({"alpha": alpha, "rank": rank})

    assert coarse(0.25, 0.5) == {"alpha": 0.25, "rank": 0.5}
    assert coarse(0.26, 0.36) == {"alpha": 0.3125, "rank": 0.5}
    assert coarse(0.001, 0.1)["alpha"] == 1 / 16
    assert coarse(0.95, 0.71) == {"alpha": 1.0, "rank": 1.0}
    assert len({coarse(a / 1000)["alpha"] for a in range(251, 1001)}) == 12


@pytest.mark.parametrize("genes", [{"alpha": 0.0}, {"rank": 1.5}, {"alpha": float("nan")}], ids=str)
def test_shares_that_are_none(genes: Genes, plain: nn.Module) -> None:
    with pytest.raises(ModelError, match="it is a share"):
        changed(plain, plain, genes)


@pytest.mark.parametrize("rank", [0.5, (0.5, 1.0)])
def test_a_rank_without_alpha_has_no_effect(rank: object, plain: nn.Module) -> None:
    with pytest.raises(ModelError, match="rank has no effect with alpha = 1; let alpha be below 1"):
        GenomeReader(configured_genes(rank=rank), {}).check(plain)


def test_the_gene_of_the_correlation_loss_needs_primary_filters() -> None:
    plain = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 3))
    for strength in (0.1, (1e-3, 0.1)):
        with pytest.raises(ModelError, match="gene correlation: no convolution has primary filters"):
            GenomeReader(configured_genes(correlation=strength), {}).check(plain)
        GenomeReader(configured_genes(correlation=strength, alpha=(0.5, 1.0)), {}).check(plain)
        GenomeReader(configured_genes(correlation=strength), {}).check(convert(plain, 0.5))
