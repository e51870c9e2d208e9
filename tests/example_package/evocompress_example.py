"""One of everything that a package can add to evocompress, as small as it can be.

Each part writes its kind into the file that the variable EVOCOMPRESS_EXAMPLE_LOG names, so that a test sees which ones
a search has used.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import typer
from torch import Tensor, nn

from evocompress.calibration.layer_views.base import LayerViewBase, flat_rows
from evocompress.codecs import Codec, Coded, Cost
from evocompress.codecs.codec import Floats, Layout, Shape, SideReader
from evocompress.codecs.entropy import Symbols
from evocompress.data import Examples, Splits
from evocompress.errors import ConfigError, ModelError
from evocompress.protocols import Add, Call, Genes, GeneSpec, Measured, TrainingStep
from evocompress.runs.report import ReportSection
from evocompress.runs.trackers import TrackedFront, TrackedRun, TrackedSegment
from evocompress.search.executors import Executor, ExecutorResources
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.objectives import Member
from evocompress.search.quality import Quality
from evocompress.search.records import Outcome
from evocompress.search.selection_policies import Fitness, Policy
from evocompress.training.terms.base import TermBase

if TYPE_CHECKING:
    from evocompress.runs.export import ReadLeaf
    from evocompress.search.attempt import Lost, Segment
    from evocompress.search.history import History
    from evocompress.search.storage import Storage

__all__ = [
    "SMALLEST",
    "Agreement",
    "Centred",
    "FixedScaleForm",
    "Negated",
    "ScaledLinear",
    "ScaledLinearView",
    "SizesTracker",
    "counting_executor",
    "export_sizes",
    "quadrants",
    "register",
    "scaled_mlp",
    "smallest",
    "with_scale",
]


def _used(kind: str) -> None:
    if log := os.environ.get("EVOCOMPRESS_EXAMPLE_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{kind}\n")


# ---- a codec stage ----


@dataclasses.dataclass(frozen=True)
class Negated:
    """Weights with the other sign, a transform of no use."""

    id: ClassVar[str] = "negated"
    number: ClassVar[int] = 63  # any from 48 to 63
    terminal: ClassVar[bool] = False

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Hand the negated array to the rest of the chain."""
        _used("codecs")
        return rest.encode(-x, cost)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """It has no side information of its own."""
        return rest.layout(side, shape)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Negate what the rest of the chain gives."""
        return -rest.decode_from(planes, side, shape)


# ---- a network, with a layer of its own, and an option for any network ----


class ScaledLinear(nn.Module):
    """A linear layer whose outputs are multiplied with a number of the layer's own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) to (n, outputs)."""
        return self.scale * nn.functional.linear(x, self.weight)


def scaled_mlp(*, hidden: int = 8) -> nn.Module:
    """Logits of four classes from images 1×4×4."""
    _used("networks")
    return nn.Sequential(
        nn.Flatten(), ScaledLinear(16, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 4)
    )


def with_scale(network: nn.Module, *, first_scale: float = 1.0) -> nn.Module:
    """The network with another number in its scaled layers.

    Raises:
        ModelError: It has none.
    """
    _used("network_options")
    layers = [module for module in network.modules() if isinstance(module, ScaledLinear)]
    if not layers:
        raise ModelError(f"first_scale is {first_scale}, but the network has no ScaledLinear; leave it out")
    for layer in layers:
        nn.init.constant_(layer.scale, first_scale)
    return network


class ScaledLinearView(LayerViewBase):
    """Rows of H are the scaled inputs."""

    kinds = (ScaledLinear,)

    def observe(self, module: ScaledLinear, call: Call, add: Add) -> None:
        """Report the matrix."""
        _used("layer_views")
        inputs = module.scale.detach() * call.first.detach()

        def backward(gradients: Tensor) -> None:
            add(module.weight, flat_rows(inputs), gradients.square().sum(dim=0))

        call.output.register_hook(backward)

    def rows(self, module: ScaledLinear, inputs: Tensor, every: int = 1) -> Tensor | None:
        """The scaled inputs."""
        return flat_rows(module.scale.detach() * inputs)


# ---- data, and what the network is for ----


def quadrants(root: Path, seed: int, *, examples: int = 256) -> Splits:
    """In which quarter of a noisy 4×4 image is the light?"""
    _used("data")
    rng = np.random.default_rng(seed)

    def split() -> Examples:
        labels = rng.integers(4, size=examples)
        images = rng.normal(0, 0.3, (examples, 1, 2, 2, 2, 2)).astype(np.float32)
        images[np.arange(examples), 0, labels // 2, :, labels % 2, :] += 1
        return Examples(torch.tensor(images.reshape(examples, 1, 4, 4)), torch.tensor(labels, dtype=torch.int64))

    return Splits("quadrants", 4, split(), split(), split())


class _Counts:
    def __init__(self) -> None:
        self._right = self._total = 0
        self._loss = 0.0

    def add(self, outputs: Any, targets: Tensor) -> None:
        self._right += int((outputs.argmax(dim=1) == targets).sum())
        self._total += len(targets)
        self._loss += float(nn.functional.cross_entropy(outputs, targets, reduction="sum"))

    def measured(self) -> Measured:
        share, spread = self._right / self._total, 1.96 * (0.25 / self._total) ** 0.5
        low, high = max(share - spread, 0.0), min(share + spread, 1.0)
        return Measured(share, low, high, 1 - share, self._loss / self._total, self._total)


class Agreement:
    """Classification under another name, with a gene that softens the loss."""

    quality = Quality("agreement", unit="%", scale=100.0, digits=1)
    genes: Sequence[GeneSpec] = (GeneSpec("temperature", "what logits are divided by, less one", 0.0),)

    def loss(
        self, outputs: Any, targets: Tensor, genes: Genes, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """Cross-entropy of the softened logits."""
        _used("tasks")
        softened = outputs / (1 + float(genes.get("temperature", 0.0)))
        return nn.functional.cross_entropy(softened, targets, reduction=reduction)

    def draw(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Classes with their own probabilities."""
        return torch.multinomial(outputs.float().softmax(dim=1).cpu(), 1, generator=generator)[:, 0]

    def meter(self) -> _Counts:
        """How many agree."""
        return _Counts()

    def check(self, model: nn.Module, examples: Any, classes: int) -> None:
        """Refuse another number of classes."""
        with torch.no_grad():
            shape = tuple(model(examples.batch(slice(0, 2))[0]).shape)
        if shape != (2, classes):
            raise ModelError(f"the network returns {shape}; it must be (2, {classes})")


# ---- a term of training, and a form of networks ----


class Centred(TermBase):
    """A penalty on the mean of each weight matrix."""

    genes: ClassVar[Sequence[GeneSpec]] = (GeneSpec("centre", "penalty on the mean of each weight matrix", 0.0),)

    def __init__(self, centre: float) -> None:
        self._centre = centre
        self._weights: list[nn.Parameter] = []

    def start(self, model: nn.Module, context: Any) -> Sequence[Mapping[str, Any]]:
        """Remember the weights."""
        self._weights = [parameter for parameter in model.parameters() if parameter.ndim == 2]
        return ()

    def loss(self, step: TrainingStep) -> Tensor | None:
        """The squares of the means."""
        _used("terms")
        return self._centre * torch.stack([weight.mean().square() for weight in self._weights]).sum()


class FixedScaleForm:
    """`squeeze` above 0: scaled layers become plain linear ones, the number multiplied into the weight."""

    genes: Sequence[GeneSpec] = (
        GeneSpec("squeeze", "above 0: scaled layers become plain ones", 0.0, high=1.0, log=False, role="architecture"),
    )
    #: A plain layer computes the same.
    gathers_exactly = True

    def check(self, plain: nn.Module, low: Genes, high: Genes) -> None:
        """Refuse a network without scaled layers."""
        if high.get("squeeze", 0.0) and not any(isinstance(module, ScaledLinear) for module in plain.modules()):
            raise ModelError("squeeze is above 0, but the network has no ScaledLinear; leave it at 0")

    def coarse(self, genes: Genes) -> Genes:
        """On or off."""
        return {**genes, "squeeze": float(bool(genes["squeeze"]))} if "squeeze" in genes else genes

    def replace(self, network: nn.Module, plain: nn.Module, genes: Genes) -> nn.Module:
        """Scaled layers with their number in the weight, and 1 in its place."""
        _used("forms")
        network = copy.deepcopy(network)
        if genes.get("squeeze", 0.0):
            for module in network.modules():
                if isinstance(module, ScaledLinear):
                    with torch.no_grad():
                        module.weight.mul_(module.scale)
                        module.scale.fill_(1.0)
        return network

    def match(self, plain: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
        """All forms have the same names and shapes."""
        return copy.deepcopy(plain)

    def stands_for(self, leaf: str) -> str | None:
        """It has no tensors of its own."""
        return None


# ---- the search ----


class _Counting(InlineExecutor):
    def wait(self, timeout: float | None = None) -> list[Outcome | Lost]:
        _used("executors")
        return super().wait(timeout)


def counting_executor(segment: Segment, storage: Storage, resources: ExecutorResources) -> Executor:
    """One segment at a time, in this process."""
    return _Counting(segment, storage)


def _smallest_files(members: Sequence[Member], size: int, reference: tuple[float, float]) -> dict[int, Fitness]:
    _used("selection")
    order = sorted(range(len(members)), key=lambda i: (members[i].x, members[i].y, members[i].key))
    return {i: (members[i].x, members[i].y) for i in order[:size]}


SMALLEST = Policy(_smallest_files)


# ---- a run looked at ----


def export_sizes(history: History, folder: Path, read_leaf: ReadLeaf) -> list[Path]:
    """sizes.txt: the bytes of each file of the front, one a line."""
    _used("exporters")
    path = folder / "sizes.txt"
    path.write_text("".join(f"{len(read_leaf(leaf))}\n" for leaf in history.archive), encoding="utf-8")
    return [path]


def smallest(history: History) -> ReportSection | None:
    """The size of the smallest file."""
    _used("report_sections")
    sizes = [leaf.nbytes for leaf in history.archive]
    return ReportSection("Smallest file", words=f"It has {min(sizes)} bytes.") if sizes else None


class SizesTracker:
    """tracked.txt: the bytes of each segment's own file, one a line."""

    _path: Path

    def begin(self, run: TrackedRun) -> None:
        """Remember where to."""
        _used("trackers")
        self._path = run.folder / "tracked.txt"

    def log(self, segment: TrackedSegment) -> None:
        """A line."""
        with self._path.open("a", encoding="utf-8") as file:
            print(f"{segment.numbers.get('bytes', 0):.0f}", file=file)

    def end(self, front: TrackedFront) -> None:
        """Nothing is open."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sizes")(sizes)


def sizes(run: Path) -> None:
    """Print what the exporter of sizes has written."""
    _used("commands")
    path = run / "export" / "sizes.txt"
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; export the run with evocompress report {run}")
    typer.echo(path.read_text(encoding="utf-8"), nl=False)
