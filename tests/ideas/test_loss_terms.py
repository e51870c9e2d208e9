"""Terms that training adds to the loss: a network's own, and those that genes switch on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_problem import problem

from evocompress.data import Examples
from evocompress.errors import ConfigError
from evocompress.ideas.linearconv import LinearConv2d, correlation_loss
from evocompress.ideas.symmetry.penalties import KernelPenalties, nearest_symmetry_distance, trained_kernels
from evocompress.networks import build
from evocompress.protocols import Term, TermContext, TrainingStep
from evocompress.training.genes import terms_of
from evocompress.training.trainer import TrainingGenes, train


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), LinearConv2d(6, 8, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3),
        )  # fmt: skip


def examples() -> Examples:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(120, 1, 6, 6, generator=generator)
    return Examples(images, torch.randint(0, 3, (120,), generator=generator))


class _WithOwn(nn.Module):
    """Wants its one weight to be 3."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.rest = nn.Parameter(torch.zeros(1)), network()

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.rest(images)
        return outputs

    def penalty(self) -> Tensor:
        return (self.weight - 3).square().sum()


def added(model: nn.Module, genes: TrainingGenes) -> Tensor | None:
    """What terms add to the loss."""
    terms: list[Term] = terms_of(genes)
    context = TermContext(0.0, 120, 1, 64, 0, torch.device("cpu"))
    for term in terms:
        term.start(model, context)
    losses = [loss for term in terms if (loss := term.loss(TrainingStep(0.0, 1e-3))) is not None]
    return torch.stack(losses).sum() if losses else None


def test_without_genes_and_terms_there_is_none() -> None:
    assert added(network(), TrainingGenes()) is None


def test_terms_add_up() -> None:
    model, genes = network(), TrainingGenes(correlation=0.5, symmetry=0.3, entropy=0.2, distinct=0.1)
    loss = added(model, genes)
    assert loss is not None and loss.requires_grad
    expected = KernelPenalties(0.3, 0.2, 0.1)(model) + correlation_loss(model, 0.5)
    assert loss.item() == pytest.approx(expected.item())
    assert added(nn.Linear(3, 3), TrainingGenes(correlation=1.0)) is None  # no primary filters


def test_a_module_brings_its_own() -> None:
    model = _WithOwn()
    train(model, examples(), TrainingGenes(learning_rate=0.1, schedule="constant"), epochs=20, seed=0)
    assert model.weight.item() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("gene", ["symmetry", "entropy", "distinct", "correlation"])
def test_training_lowers_what_a_gene_penalises(gene: str) -> None:
    def measured(strength: float) -> float:
        model = network()
        train(model, examples(), TrainingGenes(learning_rate=5e-3, **{gene: strength}), epochs=6, seed=3)
        if gene == "correlation":
            return correlation_loss(model, 1.0).item()
        if gene == "symmetry":
            return sum(nearest_symmetry_distance(kernel).item() for _, kernel in trained_kernels(model))
        return KernelPenalties(**{gene: 1.0})(model).item()

    assert measured(1.0) < 0.8 * measured(0.0)


def test_strengths_are_checked() -> None:
    for gene in ("correlation", "symmetry", "entropy", "distinct"):
        with pytest.raises(ConfigError, match=f"{gene} -1.0"):
            TrainingGenes(**{gene: -1.0})


@pytest.mark.parametrize(
    ("name", "options"),
    [("digits_cnn", {}), ("saccade_cnn", {"width": 4}), ("connected_cnn", {"image_size": 8})],
)
def test_bfloat16_is_what_a_network_trains_in_and_nothing_else(name: str, options: dict[str, Any]) -> None:
    examples = problem(64)
    model = build(name, {"classes": 2, **options}, seed=0)
    seen: set[tuple[bool, torch.dtype]] = set()

    def look(layer: nn.Module, _: object, output: Tensor) -> None:
        seen.add((layer.training, output.dtype))

    hooks = [layer.register_forward_hook(look) for layer in model.modules() if isinstance(layer, nn.Linear)]
    genes = TrainingGenes(batch_size=16, symmetry=0.1, entropy=0.1, distinct=0.1, correlation=0.1, noise=0.1)
    curves = train(model, examples, genes, epochs=2, seed=0, validation=examples, precision="bfloat16")
    assert hooks and seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values() if tensor.is_floating_point())
    assert not curves.diverged and curves.train_loss[1] < curves.train_loss[0]
