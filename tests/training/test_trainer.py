"""The trainer: it learns, its seed decides, genes do what they say, and divergence is reported."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_problem import net, problem

from evocompress.data import Examples, Splits
from evocompress.data.augmentation import augment
from evocompress.errors import ConfigError
from evocompress.networks import build
from evocompress.protocols import TermContext
from evocompress.support.threads import limit_threads
from evocompress.tasks import build as build_task
from evocompress.tasks.classification import evaluate
from evocompress.tasks.measure import measure
from evocompress.tasks.regression import Regression
from evocompress.training import trainer
from evocompress.training.terms.base import TermBase
from evocompress.training.trainer import Curves, TrainingGenes, train

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")),
]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters()])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_training_learns(optimiser: Any, device: str) -> None:
    model, examples = net(), problem()
    before = evaluate(model, examples, device)
    curves = train(
        model,
        examples,
        TrainingGenes(optimiser=optimiser, learning_rate=0.01 if optimiser == "adam" else 0.05, batch_size=16),
        epochs=4,
        seed=0,
        device=device,
        validation=examples,
    )
    after = evaluate(model, examples, device)
    assert after.loss < before.loss / 2 and after.accuracy > 0.95
    assert len(curves.train_loss) == len(curves.train_quality) == 4
    assert curves.validation_quality[-1] == after.accuracy
    assert not model.training and not curves.diverged
    assert next(model.parameters()).device.type == device


def test_digits_reach_97_percent(digits: Splits) -> None:
    model = build("digits_cnn", seed=0)
    train(model, digits.train, TrainingGenes(learning_rate=2e-3, batch_size=32), epochs=8, seed=0)
    assert evaluate(model, digits.audit).accuracy > 0.96


def test_the_seed_decides_the_result() -> None:
    class Dropping(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 2, bias=False))

    start = Dropping()

    def run(seed: int) -> Tensor:
        model = copy.deepcopy(start)
        train(model, examples, TrainingGenes(noise=0.5), epochs=2, seed=seed)
        return weights(model)

    examples = problem()
    torch.manual_seed(1)
    first = run(7)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, run(7))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, run(8))


@pytest.mark.parametrize(
    ("name", "options"),
    [("digits_cnn", {}), ("resnet20", {})],
)
def test_bfloat16_is_what_a_network_trains_in_and_nothing_else(name: str, options: dict[str, Any]) -> None:
    examples = problem(64)
    if name == "resnet20":
        examples = Examples(examples.inputs.expand(-1, 3, -1, -1).contiguous(), examples.labels)
    model = build(name, {"classes": 2, **options}, seed=0)
    seen: set[tuple[bool, torch.dtype]] = set()

    def look(layer: nn.Module, _: object, output: Tensor) -> None:
        seen.add((layer.training, output.dtype))

    hooks = [layer.register_forward_hook(look) for layer in model.modules() if isinstance(layer, nn.Linear)]
    genes = TrainingGenes(batch_size=16, l1=0.001, noise=0.1)
    curves = train(model, examples, genes, epochs=2, seed=0, validation=examples, precision="bfloat16")
    assert hooks and seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values() if tensor.is_floating_point())
    assert not curves.diverged and curves.train_loss[1] < curves.train_loss[0]


def test_nothing_learns_at_no_epochs() -> None:
    model = net()
    before = weights(model)
    assert train(model, problem(), TrainingGenes(), epochs=0, seed=0) == Curves()
    assert torch.equal(weights(model), before)


def test_l1_makes_exact_zeros_in_weights_only() -> None:
    def zeros(l1: float) -> tuple[int, int]:
        model = net()
        genes = TrainingGenes(learning_rate=0.005, l1=l1, batch_size=16)
        train(model, problem(), genes, epochs=4, seed=0)
        zeros_of_weights = [int((p == 0).sum()) for p in model.parameters() if p.ndim >= 2]
        return sum(zeros_of_weights), sum(int((p == 0).sum()) for p in model.parameters() if p.ndim < 2)

    assert zeros(0.0) == (0, 0)
    few, many = zeros(0.05), zeros(0.5)
    assert 0 < few[0] < many[0] and many[1] == 0


def test_one_step_of_decay_and_threshold_is_the_formula() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -0.5], [0.01, 0.0]]))
    blank = Examples(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))  # no gradient reaches the weights
    genes = TrainingGenes(
        learning_rate=0.1, weight_decay=0.2, l1=0.3, optimiser="sgd", schedule="constant", batch_size=4
    )
    train(model, blank, genes, epochs=1, seed=0)
    shrunk = 0.5 * (1 - 0.1 * 0.2) - 0.1 * 0.3
    assert torch.allclose(model.weight, torch.tensor([[shrunk, -shrunk], [0.0, 0.0]]))


def test_keep_zeros_holds_them_and_free_does_not() -> None:
    def run(**changes: Any) -> nn.Module:
        model = net()
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim >= 2:
                    p.mul_(p.abs() > p.abs().median())
        train(model, problem(), TrainingGenes(learning_rate=0.01, noise=0.3, **changes), epochs=2, seed=0)
        return model

    def density(model: nn.Module) -> float:
        return float(torch.cat([(p != 0).float().flatten() for p in model.parameters() if p.ndim >= 2]).mean())

    assert density(run(projection="keep-zeros")) == pytest.approx(0.5, abs=0.02)
    assert density(run()) > 0.9  # a unit that is never active keeps its zeros


def test_a_mask_holds_zeros_too_and_must_fit() -> None:
    model = net()
    mask = torch.ones_like(model.get_parameter("fc1.weight"), dtype=torch.bool)
    mask[:, 1::2] = False
    train(model, problem(), TrainingGenes(learning_rate=0.01), epochs=1, seed=0, mask={"fc1.weight": mask})
    weight = model.get_parameter("fc1.weight")
    assert not weight[~mask].any() and (weight[mask] != 0).all()
    for name, wrong in (("fc1.wait", mask), ("fc1.weight", mask[:1]), ("fc1.weight", mask.float())):
        with pytest.raises(ConfigError, match=f"mask '{name}'"):
            train(model, problem(), TrainingGenes(), epochs=1, seed=0, mask={name: wrong})


@pytest.mark.parametrize("device", ["blah", "cuda:99"])
def test_a_device_that_is_none_is_one_line(device: str) -> None:
    said = f"'{device}' (is no device|cannot be used).*torch can use cpu"
    with pytest.raises(ConfigError, match=said):
        train(net(), problem(), TrainingGenes(), epochs=1, seed=0, device=device)
    with pytest.raises(ConfigError, match=said):
        measure(build_task("classification"), net(), problem(), device)


def test_noise_leaves_nothing_behind() -> None:
    model = net()
    before = weights(model)
    genes = TrainingGenes(
        noise=1.0, learning_rate=1e-30
    )  # the smallest step: what moves the weights is what noise left
    train(model, problem(), genes, epochs=1, seed=0)
    assert torch.equal(weights(model), before)


def test_noise_is_what_the_forward_pass_sees() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((2, 64), 0.5))

        def forward(self, x: Tensor) -> Tensor:
            seen.append(self.weight.detach().clone())
            return x.flatten(1) @ self.weight.T

    train(Spy(), problem(), TrainingGenes(noise=0.4, learning_rate=1e-30, batch_size=120), epochs=3, seed=0)
    noise = torch.stack(seen) / 0.5 - 1
    assert noise.abs().max() <= 0.2 and noise.abs().max() > 0.19
    assert float(noise.std()) == pytest.approx(0.4 / math.sqrt(12), rel=0.1)


def test_divergence_is_reported() -> None:
    genes = TrainingGenes(optimiser="sgd", learning_rate=1e20, schedule="constant", batch_size=8)
    curves = train(net(), problem(), genes, epochs=5, seed=0, validation=problem())
    assert curves.diverged
    assert len(curves.train_loss) < 5
    assert all(math.isfinite(value) for value in curves.train_loss)
    assert len(curves.validation_quality) == len(curves.train_loss)


def test_weights_that_are_not_finite_from_the_start_diverge_at_once() -> None:
    model = net()
    with torch.no_grad():
        model.get_parameter("fc2.bias").fill_(math.nan)
    assert train(model, problem(), TrainingGenes(), epochs=2, seed=0) == Curves(diverged=True)


def test_every_example_is_seen_once_an_epoch_and_no_batch_is_of_one() -> None:
    sizes: list[int] = []

    class Spy(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the parent's name
            sizes.append(len(input))
            return super().forward(input)

    examples = Examples(torch.randn(65, 3, generator=torch.Generator().manual_seed(0)), torch.arange(65) % 2)
    train(Spy(3, 2), examples, TrainingGenes(batch_size=16), epochs=2, seed=0)
    assert sizes == [13] * 10


def test_the_cosine_falls_to_zero_over_the_segment() -> None:
    def travelled(schedule: Any) -> float:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        before = weights(model)
        x = torch.ones(40, 3)
        genes = TrainingGenes(schedule=schedule, learning_rate=1e-4, batch_size=1)
        train(model, Examples(x, torch.zeros(40, dtype=torch.int64)), genes, epochs=5, seed=0)
        return float((weights(model) - before).abs().mean())

    # Adam's steps are about the learning rate here, and the mean of half a cosine is one half.
    assert travelled("cosine") / travelled("constant") == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"l1": -1.0},
        {"noise": math.inf},
        {"label_smoothing": 1.0},
        {"batch_size": 0},
        {"projection": "keep"},
        {"optimiser": "lion"},
        {"schedule": "step"},
    ],
)
def test_genes_outside_their_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainingGenes(**wrong)


def test_curves_as_json() -> None:
    curves = Curves((0.5,), (0.9,), (), diverged=False)
    assert curves.to_json() == {
        "train_loss": [0.5],
        "train_quality": [0.9],
        "validation_quality": [],
        "diverged": False,
    }


def test_crop_and_flip_cut_windows_of_the_padded_image() -> None:
    images = torch.arange(1.0, 200 * 2 * 5 * 6 + 1).reshape(200, 2, 5, 6)
    out = augment(images, "crop-flip", torch.Generator().manual_seed(0))
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    shifts = set()
    for i in range(200):
        matches = [
            (dy, dx, flip)
            for dy in range(9)
            for dx in range(9)
            for flip in (False, True)
            if torch.equal(out[i].flip(2) if flip else out[i], padded[i, :, dy : dy + 5, dx : dx + 6])
        ]
        assert matches
        shifts.add(matches[0])
    assert {dy for dy, _, _ in shifts} == {dx for _, dx, _ in shifts} == set(range(9))
    assert {flip for _, _, flip in shifts} == {False, True}
    assert torch.equal(augment(images, "none", torch.Generator()), images)


def test_flips_alone_mirror_half_of_the_images_left_to_right() -> None:
    images = torch.arange(1.0, 200 * 2 * 5 * 6 + 1).reshape(200, 2, 5, 6)
    out = augment(images, "flip", torch.Generator().manual_seed(0))
    mirrored = [torch.equal(new, old.flip(2)) for new, old in zip(out, images, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(out, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True)) and 70 < sum(mirrored) < 130


def test_threads() -> None:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    try:
        limit_threads(1)
        assert torch.get_num_threads() == 1 and os.environ["OMP_NUM_THREADS"] == "1"
        with pytest.raises(ConfigError, match="threads 0"):
            limit_threads(0)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_normalisation_is_the_formula() -> None:
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    examples = Examples(images, torch.zeros(2, dtype=torch.int64), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    expected = (images.double() - torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)) / torch.tensor([4.0, 5.0, 6.0]).view(
        3, 1, 1
    )
    assert torch.allclose(examples.batch(slice(None))[0].double(), expected)
    single = dataclasses.replace(examples, mean=(7.0,), std=(2.0,))
    assert torch.equal(single.batch(torch.tensor([1]))[0], (images[1:].float() - 7) / 2)
    assert images.dtype == examples.inputs.dtype == torch.uint8


def test_terms_are_told_over_how_many_labels_the_loss_is_a_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """λ is a price in nats of all the data: of sequences each label counts, but for those that ask for nothing."""
    told: list[int] = []

    class Spy(TermBase):
        def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
            told.append(context.examples)
            return ()

    monkeypatch.setattr(trainer, "terms_of", lambda genes: [Spy()])
    tokens = torch.zeros(6, 5, dtype=torch.int64)
    labels = torch.zeros(6, 5, dtype=torch.int64)
    labels[0] = -100
    model = nn.Sequential(nn.Embedding(2, 4), nn.Linear(4, 2))
    train(model, Examples(tokens, labels), TrainingGenes(), epochs=1, seed=0)
    train(nn.Linear(3, 2), Examples(torch.zeros(7, 3), torch.zeros(7, 2)), TrainingGenes("regression"), epochs=1,
          seed=0, task=Regression())  # fmt: skip
    assert told == [25, 7]
