"""What a genome means: the space it lives in, the recipe and the training it stands for."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from evocompress.checkpoint.forms import PLAN_GENES, Architecture, changed, check_plans, check_replaces
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.codecs import codec_spec, parse_codec
from evocompress.codecs.codec import Codec
from evocompress.codecs.deadzone import DeadZone
from evocompress.errors import ModelError
from evocompress.evolve.config import Genes
from evocompress.evolve.layer_groups import groups_of
from evocompress.ideas.linearconv.linear_conv import LinearConv2d
from evocompress.ideas.symmetry.penalties import trained_kernels
from evocompress.search.records import Genome, Scalar
from evocompress.search.space import Choice, Float, Gene, Integer, Space
from evocompress.training.trainer import PENALTIES

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ARCHITECTURE_GENES", "DEFAULT_CODECS", "GenomeReader", "TRAINING_GENES"]

#: Options of the codec gene where the configuration gives none.
DEFAULT_CODECS: dict[str, tuple[str, ...]] = {
    "first": ("deadzone", "dct", "codebook"),
    "conv": (
        "deadzone",
        "dct",
        "dct-matrix",
        "wavelet",
        "codebook",
        "lowrank",
        "linearconv",
        "dct-linearconv",
        "deadzone | dct | lowrank",
    ),
    "dense": ("deadzone", "dct-matrix", "wavelet", "codebook", "lowrank", "linearconv", "deadzone | lowrank"),
    "last": ("deadzone", "dct-matrix", "codebook", "lowrank"),
    "vector": ("deadzone",),
}

TRAINING_GENES = (
    "learning_rate", "weight_decay", "l1", "noise", "label_smoothing", *PENALTIES, "projection", "snap", "thin",
    "batch_size", "optimiser", "schedule",
)  # fmt: skip

#: A probe changes neither these nor the training genes: its network is the one that was trained.
ARCHITECTURE_GENES = ("alpha", "rank", *PLAN_GENES)
_LINEAR = ("alpha", "near", "decay", "snap")  # ranges that are drawn evenly, not on a log axis
_OF_KERNELS = ("symmetry", "distinct", "snap")


def _gene(value: Any, log: bool = True) -> Gene | Scalar:
    """A configured gene: something to evolve, or a fixed value."""
    if isinstance(value, tuple):
        low, high = value
        return Integer(low, high) if isinstance(low, int) and isinstance(high, int) else Float(low, high, log=log)
    if isinstance(value, list):
        return Choice(tuple(value)) if len(value) > 1 else value[0]
    fixed: Scalar = value
    return fixed


@dataclasses.dataclass(frozen=True)
class GenomeReader:
    """Knows the configured genes and the network's layer groups (tensor name → group); a plain, picklable value."""

    genes: Genes
    groups: Mapping[str, str]

    def _configured(self) -> dict[str, Gene | Scalar]:
        """Every gene by its full name; those with one option or a number are fixed."""
        present = sorted(set(self.groups.values()))
        found: dict[str, Gene | Scalar] = {
            name: _gene(getattr(self.genes, name)) for name in ("rate_weight", "step_scale")
        }
        found["sensitivity"] = _gene(list(self.genes.sensitivity))
        for group in present:
            factor = self.genes.vector_rate_factor if group == "vector" else self.genes.rate_factor
            found[f"rate_factor.{group}"] = _gene(factor)
            found[f"codec.{group}"] = _gene(list(self.genes.codecs.get(group, DEFAULT_CODECS[group])))
        for name in (*ARCHITECTURE_GENES, *TRAINING_GENES, "epochs"):
            value = getattr(self.genes, name)
            if value is not None:  # what the configuration leaves to the network's factory
                found[name] = _gene(value, log=name not in _LINEAR)
        return found

    def space(self) -> Space:
        """The space of genomes; recipe genes are those that a probe may change."""
        evolving = {
            name: gene for name, gene in self._configured().items() if not isinstance(gene, bool | int | float | str)
        }
        if not evolving:  # everything is fixed: one gene that changes nothing keeps the search well defined
            evolving = {"replicate": Integer(0, 1_000_000)}
        kept = {*ARCHITECTURE_GENES, *TRAINING_GENES, "epochs", "replicate"}
        return Space(evolving, [name for name in evolving if name not in kept])

    def resolve(self, genome: Genome) -> dict[str, Scalar]:
        """Evolving and fixed genes together."""
        fixed = {name: gene for name, gene in self._configured().items() if isinstance(gene, bool | int | float | str)}
        return {**fixed, **genome}

    def architecture(self, genome: Genome) -> Architecture:
        """The form of the network's layers: genes that evolve are rounded to coarse steps, fixed ones are as given."""
        values: dict[str, Any] = self.resolve(genome)
        exact = Architecture(**{name: values[name] for name in ARCHITECTURE_GENES if name in values})
        coarse = exact.snapped()
        return dataclasses.replace(
            exact, **{name: getattr(coarse, name) for name in ARCHITECTURE_GENES if name in genome}
        )

    def check(self, plain: nn.Module) -> None:
        """Refuse genes of layers, kernels and thinning that a network has nothing for, or that do not fit its layers.

        Ranges are tried at both ends.

        Raises:
            ModelError: Says which genes, and why.
        """
        ends = [{n: value[end] for n, value in self.genes if isinstance(value, tuple)} for end in (0, -1)]
        check_replaces(plain, float(self.resolve(ends[0])["alpha"]))
        for genome in ends:
            check_plans(plain, self.architecture(genome), float(self.resolve(genome)["thin"]))
        low, high = (self.resolve(end) for end in ends)
        if high["correlation"] and low["alpha"] == 1 and not any(isinstance(m, LinearConv2d) for m in plain.modules()):
            raise ModelError(
                "gene correlation: no convolution has primary filters, on which it acts; take it out, or let alpha be "
                "below 1, such as alpha = [0.25, 1.0]"
            )
        asked = [name for name in _OF_KERNELS if high[name]]
        # Plans may bring kernels; LinearConv, whose conversion takes time, neither brings nor takes any.
        forms = (dataclasses.replace(self.architecture(genome), alpha=1.0) for genome in ends)
        if asked and not any(True for form in forms for _ in trained_kernels(changed(plain, plain, form))):
            raise ModelError(
                f"genes {', '.join(asked)}: the network trains no kernels of more than one place, on which they act; "
                "take them out, or choose a network with such convolutions"
            )

    def recipe(self, genome: Genome, names: Iterable[str] | None = None) -> Recipe:
        """The recipe genes as a recipe: one rule per tensor of `names`; None: those of the plain network.

        A name that is neither the plain network's nor that of a convolution's factor gets no rule of its own.
        """
        values = self.resolve(genome)
        step = float(values["step_scale"])
        rules = []
        for name, group in (self.groups if names is None else groups_of(names, self.groups)).items():
            specs = _with_step(str(values[f"codec.{group}"]).split("|"), step)
            rules.append(Rule(glob.escape(name), specs, float(values[f"rate_factor.{group}"])))
        return Recipe(float(values["rate_weight"]), tuple(rules))

    def uses_gradients(self, genome: Genome) -> bool:
        """Whether this genome weighs distortion by gradients."""
        return self.resolve(genome)["sensitivity"] == "gradient"

    def epochs(self, genome: Genome) -> int:
        """How many epochs a segment trains."""
        return int(self.resolve(genome)["epochs"])

    def training(self, genome: Genome) -> dict[str, Scalar]:
        """The training genes, as keywords of `TrainingGenes`."""
        values = self.resolve(genome)
        return {name: values[name] for name in TRAINING_GENES}


def _with_step(specs: Iterable[str], step: float) -> tuple[str, ...]:
    """Codecs with the step gene put into their quantiser, where it is one that has a step."""
    out = []
    for spec in specs:
        codec = parse_codec(spec.strip())
        last = codec.stages[-1]
        if isinstance(last, DeadZone):
            codec = Codec((*codec.stages[:-1], dataclasses.replace(last, step_scale=last.step_scale * step)))
        out.append(codec_spec(codec))
    return tuple(out)
