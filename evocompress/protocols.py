"""Protocols for extensions: five of few methods, and the plain values that pass through them.

A `Task` says what a network is for, a `Term` adds to the loss of training, a `Form` is another way of making a
network's layers, a `LayerView` tells calibration about a kind of layer, and an `Observer` hears how long work goes on.
Implementations are found by name through `extensions.py`; none of them needs to inherit from anything here. A whole
example of each is in docs/extending.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from evocompress.search.quality import Quality
from evocompress.search.records import Scalar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "Abandoned",
    "Add",
    "Began",
    "Call",
    "Form",
    "GeneSpec",
    "Genes",
    "Imitation",
    "LayerView",
    "Measured",
    "Meter",
    "Observer",
    "Progressed",
    "Said",
    "Task",
    "TaskWithImitation",
    "TaskWithOptimiser",
    "TaskWithTraining",
    "Term",
    "TermContext",
    "TermWithVersions",
    "TrainingStep",
    "Version",
    "reporting",
]

Genes: TypeAlias = Mapping[str, Scalar]
"""Values of genes by name."""


@dataclasses.dataclass(frozen=True)
class GeneSpec:
    """One gene, said once: configuration, space, help and documentation come from here.

    A configured number fixes the gene, [low, high] lets it evolve; of a choice a list gives the options.

    Args:
        name: Its name in configurations and genomes.
        sentence: What it does, one sentence for people.
        default: A number, a range (low, high), a list of options, or None: left out unless it is configured.
        kind: Real numbers, whole numbers, or a choice among words.
        low: The least value; with `low_open` it is not allowed itself.
        high: The largest value; with `high_open` it is not allowed itself.
        log: Ranges are drawn on a log axis, and so must be above 0 even where 0 itself may be given.
        role: What it changes: the recipe of a file (probes may change these without training anew), training, or the
            architecture.
        options: What a choice may be of.
        start: The share of a range, from its low end, that networks of random weights begin in.
        advance: The share of a range that it moves up by where a lineage goes on.
        plain: What it is where nobody says anything, as in `training.genes.TrainingGenes()`: for numbers mostly 0,
            which switches off what the gene stands for.
        check: Of a number: raises ConfigError where it breaks a rule that bounds do not say.
        needs_teacher: Whether what it switches on learns from a teacher, which a configuration must then name.
    """

    name: str
    sentence: str
    default: float | int | tuple[float, float] | tuple[int, int] | list[str] | None
    kind: Literal["real", "whole", "choice"] = "real"
    low: float = 0.0
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    log: bool = True
    role: Literal["recipe", "training", "architecture"] = "training"
    options: tuple[str, ...] = ()
    plain: Scalar | None = 0.0
    start: float = 1.0
    advance: float = 0.0
    check: Callable[[Any], object] | None = None
    needs_teacher: bool = False


class Measured(NamedTuple):
    """A network's quality on some examples, with its 95 % interval `low` to `high`, in the units of the quality.

    `error` is what a search minimises, finite and not negative wherever `value` is; `loss` is the mean of the task's
    loss; `total` says over how many things it was measured. `details` are further numbers, such as how many were right.
    """

    value: float
    low: float
    high: float
    error: float
    loss: float
    total: int
    details: Mapping[str, float | int] = {}


class Meter(Protocol):
    """Takes in batch after batch, and says how good the network was on all of them."""

    def add(self, outputs: Any, targets: Tensor) -> None:
        """What a network returned for a batch, and what it should have; nothing waits for the device.

        In training, outputs that are not one tensor still carry gradients.
        """
        ...

    def measured(self) -> Measured:
        """The quality so far."""
        ...


class Task(Protocol):
    """What a network is for. Made without arguments; holds no state.

    >>> import torch
    >>> from evocompress.extensions import TASKS
    >>> task = TASKS["classification"]()
    >>> meter = task.meter()
    >>> meter.add(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    >>> task.quality.name, meter.measured().value
    ('accuracy', 0.5)
    """

    quality: Quality
    genes: Sequence[GeneSpec]

    def loss(
        self, outputs: Any, targets: Tensor, genes: Genes, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """The loss of a batch in nats (or what else λ is to be exchanged for), a differentiable scalar.

        Args:
            outputs: What the network returned.
            targets: As the data set has them.
            genes: Values of the task's own genes; those that are absent switch off what they stand for.
            reduction: The mean over what has a target, or the sum.
        """
        ...

    def draw(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Targets drawn from what the network itself predicts: where the Fisher information is measured.

        `targets` are the true ones, which may tell how large errors are; `generator` is on the CPU.
        """
        ...

    def meter(self) -> Meter:
        """A fresh meter."""
        ...

    def check(self, model: nn.Module, examples: Any, classes: int) -> None:
        """Refuse a network that does not fit the task on these examples (`data.Examples`).

        Raises:
            ModelError: Says what the network returns, and what it must.
            DataError: Examples that have nothing to learn from.
        """
        ...


@runtime_checkable
class TaskWithOptimiser(Protocol):
    """A task may also bring its optimiser; otherwise the gene `optimiser` names one."""

    def optimiser(self, groups: list[dict[str, Any]], genes: Genes) -> torch.optim.Optimizer:
        """A torch optimiser of these groups of parameters, the first argument that torch's optimisers take.

        Each group has its learning rate as `lr` where it is not the gene `learning_rate`; the schedule scales them.
        """
        ...


@runtime_checkable
class TaskWithTraining(Protocol):
    """A task may also say how a batch becomes a loss; otherwise it is `loss` of what the network returns for it."""

    def training_loss(self, model: nn.Module, inputs: Any, targets: Tensor, genes: Genes) -> tuple[Tensor, Any]:
        """The mean loss of a batch, a differentiable scalar, and outputs that the task's meter takes with the targets.

        For mixed examples, several passes, losses within the network and the like; terms such as the rate are added.
        """
        ...


@runtime_checkable
class TaskWithImitation(Protocol):
    """A task may say how a network learns from a teacher; otherwise from targets drawn from the teacher (`draw`)."""

    def imitation(self, outputs: Any, teacher: Any, targets: Tensor, temperature: float) -> Tensor:
        """The mean loss of outputs against what the teacher returned for the same batch, a differentiable scalar.

        In the units of `loss`. `targets` are the true ones, which may ask for nothing at some places.
        """
        ...


@dataclasses.dataclass(frozen=True)
class TermContext:
    """What a term is told when training starts.

    `rate_weight` is λ, in nats of the data's loss per nat of code (0: the loss knows no rate); `examples` how many
    there are to train on (of sequences: how many labels, as the loss is a mean over these); `epochs` how long the
    segment is; `seed` what random numbers of the term's own start from; `learning_rate` the optimiser's at its highest;
    `grid` the steps of the file that training starts from, by the names of tensors (`checkpoint.grid`), empty at random
    weights. `losses`, where there is a network to run, goes over the
    training examples, or each time it is called over the same few thousand of them: the mean loss of each batch, with
    gradients where they are on, and how many examples it has; the network as it is then, in evaluation mode.
    `imitation`, where there is a teacher: the mean loss of a step's outputs against the teacher's, at a temperature.
    """

    rate_weight: float
    examples: int
    epochs: int
    batch_size: int
    seed: int
    device: torch.device
    learning_rate: float = 1e-3
    grid: Mapping[str, float] = dataclasses.field(default_factory=dict)
    losses: Callable[[], Iterator[tuple[Tensor, int]]] | None = None
    imitation: Imitation | None = None


@dataclasses.dataclass
class TrainingStep:
    """One step: `progress` in [0, 1) of the segment, the optimiser's `learning_rate`, and the batch.

    Of the batch the inputs as the network sees them, the targets, and at which examples it is; the outputs and the
    task's loss are there once the network has run.
    """

    progress: float
    learning_rate: float
    outputs: Any = None
    targets: Tensor | None = None
    inputs: Any = None
    index: Tensor | None = None
    loss: Tensor | None = None


class Imitation(Protocol):
    """How far a network is from its teacher."""

    def __call__(self, step: TrainingStep, temperature: float) -> Tensor:
        """The mean loss of a step's outputs against the teacher's, a differentiable scalar."""
        ...


class Term(Protocol):
    """What training adds to the loss, with state and parameters of its own if it has any.

    A class whose constructor takes its genes by name. It is made for a segment in which one of them is not at its plain
    value, or where it has none. `training.terms.base.TermBase` has all methods, doing nothing.

    >>> import torch
    >>> from evocompress.extensions import TERMS
    >>> context = TermContext(0.0, examples=64, epochs=1, batch_size=8, seed=0, device=torch.device("cpu"))
    >>> layer, term = torch.nn.Linear(2, 1), TERMS["l1"](l1=1.0)
    >>> groups = term.start(layer, context)
    >>> with torch.no_grad():
    ...     layer.weight[0, 1] = -0.05
    ...     term.after(TrainingStep(progress=0.0, learning_rate=0.1))
    >>> layer.weight.tolist()[0][1] == 0
    True
    """

    genes: ClassVar[Sequence[GeneSpec]]

    def check(self, networks: Iterable[nn.Module]) -> None:
        """Refuse networks none of which has anything for the term to act on.

        They are the plain network, and those in the forms at the ends of the configured ranges; made when asked for.

        Raises:
            ModelError: Says which genes, and why.
        """
        ...

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Before the first step: further parameter groups of the optimiser ({"params": …, "lr": …}), mostly none.

        A group may hold parameters of the network, which then learn at its rate.
        """
        ...

    def during(self, step: TrainingStep) -> AbstractContextManager[None]:
        """Around the forward and backward pass of a step."""
        ...

    def loss(self, step: TrainingStep) -> Tensor | None:
        """What the step adds to the loss, a scalar, after the network has run; None for nothing."""
        ...

    def after(self, step: TrainingStep) -> None:
        """After the optimiser's step; gradients are off."""
        ...

    def finish(self, *, diverged: bool) -> Mapping[str, float] | None:
        """After the last step: leave the network as it will be compressed.

        Returns the steps of tensors whose weights it leaves on multiples of them, by name, or None: the file then keeps
        these exactly.
        """
        ...


class Version(NamedTuple):
    """Weights that training could also have left: values by the names of parameters, and the steps of their grid."""

    weights: Mapping[str, Tensor]
    grid: Mapping[str, float]


@runtime_checkable
class TermWithVersions(Protocol):
    """A term may leave further versions of the weights; each becomes a file beside that of what `finish` left."""

    def versions(self) -> Sequence[Version]:
        """Those, after `finish`; mostly none."""
        ...


class Form(Protocol):
    """What genes may make of a network's layers. Made without arguments; holds no state.

    The plain network is the one that its factory makes. A file says by its tensors' names, shapes and values which form
    it holds, so that whoever loads it needs the plain network only.
    """

    genes: Sequence[GeneSpec]
    #: Whether gathering back keeps what a network computes, so that its file may be loaded into the plain network.
    gathers_exactly: bool

    def check(self, plain: nn.Module, low: Genes, high: Genes) -> None:
        """Refuse genes, the lowest and the highest that are configured, for which the plain network has nothing.

        Raises:
            ModelError: Says which, and why.
        """
        ...

    def coarse(self, genes: Genes) -> Genes:
        """Evolving genes rounded to coarse steps, so that parent and child mostly have one form."""
        ...

    def replace(self, network: nn.Module, plain: nn.Module, genes: Genes) -> nn.Module:
        """A copy of a network of any form in the form that the genes ask for, its weights carried over.

        Without genes: gathered back, as the plain network has its layers.
        """
        ...

    def match(self, plain: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
        """A copy of the plain network in the form of a state dict, whose values are still to be loaded."""
        ...

    def stands_for(self, leaf: str) -> str | None:
        """The tensor of the plain layer whose place a tensor of this form has, by the last parts of their names."""
        ...


class Call(NamedTuple):
    """A module's arguments and what it returned."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any

    @property
    def first(self) -> Any:
        """The first argument, by position or by name."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))


class Add(Protocol):
    """Report rows (groups, n, K) of a parameter's H, its squared output gradients (O,), and how many tokens it saw."""

    def __call__(self, parameter: Tensor, rows: Tensor, squares: Tensor | None = None, seen: int = 0) -> None:
        """Add them up."""
        ...


class LayerView(Protocol):
    """What calibration knows of a kind of layer. Made without arguments; holds no state.

    It counts for modules of `kinds` whose forward is that of the kind: subclasses that compute in a way of their own
    have none. `calibration.layer_views.base.LayerViewBase` has all methods, knowing nothing.

    >>> import torch
    >>> from evocompress.extensions import LAYER_VIEWS
    >>> view = LAYER_VIEWS["linear"]()
    >>> view.rows(torch.nn.Linear(3, 2), torch.ones(5, 3)).shape
    torch.Size([1, 5, 3])
    """

    kinds: tuple[type[nn.Module], ...]
    #: Whether the layer's `weight` is a scale of each channel, as a normalisation's, and no matrix.
    scales: bool
    #: Whether the layer's output counts as an output of the network, which its others hardly show.
    is_output: bool

    def observe(self, module: Any, call: Call, add: Add) -> None:
        """Report what each weight matrix (O, K) of a module sees in a call: rows of H, and g once gradients come."""
        ...

    def rows(self, module: Any, inputs: Tensor, every: int = 1) -> Tensor | None:
        """What each output sees of its inputs, (groups, n, K), every so many-th; None: not to be fitted."""
        ...

    def channels(self, module: Any, outputs: Tensor) -> Tensor | None:
        """Outputs as (channels, n), one for each element of the bias, or of a scale without one; None: nothing."""
        ...


@dataclasses.dataclass(frozen=True)
class Began:
    """A piece of long work has begun."""

    what: str


@dataclasses.dataclass(frozen=True)
class Progressed:
    """The share, in [0, 1], of a piece of work that is done; at 1 it has ended."""

    what: str
    share: float


@dataclasses.dataclass(frozen=True)
class Abandoned:
    """A piece of work has ended before it was done: by an error, or because nobody wants the rest."""

    what: str


@dataclasses.dataclass(frozen=True)
class Said:
    """Something worth a line."""

    text: str
    level: Literal["note", "warning"] = "note"


class Observer(Protocol):
    """How long work reports: searching, packing, drawing curves, auditing.

    It is called with `Began`, `Progressed`, `Abandoned` and `Said`, and with the events of its own kind of work
    (`search.events`, `packer.events`); an observer passes over what it does not know.

    >>> heard = []
    >>> observer: Observer = heard.append
    >>> observer(Said("quantising"))
    >>> heard
    [Said(text='quantising', level='note')]
    """

    def __call__(self, event: Any, /) -> None:
        """Take an event."""
        ...


@contextmanager
def reporting(observer: Observer, what: str) -> Iterator[Callable[[float], None]]:
    """Long work, of which an observer hears when it begins, the shares that are done, and when and how it ends.

    >>> heard = []
    >>> with reporting(heard.append, "auditing") as done:
    ...     done(0.5)
    >>> heard
    [Began(what='auditing'), Progressed(what='auditing', share=0.5), Progressed(what='auditing', share=1.0)]
    """
    observer(Began(what))
    try:
        yield lambda share: observer(Progressed(what, share))
    except BaseException:
        observer(Abandoned(what))
        raise
    observer(Progressed(what, 1.0))
