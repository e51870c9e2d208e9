"""The connections of a plan between two layers: drawn from its seed, the same on every machine.

Whether two places are connected is decided by integers alone: a hash of the seed and their coordinates against the
density at their distance. So a file holds the plan, and no mask.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.connections.planned_layer import MAX_CONNECTIONS, Ints, PlannedLayer, Shape

__all__ = ["Connections", "check_fits", "connect", "foreseen", "mask"]

Bools: TypeAlias = npt.NDArray[np.bool_]


class Connections(NamedTuple):
    """All connections of a layer, in ascending order of output, then input.

    `outputs` and `inputs`, int64 (n,), are places in the flattened layers. `weights`, int64 (n,), says which value a
    connection has: first come the values of the kernel, an array of `kernel_shape`, flattened (none where that is ()),
    then `n_links` others. `kernel_shape` is (channels, channels of a group, *places); with a period above 1 the
    channels of the first place of the period come first, then those of the second, and so on.
    """

    outputs: Ints
    inputs: Ints
    weights: Ints
    kernel_shape: Shape
    n_links: int

    @property
    def n_kernel(self) -> int:
        """How many values the kernel has."""
        return math.prod(self.kernel_shape) if self.kernel_shape else 0


def mask(plan: ConnectionPlan, out_shape: Shape, in_shape: Shape) -> Bools:
    """Which outputs are connected to which inputs: bool (product of out_shape, product of in_shape).

    Arguments and errors are those of `connect`.

    >>> mask(ConnectionPlan(kernel=3), (1, 4), (1, 4)).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 1, 0],
           [0, 1, 1, 1],
           [0, 0, 1, 1]])
    """
    connections = connect(plan, out_shape, in_shape)
    matrix = np.zeros((math.prod(out_shape), math.prod(in_shape)), np.bool_)
    matrix[connections.outputs, connections.inputs] = True
    return matrix


def check_fits(plan: ConnectionPlan, out_shape: Shape, in_shape: Shape) -> None:
    """Refuse what `connect` refuses without drawing anything, the same arguments with the same errors."""
    PlannedLayer(plan, out_shape, in_shape).check()


def foreseen(plan: ConnectionPlan, out_shape: Shape, in_shape: Shape) -> tuple[Shape, int]:
    """The shape of the kernel, () for none, and a number of links that a plan hardly has fewer of; nothing is drawn.

    Arguments and errors are those of `connect`. A sum of independent X ≥ 0 is t below its mean with a chance of at most
    exp(-t² / (2·Σ E[X²])) (Maurer, 2003); here that is e^-50.

    >>> foreseen(ConnectionPlan(kernel=3, near=1.0, decay=1.0), (4, 28, 28), (1, 28, 28))
    ((4, 1, 3, 3), 10965)
    """
    layer = PlannedLayer(plan, out_shape, in_shape)
    layer.check()
    mean, squares = 0.0, 0.0
    for phase in layer.every_phase:
        number, each = layer.links_to_come(phase)
        mean += float((number * each).sum())
        squares += float((number * each**2).sum())
    return layer.kernel_shape, max(math.floor(mean - 10 * math.sqrt(squares)), 0)


def connect(plan: ConnectionPlan, out_shape: Shape, in_shape: Shape, *, kernel: bool = True) -> Connections:
    """The connections of a plan.

    Args:
        plan: The plan.
        out_shape, in_shape: (channels, *places) of both layers, with 0 to 2 spatial axes. Without axes everything is at
            distance 0, and in the kernel if there is one.
        kernel: Whether to list the connections of a shared kernel (its values are counted in any case).

    Raises:
        ConfigError: Shapes that do not go together or do not fit the plan, or more connections than `MAX_CONNECTIONS`.
    """
    layer = PlannedLayer(plan, out_shape, in_shape)
    layer.check()
    parts, links = list[tuple[Ints, Ints, Ints]](), layer.n_kernel
    for phase in layer.every_phase:
        entries = layer.entries(phase, kernel=kernel or not plan.shared)
        outputs, inputs, entry_numbers = layer.placed(entries, phase)
        used = np.bincount(entry_numbers, minlength=len(entries.values)) > 0
        fresh = used & (entries.values < 0)
        values = entries.values.copy()
        values[fresh] = links + np.arange(np.count_nonzero(fresh))
        links += int(np.count_nonzero(fresh))
        parts.append((outputs, inputs, values[entry_numbers]))
        if sum(len(part[0]) for part in parts) > MAX_CONNECTIONS:
            raise layer.too_large("connections", MAX_CONNECTIONS)
    outputs, inputs, weights = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(outputs * math.prod(in_shape) + inputs)  # no two are equal
    if not plan.shared:
        return Connections(outputs[order], inputs[order], np.arange(len(order)), (), len(order))
    return Connections(outputs[order], inputs[order], weights[order], layer.kernel_shape, links - layer.n_kernel)
