"""Cropped tensors of bare files: whatever corner of a tensor lives comes back, with zeros around it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bare_files import forged, g, u
from test_hostile import DEADZONE

from evocompress import Recipe, Rule, pack, unpack
from evocompress.codecs import Cost, Record, Writer, inspect, parse_codec, read
from evocompress.codecs.bits import BitReader, BitWriter
from evocompress.codecs.coders import CODERS, CoderName
from evocompress.codecs.cropping import chosen_corners, live_corner, read_corners, write_corners
from evocompress.codecs.sensitivity import Sensitivity
from evocompress.errors import CodecError, FormatError

lengths = st.integers(0, 70)
shapes = st.lists(st.lists(lengths, max_size=3).map(tuple), max_size=8)


@settings(deadline=None)
@given(shapes, st.randoms(use_true_random=False))
def test_extents_come_back_and_hold_what_lives(whole: list[tuple[int, ...]], random: object) -> None:
    draw = random.randint  # type: ignore[attr-defined]
    live = [tuple(draw(min(n, 1), n) if dim < 2 else n for dim, n in enumerate(shape)) for shape in whole]
    corners = chosen_corners(whole, live)
    for shape, part, corner in zip(whole, live, corners, strict=True):
        assert all(low <= length <= high for low, length, high in zip(part, corner, shape, strict=True))
    for chosen in (corners, live):
        bits = BitWriter()
        write_corners(bits, whole, chosen)
        data = bits.finish()
        reader = BitReader(data, 0, len(data))
        assert read_corners(reader, whole) == chosen and reader.finish() == len(data)


def test_a_layer_takes_as_many_channels_as_the_one_before_gives() -> None:
    whole = [(16,), (16, 1, 3, 3), (32,), (32, 16, 3, 3), (64,), (64, 512), (10,), (10, 64)]
    live = [(5,), (6, 1, 3, 3), (3,), (3, 6, 3, 3), (12,), (12, 47), (10,), (10, 12)]
    corners = chosen_corners(whole, live)
    assert corners == [(6,), (6, 1, 3, 3), (3,), (3, 6, 3, 3), (12,), (12, 47), (10,), (10, 12)]
    bits = BitWriter()
    write_corners(bits, whole, corners)
    assert len(bits.finish()) == 5


@pytest.mark.parametrize("coder", sorted(CODERS))
def test_what_is_zero_at_the_ends_is_not_stored(coder: CoderName) -> None:
    rng = np.random.default_rng(3)
    x = np.zeros((64, 64, 3, 3), np.float32)
    x[:5, :4] = rng.integers(-3, 4, (5, 4, 3, 3)) / 8
    state = {"a.weight": x, "a.bias": x[:, 0, 0, 0].copy(), "b": np.array([3, 0, 0]), "c": x.copy()}
    grid = {"a.weight": 0.125, "a.bias": 0.125, "c": 0.125}
    recipe = Recipe(coder=coder, names=False, shapes=False)
    data = pack(state, recipe, grid=grid)
    decoded = unpack(data, "numpy", names=state)
    assert data[3] == 5 and all(np.array_equal(decoded[name], array) for name, array in state.items())
    assert decoded["c"] is not decoded["a.weight"] and decoded["a.weight"].flags.writeable
    infos, rest = inspect(data, state)
    assert [info.shape for info in infos] == [array.shape for _, array in sorted(state.items())]
    assert sum(info.payload_bytes + info.side_bytes for info in infos) + rest == pytest.approx(len(data))
    small = {name: array[:5, :4] if array.ndim == 4 else array[:5] for name, array in state.items()}
    assert len(data) <= len(pack(small, recipe, grid=grid)) + 10


def test_tensors_without_a_grid_are_cropped_too_and_lossless_ones_are_not() -> None:
    x = np.zeros((300, 40), np.float32)
    x[:20, :7] = np.random.default_rng(4).normal(size=(20, 7))
    x[200, 30] = -0.0
    state = {"kept": x, "lossy": x.copy() * 2}
    recipe = Recipe(1e-4, (Rule("kept", ("lossless",)),), "mixing", names=False, shapes=False)
    decoded = unpack(pack(state, recipe), "numpy", names=state)
    assert decoded["kept"].tobytes() == x.tobytes()
    assert np.abs(decoded["lossy"] - 2 * x).max() < 0.2 and not decoded["lossy"][20:].any()
    # A rule's codec that wants all of a tensor gets the corner, and the decoder the same.
    for codec in ("lowrank", "dct-matrix", "codebook", "trellis", "linearconv"):
        rules = (Rule("lossy", (codec,)),)
        data = pack({"lossy": state["lossy"]}, Recipe(1e-4, rules, names=False, shapes=False))
        again = unpack(data, "numpy", names={"lossy": x})["lossy"]
        assert data[3] == 5 and np.abs(again - 2 * x).max() < 0.5 and not again[20:].any()


def test_nothing_pays_where_little_is_zero() -> None:
    x = np.ones((20, 6), np.float32)
    x[18:] = 0
    state = {"w": x}
    assert pack(state, Recipe(1e-4, names=False, shapes=False))[3] == 4
    assert pack({"w": np.zeros((90, 90), np.float32)}, Recipe(1e-4))[3] < 4


@pytest.mark.parametrize(
    "array", [np.zeros((3, 0)), np.zeros(()), np.zeros((4, 5)), np.zeros(7), np.full((2, 2), np.nan)]
)
def test_corners_of_odd_arrays(array: np.ndarray) -> None:
    part = live_corner(array)
    assert len(part) == array.ndim and all(min(n, 1) <= k <= n for k, n in zip(part, array.shape, strict=True))
    assert not np.isnan(array).any() or part == array.shape


def test_only_bare_files_hold_corners() -> None:
    codec = parse_codec("deadzone")
    x = np.ones((2, 2))
    record = Record("w", "float32", (2, 2), codec, codec.encode(x, Cost(1e-4)), (4, 4))
    for writer in (Writer(), Writer(names=False)):
        with pytest.raises(CodecError, match="cropped"):
            writer.add(record)
    writer = Writer(names=False, shapes=False)
    writer.add(record)
    writer.tie("x", "w")
    names = dict.fromkeys("wx", ((4, 4), "float32"))
    decoded = read(writer.finish(), names)
    assert all(array.shape == (4, 4) and array.sum() == pytest.approx(4, rel=0.1) for array in decoded.values())
    with pytest.raises(CodecError, match="not those with which"):
        read(writer.finish(), dict.fromkeys("wx", ((2, 2), "float32")))


NAMES = {"w": ((6, 5), "float32")}
CHAIN = (g(0), g(DEADZONE, order=2), u(0, 3), g(0))


def test_hostile_extents_are_refused() -> None:
    def file(*parts: object, names: object = NAMES) -> bytes:
        return forged(*parts, names=names, version=5)  # type: ignore[arg-type]

    # No guess is right, then 1 of 6 rows in three bits; then one of 5 columns.
    sound = file(u(0, 1), u(0, 3), u(0, 1), u(0, 3), *CHAIN)
    assert read(sound, NAMES)["w"].shape == (6, 5)
    eight_of_six_rows = file(u(0, 1), u(7, 3), u(0, 1), u(0, 3), *CHAIN)
    seven_of_five_columns = file(u(0, 1), u(0, 3), u(0, 1), u(6, 3), *CHAIN)
    for bad in (eight_of_six_rows, seven_of_five_columns, file(u(0, 1))):
        with pytest.raises(FormatError):
            read(bad, NAMES)
    with pytest.raises(FormatError, match="cropped, and there is none"):
        read(file(names={}), {})
    # A corner of few weights does not hide how large the whole is.
    large = {"w": ((1 << 20, 1 << 10), "float32")}
    with pytest.raises(FormatError, match="more weights"):
        read(file(u(0, 1), u(0, 20), u(1, 1), *CHAIN, names=large), large)


def test_a_tied_tensor_that_is_kept_as_it_is_keeps_its_negative_zeros() -> None:
    x = np.zeros((64, 64), np.float32)
    x[:5, :6] = np.random.default_rng(5).normal(size=(5, 6))
    x[40:, 40:] = -0.0
    state = {"b": x, "a": x.copy()}  # the lossless one comes first in the file, the other one in the state dict
    recipe = Recipe(1e-6, (Rule("a", ("lossless",)),), "mixing", names=False, shapes=False)
    data = pack(state, recipe)
    decoded = unpack(data, "numpy", names=state)
    assert decoded["a"].tobytes() == x.tobytes() and not decoded["b"][5:].any()


def test_images_in_a_dense_layer_stay_whole_for_a_codec_that_sees_them() -> None:
    side, rows = 28, 32
    x, y = np.meshgrid(np.linspace(0, 3, side), np.linspace(0, 2, side))
    images = np.stack([np.cos(x * (1 + k / 9)) * np.sin(y + k) for k in range(rows)]).astype(np.float32)
    images[:, -2:] = 0
    state = {"w": images.reshape(rows, -1)}
    recipe = Recipe(1e-6, (Rule("*", ("coordinates+deadzone",)),), "mixing", names=False, shapes=False)
    bare, whole = pack(state, recipe), pack(state, Recipe(1e-6, recipe.rules, "mixing"))
    assert len(bare) < len(whole)


def test_a_tied_tensor_of_second_order_stays_whole() -> None:
    x = np.zeros((40, 30), np.float32)
    x[:4, :5] = np.random.default_rng(6).normal(size=(4, 5))
    second = Sensitivity(np.eye(30)[None], np.ones(40))
    state = {"b": x, "a": x.copy(), "c": np.pad(x, ((0, 40), (0, 40)))}
    recipe = Recipe(1e-5, (Rule("a", ("trellis",)), Rule("b", ("deadzone",))), names=False, shapes=False)
    decoded = unpack(pack(state, recipe, sensitivities={"b": second}), "numpy", names=state)
    assert all(np.abs(decoded[name] - array).max() < 0.1 for name, array in state.items())
