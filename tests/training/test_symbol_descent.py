"""Symbol descent: what it accepts is better on the data and by the coder, and what it leaves is on its grid."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from evocompress.checkpoint.grid import grid_of
from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.recipe import Recipe
from evocompress.data.examples import Examples
from evocompress.training.quantised_training import RateTerm, nats_per_bit
from evocompress.training.symbol_descent import Losses
from evocompress.training.trainer import TrainingGenes, train

BARE = Recipe(coder="mixing", names=False, shapes=False)


def passes(model: nn.Module, inputs: Tensor, labels: Tensor) -> Losses:
    def losses() -> Iterator[tuple[Tensor, int]]:
        for start in range(0, len(inputs), 32):
            part = slice(start, start + 32)
            yield nn.functional.cross_entropy(model(inputs[part]), labels[part]), len(inputs[part])

    return losses


def problem(seed: int = 0) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network trained a little, and its data, of which the last four inputs are noise."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(256, 8, generator=generator)
    labels = (inputs[:, 0] + 0.5 * inputs[:, 1] > 0).long()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval(), inputs, labels


def test_loss_and_file_together_are_what_falls() -> None:
    model, inputs, labels = problem()
    rate = RateTerm(model, 1.0, examples=len(inputs))
    losses = passes(model, inputs, labels)
    before, grid = len(pack(model.state_dict(), BARE, grid=rate.finish())), rate.finish()
    descent = rate.descend(losses, 300)
    after = rate.finish()
    assert descent.after < 0.8 * descent.before and 0 < descent.trials <= 300 and after == descent.grid != grid
    data = pack(model.state_dict(), BARE, grid=after)
    assert len(data) < 0.8 * before
    # What it says the network costs is its loss, and the bits of its file without the head.
    loss = nn.functional.cross_entropy(model(inputs), labels).item()
    bits = (descent.after - loss) / nats_per_bit(1.0, len(inputs))
    assert 0 < bits / 8 < len(data) < bits / 8 + 40
    assert all(torch.equal(tensor, unpack(data, names=model.state_dict())[name]) for name, tensor in _items(model))
    steps = grid_of(data, model.state_dict())
    assert all(steps[name] == after[name] for name in steps)


def _items(model: nn.Module) -> list[tuple[str, Tensor]]:
    return list(model.state_dict().items())


def test_what_the_data_do_not_need_goes() -> None:
    model, inputs, labels = problem()
    inputs[:, 4:] = 0.0
    rate = RateTerm(model, 0.5, examples=len(inputs))
    rate.finish()
    first: nn.Linear = model[0]  # type: ignore[assignment]
    assert first.weight[:, 4:].count_nonzero() > 15
    rate.descend(passes(model, inputs, labels), 500)
    assert first.weight[:, 4:].count_nonzero() == 0


def test_a_step_finer_than_its_symbols_becomes_coarser() -> None:
    layer = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-2, 3, (2, 16), generator=torch.Generator().manual_seed(0)).float())
    kept = layer.weight.detach().clone()

    def losses() -> Iterator[tuple[Tensor, int]]:
        yield (layer.weight - kept).square().sum(), 16

    rate = RateTerm(layer, 1e-3, examples=16, grid={"weight": 2.0**-5})
    rate.descend(losses, 400)
    assert rate.finish()["weight"] == 1.0 and torch.equal(layer.weight, kept)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_moves_nothing(loss: float) -> None:
    model, inputs, labels = problem()
    rate = RateTerm(model, 1.0, examples=len(inputs))
    rate.finish()
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    nowhere = passes(model, inputs, labels)

    def losses() -> Iterator[tuple[Tensor, int]]:
        yield from ((value * loss, count) for value, count in nowhere())

    assert rate.descend(losses, 50).trials == 0
    assert all(torch.equal(a, b) for a, b in zip(kept, model.parameters(), strict=True))


def test_parameters_that_no_batch_uses_may_go() -> None:
    class Odd(nn.Module):
        """An embedding of which one row is used, a shared matrix, a parameter that nothing uses, one of one element."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(4, 6)
            self.head = nn.Linear(6, 4)
            self.head.weight = self.embedding.weight
            self.scale = nn.Parameter(torch.ones(()))
            self.unused = nn.Parameter(torch.ones(3, 3))

        def forward(self, tokens: Tensor) -> Tensor:
            outputs: Tensor = self.head(self.embedding(tokens)) * self.scale
            return outputs

    model = Odd().eval()
    tokens = torch.zeros(64, dtype=torch.int64)
    rate = RateTerm(model, 0.5, examples=64)
    descent = rate.descend(passes(model, tokens, tokens), 500)
    assert descent.after < descent.before
    assert model.unused.count_nonzero() == 0 and model.head.weight is model.embedding.weight


def test_training_ends_with_trials_where_they_are_asked_for() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(200, 8, generator=generator)
    examples = Examples(inputs, (inputs[:, 0] > 0).long())
    files = []
    for trials in (0, 700):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))
        genes = TrainingGenes(rate_term="on", symbol_trials=trials, batch_size=32)
        curves = train(model, examples, genes, epochs=4, seed=0, rate_weight=0.3)
        loss = nn.functional.cross_entropy(model(inputs), examples.labels).item()
        data = pack(model.state_dict(), BARE, grid=curves.grid)
        files.append(loss + 8 * len(data) * nats_per_bit(0.3, 200))
        assert not model.training
    assert files[1] < 0.8 * files[0]


def test_weights_that_are_held_at_zero_stay_there() -> None:
    model, inputs, labels = problem()
    first: nn.Linear = model[0]  # type: ignore[assignment]
    with torch.no_grad():
        first.weight[:, ::2] = 0.0
    genes = TrainingGenes(rate_term="on", symbol_trials=100, projection="keep-zeros", batch_size=32)
    train(model, Examples(inputs, labels), genes, epochs=1, seed=0, rate_weight=1e-3)
    assert first.weight[:, ::2].count_nonzero() == 0 < first.weight.count_nonzero()
