"""Layer groups: tensors that share a codec gene and a rate gene."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from evocompress.checkpoint.forms import stands_for
from evocompress.codecs.registry import KERNEL_CODECS, MATRIX_CODECS

__all__ = ["DEFAULT_CODECS", "GROUPS", "groups_of", "layer_groups"]

#: The options of each group's codec gene where the configuration gives none.
DEFAULT_CODECS: dict[str, tuple[str, ...]] = {
    "first": ("deadzone", "dct", "codebook"),
    "conv": (*KERNEL_CODECS, "deadzone | dct | lowrank"),
    "dense": (*MATRIX_CODECS, "deadzone | lowrank"),
    "last": ("deadzone", "dct-matrix", "codebook", "lowrank"),
    "vector": ("deadzone",),
}
#: All groups: the first and the last layer, convolutions and dense layers between them, biases and norms.
GROUPS = tuple(DEFAULT_CODECS)


def layer_groups(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """The group of each floating-point tensor, by its shape and its place in the state dict.

    First and last layers are groups of their own: they are small, and the network minds errors in them more (Han, Mao
    and Dally, 2016). They are found among the tensors with two dimensions or more, unless there are fewer than three.

    >>> layer_groups({"c1": (8, 1, 3, 3), "c1.b": (8,), "c2": (8, 8, 3, 3), "fc": (10, 8)})
    {'c1': 'first', 'c1.b': 'vector', 'c2': 'conv', 'fc': 'last'}
    """
    matrices = [name for name, shape in shapes.items() if len(shape) >= 2 and math.prod(shape) > 0]
    ends = {matrices[0]: "first", matrices[-1]: "last"} if len(matrices) >= 3 else {}
    groups = {}
    for name, shape in shapes.items():
        inner = "vector" if len(shape) < 2 else "conv" if len(shape) > 2 else "dense"
        groups[name] = ends.get(name, inner)
    return groups


def groups_of(names: Iterable[str], groups: Mapping[str, str]) -> dict[str, str]:
    """The groups of those tensors that have one, in a network whose layers may have another form.

    `groups` is of the plain network. A tensor that only a form has is in the group of the one that it stands for; other
    names, such as those of masks and counters, which no recipe codes, are left out.

    >>> groups_of(["c.weight", "c.counter", "c.bias"], {"c.weight": "conv", "c.bias": "vector"})
    {'c.weight': 'conv', 'c.bias': 'vector'}
    """
    grouped = {}
    for name in names:
        path, _, leaf = name.rpartition(".")
        others = (f"{path}.{other}" if path else other for other in stands_for(leaf))
        group = next((groups[place] for place in (name, *others) if place in groups), None)
        if group is not None:
            grouped[name] = group
    return grouped
