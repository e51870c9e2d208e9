"""Weights predicted from their coordinates: what the model finds, that it wins only where it pays, and bad input."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from laplace_weights import laplace

from evocompress.codecs import Cost, Record, Writer, read, try_codec
from evocompress.codecs.codec import Codec, SideReader, Stage, varint
from evocompress.codecs.coordinates import Coordinates, coordinate_shape
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.entropy import State
from evocompress.codecs.lowrank import LowRank
from evocompress.codecs.trellis import Trellis
from evocompress.errors import CodecError, FormatError

Floats = npt.NDArray[np.float64]

CODEC, PLAIN = Codec((Coordinates(), DeadZone())), Codec((DeadZone(),))


def waves(*shape: int) -> Floats:
    """A function of coordinates alone: a sum of a few slow waves, each along all axes."""
    axes = [(np.arange(n) + 0.5) / n for n in shape]
    grids = np.meshgrid(*axes, indexing="ij")
    return sum((np.prod([np.cos(np.pi * k * g) for g in grids], axis=0) / (k + 1) for k in range(3)), np.zeros(shape))


def images(outputs: int, side: int, channels: int = 1) -> Floats:
    """A dense layer whose outputs each look at their own blurred blob in an image of several channels."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:side, :side]
    found = np.empty((outputs, channels, side, side))
    for o, c in itertools.product(range(outputs), range(channels)):
        cy, cx, sign = rng.uniform(0, side, 2).tolist() + [rng.choice([-1, 1])]
        found[o, c] = sign * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (0.3 * side) ** 2)
    return found.reshape(outputs, -1)


def model_of(x: Floats, rate_weight: float, codec: Codec = CODEC) -> list[int]:
    """The numbers that the stage wrote: flag, side (of matrices), orders."""
    side = SideReader(codec.encode(x, Cost(rate_weight)).side)
    if not side.integer(0, 1):
        return [0]
    return [1] + [side.integer(0, 1 << 20) for _ in range(3 if x.ndim < 2 else 5 if x.ndim == 2 else x.ndim)]


def score(x: Floats, rate_weight: float, codec: Codec) -> float:
    return try_codec(codec, x, Cost(rate_weight), State()).score


@pytest.mark.parametrize("shape", [(300,), (40, 50), (16, 8, 3, 3), (6, 5, 4, 3, 2)], ids=str)
def test_a_function_of_coordinates_costs_its_coefficients(shape: tuple[int, ...]) -> None:
    x = waves(*shape) + laplace(*shape, scale=1e-4)
    with_model, without = (try_codec(codec, x, Cost(1e-5), State()) for codec in (CODEC, PLAIN))
    assert with_model.bits < 0.4 * without.bits and with_model.score < without.score
    assert np.abs(CODEC.decode(with_model.coded, shape) - x).max() < 0.02


@pytest.mark.parametrize("shape", [(300,), (40, 50), (32, 16, 3, 3)], ids=str)
def test_noise_is_not_predicted_and_costs_one_byte_more(shape: tuple[int, ...]) -> None:
    x = laplace(*shape)
    coded, plain = (codec.encode(x, Cost(1e-5)) for codec in (CODEC, PLAIN))
    assert coded.side == varint(0) + plain.side
    assert all(np.array_equal(a.symbols, b.symbols) for a, b in zip(coded.planes, plain.planes, strict=True))


@pytest.mark.parametrize("rate_weight", [1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("kind", ["noise", "waves", "images", "both"])
def test_it_never_scores_worse_by_more_than_a_byte(kind: str, rate_weight: float) -> None:
    arrays = {"noise": laplace(30, 49), "waves": waves(30, 49), "images": images(30, 7)}
    x = arrays.get(kind, arrays["images"] + arrays["noise"])
    assert score(x, rate_weight, CODEC) <= score(x, rate_weight, PLAIN) + 8.01 * rate_weight


def test_dense_inputs_are_taken_for_images_where_they_are() -> None:
    x = images(40, 14, 2) + laplace(40, 392, scale=0.01)
    flag, side, outputs, channels, height, width = model_of(x, 3e-3)
    assert (flag, side, outputs, channels) == (1, 14, 40, 2)  # outputs and channels are for themselves
    assert 1 < height < 14 and 1 < width < 14
    assert score(x, 3e-3, CODEC) < 0.6 * score(x, 3e-3, PLAIN)
    shuffled = x[:, np.random.default_rng(0).permutation(392)]
    assert score(shuffled, 3e-3, CODEC) > 1.3 * score(x, 3e-3, CODEC)


def test_another_stage_codes_the_residual() -> None:
    x = images(60, 14) + laplace(60, 1) * laplace(1, 196, seed=1) * 40
    chains: list[tuple[Stage, ...]] = [(LowRank(),), (Coordinates(),), (Coordinates(), LowRank())]
    low, model, both = (score(x, 1e-3, Codec((*chain, DeadZone()))) for chain in chains)
    assert both < 0.95 * min(low, model)


def test_the_order_is_a_limit() -> None:
    x = images(40, 14)
    assert max(model_of(x, 1e-4, Codec((Coordinates(order=3), DeadZone())))[4:]) <= 3
    assert max(model_of(x, 1e-4)[4:]) > 3


@pytest.mark.parametrize("order", [0, -1, (1 << 20) + 1])
def test_an_order_out_of_range_is_refused(order: int) -> None:
    with pytest.raises(CodecError, match=r"order is .* must lie in \[1"):
        Coordinates(order=order)


SHAPES = [
    (),
    (0,),
    (1,),
    (300,),
    (0, 3),
    (4, 0),
    (1, 1),
    (9, 1),
    (1, 9),
    (16, 27),
    (2, 0, 3),
    (8, 3, 3, 3),
    (2, 3, 2, 2, 3),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [DeadZone(), Trellis()], ids=lambda stage: stage.id)
def test_a_file_brings_every_shape_back(shape: tuple[int, ...], last: DeadZone | Trellis) -> None:
    codec = Codec((Coordinates(), last))
    for x in (laplace(*shape), waves(*shape), np.zeros(shape), np.full(shape, 1e140)):
        coded = codec.encode(x, Cost(1e-5))
        side = SideReader(coded.side)
        layouts = codec.layout(side, shape)
        side.finish()
        assert [(*p.symbols.shape, p.kind) for p in coded.planes] == [tuple(layout) for layout in layouts]
        writer = Writer()
        writer.add(Record("x", "float64", shape, codec, coded))
        y = read(writer.finish())["x"]
        assert y.shape == shape and y.tobytes() == codec.decode(coded, shape).tobytes()
        assert np.abs(y - x).max(initial=0.0) <= max(0.05, 1e-6 * np.abs(x).max(initial=0.0))


def test_memory_layout_does_not_change_the_symbols() -> None:
    x = images(40, 14)
    whole = np.zeros((80, 392))
    whole[::2, ::2] = x
    first = CODEC.encode(x, Cost(1e-4))
    for other in (np.asfortranarray(x), whole[::2, ::2]):
        coded = CODEC.encode(other, Cost(1e-4))
        assert coded.side == first.side
        assert all(np.array_equal(a.symbols, b.symbols) for a, b in zip(coded.planes, first.planes, strict=True))


@pytest.mark.parametrize(
    ("shape", "numbers", "message"),
    [
        ((4, 9), [2], r"outside \[0, 1\]"),
        ((4, 9), [1, 2, 1, 1, 1, 1], "no images of 2"),
        ((4, 9), [1, 4], r"outside \[0, 3\]"),
        ((4, 10), [1, 3, 1, 1, 1, 1], "no images of 3"),
        ((4, 9), [1, 0, 5, 1], r"outside \[1, 4\]"),
        ((4, 9), [1, 0, 0, 1], r"outside \[1, 4\]"),
        ((4, 9), [1, 3, 1, 1, 4, 1], r"outside \[1, 3\]"),
        ((4, 2, 3, 3), [1, 4, 2, 3], "ends too soon"),
        ((0, 3), [1, 0, 1, 1], "no coordinates"),
        ((), [1], "no coordinates"),
        ((4, 9), [], "ends too soon"),
    ],
)
def test_damaged_side_information_is_refused(shape: tuple[int, ...], numbers: list[int], message: str) -> None:
    data = b"".join(map(varint, numbers))
    for attempt in (CODEC.layout, lambda side, shape: CODEC.decode_from(iter([]), side, shape)):
        with pytest.raises(FormatError, match=message):
            attempt(SideReader(data), shape)


def test_coordinates_of_images() -> None:
    assert coordinate_shape((500, 784), 14) == (500, 4, 14, 14)
