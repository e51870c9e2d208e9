"""Presets: named recipes for one checkpoint, which are nothing but codecs and an entropy coder."""

from __future__ import annotations

import dataclasses
import difflib

from evocompress.checkpoint.defaults import DEFAULT_PRESET
from evocompress.checkpoint.recipe import DEFAULT_RATE_WEIGHT, Recipe, Rule
from evocompress.errors import CodecError, about_argument

__all__ = ["LAYERWISE", "PRESETS", "preset"]

_VECTORS = Rule(codecs=("deadzone",), rate_factor=0.01, dims="vector")

#: Rules and coder of each, at the default λ.
PRESETS: dict[str, Recipe] = {
    "fast": Recipe(coder="rans", defaults=(_VECTORS, Rule(codecs=("trellis",)))),
    "balanced": Recipe(coder="rans", defaults=(_VECTORS, Rule(codecs=("trellis", "dct-trellis", "dct")))),
    "best": Recipe(
        coder="mixing",
        defaults=(_VECTORS, Rule(codecs=("trellis(states=64)", "dct(axes=spatial)+trellis(states=64)", "dct"))),
    ),
}


#: Those that quantise layer by layer where there are examples.
LAYERWISE = frozenset({"balanced", "best"})

#: Layer by layer, what is wrong with a vector is made good by what comes after it, so it need not be so fine.
_LAYER_VECTORS = dataclasses.replace(_VECTORS, rate_factor=0.5)


def preset(
    name: str = DEFAULT_PRESET,
    rate_weight: float = DEFAULT_RATE_WEIGHT,
    rules: tuple[Rule, ...] = (),
    *,
    calibrated: bool = False,
    layerwise: bool = False,
    noise: bool = False,
) -> Recipe:
    """The recipe of this name at a rate weight λ; rules of one's own come before its rules.

    `calibrated` says that it will be used with second-order sensitivities, `layerwise` that it will be layer by layer,
    `noise` that both will be from noise instead of data.

    Raises:
        CodecError: There is no such preset.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        with about_argument("preset"):
            raise CodecError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.{hint}")
    chosen = PRESETS[name]
    defaults = chosen.defaults
    if calibrated or layerwise:
        vectors = _LAYER_VECTORS if layerwise else _VECTORS
        defaults = (vectors, Rule(codecs=(_calibrated_trellis(name, layerwise=layerwise, noise=noise),)))
    return dataclasses.replace(chosen, rate_weight=rate_weight, rules=rules, defaults=defaults)


def _calibrated_trellis(name: str, *, layerwise: bool, noise: bool) -> str:
    """With second-order sensitivities the quantiser knows better than a transform, and a choice by score mixes slopes.

    On noise, directions that it does not have must not look free: hence more damping.
    """
    states = 64 if name == "best" else 8
    if not (layerwise or noise):
        return f"trellis(states={states})"
    return f"trellis(passes=5,damping={0.3 if noise else 0.03},states={states})"
