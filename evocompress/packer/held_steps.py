"""A recipe between two rate weights: a dearer bit, while steps and choices of codecs stay as they are in a file.

Steps are stored in few bits, and candidates for a tensor differ in bytes where they are equally good. So the size of a
file jumps as λ grows; with both held it does not, as symbols are then given up one by one.
"""

from __future__ import annotations

import dataclasses
import glob
import math
from collections.abc import Mapping
from typing import Any

from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.codecs import Codec
from evocompress.codecs.container import file_names, parse

__all__ = ["with_steps_held"]

_SCALES = (0.01, 100.0)  # that a stage takes


def with_steps_held(recipe: Recipe, factor: float, data: bytes, state: Mapping[str, Any]) -> Recipe:
    """A recipe at `factor` times its λ, with the steps of its own λ, and of candidates those that a file has taken.

    What rules for vectors are about stays as it is.

    Args:
        recipe: The one that the file was made under.
        factor: At least 1; the file of the recipe for 1 is the same again.
        data: The file.
        state: The checkpoint that it was made of, which has the names of a file that stores none.

    >>> import numpy as np
    >>> from evocompress.checkpoint.packing import pack
    >>> state = {"w": np.random.default_rng(0).laplace(size=(40, 40))}
    >>> fine = pack(state, Recipe(1e-2))
    >>> sizes = [len(pack(state, with_steps_held(Recipe(1e-2), factor, fine, state))) for factor in (1, 1.5, 3)]
    >>> sizes[0] == len(fine), sizes[0] > sizes[1] > sizes[2]
    (True, True)
    """
    contents = parse(data, state)
    names, pinned = file_names(contents, state), list[Rule]()
    for name, entry in zip(names, contents.tensors, strict=True):
        rule = recipe.rule(name, len(entry.full_shape))
        if len(rule.candidates) > 1:
            codec = entry.codec if entry.source is None else contents.tensors[entry.source].codec
            pinned += [_pinned(name, rule, codec)] if _taken(rule, codec) else []
    return dataclasses.replace(
        recipe,
        rate_weight=recipe.rate_weight * factor,
        rules=tuple(_held(rule, factor) for rule in (*pinned, *recipe.rules)),
        defaults=tuple(_held(rule, factor) for rule in recipe.defaults),
    )


def _taken(rule: Rule, codec: Codec) -> list[Codec]:
    """The candidates that are a file's codec but for what only encoding knows; none of a tensor of a simple kind."""
    return [candidate for candidate in rule.candidates if _ids(candidate) == _ids(codec)]


def _pinned(name: str, rule: Rule, codec: Codec) -> Rule:
    return Rule(glob.escape(name), (_taken(rule, codec)[0],), rule.rate_factor)


def _ids(codec: Codec) -> list[str]:
    return [stage.id for stage in codec.stages]


def _held(rule: Rule, factor: float) -> Rule:
    if rule.dims == "vector":  # biases and norms: they take few bytes, and would be given up whole
        return dataclasses.replace(rule, rate_factor=rule.rate_factor / factor)
    codecs = tuple(Codec(tuple(_wider(stage, factor) for stage in codec.stages)) for codec in rule.candidates)
    return Rule(rule.match, codecs, rule.rate_factor, rule.dims)


def _wider(stage: Any, factor: float) -> Any:
    """A stage whose step is that of λ when it is given `factor` times λ."""
    if not hasattr(stage, "step_scale"):
        return stage
    scale = min(max(stage.step_scale / math.sqrt(factor), _SCALES[0]), _SCALES[1])
    return dataclasses.replace(stage, step_scale=scale)
