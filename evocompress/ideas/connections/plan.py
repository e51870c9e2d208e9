"""A plan of connections: which weights a layer may have, described by a few genes and a seed instead of a mask.

Every output looks at a window of inputs (the kernel, full), at inputs around it with a density that falls with
distance, and at some far away, as the short and the few long fibres of cortex do (Watts and Strogatz, 1998, show what
few long links are worth). The plan is repeated over space. A convolution is the plan with a kernel and nothing else; a
locally connected layer is one whose weights are not shared; a tiled convolution (Ngiam et al., 2010) has a period above
1. `drawing.py` says which connections a plan has between two layers.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeAlias

from evocompress.codecs.codec import SideReader, varint
from evocompress.errors import ConfigError, FormatError

__all__ = ["UNITS", "ConnectionPlan", "Scalar"]

Scalar: TypeAlias = bool | int | float | str

#: Shares are kept in millionths, so that genome, file and connections agree to the last bit.
UNITS = 1_000_000

_VERSION = 1
_SHARES = ("near", "decay", "far")
_LARGEST = 1 << 16
#: Least and largest value of every gene that is a whole number.
_BOUNDS: dict[str, tuple[int, int]] = {
    "kernel": (0, _LARGEST),
    "period": (0, _LARGEST),
    "seed": (0, (1 << 32) - 1),
    "kernel_width": (0, _LARGEST),
    "stride": (0, _LARGEST),
    "padding": (0, _LARGEST),
    "dilation": (1, _LARGEST),
    "groups": (1, _LARGEST),
}


@dataclasses.dataclass(frozen=True)
class ConnectionPlan:
    """The genes of a plan; shares (near, decay, far) are rounded to whole millionths.

    Distance is counted in inputs, from the kernel's window: 0 in the window, 1 in the ring around it (its corners too).
    In the window everything is connected; elsewhere an input at distance d is connected with probability
    near·decay^d + far. Without a kernel the window is one place, and nothing is full.

    Args:
        kernel: Length of the window along each axis, in inputs; 0: none.
        near: Density at distance 0, in [0, 1].
        decay: What the density is multiplied with at each step of distance, in [0, 1].
        far: Probability of a connection at any distance, in [0, 1].
        period: The plan is the same at outputs that are so many places apart along each axis; 1: at all of them;
            0: at no two of them.
        shared: Whether the outputs that have the same plan have the same weights too (as in a convolution).
        seed: What connections are drawn from, in [0, 2^32).
        kernel_width: The window's length along the second axis, where it is another one; 0: `kernel`.
        stride: Inputs from one output's window to the next one's; 0: windows are spread evenly, centred.
        padding: Inputs by which the first window begins before the first input; only with a stride.
        dilation: Inputs from one place of the kernel to the next.
        groups: Channels come in so many groups; the kernel is full within a group, and connects no others.

    Raises:
        ConfigError: A gene out of its range, or two that exclude each other.

    >>> plan = ConnectionPlan(kernel=3, near=0.2, decay=0.5, far=0.001)
    >>> plan.density(1), len(plan.to_bytes())
    (0.101, 7)
    """

    kernel: int = 3
    near: float = 0.0
    decay: float = 0.5
    far: float = 0.0
    period: int = 1
    shared: bool = True
    seed: int = 0
    kernel_width: int = 0
    stride: int = 0
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number in [{low}, {high}].")
        for name in _SHARES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value!r}; it is a share and must be a number in [0, 1], such as 0.1.")
            object.__setattr__(self, name, round(value * UNITS) / UNITS)
        if not isinstance(self.shared, bool):
            raise ConfigError(f"shared is {self.shared!r}; it must be True or False.")
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.shared and self.period == 0:
            raise ConfigError(
                "shared is True and period is 0; only outputs whose plan repeats can share weights. "
                "Set period to 1 or more, or shared to False."
            )
        if self.padding and not self.stride:
            raise ConfigError(
                f"padding is {self.padding} and stride is 0; without a stride windows are centred by themselves. "
                "Set stride to 1 or more, or padding to 0."
            )
        if self.kernel_width and not self.kernel:
            raise ConfigError(f"kernel_width is {self.kernel_width} and kernel is 0; set both, or kernel_width to 0.")
        if not (self.kernel or self.near or self.far):
            raise ConfigError("kernel, near and far are all 0: the plan connects nothing. Set one of them.")

    def thresholds(self, distances: int) -> list[int]:
        """Density outside the kernel at distance 0, 1, …, distances - 1, in millionths: integers all the way."""
        near, decay, far = (round(getattr(self, name) * UNITS) for name in _SHARES)
        densities = []
        for _ in range(distances):
            densities.append(min(near + far, UNITS))
            near = near * decay // UNITS
        return densities

    def density(self, distance: int) -> float:
        """Share of the inputs at this distance that are connected, where they are not in the kernel.

        Raises:
            ConfigError: The distance is no whole number from 0 on.
        """
        if not isinstance(distance, int) or isinstance(distance, bool) or distance < 0:
            raise ConfigError(f"distance is {distance!r}; it counts inputs and must be a whole number, 0 or more.")
        # By then near has fallen to 0, as every step takes off a millionth at least; or it never falls.
        return self.thresholds(min(distance, UNITS) + 1)[-1] / UNITS

    def reach(self, limit: int) -> int:
        """The largest distance below `limit` at which there may be a connection; -1: at none outside the kernel."""
        if self.far:
            return limit - 1
        return max((d for d, threshold in enumerate(self.thresholds(limit)) if threshold), default=-1)

    def window(self, axes: int) -> tuple[int, ...]:
        """Places of the kernel along each of the spatial axes, 0 of them to 2; zeros where there is no kernel.

        Raises:
            ConfigError: `kernel_width` is set, and there is no second axis.
        """
        if self.kernel_width and axes < 2:
            raise ConfigError(
                f"kernel_width is {self.kernel_width}, and the layer has {axes} spatial axes; set it to 0."
            )
        return (self.kernel, self.kernel_width or self.kernel)[:axes]

    def out_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """How many windows there are along each axis of this many inputs; without a stride as many as inputs.

        >>> ConnectionPlan(kernel=3, stride=2, padding=1).out_size((28, 27))
        (14, 14)
        """
        if not self.stride:
            return size
        free = (n + 2 * self.padding - self.hull(k) for n, k in zip(size, self.window(len(size)), strict=True))
        return tuple(max(left // self.stride + 1, 0) for left in free)

    def hull(self, places: int) -> int:
        """Inputs from the first to the last of a window that has so many places of the kernel along an axis."""
        return self.dilation * (places - 1) + 1 if places else 1

    def genes(self) -> dict[str, Scalar]:
        """All genes by name, flat, as a genome carries them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_genes(cls, genes: Mapping[str, Scalar]) -> ConnectionPlan:
        """The inverse of `genes`; genes that are missing have their default.

        Raises:
            ConfigError: An unknown name (the message has the nearest known one), or a value out of its range.

        >>> ConnectionPlan.from_genes({"kernel": 5, "stride": 2}).window(2)
        (5, 5)
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in genes:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"A plan of connections has no gene {name!r}; it has {', '.join(names)}.{hint}")
        values: dict[str, Any] = dict(genes)
        return cls(**values)

    def to_bytes(self) -> bytes:
        """The plan in a few bytes: a version, which genes are not at their default, and these, as varints.

        >>> ConnectionPlan().to_bytes().hex(), ConnectionPlan(kernel=5).to_bytes().hex()
        ('0100', '01020a')
        """
        marks, values = 0, b""
        for place, field in enumerate(dataclasses.fields(self)):
            value = getattr(self, field.name)
            if value != field.default:
                marks |= 1 << place
                values += varint(round(value * UNITS) if field.name in _SHARES else int(value))
        return bytes([_VERSION]) + varint(marks) + values

    @classmethod
    def from_bytes(cls, data: bytes) -> ConnectionPlan:
        """The inverse of `to_bytes`.

        Raises:
            FormatError: Bytes that `to_bytes` cannot have made.
        """
        fields = dataclasses.fields(cls)
        if data[:1] != bytes([_VERSION]):
            raise FormatError(f"A plan of connections begins with {data[:1].hex() or 'nothing'}, not with version 01.")
        reader, genes = SideReader(data[1:]), dict[str, Scalar]()
        marks = reader.integer(0, (1 << len(fields)) - 1)
        for place, field in enumerate(fields):
            if marks >> place & 1:
                genes[field.name] = _gene(field.name, reader)
        reader.finish()
        try:
            plan = cls.from_genes(genes)
        except ConfigError as error:
            raise FormatError(f"A plan of connections is damaged: {error}") from error
        if plan.to_bytes() != data:
            raise FormatError("A plan of connections is damaged: it is not in its shortest form.")
        return plan


def _gene(name: str, reader: SideReader) -> Scalar:
    """One gene that is not at its default."""
    if name in _SHARES:
        return reader.integer(0, UNITS) / UNITS
    if name == "shared":
        return bool(reader.integer(0, 1))
    return reader.integer(*_BOUNDS[name])
