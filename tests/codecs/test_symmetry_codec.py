"""The stage `symmetry`: snapped kernels, free coefficients, damaged heads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from laplace_weights import laplace
from symmetric_kernels import ALL, CODEC, Floats, snapped

from evocompress.codecs import symmetry_groups
from evocompress.codecs.choice import Trial, try_codec
from evocompress.codecs.codec import Codec, Coded, Cost, Plane, SideReader, varint
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.entropy import State
from evocompress.codecs.sensitivity import Sensitivity
from evocompress.codecs.symmetry import Ints, Symmetry, _residual, kernel_shape
from evocompress.codecs.symmetry_groups import SYMMETRIES, free_numbers, group, groups, orbits
from evocompress.codecs.trellis import Trellis
from evocompress.errors import CodecError, FormatError


def head_of(coded: Coded) -> list[int]:
    """Numbers of the symmetries used, then how many kernels are full and how many coefficients free."""
    side = SideReader(coded.side)
    used = [side.integer(0, 30) for _ in range(side.integer(0, 30))]
    return [*used, side.integer(0, 1 << 40), side.integer(0, 1 << 40)] if used else []


def round_trip(x: Floats, cost: Cost, codec: Codec = CODEC) -> tuple[Coded, Floats]:
    coded = codec.encode(x, cost)
    side = SideReader(coded.side)
    layouts = codec.layout(side, x.shape)
    side.finish()
    assert [(*p.symbols.shape, p.kind) for p in coded.planes] == [tuple(layout) for layout in layouts]
    assert all(p.symbols.dtype == np.int32 and p.symbols.size for p in coded.planes)
    return coded, codec.decode(coded, x.shape)


@pytest.mark.parametrize(("name", "size"), [pair for pair in ALL if pair[1] != (1, 1)], ids=str)
def test_kernels_of_one_symmetry_come_back_with_it(name: str, size: tuple[int, int]) -> None:
    x, cost = snapped(name, 12, 5, *size), Cost(1e-6)
    coded, y = round_trip(x, cost)
    assert np.abs(y - x).max() < 0.01
    found = groups(*size)[name]
    if name not in ("none", "zero"):
        assert sum(p.symbols.size for p in coded.planes) <= 60 * (found.n_free + 1)
        flat = y.reshape(-1, math.prod(size))
        assert all(np.array_equal(flat[:, p], flat[:, q] * found.sign[p] * found.sign[q])
                   for p, q in itertools.combinations(np.flatnonzero(found.sign), 2)
                   if found.index[p] == found.index[q])  # fmt: skip


def test_a_mixture_of_symmetries_is_told_apart_and_pays() -> None:
    names = ["none", "left-right", "radial", "zero", "half-turn-odd", "identical-rows"]
    x = np.concatenate([snapped(name, 8, 16, 5, 5, seed=s) for s, name in enumerate(names)])
    x = np.random.default_rng(0).permutation(x.reshape(-1, 5, 5)).reshape(48, 16, 5, 5)
    coded, _ = round_trip(x, Cost(1e-6))
    head = head_of(coded)
    assert {SYMMETRIES_LIST[number] for number in head[:-2]} >= set(names) and 100 <= head[-2] <= 128
    with_it, without = (try_codec(codec, x, Cost(1e-6), State()) for codec in (CODEC, Codec((DeadZone(),))))
    assert with_it.score < 0.7 * without.score and with_it.bits < 0.7 * without.bits


SYMMETRIES_LIST = list(SYMMETRIES)


def test_kernels_without_symmetry_cost_one_byte_more() -> None:
    x = laplace(16, 8, 3, 3)
    plain, coded = Codec((DeadZone(),)).encode(x, Cost(1e-7)), CODEC.encode(x, Cost(1e-7))
    assert coded.side == varint(0) + plain.side
    assert all(np.array_equal(a.symbols, b.symbols) for a, b in zip(coded.planes, plain.planes, strict=True))


@pytest.mark.parametrize(
    "shape", [(), (0,), (7,), (300,), (4, 9), (5, 3, 1, 1), (0, 3, 3, 3), (2, 0, 3, 3), (1, 1, 40, 40)]
)
def test_arrays_without_kernels_pass_through(shape: tuple[int, ...]) -> None:
    assert kernel_shape(shape) is None
    coded, y = round_trip(np.ones(shape), Cost(1e-4))
    assert head_of(coded) == [] and y.shape == shape


@pytest.mark.parametrize("rest", [DeadZone(), Trellis()], ids=lambda stage: stage.id)
@pytest.mark.parametrize("shape", [(5, 3, 4), (6, 1, 5, 5), (1, 7, 3, 2), (3, 2, 2, 3, 3)], ids=str)
def test_kernels_of_every_dimension_are_snapped(shape: tuple[int, ...], rest: DeadZone | Trellis) -> None:
    x = np.repeat(laplace(*shape[:2], seed=1)[..., None], math.prod(shape[2:]), axis=2).reshape(shape)
    x[0, 0] = laplace(*shape[2:])
    coded, y = round_trip(x, Cost(1e-5), Codec((Symmetry(), rest)))
    assert 2 in head_of(coded) and np.abs(y - x).max() < 0.02


def test_zero_kernels_need_no_coefficients() -> None:
    x = np.zeros((9, 4, 3, 3))
    coded, y = round_trip(x, Cost(1e-5))
    assert not y.any()
    some = np.random.default_rng(1).random((9, 4)) < 0.5
    x[some] = laplace(int(some.sum()), 3, 3, scale=1.0)
    coded, y = round_trip(x, Cost(1e-5))
    assert 1 in head_of(coded) and not y[~some].any() and np.abs(y - x).max() < 0.02


@pytest.mark.parametrize("scale", [1e-310, 1e-150, 1e150])
@pytest.mark.parametrize("weight", [1e-40, 1e-8, 1.0])
def test_weights_of_any_scale_stay_finite(scale: float, weight: float) -> None:
    x = snapped("radial", 6, 5, 3, 3)
    x[0] += laplace(5, 3, 3)
    assert np.isfinite(try_codec(CODEC, x * scale, Cost(weight), State()).bits)
    assert np.isfinite(round_trip(x * scale, Cost(weight))[1]).all()


def test_strength_snaps_more_and_zero_nothing() -> None:
    x, cost = snapped("radial", 16, 16, 3, 3), Cost(1e-5)
    x += np.linspace(0, 1, 256).reshape(16, 16, 1, 1) * laplace(16, 16, 3, 3, seed=1)
    free = [trial(strength, x, cost).bits for strength in (0.0, 1.0, 2.0, 4.0)]
    assert head_of(Codec((Symmetry(0.0), DeadZone())).encode(x, cost)) == []
    assert free[0] > free[1] > free[2] > free[3]
    for strength in (-1.0, 1001.0, math.nan):
        with pytest.raises(CodecError, match=r"strength is .*; it must lie in \[0, 1000\]"):
            Symmetry(strength)


def trial(strength: float, x: Floats, cost: Cost) -> Trial:
    return try_codec(Codec((Symmetry(strength), DeadZone())), x, cost, State())


@pytest.mark.parametrize("weight", [1e-6, 1e-4, 1e-3, 1e-2])
def test_snapping_scores_no_worse_than_not_snapping(weight: float) -> None:
    """On noise, which has no symmetries, but where snapping pays at low rates all the same."""
    x, cost = laplace(24, 24, 3, 3), Cost(weight)
    assert trial(1.0, x, cost).score <= 1.005 * trial(0.0, x, cost).score + weight * 8


def test_sensitivity_says_which_error_counts() -> None:
    """The same nearly symmetric kernels: where the outputs see what snapping loses, it does not pay."""
    x = snapped("left-right", 8, 4, 3, 3)
    x[..., 0, 0] += 0.004
    seen = np.array([1.0, 0, -1, 0, 0, 0, 0, 0, 0])  # the part that a mirror takes away from these kernels
    few: Floats = np.eye(36, dtype=np.float64)
    many = few + np.kron(np.eye(4), 2e4 * np.outer(seen, seen)).astype(np.float64)
    for H, expected in ((few, True), (many, False)):
        cost = Cost(1e-5, 1.0, Sensitivity(H[None], np.full(8, 2.0)))
        coded = Symmetry().encode(x, cost, Codec((DeadZone(),)))
        assert (group("left-right", 3, 3).number in head_of(coded)) is expected
    grouped = Sensitivity(np.stack([few, many]), np.full(8, 2.0))
    names = Symmetry().encode(x, Cost(1e-5, 1.0, grouped), Codec((DeadZone(),))).planes[0].symbols
    assert len(np.unique(names[:4])) == 1 and not np.intersect1d(names[:4], names[4:]).size


@pytest.mark.parametrize("n_groups", [1, 2])
def test_what_snapping_drops_costs_what_the_sensitivity_says(n_groups: int) -> None:
    """Where H has no entries between inputs, nothing is left out."""
    rng, outputs, inputs, places = np.random.default_rng(0), 4, 3, 9
    H = np.zeros((n_groups, inputs * places, inputs * places))
    for part in H:
        for begin in range(0, len(part), places):
            factor = rng.normal(size=(places, places))
            part[begin : begin + places, begin : begin + places] = factor @ factor.T
    known = Sensitivity(H, rng.uniform(0.5, 2, outputs))
    left, cost = rng.normal(size=(outputs * inputs, places)), Cost(1e-3, 2.0, known)
    expected = known.distortion(left.reshape(outputs, -1))
    assert cost.scale * _residual(left, cost, outputs).sum() == pytest.approx(expected, rel=1e-12)


def test_a_size_is_worked_out_once_however_many_tensors_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """More sizes than there is room for their symmetries; a file's tables are read first, then its tensors."""
    shapes = [(1, 1, height, width) for height in (9, 10) for width in range(11, 61)] * 2
    built: list[int] = []

    def counted(rules: Sequence[tuple[Ints, int]], places: int) -> tuple[Ints, Ints, Ints]:
        built.append(places)
        return orbits(rules, places)

    monkeypatch.setattr(symmetry_groups, "orbits", counted)
    for kept in (free_numbers, groups, symmetry_groups._group):
        kept.cache_clear()
    zero = b"".join(map(varint, (1, 1, 0, 0)))
    for shape in shapes:
        assert CODEC.layout(SideReader(zero), shape) == []
    assert len(built) <= len(SYMMETRIES) * len(shapes) / 2
    built.clear()
    for shape in shapes:
        assert not CODEC.decode(Coded((), zero), shape).any()
    assert len(built) <= len(shapes)  # of those that a tensor has


def damaged(side: bytes, names: list[list[int]] | None = None) -> None:
    """Layout, then decode with planes of ones."""
    shape, codec = (2, 2, 3, 3), CODEC
    layouts = codec.layout(SideReader(side), shape)
    planes = [np.ones((rows, columns), np.int32) for rows, columns, _ in layouts]
    if names is not None:
        planes[0] = np.array(names, np.int32)
    codec.decode(Coded(tuple(Plane(p) for p in planes), side), shape)


HEADS = {
    "more symmetries than there are": ((25,), "outside"),
    "a symmetry beyond the table": ((1, 24, 0, 0), "outside"),
    "a negative symmetry": ((1, -1, 0, 0), "outside"),
    "one twice": ((2, 2, 2, 0, 4, 0), "twice or in vain"),
    "one that is another on 3 × 3": ((1, 18, 0, 4, 0), "twice or in vain"),
    "full kernels, but none named": ((1, 2, 1, 3, 0, 0), "outside"),
    "more full kernels than kernels": ((2, 0, 2, 5, 0, 0), "outside"),
    "more coefficients than kernels have": ((1, 2, 0, 5, 0), "outside"),
    "coefficients of zero kernels": ((1, 1, 0, 1, 0), "outside"),
    "too few coefficients": ((1, 2, 0, 3, 0), "do not fit"),
    "all kernels full, but one named": ((1, 0, 3, 0, 0), "do not fit"),
    "nothing after the number": ((1,), "too soon"),
}


@pytest.mark.parametrize("what", HEADS)
def test_a_damaged_head_is_refused(what: str) -> None:
    numbers, message = HEADS[what]
    with pytest.raises(FormatError, match=message):
        damaged(b"".join(map(varint, numbers)))


def test_damaged_names_of_symmetries_are_refused() -> None:
    side = b"".join(map(varint, (2, 0, 2, 1, 3, 0, 0)))  # one full kernel, three constant ones
    damaged(side, [[1, 0], [1, 1]])
    for names in (
        [[1, 1], [1, 1]],
        [[0, 0], [1, 1]],
        [[2, 0], [1, 1]],
        [[-1, 0], [1, 1]],
        [[-(2**31), 0], [1, 2**31 - 1]],
    ):
        with pytest.raises(FormatError, match="do not fit"):
            damaged(side, names)


@pytest.mark.parametrize(
    "shape", [(4, 9), (2, 2, 1, 1), (1, 1, 40, 40), (1 << 40, 0, 3, 3), (1 << 40, 1 << 40, 1 << 40)]
)
def test_arrays_without_kernels_name_no_symmetries(shape: tuple[int, ...]) -> None:
    with pytest.raises(FormatError, match="outside"):
        CODEC.layout(SideReader(b"".join(map(varint, (1, 2, 0, 4, 0)))), shape)


@pytest.mark.parametrize("part", range(4))
def test_damage_anywhere_decodes_or_is_refused(part: int) -> None:
    """Every bit of the side information, and single symbols, wrong: FormatError, or finite weights of the shape."""
    x = np.concatenate([snapped(name, 2, 4, 3, 3) for name in ("none", "radial", "left-right", "zero")])
    coded = CODEC.encode(x, Cost(1e-6))
    assert len(head_of(coded)) >= 5
    rng, refused = np.random.default_rng(part), 0
    for bit in range(8 * len(coded.side) + 100):
        side = bytearray(coded.side)
        planes = [plane.symbols.copy() for plane in coded.planes]
        if bit < 8 * len(side):
            side[bit // 8] ^= 1 << bit % 8
        else:
            plane = planes[int(rng.integers(len(planes)))]
            plane.ravel()[rng.integers(plane.size)] ^= 1 << int(rng.integers(31))
        try:
            reader = SideReader(bytes(side))
            layouts = CODEC.layout(reader, x.shape)
            reader.finish()
            assert sum(rows * columns for rows, columns, _ in layouts) < 4 * x.size
            planes += [np.zeros((1, 1), np.int32)] * len(layouts)
            fitting = [np.resize(p, (r, c)) for p, (r, c, _) in zip(planes, layouts, strict=False)]
            y = CODEC.decode(Coded(tuple(Plane(p) for p in fitting), bytes(side)), x.shape)
        except FormatError:
            refused += 1
        else:
            assert y.shape == x.shape and np.isfinite(y).all()
    assert refused > 20
