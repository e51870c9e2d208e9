"""The connections of a plan between two layers: drawn from its seed, the same on every machine.

Whether two places are connected is decided by integers alone: a hash of the seed and their coordinates against the
density at their distance. So a file holds the plan, and no mask. They are drawn phase by phase (`PlannedLayer`), which
first says how many there will be, then listed for the whole layer (`connect`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.errors import ConfigError
from evocompress.ideas.connections.hashing import hashed, hashed_rows
from evocompress.ideas.connections.plan import UNITS, ConnectionPlan

__all__ = [
    "MAX_CONNECTIONS",
    "MAX_PAIRS",
    "Connections",
    "Entries",
    "Ints",
    "PlannedLayer",
    "Shape",
    "check_fits",
    "checked_plan",
    "connect",
    "foreseen",
    "lengths",
    "mask",
    "origins",
]


Shape: TypeAlias = tuple[int, ...]
Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

#: Connections that a layer may have, and values of its kernel, inputs and outputs; and pairs of places that may be
#: looked at to find connections: a few GB, a minute.
MAX_CONNECTIONS, MAX_PAIRS = 1 << 26, 1 << 29

_HALF, _UNITS = np.uint64(32), np.uint64(UNITS)


def checked_plan(plan: ConnectionPlan) -> ConnectionPlan:
    """The plan.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(plan, ConnectionPlan):
        raise ConfigError(
            f"plan is {plan!r}; it must be a ConnectionPlan, such as ConnectionPlan(kernel=3). "
            "ConnectionPlan.from_genes makes one of a dict."
        )
    return plan


def lengths(name: str, value: Sequence[int], rule: str, counts: Container[int]) -> tuple[int, ...]:
    """Whole numbers from 1 on as a tuple.

    Args:
        name, value: The argument.
        rule: What it must be.
        counts: How many numbers there may be.

    Raises:
        ConfigError: It is something else.

    >>> lengths("in_size", [28, 28], "(height, width)", (2,))
    (28, 28)
    """
    fits = isinstance(value, tuple | list) and len(value) in counts
    if not fits or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value):
        raise ConfigError(f"{name} is {value!r}; it must be {rule}, each 1 or more.")
    return tuple(value)


def origins(plan: ConnectionPlan, outputs: int, inputs: int, places: int) -> Ints:
    """Where the window of each output begins along one axis, int64 (outputs,); before the first input it is negative.

    Args:
        plan: The plan.
        outputs, inputs: Places of the two layers along this axis.
        places: Places of the kernel along it.

    Raises:
        ConfigError: With the plan's stride there are fewer outputs than that.
    """
    hull, positions = plan.hull(places), np.arange(outputs, dtype=np.int64)
    if not plan.stride:  # the centre of output y is at (2·y + 1)·inputs / (2·outputs) - 1/2; rounded down
        return ((2 * positions + 1) * inputs - hull * outputs) // (2 * outputs)
    most = max((inputs + 2 * plan.padding - hull) // plan.stride + 1, 0)
    if outputs > most:
        raise ConfigError(
            f"A layer has {outputs} outputs on an axis of {inputs} inputs; kernel {places}, stride {plan.stride}, "
            f"padding {plan.padding} and dilation {plan.dilation} make {most}. Stride 0 spreads windows evenly."
        )
    return positions * plan.stride - plan.padding


def _meetings_along_axis(starts: Ints, inputs: int, along: Ints) -> Ints:
    """At how many of the windows, whose starts ascend, each of some offsets along an axis meets an input."""
    return np.searchsorted(starts, inputs - along) - np.searchsorted(starts, -along)


class Entries(NamedTuple):
    """What the outputs of a phase are connected to, wherever they are.

    Output and input channels, int64 (n,); offsets from the window's origin, int64 (n, axes); and which value of a
    shared kernel each has, int64 (n,), -1 where it is none.
    """

    channels: Ints
    sources: Ints
    offsets: Ints
    values: Ints


@dataclasses.dataclass(frozen=True)
class PlannedLayer:
    """A plan between two shapes. A *phase* is a place within the period; outputs of one phase have the same plan."""

    plan: ConnectionPlan
    out_shape: Shape
    in_shape: Shape

    def check(self) -> None:
        """Refuse, with a ConfigError, shapes that do not go together or do not fit the plan."""
        checked_plan(self.plan)
        for name, shape in (("out_shape", self.out_shape), ("in_shape", self.in_shape)):
            lengths(name, shape, "(channels,) and up to two lengths", range(1, 4))
            if shape[0] % self.plan.groups:
                raise ConfigError(
                    f"{name} has {shape[0]} channels and groups is {self.plan.groups}; channels must be a multiple."
                )
        if len(self.out_shape) != len(self.in_shape):
            raise ConfigError(
                f"out_shape is {self.out_shape} and in_shape is {self.in_shape}; both must have as many axes."
            )
        numbers = {"inputs": math.prod(self.in_shape), "outputs": math.prod(self.out_shape)}
        for noun, number in (numbers | {"values of the kernel": self.n_kernel}).items():
            if number > MAX_CONNECTIONS:
                raise self.too_large(noun, MAX_CONNECTIONS)

    def too_large(self, noun: str, limit: int) -> ConfigError:
        """The error for more of something than there may be."""
        return ConfigError(
            f"A plan from {self.in_shape} to {self.out_shape} makes more than {limit} {noun}. Make kernel, far, near "
            "or decay smaller, the period 1, or the layer smaller."
        )

    @functools.cached_property
    def window(self) -> Shape:
        """Places of the kernel along each axis."""
        return self.plan.window(len(self.in_shape) - 1)

    @functools.cached_property
    def starts(self) -> list[Ints]:
        """Along each axis, the `origins` of all outputs."""
        axes = zip(self.out_shape[1:], self.in_shape[1:], self.window, strict=True)
        return [origins(self.plan, *axis) for axis in axes]

    @property
    def phases(self) -> Shape:
        """How many phases there are along each axis."""
        return tuple(min(self.plan.period or n, n) for n in self.out_shape[1:])

    @property
    def every_phase(self) -> Iterator[Shape]:
        """All phases, in C order."""
        return itertools.product(*map(range, self.phases))

    @property
    def pairs(self) -> int:
        """Pairs of an output channel and an input channel."""
        return self.out_shape[0] * self.in_shape[0]

    @property
    def group_channels(self) -> int:
        """Input channels of a group."""
        return self.in_shape[0] // self.plan.groups

    @property
    def kernel_shape(self) -> Shape:
        """The shape of the shared kernel, as `Connections` has it; () for none."""
        if not (self.plan.shared and self.plan.kernel):
            return ()
        return (math.prod(self.phases) * self.out_shape[0], self.group_channels, *self.window)

    @property
    def n_kernel(self) -> int:
        """How many values the shared kernel has."""
        return math.prod(self.kernel_shape) if self.kernel_shape else 0

    def places(self, phase: Shape) -> list[Ints]:
        """Along each axis, the outputs of a phase."""
        return [np.arange(p, n, step) for p, n, step in zip(phase, self.out_shape[1:], self.phases, strict=True)]

    def entries(self, phase: Shape, *, kernel: bool) -> Entries:
        """What the outputs of a phase are connected to, with what is of the kernel or without."""
        offsets, place, thresholds = self._densities(phase)
        shares = np.where(place < 0, thresholds / UNITS, kernel)
        if (
            self.pairs * float((self._meeting_counts(phase, offsets) * shares).sum()) > MAX_CONNECTIONS
        ):  # as is to be expected
            raise self.too_large("connections", MAX_CONNECTIONS)
        parts = [self._of_channel(channel, phase, offsets, place, thresholds) for channel in range(self.out_shape[0])]
        channels = np.repeat(np.arange(self.out_shape[0]), [len(part[0]) for part in parts])
        sources, offset_numbers, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        entries = Entries(channels, sources, offsets[offset_numbers], values)
        return entries if kernel else Entries(*(column[values < 0] for column in entries))

    def links_to_come(self, phase: Shape) -> tuple[Floats, Ints]:
        """At each offset, how many links are to be expected, or somewhat fewer; and how often each is counted."""
        offsets, place, thresholds = self._densities(phase)
        full = 0 if self.plan.shared else 1 / self.plan.groups
        meetings = self._meeting_counts(phase, offsets)
        return self.pairs * np.where(place < 0, thresholds / UNITS, full), meetings**0 if self.plan.shared else meetings

    def _densities(self, phase: Shape) -> tuple[Ints, Ints, npt.NDArray[np.uint64]]:
        """Offsets, the place of the kernel that each is (-1: none), and its density outside of that in millionths."""
        offsets = self._offsets(phase)
        place, distance = self._kernel_places(offsets)
        thresholds = self.plan.thresholds(int(distance.max(initial=0)) + 1)
        return offsets, place, np.array(thresholds, np.uint64)[distance]

    def _meeting_counts(self, phase: Shape, offsets: Ints) -> Ints:
        """At how many outputs of the phase each offset meets an input."""
        meetings = np.ones(len(offsets), np.int64)
        for start, positions, inputs, along in zip(
            self.starts, self.places(phase), self.in_shape[1:], offsets.T, strict=True
        ):
            meetings *= _meetings_along_axis(start[positions], inputs, along)
        return meetings

    def _offsets(self, phase: Shape) -> Ints:
        """Offsets (n, axes) that meet an input at some output of the phase and may be connected."""
        ranges = []
        for start, positions, inputs, places in zip(
            self.starts, self.places(phase), self.in_shape[1:], self.window, strict=True
        ):
            hull = self.plan.hull(places)
            low, high = -int(start[positions].max()), inputs - 1 - int(start[positions].min())
            reach = max(self.plan.reach(max(-low, high - hull + 1, 0) + 1), 0)
            along = np.arange(max(low, -reach), min(high, hull - 1 + reach) + 1)
            ranges.append(along[_meetings_along_axis(start[positions], inputs, along) > 0])  # a long stride leaves gaps
        if self.pairs * math.prod(map(len, ranges)) * math.prod(self.phases) > MAX_PAIRS:
            raise self.too_large("pairs of places to look at", MAX_PAIRS)
        grid = np.meshgrid(*ranges, indexing="ij")
        return np.stack(grid, axis=-1).reshape(-1, len(grid)) if grid else np.zeros((1, 0), np.int64)

    def _kernel_places(self, offsets: Ints) -> tuple[Ints, Ints]:
        """Which place of the kernel each offset is, in C order (-1: none), and how far from its window it lies."""
        place = np.zeros(len(offsets), np.int64)
        distance, inside = np.zeros_like(place), np.full(len(offsets), self.plan.kernel > 0)
        for along, places in zip(offsets.T, self.window, strict=True):
            hull = self.plan.hull(places)
            distance = np.maximum(distance, np.maximum(-along, along - hull + 1))
            inside &= (along >= 0) & (along < hull) & (along % self.plan.dilation == 0)
            place = place * places + along // self.plan.dilation
        return np.where(inside, place, -1), distance

    def _of_channel(
        self, channel: int, phase: Shape, offsets: Ints, place: Ints, thresholds: npt.NDArray[np.uint64]
    ) -> tuple[Ints, Ints, Ints]:
        """Of one output channel: input channels, numbers of offsets, and values of the kernel (-1: none)."""
        first = channel // (self.out_shape[0] // self.plan.groups) * self.group_channels
        sources = np.arange(self.in_shape[0])
        same_group = (sources >= first) & (sources < first + self.group_channels)
        connected = full = same_group[:, None] & (place >= 0)
        if thresholds.any():
            hashes = hashed_rows((self.plan.seed, *phase, channel), offsets)
            draws = (hashed(hashes, sources[:, None]) >> _HALF) * _UNITS >> _HALF  # in millionths
            connected = full | (draws < thresholds)
        into, offset_numbers = np.nonzero(connected)
        if not self.kernel_shape:
            return into, offset_numbers, np.full(len(into), -1)
        row = int(np.ravel_multi_index(phase, self.phases)) * self.out_shape[0] if phase else 0
        values = ((row + channel) * self.group_channels + into - first) * math.prod(self.window) + place[offset_numbers]
        return into, offset_numbers, np.where(full[into, offset_numbers], values, -1)

    def placed(self, entries: Entries, phase: Shape) -> tuple[Ints, Ints, Ints]:
        """The connections that a phase really has: outputs, inputs, and which entry each comes from."""
        outputs, inputs, entry_numbers = entries.channels, entries.sources, np.arange(len(entries.values))
        for axis, places in enumerate(self.places(phase)):
            into = self.starts[axis][places][:, None] + entries.offsets[entry_numbers, axis]
            position, kept = np.nonzero((into >= 0) & (into < self.in_shape[axis + 1]))
            outputs = outputs[kept] * self.out_shape[axis + 1] + places[position]
            inputs = inputs[kept] * self.in_shape[axis + 1] + into[position, kept]
            entry_numbers = entry_numbers[kept]
        return outputs, inputs, entry_numbers


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
