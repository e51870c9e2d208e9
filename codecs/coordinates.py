"""Coordinate prediction of weights: a small model from coordinates to weight, and what it leaves to be coded.

Indirect encodings give a network's weights as a function of the coordinates of what they connect (compositional pattern
producing networks: Stanley, D'Ambrosio and Gauci, 2009). Here the function is a sum of products of low-order cosines
of output, input and kernel position (Koutník, Gomez and Schmidhuber, 2010, evolve networks in such coefficients); and
because channels often come in no order, an output or input may have coefficients of its own. These products are
orthonormal on the grid of weights, so the least-squares fit is the low-order corner of a discrete cosine transform, and
squared errors of coefficients are squared errors of weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Shape, SideReader, varint
from evocompress.codecs.dct import transform_numbers
from evocompress.codecs.entropy import BitCounter, State, Symbols
from evocompress.errors import CodecError, FormatError

__all__ = ["Coordinates", "coordinate_shape"]

_BITS_PER_COEFFICIENT = 1.5  # what one is taken to cost beside its size when their number is chosen
_LEAST_SIDE = 3  # of images that the inputs of a dense layer may be
_CHANNEL_AXES = 2
_TINY = 1e-300

Ints = npt.NDArray[np.int64]


class _Model(NamedTuple):
    """What the side information says: the side of the inputs' images (0: none), and how many orders along each axis.

    An axis of channels (the first two) that has all of them has no cosines: each channel is for itself. Without any
    orders (the tuple is empty) there is no model.
    """

    side: int
    orders: Shape

    @property
    def coefficient_shape(self) -> Shape:
        """How coefficients lie for the rest of the chain: a matrix, with one row for each order of the outputs."""
        return (self.orders[0], math.prod(self.orders[1:])) if len(self.orders) > 1 else self.orders


_NONE = _Model(0, ())


def coordinate_shape(shape: Shape, side: int) -> Shape:
    """The axes of an array's coordinates: its own; with a side, channel, row and column instead of a matrix's columns.

    >>> coordinate_shape((500, 784), 28), coordinate_shape((20, 1, 5, 5), 0)
    ((500, 1, 28, 28), (20, 1, 5, 5))
    """
    return (shape[0], shape[1] // side**2, side, side) if side else shape


def _sides(shape: Shape) -> list[int]:
    """Sides of square images of which a matrix's columns may be one or more channels; 0 (they are none) comes first."""
    if len(shape) != 2:
        return [0]
    return [0] + [n for n in range(_LEAST_SIDE, math.isqrt(shape[1]) + 1) if shape[1] % n**2 == 0]


def _numbers(length: int, most: int) -> Ints:
    """Numbers of orders to try along an axis: 1, 2, 3, 4, 6, 8, 12, 16, … and the length, as far as `most`."""
    powers = [base << shift for shift in range(length.bit_length()) for base in (1, 2, 3)]
    return np.array(sorted({n for n in (*powers, length) if n <= min(length, most)}))


def _corners(values: Floats, numbers: list[Ints]) -> Floats:
    """Sums over the low-order corner of each choice of orders, of shape (choices of first axis, of second, …)."""
    for axis, choices in enumerate(numbers):
        kept = np.take(values, np.arange(choices[-1]), axis=axis)
        values = np.add.reduceat(kept, np.append(0, choices[:-1]), axis=axis).cumsum(axis=axis)
    return values


def _rate_distortion(variance: Floats, theta: float) -> Floats:
    """Squared error plus price·bits of a normal variable at the best distortion, which is `theta` or its variance.

    With D = θ = price/(2·ln 2) and ½·log2(variance/θ) bits that is θ·(1 + ln(variance/θ)) (Cover and Thomas, ch. 10).
    """
    return np.where(variance > theta, theta * (1 + np.log(np.maximum(variance, theta) / theta)), variance)


def _cosine_axes(grid: Shape, orders: Shape) -> tuple[int, ...]:
    """Axes of the coordinates along which there are cosines: kernel positions, and channels of which not all count."""
    return tuple(axis for axis, length in enumerate(grid) if axis >= _CHANNEL_AXES or orders[axis] < length)


def _guess(x: Floats, price: float, order: int) -> _Model:
    """The model that should save most, or none if none should."""
    theta = max(price / (2 * math.log(2)), _TINY)
    total = float((x**2).sum())
    least, best = x.size * float(_rate_distortion(np.array(total / x.size), theta)), _NONE
    for side in _sides(x.shape):
        grid = coordinate_shape(x.shape, side)
        for separate in itertools.product((False, True), repeat=min(len(grid), _CHANNEL_AXES)):
            if sum(separate) == len(grid):
                continue  # that is no model but the weights themselves
            alone = [axis < len(separate) and separate[axis] for axis in range(len(grid))]
            numbers = [np.array([n]) if single else _numbers(n, order) for n, single in zip(grid, alone, strict=True)]
            axes = [axis for axis, single in enumerate(alone) if not single]
            energy = np.asarray(scipy.fft.dctn(x.reshape(grid), axes=axes, norm="ortho")) ** 2
            each = _rate_distortion(energy, theta) + price * _BITS_PER_COEFFICIENT * (energy > theta)
            left = np.maximum(total - _corners(energy, numbers), 0.0) / x.size
            scores = x.size * _rate_distortion(left, theta) + _corners(each, numbers)
            place = np.unravel_index(int(scores.argmin()), scores.shape)
            if scores[place] < least:
                least = float(scores[place])
                best = _Model(side, tuple(int(choices[i]) for choices, i in zip(numbers, place, strict=True)))
    return best


def _predicted(coefficients: Floats, model: _Model, shape: Shape) -> Floats:
    """What the model says of an array of this shape."""
    grid = np.zeros(coordinate_shape(shape, model.side))
    grid[tuple(slice(n) for n in model.orders)] = coefficients.reshape(model.orders)
    axes = _cosine_axes(grid.shape, model.orders)
    return np.asarray(scipy.fft.idctn(grid, axes=axes, norm="ortho") if axes else grid, np.float64).reshape(shape)


def _read_model(side: SideReader, shape: Shape) -> _Model:
    if not side.integer(0, 1):
        return _NONE
    if 0 in shape or not shape:
        raise FormatError(f"A tensor of shape {shape} has no coordinates to be predicted from: the file is damaged.")
    image = side.integer(0, math.isqrt(shape[1])) if len(shape) == 2 else 0
    if image and (image < _LEAST_SIDE or shape[1] % image**2):
        raise FormatError(f"{shape[1]} inputs are no images of {image} × {image}: the file is damaged.")
    return _Model(image, tuple(side.integer(1, length) for length in coordinate_shape(shape, image)))


def _score(coded: Coded, x: Floats, cost: Cost, codec: Codec) -> float:
    """Squared error + price·bits, the bits as the first entropy coder counts them at the start of a file."""
    counter = BitCounter(State())
    for plane in coded.planes:
        counter.plane(plane.symbols, plane.kind, math.prod(x.shape[2:]))
    error = float(((codec.decode(coded, x.shape) - x) ** 2).sum())
    return error + cost.price * (counter.bits + 8.0 * len(coded.side))


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """W ≈ Σ c·cos·cos·… over up to `order` low orders along each axis; the c are coded, then what is left of W.

    How many orders an axis gets, which channels are for themselves, and whether a dense layer's inputs are taken for
    images, is what λ says should pay most. If coding the weights as they are scores better after all, that is done, for
    one byte more.
    """

    id: ClassVar[str] = "coordinates"
    number: ClassVar[int] = 25
    terminal: ClassVar[bool] = False

    order: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 1 << 20:
            raise CodecError(f"coordinates: order is {self.order}; it must lie in [1, {1 << 20}].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to coefficients and residual, or to itself."""
        x = np.ascontiguousarray(x, np.float64).reshape(x.shape)
        plain = rest.encode(x, cost)
        plain = Coded(plain.planes, varint(0) + plain.side)
        if x.size == 0 or x.ndim == 0:
            return plain
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # what overflows does not win
            model = _guess(x, cost.price, self.order)
            if not model.orders:
                return plain
            coded, codec = self._encode_with(model, x, cost, rest), Codec((self, *rest.stages))
            return coded if _score(coded, x, cost, codec) < _score(plain, x, cost, codec) else plain

    @staticmethod
    def _encode_with(model: _Model, x: Floats, cost: Cost, rest: Codec) -> Coded:
        grid = x.reshape(coordinate_shape(x.shape, model.side))
        grid = np.asarray(scipy.fft.dctn(grid, axes=_cosine_axes(grid.shape, model.orders), norm="ortho"))
        corner = grid[tuple(slice(n) for n in model.orders)].reshape(model.coefficient_shape)
        coefficients = rest.encode(corner, cost)
        decoded = rest.decode(coefficients, corner.shape)
        residual = rest.encode(x - _predicted(decoded, model, x.shape), cost)
        numbers = (1, model.side, *model.orders) if x.ndim == 2 else (1, *model.orders)
        side = b"".join(map(varint, numbers)) + coefficients.side + residual.side
        return Coded((*coefficients.planes, *residual.planes), side)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """Coefficients if there is a model, then the residual."""
        model = _read_model(side, shape)
        if model.orders:
            side.charge("numbers", transform_numbers(shape))
        coefficients = rest.layout(side, model.coefficient_shape) if model.orders else []
        return coefficients + rest.layout(side, shape)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """What the model says, plus the residual."""
        model = _read_model(side, shape)
        if not model.orders:
            return rest.decode_from(planes, side, shape)
        coefficients = rest.decode_from(planes, side, model.coefficient_shape)
        return _predicted(coefficients, model, shape) + rest.decode_from(planes, side, shape)
