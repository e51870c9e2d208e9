"""Tests of the rate term: units, gradients, the grid that the file keeps, and networks with odd parts."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evocompress.checkpoint.grid import grid_of
from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.codecs.scales import scale_code, scale_value
from evocompress.errors import CodecError, ConfigError, ModelError
from evocompress.training import quantised_training
from evocompress.training.quantised_training import ROUNDINGS, RateTerm, Rounding, check_rate_weight, nats_per_bit

pytestmark = pytest.mark.usefixtures("seeded")


def trained(model: nn.Module, rate_weight: float, steps: int = 300, **settings: Any) -> tuple[RateTerm, float]:
    """A term after some steps on a task that few weights do, and the last loss without the rate."""
    inputs = torch.randn(256, 16, generator=torch.Generator().manual_seed(7))
    labels = (inputs[:, 0] + inputs[:, 1] > 0).long()
    rate = RateTerm(model, rate_weight, examples=256, learning_rate=0.01, **settings)
    optimiser, loss = torch.optim.Adam(rate.parameter_groups()), torch.zeros(())
    for step in range(steps):
        optimiser.zero_grad()
        with rate.quantised(step / steps):
            loss = nn.functional.cross_entropy(model(inputs), labels)
            total: Tensor = loss + rate.loss()
            total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return rate, loss.item()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))


def test_a_dearer_bit_makes_a_smaller_file() -> None:
    torch.manual_seed(0)
    first = network()
    sizes, losses = [], []
    for rate_weight in (0.03, 0.3, 3.0):
        rate, loss = trained(copy.deepcopy(first), rate_weight)
        sizes.append(len(rate.pack()))
        losses.append(loss)
    assert sizes[0] > 1.3 * sizes[1] > 1.3 * sizes[2]
    assert losses[0] < 0.1


def test_the_file_holds_the_trained_weights_exactly() -> None:
    model = network()
    rate, _ = trained(model, 0.3)
    data = rate.pack()
    decoded = unpack(data)
    assert all(torch.equal(decoded[name], tensor) for name, tensor in model.state_dict().items())
    grid = rate.finish()
    kept = grid_of(data)
    assert kept and kept.items() <= grid.items()
    assert all(scale_value(scale_code(step)) == step for step in grid.values())


def test_training_goes_on_from_a_file_where_it_stopped() -> None:
    model = network()
    rate, loss = trained(model, 0.3)
    data = rate.pack()
    again = RateTerm(model, 0.3, examples=256, grid=grid_of(data))
    with again.quantised(0.9):  # rounding: the weights of the file, but for float32's last digit
        assert all(torch.allclose(model.get_parameter(n), w, rtol=1e-6, atol=0) for n, w in unpack(data).items())
        first = again.bits().item()
    assert first / 8 == pytest.approx(rate.estimate(), rel=0.15)
    again, after = trained(model, 0.3, steps=100, grid=grid_of(data))
    assert after < loss + 0.05 and len(again.pack()) < 1.1 * len(data)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_gradient_of_weights_and_steps_is_that_of_the_loss(
    monkeypatch: pytest.MonkeyPatch, rounding: Rounding
) -> None:
    """With the noise held fixed the loss is a smooth function of weights and log-steps: finite differences.

    So it is where rounding is not sharp at all; the sharper it is, the more the gradient is a straight-through one.
    """
    monkeypatch.setattr(quantised_training, "_SHARPNESS", (1e-3, 1e-3))
    model = nn.Linear(5, 3).double()
    inputs, target = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)

    def value(shift: dict[str, Tensor] | None = None, backward: bool = False) -> tuple[float, RateTerm]:
        clone = copy.deepcopy(model)
        rate = RateTerm(clone, 0.5, examples=7, seed=3, rounding=rounding)
        with torch.no_grad():
            rate.rate_model.lead.zero_()  # contexts carry no gradient
            for name, change in (shift or {}).items():
                target_of = rate.log_steps if name == "log_steps" else clone.get_parameter(name)
                target_of.add_(change)
        with rate.quantised(0.0):
            loss = (clone(inputs) - target).square().mean() + rate.loss()
            if backward:
                loss.backward()
        return loss.item(), rate

    _, rate = value(backward=True)
    gradients = {"weight": rate.model.get_parameter("weight").grad, "log_steps": rate.log_steps.grad}
    for name, gradient in gradients.items():
        assert gradient is not None
        for place in range(2):
            change = torch.zeros_like(gradient)
            change.view(-1)[place] = 1e-3
            up, down = value({name: change})[0], value({name: -change})[0]
            assert gradient.view(-1)[place].item() == pytest.approx((up - down) / 2e-3, rel=2e-2, abs=1e-5)


def test_drawn_rounding_trains_and_packs_as_the_free_one_does() -> None:
    rate, loss = trained(network(), 0.3, rounding="drawn")
    assert loss < 0.4 and len(rate.pack()) < 200
    with pytest.raises(ConfigError, match="rounding is 'drwan'; it must be one of free, drawn"):
        trained(network(), 0.3, rounding="drwan")


def test_where_weights_are_rounded_zeros_are_drawn_back_to_zero() -> None:
    """And ones to zero, by what a one costs more: both are drawn as strongly; what is zero exactly stays."""
    model = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.04, -0.04, 0.01, 0.0, 0.2, -0.2, 0.0, 0.0]]))
    rate = RateTerm(model, 1.0, examples=10, grid={"weight": 0.1}, rounding="drawn")
    with rate.quantised(0.75):
        assert torch.equal(model.weight.detach() != 0, torch.tensor([[0, 0, 0, 0, 1, 1, 0, 0]]).bool())
        rate.loss().backward()  # type: ignore[no-untyped-call]
    gradient = model.weight.grad
    assert gradient is not None
    assert gradient[0, :6].sign().tolist() == [1, -1, 1, 0, 1, -1]
    assert gradient[0, 2] > 0 and gradient[0, 4] > 0
    assert gradient[0, 6] == gradient[0, 7] == 0


def test_steps_are_learned_while_weights_are_rounded_and_then_stay_on_the_formats_scale() -> None:
    model = nn.Linear(8, 4)
    rate = RateTerm(model, 0.1, examples=10, noise_share=0.0, rounding="drawn", grid={"weight": 0.1, "bias": 0.1})
    optimiser = torch.optim.SGD(rate.parameter_groups(), lr=0.0)
    inputs, seen = torch.randn(16, 8), []
    for progress in (0.0, 0.4, 0.79, 0.8, 0.95):
        optimiser.zero_grad()
        with rate.quantised(progress):
            seen.append(model.weight.detach().abs()[model.weight != 0].min().item())
            (model(inputs).square().mean() + rate.loss()).backward()
        optimiser.step()
    assert len(set(seen[:3])) == 3  # the smallest weight that is not zero is a step
    assert seen[3] == seen[4] == pytest.approx(rate.finish()["weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_rounding_goes_from_noise_to_rounding(dtype: torch.dtype) -> None:
    values = torch.linspace(-3.3, 3.3, 1001, dtype=dtype)
    noise = torch.rand(1001, dtype=dtype) - 0.5
    soft = quantised_training._softly_rounded
    assert torch.allclose(soft(values, noise, 1e-3), values + noise, atol=1e-3)
    sharp = soft(values, 0.99 * noise, 60.0 if dtype == torch.float64 else 12.0)
    sure = (values - values.round()).abs() < 0.3
    assert (sharp - values.round()).abs()[sure].max() < (0.1 if dtype == torch.float64 else 0.4)
    away = [(soft(values, noise, s) - values.round())[sure].abs().mean().item() for s in (1.0, 4.0, 12.0)]
    assert away[0] > away[1] > away[2]
    huge = torch.tensor([1e9, -3e7, 0.0], dtype=dtype)
    assert torch.allclose(soft(huge, noise[:3], 12.0), huge, atol=1.0)


def test_gradients_add_up_over_micro_batches() -> None:
    model = nn.Linear(4, 2)
    inputs = torch.randn(6, 4)
    totals = []
    for clear in (True, False):
        rate = RateTerm(copy.deepcopy(model), 0.5, examples=6, seed=1)
        total = torch.zeros_like(rate.log_steps)
        for part in (inputs[:3], inputs[3:]):
            if clear:
                for parameter in [*rate.model.parameters(), rate.log_steps]:
                    parameter.grad = None
            with rate.quantised(0.0):
                (rate.model(part).square().sum() + rate.loss()).backward()
            assert rate.log_steps.grad is not None
            total = total + rate.log_steps.grad if clear else rate.log_steps.grad
        totals.append(total)
    assert torch.allclose(totals[0], totals[1], rtol=1e-4)


def test_an_error_inside_leaves_the_weights_as_they_were() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    rate = RateTerm(model, 1.0, examples=10)
    with pytest.raises(ZeroDivisionError), rate.quantised(0.0):
        _ = 1 / 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(ModelError, match="inside"):
        rate.loss()


class Odd(nn.Module):
    """Shared, frozen, one-element and unused parameters, an embedding, a norm, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.norm = nn.LayerNorm(16)
        self.out = nn.Linear(16, 20, bias=False)
        self.out.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2, 2))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.out(self.norm(self.embedding(tokens))) * self.scale
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_networks_with_odd_parts(dtype: torch.dtype) -> None:
    model = Odd().to(dtype)
    rate = RateTerm(model, 0.1, examples=100, learning_rate=0.01)
    assert set(rate.names) == {"embedding.weight", "norm.weight", "norm.bias", "scale", "unused"}
    optimiser = torch.optim.SGD(rate.parameter_groups(), lr=0.01)
    tokens = torch.arange(20)
    for step in range(10):
        optimiser.zero_grad()
        with rate.quantised(step / 10):
            loss: Tensor = nn.functional.cross_entropy(model(tokens).float(), tokens) + rate.loss()
            loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    data = rate.pack()
    decoded = unpack(data)
    assert torch.equal(decoded["embedding.weight"], model.embedding.weight)
    assert torch.equal(decoded["out.weight"], decoded["embedding.weight"])
    assert decoded["embedding.weight"].dtype == dtype


def test_sparse_gradients_are_refused() -> None:
    model = nn.Embedding(10, 4, sparse=True)
    rate = RateTerm(model, 0.1, examples=10)
    with pytest.raises(ModelError, match="sparse"), rate.quantised(0.0):
        (model(torch.tensor([1, 2])).sum() + 0 * rate.loss().detach()).backward()


@pytest.mark.parametrize("rate_weight", [0.0, -1.0, math.nan, math.inf, "much", None])
def test_a_rate_weight_that_cannot_be(rate_weight: Any) -> None:
    with pytest.raises(ConfigError, match="positive, finite"):
        check_rate_weight(rate_weight)


def test_a_rate_weight_in_another_unit_is_told() -> None:
    with pytest.raises(ConfigError, match="squared error per bit"):
        RateTerm(nn.Linear(2, 2), 1e-5, examples=10)


@pytest.mark.parametrize("examples", [0, -1, 2.5, None])
def test_the_number_of_examples_must_be_known(examples: Any) -> None:
    with pytest.raises(ConfigError, match="training examples"):
        RateTerm(nn.Linear(2, 2), 1.0, examples=examples)


def test_a_network_without_floating_parameters_is_refused() -> None:
    with pytest.raises(ModelError, match="nothing to act on"):
        RateTerm(nn.ReLU(), 1.0, examples=10)
    with pytest.raises(ModelError, match=r"torch\.nn\.Module"):
        RateTerm("linear", 1.0, examples=10)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, math.inf])
def test_a_step_that_cannot_be(step: float) -> None:
    with pytest.raises(ConfigError, match="step"):
        RateTerm(nn.Linear(2, 2), 1.0, examples=10, grid={"weight": step})


def test_steps_that_run_away_end_on_the_scale() -> None:
    for log_step in (-1e6, 1e6, math.nan):
        model = nn.Linear(3, 2)
        rate = RateTerm(model, 1.0, examples=10)
        with torch.no_grad():
            rate.log_steps.fill_(log_step)
        data = rate.pack()
        assert all(bool(tensor.isfinite().all()) for tensor in unpack(data).values())


def test_lambda_one_is_the_two_part_code() -> None:
    assert nats_per_bit(1.0, 1000) * 1000 == pytest.approx(math.log(2))  # n nats of data for a nat of code


def test_a_grid_is_kept_whatever_the_rule() -> None:
    weights = {"a": torch.tensor([[0.5, -1.0], [0.0, 2.5]]), "b": torch.tensor([0.3, 0.4])}
    recipe = Recipe(10.0, (Rule("b", ("lossless",)), Rule("a", ("dct",))))
    data = pack(weights, recipe, grid={"a": 0.5, "b": 0.5})
    decoded = unpack(data)
    assert torch.equal(decoded["a"], weights["a"]) and torch.equal(decoded["b"], weights["b"])
    assert grid_of(data) == {"a": 0.5}


def test_weights_of_few_values_keep_their_grid_too() -> None:
    """Where a tensor is simple the packer tries codecs of its own, which λ may find better; not here."""
    ternary = (torch.rand(48, 48) * 3).floor() - 1
    weights = {"a": 0.5 * ternary, "b": torch.full((64,), 0.25), "c": torch.arange(8.0)}
    data = pack(weights, Recipe(100.0), grid={"a": 0.5, "b": 0.25, "c": 0.5})
    decoded = unpack(data)
    assert all(torch.equal(decoded[name], tensor) for name, tensor in weights.items())
    assert grid_of(data) == {"a": 0.5, "b": 0.25, "c": 0.5}


def test_a_network_that_has_diverged_has_no_grid() -> None:
    with pytest.raises(CodecError, match="NaN"):
        pack({"a": torch.tensor([math.nan, 1.0])}, Recipe(), grid={"a": 0.5})


@pytest.mark.parametrize(("examples", "steps"), [(64, 0.05), (1000, 0.05), (100_000, 0.005)])
def test_weights_move_slower_where_there_are_more_examples(examples: int, steps: float) -> None:
    model = nn.Linear(4, 3)
    rate = RateTerm(model, 0.1, examples=examples, learning_rate=1e-4, grid={"weight": 2.0, "bias": 2.0})
    rates = [group["lr"] for group in rate.parameter_groups() if any(p is model.weight for p in group["params"])]
    assert rates == [pytest.approx(steps * 2.0, rel=0.2)]  # to half an octave


class Half(nn.Module):
    """A network that computes its inner layer in half precision by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = self.one(x).relu()
        result: torch.Tensor = self.two(y.float())
        return result


@pytest.mark.parametrize("kind", ["autocast", "half inside", "compiled"])
def test_mixed_precision_and_compilation_train_and_keep_the_grid(kind: str) -> None:
    torch.manual_seed(0)
    model: Any = Half() if kind == "half inside" else nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    called = torch.compile(model, backend="eager") if kind == "compiled" else model
    inputs = torch.randn(64, 6)
    labels = (inputs[:, 0] > 0).long()
    rate = RateTerm(model, 0.05, examples=64, learning_rate=0.02)
    optimiser = torch.optim.Adam(rate.parameter_groups())
    losses = []
    for step in range(120):
        optimiser.zero_grad()
        half = torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast")
        with rate.quantised(step / 120), half:
            loss = nn.functional.cross_entropy(called(inputs).float(), labels)
            (loss + rate.loss()).backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]
    data = rate.pack()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in unpack(data).items())


def test_a_rate_model_that_diverges_ends_the_segment_and_not_the_run() -> None:
    """Its bits become NaN; training says so at once, and there is no grid."""
    from evocompress.data.examples import Examples
    from evocompress.training.trainer import TrainingGenes, train

    class Spoils(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x.flatten(1)) * float("inf")
            return result

    labels = torch.randint(0, 2, (32,), generator=torch.Generator().manual_seed(0))
    examples = Examples(torch.rand(32, 1, 2, 2), labels)
    genes = TrainingGenes(rate_term="on", learning_rate=0.1)
    curves = train(Spoils(), examples, genes, epochs=3, seed=0, rate_weight=1.0)
    assert curves.diverged and not curves.grid
