"""Train a network for some epochs under the training genes of a genome."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from evocompress.data.augmentation import augment
from evocompress.data.examples import Examples
from evocompress.errors import ConfigError
from evocompress.ideas.connections.overprovisioned import hold, thin
from evocompress.ideas.symmetry.snap import FrozenKernels, snap
from evocompress.tasks.classification import evaluate
from evocompress.training.penalties import penalty

__all__ = ["PENALTIES", "Curves", "Optimiser", "Precision", "Projection", "Schedule", "TrainingGenes", "train"]

Projection: TypeAlias = Literal["free", "keep-zeros"]
Optimiser: TypeAlias = Literal["adam", "sgd"]
Schedule: TypeAlias = Literal["constant", "cosine"]
Precision: TypeAlias = Literal["float32", "bfloat16"]

#: Genes that add a term to the loss.
PENALTIES = ("correlation", "symmetry", "entropy", "distinct")
_CHECK_EVERY = 16  # steps between looks at the loss; each look waits for the device


@dataclasses.dataclass(frozen=True)
class TrainingGenes:
    """How a segment trains. "Weights" are the parameters of two or more dimensions; biases and norms are left alone.

    - `weight_decay`: weights shrink by learning rate · `weight_decay` of themselves a step, decoupled from the gradient
      (Loshchilov & Hutter, 2019), under either optimiser.
    - `l1`: after a step each weight moves to zero by learning rate · `l1` and stops there, so that exact zeros appear
      (the proximal step of iterative soft thresholding; Daubechies et al., 2004).
    - `noise`: each step sees weights disturbed uniformly by ± `noise`/2 of their tensor's root mean square, the error
      of a quantiser with that relative step (Baskin et al., 2021), so that training finds weights that bear it.
    - `correlation`: strength of the correlation loss of LinearConv's primary filters (layers/correlation.py).
    - `symmetry`, `entropy`, `distinct`: strengths of penalties on kernels' distance to the nearest symmetry, on the
      entropy of quantised weights, and on the number of distinct values in a kernel (symmetry.py, `KernelPenalties`).
    - `projection`: "keep-zeros" holds weights at zero that are exactly zero when training starts.
    - `snap`: share of all kernels that are snapped to symmetries when training starts, those that lose least; they do
      not change while the rest trains (symmetry_snap.py). A `mask` and `thin` may still put zeros into them.
    - `thin`: share of the living weights of over-provisioned layers that is dropped when training ends, least magnitude
      first; those that are zero when it starts are dropped already, and stay so (layers/overprovisioned.py).
    - `schedule`: the learning rate stays, or falls to zero along half a cosine.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    l1: float = 0.0
    label_smoothing: float = 0.0
    noise: float = 0.0
    correlation: float = 0.0
    symmetry: float = 0.0
    entropy: float = 0.0
    distinct: float = 0.0
    projection: Projection = "free"
    snap: float = 0.0
    thin: float = 0.0
    batch_size: int = 64
    optimiser: Optimiser = "adam"
    schedule: Schedule = "cosine"

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay", "l1", "label_smoothing", "noise", "snap", "thin", *PENALTIES):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} {value}: must be finite and not negative")
        if self.learning_rate == 0 or self.label_smoothing >= 1 or self.batch_size < 1:
            values = f"{self.learning_rate}, label_smoothing {self.label_smoothing}, batch_size {self.batch_size}"
            raise ConfigError(f"learning_rate {values}: must be above 0, below 1, and at least 1")
        if self.thin >= 1:
            raise ConfigError(f"thin {self.thin}: is the share that is dropped, and must be below 1")
        if self.snap > 1:
            raise ConfigError(f"snap {self.snap}: is the share of kernels that is frozen, and must be at most 1")
        for name, choices in (("projection", Projection), ("optimiser", Optimiser), ("schedule", Schedule)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(f"{name} {getattr(self, name)!r}: must be one of {', '.join(get_args(choices))}")


@dataclasses.dataclass(frozen=True)
class Curves:
    """One finite value for each epoch that was finished; `validation_accuracy` is empty where it was not asked for.

    `train_loss` (nats; with label smoothing, without penalties) and `train_accuracy` are running means over the epoch,
    as the network was at each step. `diverged`: a loss or a weight became infinite or NaN; training stopped, and the
    weights are useless.
    """

    train_loss: tuple[float, ...] = ()
    train_accuracy: tuple[float, ...] = ()
    validation_accuracy: tuple[float, ...] = ()
    diverged: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


def train(
    model: nn.Module,
    examples: Examples,
    genes: TrainingGenes,
    *,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
    mask: Mapping[str, Tensor] | None = None,
    validation: Examples | None = None,
    precision: Precision = "float32",
) -> Curves:
    """Train `model` in place, on `device`, where it stays; left in evaluation mode.

    `mask` maps parameter names to boolean tensors of their shape; where one is False the weight is held at zero, in
    addition to what `genes.projection` holds. `precision` "bfloat16" is torch's mixed precision for the network's
    passes forward and back, faster on GPUs and on CPUs with such units; weights, loss and penalties stay in float32,
    and so does evaluation. The result depends on the arguments and the number of threads alone (on a GPU: up to the
    order of its sums), and torch's random state is left as it was. Raises ConfigError for a mask that fits no
    parameter, ModelError where there is nothing to thin or to snap. Divergence is reported, not raised.
    """
    device = torch.device(device)
    model.to(device)
    if genes.thin:
        hold(model)
    shuffling, disturbing, dropping = np.random.SeedSequence(seed).generate_state(3, np.uint64).tolist()
    frozen = snap(model, genes.snap) if genes.snap else None
    weights = _Weights(model, genes, mask or {}, torch.Generator(device).manual_seed(disturbing), frozen)
    order = torch.Generator().manual_seed(shuffling)
    trainer = _Trainer(model, examples.to(device), genes, weights, _optimiser(model, genes), order, epochs, precision)
    curves = Curves()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(dropping)  # for dropout in a user's network; forked, so nobody else sees it
        for epoch in range(epochs):
            model.train()
            loss, accuracy = trainer.run(epoch)
            if not math.isfinite(loss) or not weights.finite():
                curves = dataclasses.replace(curves, diverged=True)
                break
            held_out = () if validation is None else (evaluate(model, validation, device).accuracy,)
            curves = Curves(
                (*curves.train_loss, loss), (*curves.train_accuracy, accuracy), curves.validation_accuracy + held_out
            )
    if genes.thin and not curves.diverged:
        thin(model, 1 - genes.thin)
    model.eval()
    return curves


@dataclasses.dataclass(frozen=True, eq=False)
class _Trainer:
    model: nn.Module
    examples: Examples
    genes: TrainingGenes
    weights: _Weights
    optimiser: torch.optim.Optimizer
    order: torch.Generator
    epochs: int
    precision: Precision

    def run(self, epoch: int) -> tuple[float, float]:
        """One epoch: mean loss, which is not finite where training diverged, and accuracy."""
        n, device = len(self.examples), self.examples.images.device
        steps = -(-n // self.genes.batch_size)
        total = torch.zeros((), device=device)
        hits = torch.zeros((), dtype=torch.int64, device=device)
        # Parts of nearly equal size: every example once, and no last batch of one, which batch normalisation refuses.
        batches = torch.randperm(n, generator=self.order).to(device).tensor_split(steps)
        for step, index in enumerate(batches):
            loss, correct = self.step(index, self.rate((epoch * steps + step) / (self.epochs * steps)))
            total += loss
            hits += correct
            if step % _CHECK_EVERY == 0 and not math.isfinite(total.item()):
                break
        return total.item() / n, hits.item() / n

    def step(self, index: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """One update on the examples at `index`: their summed loss, and how many the network had right before it."""
        images, labels = self.examples.batch(index)
        images = augment(images, self.examples.augmentation, self.order)
        self.optimiser.zero_grad()
        with self.weights.disturbed():
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                logits: Tensor = self.model(images)
            if logits.dtype == torch.bfloat16:
                logits = logits.float()
            loss = nn.functional.cross_entropy(logits, labels, label_smoothing=self.genes.label_smoothing)
            extra = penalty(self.model, self.genes)
            (loss if extra is None else loss + extra).backward()  # type: ignore[no-untyped-call]
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.weights.shrink(rate)
        return loss.detach() * len(index), (logits.detach().argmax(1) == labels).sum()

    def rate(self, progress: float) -> float:
        """The learning rate at `progress` in [0, 1) of the segment."""
        if self.genes.schedule == "constant":
            return self.genes.learning_rate
        return self.genes.learning_rate * (1 + math.cos(math.pi * progress)) / 2


class _Weights:
    """The parameters of two or more dimensions, and what the genes do to them beside the gradient step."""

    def __init__(
        self,
        model: nn.Module,
        genes: TrainingGenes,
        mask: Mapping[str, Tensor],
        generator: torch.Generator,
        frozen: FrozenKernels | None,
    ) -> None:
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.everything = list(named.values())
        self.decayed = [parameter for parameter in self.everything if parameter.ndim >= 2]
        self.genes = genes
        self.generator = generator
        self.frozen = frozen
        self.kept = _kept(named, genes.projection, mask)
        self.shrink(0.0)

    @torch.no_grad()
    def shrink(self, rate: float) -> None:
        """Decay, soft-threshold, put frozen kernels back, and mask, for a step of learning rate `rate`."""
        genes = self.genes
        for weight in self.decayed:
            if genes.weight_decay:
                weight.mul_(1 - rate * genes.weight_decay)
            if genes.l1:
                weight.copy_(nn.functional.softshrink(weight, rate * genes.l1))
        if self.frozen is not None:
            self.frozen.hold()
        for weight, kept in self.kept:
            weight.mul_(kept)

    @contextlib.contextmanager
    def disturbed(self) -> Iterator[None]:
        """Uniform noise on the weights while the gradient is taken; exactly the old weights afterwards."""
        if not self.genes.noise:
            yield
            return
        with torch.no_grad():
            before = [weight.clone() for weight in self.decayed]
            for weight in self.decayed:
                width = self.genes.noise * weight.square().mean().sqrt()
                weight.add_((torch.rand(weight.shape, generator=self.generator, device=weight.device) - 0.5) * width)
            for weight, kept in self.kept:
                weight.mul_(kept)
        yield
        with torch.no_grad():
            for weight, old in zip(self.decayed, before, strict=True):
                weight.copy_(old)

    def finite(self) -> bool:
        """Whether no parameter is infinite or NaN."""
        return all(bool(parameter.isfinite().all()) for parameter in self.everything)


def _kept(
    named: Mapping[str, nn.Parameter], projection: Projection, mask: Mapping[str, Tensor]
) -> list[tuple[nn.Parameter, Tensor]]:
    for name, allowed in mask.items():
        if name not in named or allowed.shape != named[name].shape or allowed.dtype != torch.bool:
            got = f"{allowed.dtype} {tuple(allowed.shape)}"
            raise ConfigError(f"mask {name!r} is {got}: must be boolean, with a trained parameter's name and shape")
    held: dict[str, Tensor] = {name: allowed.to(named[name].device) for name, allowed in mask.items()}
    if projection == "keep-zeros":
        for name, parameter in named.items():
            if parameter.ndim >= 2:
                nonzero = parameter.detach() != 0
                held[name] = held[name] & nonzero if name in held else nonzero
    return [(named[name], allowed) for name, allowed in held.items()]


def _optimiser(model: nn.Module, genes: TrainingGenes) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if genes.optimiser == "adam":
        return torch.optim.Adam(parameters, lr=genes.learning_rate, fused=True)
    return torch.optim.SGD(parameters, lr=genes.learning_rate, momentum=0.9, nesterov=True, fused=True)
