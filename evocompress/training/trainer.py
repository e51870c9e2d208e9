"""Trainer: a network for some epochs under the training genes of a genome."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evocompress.data.augmentation import augment
from evocompress.data.examples import Examples
from evocompress.errors import ConfigError, ModelError
from evocompress.protocols import (
    Task,
    TaskWithOptimiser,
    TaskWithTraining,
    Term,
    TermContext,
    TermWithVersions,
    TrainingStep,
    Version,
)
from evocompress.support.devices import device_of
from evocompress.support.inputs import call
from evocompress.support.modules import evaluation_mode, gradients_of_recurrent_layers
from evocompress.support.wording import kind_of
from evocompress.tasks import DEFAULT_TASK, build
from evocompress.tasks.measure import measure
from evocompress.training.genes import TrainingGenes, terms_of
from evocompress.training.precision import Precision, mixed_precision
from evocompress.training.teacher import Teacher
from evocompress.training.terms.base import weights_of

__all__ = ["Curves", "TrainingGenes", "train"]

_CHECK_EVERY = 16  # steps between looks at the loss; each look waits for the device
_MOST_EXAMPLES = 8192  # that symbols are tried on after training
_BATCH = 128  # many enough batches, so that they tell the variance of gradients


@dataclasses.dataclass(frozen=True)
class Curves:
    """One finite value for each epoch that was finished; `validation_quality` is empty where it was not asked for.

    `train_loss` (the task's, without terms) and `train_quality` are running means over the epoch, as the network was
    at each step. `diverged`: a loss or a weight became infinite or NaN; training stopped, and the weights are useless.
    `grid` has the steps of tensors that a term left on multiples of them, by name, `versions` the weights that would
    also do.
    """

    train_loss: tuple[float, ...] = ()
    train_quality: tuple[float, ...] = ()
    validation_quality: tuple[float, ...] = ()
    diverged: bool = False
    grid: Mapping[str, float] = dataclasses.field(default_factory=dict)
    versions: Sequence[Version] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data, but for the grid and the weights, which files have."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["grid"], fields["versions"]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


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
    task: Task | None = None,
    rate_weight: float = 0.0,
    grid: Mapping[str, float] | None = None,
    teacher: nn.Module | Teacher | None = None,
) -> Curves:
    """Train `model` in place, on `device`, where it stays; left in evaluation mode.

    The result depends on the arguments and the number of threads alone (on a GPU: up to the order of its sums), and
    torch's random state is left as it was. Divergence is reported, not raised.

    Args:
        model: The network.
        examples: What it learns from.
        genes: How; they switch on the terms of the loss.
        epochs: How long.
        seed: Of the order of examples, of noise and of dropout.
        device: Where.
        mask: Parameter names to boolean tensors of their shape; where one is False the weight is held at zero, in
            addition to what the gene `projection` holds.
        validation: Examples to measure the quality on after each epoch.
        precision: "bfloat16" is torch's mixed precision for the network's passes forward and back, faster on GPUs and
            on CPUs with such units; weights, loss and terms stay in float32, and so does measuring.
        task: What the network is for; None: `tasks.DEFAULT_TASK`.
        rate_weight: λ, which terms are told: nats of the loss per nat of code; 0: the loss knows no rate.
        grid: Steps of the quantisers that the weights come from, by the names of tensors, which terms are told.
        teacher: A trained network for the same inputs and outputs, which the gene `distillation` makes it learn from.

    Raises:
        ConfigError: A mask that fits no parameter, or no such device.
        ModelError: A term has nothing to act on.
    """
    device = device_of(device)
    task = build(DEFAULT_TASK) if task is None else task
    model.to(device)
    shuffling, disturbing, dropping = np.random.SeedSequence(seed).generate_state(3, np.uint64).tolist()
    terms = terms_of(genes)
    rate = genes.learning_rate
    examples = examples.to(device)
    losses = _Losses(model, examples, genes, task, disturbing)
    if isinstance(teacher, nn.Module):
        teacher = Teacher(teacher, examples, task, precision)
    context = TermContext(
        rate_weight,
        max(examples.counted, 1),
        epochs,
        genes.batch_size,
        disturbing,
        device,
        rate,
        grid or {},
        losses,
        None if teacher is None else teacher.imitation,
    )
    groups = [group for term in terms for group in term.start(model, context)]
    projection = losses.projection = _Projection(model, genes, mask or {})
    order = torch.Generator().manual_seed(shuffling)
    decayed = weights_of(model) if genes.weight_decay else []
    optimiser = _optimiser(model, genes, groups, task)
    trainer = _Trainer(model, examples, genes, task, terms, projection, decayed, optimiser, order, epochs, precision)
    curves = Curves()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # For dropout in a user's network; forked, so nobody else sees it. On a CPU only the CPU's state is forked.
        seed_all = torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed
        seed_all(dropping)
        for epoch in range(epochs):
            model.train()
            loss, quality = trainer.run(epoch)
            if not math.isfinite(loss) or not _is_finite(model):
                curves = dataclasses.replace(curves, diverged=True)
                break
            held_out = () if validation is None else (measure(task, model, validation, device).value,)
            curves = Curves(
                (*curves.train_loss, loss), (*curves.train_quality, quality), curves.validation_quality + held_out
            )
    left: dict[str, float] = {}
    for term in terms:
        left |= term.finish(diverged=curves.diverged) or {}
    projection.apply()
    model.eval()
    versions = (version for term in terms if isinstance(term, TermWithVersions) for version in term.versions())
    return dataclasses.replace(curves, grid=left, versions=tuple(versions))


@dataclasses.dataclass
class _Losses:
    """`TermContext.losses`: passes over training examples as they are, without augmentation."""

    model: nn.Module
    examples: Examples
    genes: TrainingGenes
    task: Task
    seed: int
    projection: _Projection | None = None

    def __call__(self) -> Iterator[tuple[Tensor, int]]:
        if self.projection is not None:
            self.projection.apply()
        with evaluation_mode(self.model), gradients_of_recurrent_layers(self.model):
            for start in range(0, len(self.few), _BATCH):
                inputs, targets = self.few.batch(slice(start, start + _BATCH))
                yield self.task.loss(call(self.model, inputs), targets, self.genes), len(targets)

    @functools.cached_property
    def few(self) -> Examples:
        """Of many examples some, drawn at random."""
        order = torch.randperm(len(self.examples), generator=torch.Generator().manual_seed(self.seed))
        return self.examples.take(order[:_MOST_EXAMPLES].sort().values.to(self.examples.device))


def _is_finite(model: nn.Module) -> bool:
    """Whether no trained parameter is infinite or NaN."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters() if parameter.requires_grad)


@dataclasses.dataclass(frozen=True, eq=False)
class _Trainer:
    model: nn.Module
    examples: Examples
    genes: TrainingGenes
    task: Task
    terms: Sequence[Term]
    projection: _Projection
    decayed: Sequence[nn.Parameter]
    optimiser: torch.optim.Optimizer
    order: torch.Generator
    epochs: int
    precision: Precision

    def run(self, epoch: int) -> tuple[float, float]:
        """One epoch: mean loss, which is not finite where training diverged, and quality."""
        n, device = len(self.examples), self.examples.device
        steps = -(-n // self.genes.batch_size)
        total, meter = torch.zeros((), device=device), self.task.meter()
        # Parts of nearly equal size: every example once, and no last batch of one, which batch normalisation refuses.
        batches = torch.randperm(n, generator=self.order).to(device).tensor_split(steps)
        for number, (inputs, targets) in enumerate(self.examples.batches(batches)):
            progress = (epoch * steps + number) / (self.epochs * steps)
            inputs = augment(inputs, self.examples.augmentation, self.order)
            step = TrainingStep(progress, self.rate(progress), targets=targets, inputs=inputs, index=batches[number])
            total += self.step(step)
            outputs = step.outputs
            meter.add(outputs.detach() if isinstance(outputs, Tensor) else outputs, targets)
            if number % _CHECK_EVERY == 0 and not math.isfinite(total.item()):
                break
        return total.item() / n, meter.measured().value

    def step(self, step: TrainingStep) -> Tensor:
        """One update on a batch: its summed loss, as the network was before it."""
        inputs, targets = step.inputs, step.targets
        assert targets is not None
        self.optimiser.zero_grad()
        with contextlib.ExitStack() as stack:
            for term in self.terms:
                stack.enter_context(term.during(step))
            self.projection.apply()  # what terms have put into weights that are held at zero
            with mixed_precision(self.examples.device, self.precision):
                if isinstance(self.task, TaskWithTraining):
                    loss, step.outputs = self.task.training_loss(self.model, inputs, targets, self.genes)
                else:
                    loss, step.outputs = None, call(self.model, inputs)
            if loss is None:
                loss = self.task.loss(step.outputs, targets, self.genes)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                name = type(self.task).__name__
                raise ModelError(f"the loss of the task {name} is {kind_of(loss)}; it must be a tensor of one number")
            step.loss = loss
            extra = [added.reshape(()) for term in self.terms if (added := term.loss(step)) is not None]
            total = loss + torch.stack(extra).sum() if extra else loss
            total.backward()  # type: ignore[no-untyped-call]
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * (step.learning_rate / self.genes.learning_rate)
        self.optimiser.param_groups[0]["lr"] = step.learning_rate
        self.optimiser.step()
        self._after_step(step)
        return loss.detach() * len(targets)

    @torch.no_grad()
    def _after_step(self, step: TrainingStep) -> None:
        """What follows the optimiser's step: decay, then the terms, then what is held at zero."""
        for weight in self.decayed:  # of the optimiser's step (AdamW) and not of the loss, so no term
            weight.mul_(1 - step.learning_rate * self.genes.weight_decay)
        for term in self.terms:
            term.after(step)
        self.projection.apply()

    def rate(self, progress: float) -> float:
        """The learning rate at `progress` in [0, 1) of the segment."""
        rate, warm_up = self.genes.learning_rate, self.genes.warm_up
        if progress < warm_up:
            return float(rate * progress / warm_up)
        after = (progress - warm_up) / (1 - warm_up)
        return float(rate if self.genes.schedule == "constant" else rate * (1 + math.cos(math.pi * after)) / 2)


class _Projection:
    """Weights that are held at zero: by a mask, and by the gene `projection`.

    No term, because it has the last word: after what terms do during and after a step and in `finish`, and before each
    pass of `_Losses`, which terms ask for; and a mask is an argument of `train`, which terms are not told.
    """

    def __init__(self, model: nn.Module, genes: TrainingGenes, mask: Mapping[str, Tensor]) -> None:
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name, allowed in mask.items():
            if name not in named or allowed.shape != named[name].shape or allowed.dtype != torch.bool:
                description = f"{allowed.dtype} {tuple(allowed.shape)}"
                raise ConfigError(
                    f"mask {name!r} is {description}: must be boolean, with a trained parameter's name and shape"
                )
        held: dict[str, Tensor] = {name: allowed.to(named[name].device) for name, allowed in mask.items()}
        if genes.projection == "keep-zeros":
            for name, parameter in named.items():
                if parameter.ndim >= 2:
                    nonzero = parameter.detach() != 0
                    held[name] = held[name] & nonzero if name in held else nonzero
        self._kept = [(named[name], allowed) for name, allowed in held.items()]
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Put zeros where they are held."""
        for weight, kept in self._kept:
            weight.mul_(kept)


def _optimiser(
    model: nn.Module, genes: TrainingGenes, groups: Sequence[Mapping[str, Any]], task: Task
) -> torch.optim.Optimizer:
    """The optimiser of the network's trained parameters, and of the groups that terms add, each at its own rate."""
    claimed = {id(parameter) for group in groups for parameter in group["params"]}
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    rest = [parameter for parameter in trained if id(parameter) not in claimed]
    kinds: list[dict[str, Any]] = [{"params": rest}, *map(dict, groups)]
    for group in kinds:
        group["initial_lr"] = group.get("lr", genes.learning_rate)
    if isinstance(task, TaskWithOptimiser):
        optimiser: object = task.optimiser(kinds, genes)
        if not isinstance(optimiser, torch.optim.Optimizer):
            name = type(task).__name__
            raise ModelError(f"optimiser of the task {name} returned {kind_of(optimiser)}; must be a torch optimiser")
        return optimiser
    if genes.optimiser in ("adam", "adamw"):  # decay is decoupled for all of them
        return torch.optim.Adam(kinds, lr=genes.learning_rate, fused=True)
    return torch.optim.SGD(kinds, lr=genes.learning_rate, momentum=0.9, nesterov=True, fused=True)
