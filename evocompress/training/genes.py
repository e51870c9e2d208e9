"""Genes of the trainer and of the recipe, and the list of all genes; a new training gene is a file in `terms/`.

A task, a term or a form brings its own; those of the recipe and of the trainer are in `CORE` below. A gene is said
once: name, default, range, scale and sentence. `gene_specs` has them all, and configuration, space, help and
documentation are made of it.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from evocompress.errors import ConfigError
from evocompress.extensions import FORMS, TERMS
from evocompress.protocols import GeneSpec, Term
from evocompress.search.records import Scalar
from evocompress.tasks import DEFAULT_TASK, build
from evocompress.training.quantised_training import check_rate_weight

__all__ = ["CORE", "OF_SEGMENT", "TrainingGenes", "check_value", "gene_specs", "rule_of", "terms_of"]

#: Genes of the recipe and of the trainer. Further recipe genes are a codec and a rate factor for each layer group.
CORE: tuple[GeneSpec, ...] = (
    GeneSpec(
        "rate_weight", "λ: nats of the loss on all the data that one nat of the file is worth; larger is smaller and "
        "rougher; a lineage moves it", (0.03, 8.0), low_open=True, role="recipe", start=0.3, advance=0.12,
        check=check_rate_weight,
    ),
    GeneSpec(
        "grid", "what becomes of weights that training left on a grid: they stay (exact), are rounded again under λ "
        "(rounded), or are coded anew (codecs)", ["exact", "rounded", "codecs"], kind="choice", role="recipe",
        options=("exact", "rounded", "codecs"), plain="exact",
    ),
    GeneSpec("rate_factor", "what λ is multiplied with in a layer group", (0.1, 10.0), low_open=True, role="recipe"),
    GeneSpec(
        "vector_rate_factor", "what λ is multiplied with for biases and norms", (0.001, 1.0), low_open=True,
        role="recipe",
    ),
    GeneSpec(
        "step_scale", "what the quantiser's step is multiplied with", (0.6, 1.5), low_open=True, role="recipe",
        plain=1.0,
    ),
    GeneSpec(
        "sensitivity", "whether distortion is weighed by gradients", ["gradient", "none"], kind="choice", role="recipe",
        options=("gradient", "none"), plain="none",
    ),
    GeneSpec("learning_rate", "the optimiser's learning rate", (3e-4, 5e-3), low_open=True, plain=1e-3),
    GeneSpec("epochs", "how long a segment trains", (1, 4), kind="whole", low=1, log=False, plain=1),
    GeneSpec(
        "first_epochs", "how many times as long a segment trains that begins with random weights", 1, kind="whole",
        low=1, log=False, plain=1,
    ),
    GeneSpec(
        "start_width", "share of each layer's channels, drawn at random, that segments from random weights begin with",
        1.0, low_open=True, high=1.0, log=False, plain=1.0,
    ),
    GeneSpec(
        "weight_decay", "share of themselves by which weights shrink in a step, over the learning rate, decoupled from "
        "the gradient (Loshchilov and Hutter, 2019)", 0.0,
    ),
    GeneSpec(
        "projection", "whether weights that are zero when training starts stay there (keep-zeros)",
        ["free"], kind="choice", options=("free", "keep-zeros"), plain="free",
    ),
    GeneSpec("batch_size", "examples in a step", 64, kind="whole", low=1, log=False, plain=64),
    GeneSpec(
        "optimiser", "the optimiser; adam and adamw are one, as decay is always decoupled", ["adam"], kind="choice",
        options=("adam", "adamw", "sgd"), plain="adam",
    ),
    GeneSpec(
        "schedule", "the learning rate stays, or falls to zero along half a cosine", ["cosine"], kind="choice",
        options=("constant", "cosine"), plain="cosine",
    ),
    GeneSpec(
        "warm_up", "share of a segment in which the learning rate rises from zero, before its schedule", 0.0, high=1.0,
        high_open=True, log=False,
    ),
)  # fmt: skip

#: Training genes that a segment acts on, and not the trainer.
OF_SEGMENT = ("epochs", "first_epochs", "start_width")


@functools.cache
def gene_specs(task: str = DEFAULT_TASK) -> Mapping[str, GeneSpec]:
    """All genes by name, in the order: recipe, architecture, training.

    Raises:
        ConfigError: There is no such task, or two parts bring a gene of one name.

    >>> gene_specs()["l1"].role, gene_specs()["rate_weight"].role
    ('training', 'recipe')
    """
    unsorted: list[GeneSpec] = [*CORE, *build(task).genes]
    for kind in (*FORMS.values(), *TERMS.values()):
        unsorted += kind.genes
    ranked = sorted(unsorted, key=lambda spec: ("recipe", "architecture", "training").index(spec.role))
    specs: dict[str, GeneSpec] = {}
    for spec in ranked:
        if spec.name in specs:
            raise ConfigError(f"Two parts bring a gene {spec.name!r} ({specs[spec.name].sentence}; {spec.sentence}).")
        specs[spec.name] = spec
    return MappingProxyType(specs)


def check_value(spec: GeneSpec, value: Any) -> None:
    """Refuse a value that is none of a gene's.

    Raises:
        ConfigError: Names the gene, the value and the rule.

    >>> check_value(gene_specs()["l1"], 0.1)
    """
    if spec.kind == "choice":
        if value not in spec.options:
            raise ConfigError(f"{spec.name} {value!r}: must be {rule_of(spec)}")
        return
    number = isinstance(value, int if spec.kind == "whole" else int | float) and not isinstance(value, bool)
    below = number and (value < spec.low or (spec.low_open and value == spec.low))
    above = number and spec.high is not None and (value > spec.high or (spec.high_open and value == spec.high))
    if not number or not math.isfinite(value) or below or above:
        raise ConfigError(f"{spec.name} {value}: must be {rule_of(spec)}")
    if spec.check is not None:
        spec.check(value)


def rule_of(spec: GeneSpec) -> str:
    """What a gene's value must be, in words.

    >>> rule_of(gene_specs()["l1"]), rule_of(gene_specs()["projection"])
    ('a finite number of at least 0', 'one of free, keep-zeros')
    """
    if spec.kind == "choice":
        return f"one of {', '.join(spec.options)}"
    noun = "a whole number" if spec.kind == "whole" else "a finite number"
    low = f"{'above' if spec.low_open else 'of at least'} {spec.low:g}"
    return f"{noun} {low}" + (
        "" if spec.high is None else f" and {'below' if spec.high_open else 'at most'} {spec.high:g}"
    )


class TrainingGenes(Mapping[str, Scalar]):
    """How a segment trains: values of the training genes by name, the others at their plain values; immutable.

    "Weights" are the parameters of two or more dimensions; biases and norms are left alone. What each gene does is said
    in `gene_specs()`; terms say it at length (`evocompress.extensions.TERMS`).

    Args:
        task: Whose genes count besides those of the trainer and the terms.
        values: Genes by name.

    Raises:
        ConfigError: An unknown gene (the message has the nearest), or a value out of its range.

    >>> genes = TrainingGenes(learning_rate=0.01, l1=0.1)
    >>> genes.learning_rate, genes["batch_size"]
    (0.01, 64)
    """

    def __init__(self, task: str = DEFAULT_TASK, /, **values: Any) -> None:
        of_training = (spec for spec in gene_specs(task).values() if spec.role == "training")
        specs = {spec.name: spec for spec in of_training if spec.name not in OF_SEGMENT}
        for name in values:
            if name not in specs:
                near = difflib.get_close_matches(name, specs, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"There is no training gene {name!r}.{hint} Known: {', '.join(specs)}.")
            check_value(specs[name], values[name])
        self._values: dict[str, Any] = {name: values.get(name, spec.plain) for name, spec in specs.items()}

    def __getitem__(self, name: str) -> Scalar:
        value: Scalar = self._values[name]
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        specs = gene_specs()
        changed = [f"{k}={v!r}" for k, v in self._values.items() if k not in specs or v != specs[k].plain]
        return f"TrainingGenes({', '.join(changed)})"


def terms_of(genes: Mapping[str, Scalar]) -> list[Term]:
    """The terms that these genes switch on, and those that have no genes, in the order in which they act."""
    terms: list[Term] = []
    for kind in TERMS.values():
        values = {spec.name: genes.get(spec.name, spec.plain) for spec in kind.genes}
        if not kind.genes or any(values[spec.name] != spec.plain for spec in kind.genes):
            terms.append(kind(**values))
    return terms
