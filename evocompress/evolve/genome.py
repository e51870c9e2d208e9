"""Genomes: the space they live in, the recipe and the training that each stands for."""

from __future__ import annotations

import dataclasses
import functools
import glob
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from evocompress.checkpoint.forms import changed, forms
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.codecs import parse_codec
from evocompress.codecs.codec import Codec
from evocompress.codecs.deadzone import DeadZone
from evocompress.errors import ModelError
from evocompress.evolve.layer_groups import DEFAULT_CODECS, groups_of
from evocompress.protocols import Genes, GeneSpec
from evocompress.search.records import Genome, Scalar
from evocompress.search.space import Choice, Float, Gene, Integer, Space
from evocompress.support.wording import listed
from evocompress.tasks import DEFAULT_TASK
from evocompress.training.genes import OF_SEGMENT, TrainingGenes, gene_specs, terms_of
from evocompress.training.quantised_training import nats_per_bit

if TYPE_CHECKING:
    from evocompress.evolve.config import Config

__all__ = ["GenomeReader", "network_options"]

_OPTION = "option."  # before the name of an option of the network's factory
_PER_GROUP = ("rate_factor", "vector_rate_factor")  # genes of which there is one for each layer group


def _gene(value: Any, spec: GeneSpec | None = None) -> Gene | Scalar:
    """A configured gene: something to evolve, or a fixed value."""
    if isinstance(value, tuple):
        low, high = value
        if isinstance(low, int) and isinstance(high, int) and (spec is None or spec.kind == "whole"):
            return Integer(low, high)
        return Float(low, high, log=True) if spec is None else Float(low, high, spec.log, spec.start, spec.advance)
    if isinstance(value, list):
        return Choice(tuple(value)) if len(value) > 1 else value[0]
    fixed: Scalar = value
    return fixed


@dataclasses.dataclass(frozen=True)
class GenomeReader:
    """What a genome means: knows the configured genes and the network's layer groups; a plain, picklable value.

    Args:
        genes: Every gene by name as configured (`evolve.config.Config.genes`), and the options of `codecs`.
        groups: The group of each tensor of the plain network.
        further_groups: Groups that only networks of other options have.
        task: Whose genes count.
        rules: For single tensors, before what the genes say.
        defaults: What genes were in the genomes of before they began to evolve.
    """

    genes: Mapping[str, Any]
    groups: Mapping[str, str]
    task: str = DEFAULT_TASK
    rules: tuple[Rule, ...] = ()
    further_groups: tuple[str, ...] = ()
    defaults: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)

    def _named(self, role: str) -> list[GeneSpec]:
        return [spec for spec in gene_specs(self.task).values() if spec.role == role]

    def _configured(self) -> dict[str, Gene | Scalar]:
        """Every gene by its full name; those with one option or a number are fixed."""
        genes: dict[str, Gene | Scalar] = {}
        for spec in gene_specs(self.task).values():
            value = self.genes.get(spec.name, spec.default)
            if spec.name not in _PER_GROUP and value is not None:  # None is left to the network's factory
                genes[spec.name] = _gene(value, spec)
        for name, value in self.genes.get("model_options", {}).items():
            genes[_OPTION + name] = _gene(value)
        codecs = self.genes.get("codecs", {})
        for group in sorted({*self.groups.values(), *self.further_groups}):
            factor = self._default("vector_rate_factor" if group == "vector" else "rate_factor")
            genes[f"rate_factor.{group}"] = _gene(factor)
            genes[f"codec.{group}"] = _gene(list(codecs.get(group, DEFAULT_CODECS[group])))
        return genes

    def _default(self, name: str) -> Any:
        return self.genes.get(name, gene_specs(self.task)[name].default)

    def space(self) -> Space:
        """The space of genomes; recipe genes are those that a probe may change."""
        evolving = {
            name: gene for name, gene in self._configured().items() if not isinstance(gene, bool | int | float | str)
        }
        if not evolving:  # everything is fixed: one gene that changes nothing keeps the search well defined
            evolving = {"replicate": Integer(0, 1_000_000)}
        # A probe's network is the one that was trained, so it changes neither training nor the form of layers.
        kept = {spec.name for role in ("training", "architecture") for spec in self._named(role)} | {"replicate"}
        options = [name for name in evolving if name.startswith(_OPTION)]
        defaults = {name: value for name, value in self.defaults.items() if name in evolving}
        return Space(evolving, [name for name in evolving if name not in kept.union(options)], options, defaults)

    def following(self, before: GenomeReader, space: Space) -> GenomeReader:
        """This reader for a run that goes on with it, after another reader whose space this was.

        Genes that begin to evolve were what they were fixed to. Nothing is known of the forms that networks had where
        a gene of the architecture is new, so those have no default.
        """
        was, architecture = before.resolve({}), {spec.name for spec in self._named("architecture")}
        added = self.space().genes.keys() - space.genes.keys() - architecture
        new = {name: self.space().genes[name].nearest(was[name]) for name in sorted(added) if name in was}
        return dataclasses.replace(self, defaults={**space.defaults, **new})

    def resolve(self, genome: Genome) -> dict[str, Scalar]:
        """Evolving and fixed genes together."""
        fixed = {name: gene for name, gene in self._configured().items() if isinstance(gene, bool | int | float | str)}
        return {**self.defaults, **fixed, **genome}

    def architecture(self, genome: Genome) -> dict[str, Scalar]:
        """The form of the network's layers: genes that evolve are rounded to coarse steps, fixed ones are as given."""
        values = self.resolve(genome)
        names = [spec.name for spec in self._named("architecture") if spec.name in values]
        exact: Genes = {name: values[name] for name in names}
        coarse = exact
        for form in forms():
            coarse = form.coarse(coarse)
        return {name: coarse[name] if name in genome else exact[name] for name in names}

    def model_options(self, genome: Genome) -> dict[str, Scalar]:
        """The options of the network's factory that genes say; a lineage keeps them."""
        values = self.resolve(genome)
        return {name: values[_OPTION + name] for name in self.genes.get("model_options", {})}

    @property
    def option_ends(self) -> list[dict[str, Scalar]]:
        """Every combination of the ends of such options: their least and largest numbers, or all their words."""
        ranges = {name: _ends(_gene(value)) for name, value in self.genes.get("model_options", {}).items()}
        return [dict(zip(ranges, values, strict=True)) for values in itertools.product(*ranges.values())]

    def of_network(self, groups: Mapping[str, str]) -> GenomeReader:
        """The reader for a network of other options, whose tensors have these groups."""
        return dataclasses.replace(
            self, groups=groups, further_groups=tuple(sorted({*self.groups.values(), *self.further_groups}))
        )

    @property
    def ends(self) -> tuple[Genome, Genome]:
        """The genomes in which every number that evolves is lowest, and highest."""
        evolving = {name: value for name, value in self.genes.items() if isinstance(value, tuple)}
        low, high = ({name: value[end] for name, value in evolving.items()} for end in (0, -1))
        return low, high

    def check(self, plain: nn.Module) -> None:
        """Refuse genes that a network has nothing for, or that do not fit its layers; ranges are tried at both ends.

        Raises:
            ModelError: Says which genes, and why.
        """
        if idle := [rule.match for rule in self.rules if not self._meets(rule, None)]:
            raise ModelError(f"rules: no tensor matches {idle[0]!r}; there are {listed([*self.groups], 8)}")
        forms_of = [self.architecture(end) for end in self.ends]
        for form in forms():
            form.check(plain, *forms_of)
        most = self.training(self.ends[1])
        networks = _Lazily(lambda: [changed(plain, plain, genes) for genes in forms_of])
        for term in terms_of(most):
            term.check(networks)

    def recipe(
        self,
        genome: Genome,
        names: Iterable[str] | None = None,
        *,
        examples: int,
        grid: Mapping[str, float] | None = None,
    ) -> Recipe:
        """The recipe genes as a recipe: one rule per tensor of `names`; None: those of the plain network.

        A name that is neither the plain network's nor that of a convolution's factor gets no rule of its own. λ becomes
        what a bit costs in the mean loss of so many examples, so sensitivities must be in nats.

        Args:
            genome: Whose.
            names: Of the tensors to be coded.
            examples: How many there are to train on.
            grid: Steps that training has left weights on; they are rounded on it where the gene `grid` says so.
        """
        values = self.resolve(genome)
        scale, steps = float(values["step_scale"]), grid if values["grid"] == "rounded" and grid else {}
        rules = []
        for name, group in (self.groups if names is None else groups_of(names, self.groups)).items():
            # Of a group that no network at the ends of the options' ranges has there is no gene.
            codecs = _with_step(str(values.get(f"codec.{group}", "deadzone")).split("|"), scale)
            if name in steps:
                codecs = (Codec((DeadZone(step=steps[name]),)),)
            rules.append(Rule(glob.escape(name), codecs, float(values.get(f"rate_factor.{group}", 1.0))))
        first = [rule for rule in self.rules if self._meets(rule, names)]
        return Recipe(nats_per_bit(self.rate_weight(genome), examples), (*first, *rules), "mixing")

    def _meets(self, rule: Rule, names: Iterable[str] | None) -> bool:
        """Whether a rule is about any tensor; in another form of the network its tensors may be gone."""
        return any(rule.applies(name, 0) for name in (self.groups if names is None else names))

    def rate_weight(self, genome: Genome) -> float:
        """λ, in nats of the data's loss per nat of code."""
        return float(self.resolve(genome)["rate_weight"])

    def keeps_grid(self, genome: Genome) -> bool:
        """Whether weights that training left on a grid stay where they are."""
        return self.resolve(genome)["grid"] == "exact"

    def uses_gradients(self, genome: Genome) -> bool:
        """Whether this genome weighs distortion by gradients."""
        return self.resolve(genome)["sensitivity"] == "gradient"

    def epochs(self, genome: Genome, *, from_random: bool = False) -> int:
        """How many epochs a segment trains, which may be more where it begins with random weights."""
        values = self.resolve(genome)
        return int(values["epochs"]) * (int(values["first_epochs"]) if from_random else 1)

    def start_width(self, genome: Genome) -> float:
        """The share of channels that a segment from random weights begins with."""
        return float(self.resolve(genome)["start_width"])

    def training(self, genome: Genome) -> TrainingGenes:
        """The training genes."""
        values = self.resolve(genome)
        names = [spec.name for spec in self._named("training") if spec.name in values and spec.name not in OF_SEGMENT]
        return TrainingGenes(self.task, **{name: values[name] for name in names})


def _ends(gene: Gene | Scalar) -> tuple[Scalar, ...]:
    if isinstance(gene, Choice):
        return gene.options
    return (gene.low, gene.high) if isinstance(gene, Float | Integer) else (gene,)


def network_options(config: Config, genome: Genome) -> dict[str, Any]:
    """All options of a run's network for a genome: those of the configuration, and those that genes say."""
    reader = GenomeReader(config.genes, {}, config.task)
    return {**config.model_options, **reader.model_options(genome)}


class _Lazily(Iterable[nn.Module]):
    """Networks that are made once, when they are first asked for."""

    def __init__(self, make: Callable[[], list[nn.Module]]) -> None:
        self._networks = functools.cache(make)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._networks())


def _with_step(specs: Iterable[str], step: float) -> tuple[Codec, ...]:
    """Codecs with the step gene put into their quantiser, where it is one that has a step."""
    return tuple(_scaled(parse_codec(spec.strip()), step) for spec in specs)


def _scaled(codec: Codec, step: float) -> Codec:
    quantiser: Any = codec.stages[-1]
    if not hasattr(quantiser, "step_scale"):
        return codec
    return Codec((*codec.stages[:-1], dataclasses.replace(quantiser, step_scale=quantiser.step_scale * step)))
