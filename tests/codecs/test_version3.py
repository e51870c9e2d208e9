"""Version 3 of the format: tied tensors, tensors without names; and reading one tensor at a time."""

from __future__ import annotations

import tracemalloc

import pytest
from hostile_files import numbers as v
from hostile_files import sealed
from test_hostile import DEADZONE, FORMS, LOWRANK, check_refusal, record, small_file

from evocompress.codecs import CODECS, Writer, inspect, iterate, read
from evocompress.codecs.coders import CoderName
from evocompress.codecs.deflation import deflate
from evocompress.errors import CodecError, FormatError


def forged3(header: bytes, stream: bytes = b"", coder: int = 0) -> bytes:
    return sealed(b"EVC\x03" + bytes([coder]) + deflate(header) + stream)


def table3(count: int, shape: tuple[int, ...], ties: list[tuple[int, int]], named: tuple[int, ...] = (1,)) -> bytes:
    """A table of so many tensors of this shape, all zeros without symbols, some of them tied."""
    names = b"".join(b"%d\0" % i for i in range(count)) if named == (1,) else b""
    own = max(count - len(ties), 0)
    shapes = b"".join(v(len(shape), shape[0] if i == 0 else 0, *shape[1:]) for i in range(own))
    references = v(len(ties)) + b"".join(v(*tie) for tie in ties)
    return v(count, 1, 2, LOWRANK, DEADZONE, *named) + names + references + v(*[0] * own) + shapes + v(*[0] * 2 * own)


HOSTILE = {
    "an unknown coder": forged3(table3(2, (3, 3), []), coder=3),
    "tied to itself": forged3(table3(2, (3, 3), [(1, 0)])),
    "tied to a later one": forged3(table3(3, (3, 3), [(1, -1)])),
    "tied to what is before the first": forged3(table3(2, (3, 3), [(1, 2)])),
    "tied to a tied one": forged3(table3(3, (3, 3), [(1, 1), (1, 1)])),
    "the first one tied": forged3(table3(2, (3, 3), [(0, 1)])),
    "tied beyond the last": forged3(table3(2, (3, 3), [(2, 1)])),
    "tied twice": forged3(table3(3, (3, 3), [(1, 1), (0, 1)])),
    "more ties than tensors": forged3(table3(2, (3, 3), [(1, 1)] * 3)),
    "2^40 ties": forged3(v(2, 1, 1, DEADZONE, 1) + b"a\0b\0" + v(1 << 40)),
    "ties of 2^37 weights": forged3(table3(1 << 16, (2048, 1024), [(1, i + 1) for i in range((1 << 16) - 1)])),
    "neither names nor none": forged3(table3(2, (3, 3), [], named=(2,))),
    "a fingerprint of 21 bits": forged3(table3(2, (3, 3), [], named=(0, 1 << 20))),
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_hostile_tables_are_refused_soon_and_cheaply(kind: str) -> None:
    check_refusal(HOSTILE[kind])


def test_forged_tables_of_version_3_are_what_they_say() -> None:
    """So that the hostile ones are refused for their fault and no other."""
    for coder in range(3):
        tensors = read(forged3(table3(4, (3, 3), [(2, 2), (1, 2)]), coder=coder))
        assert list(tensors) == ["0", "1", "2", "3"] and all(x.shape == (3, 3) for x in tensors.values())
    assert list(read(forged3(table3(2, (3, 3), [(1, 1)], named=(0, 77))))) == ["0", "1"]
    assert list(read(forged3(table3(3, (3, 3), [])))) == ["0", "1", "2"]


def test_a_writer_makes_room_for_tied_tensors() -> None:
    writer = Writer()
    writer.add(record("w", (2000, 2000)))
    for i in range(3):
        writer.tie(f"w{i}", "w")
    data = writer.finish()
    assert len(data) >= (16_000_000 - (1 << 22)) >> 10
    assert [x.shape for x in read(data).values()] == [(2000, 2000)] * 4


def test_a_writer_refuses_ties_and_orders_that_cannot_be() -> None:
    writer = Writer(names=False)
    writer.add(record("b"))
    with pytest.raises(CodecError, match="not added before"):
        writer.tie("c", "a")
    with pytest.raises(CodecError, match="sorted"):
        writer.add(record("a"))
    with pytest.raises(CodecError, match="twice"):
        writer.tie("b", "b")
    writer.tie("c", "b")
    writer.tie("d", "c")  # to the source of c
    with pytest.raises(CodecError, match="'a' comes after 'd'"):
        writer.add(record("a"))
    assert list(read(writer.finish(), ["d", "c", "b"])) == ["b", "c", "d"]


def test_names_that_a_file_did_not_have_are_refused() -> None:
    data = small_file(FORMS[-1])
    names = [*CODECS, "deadzone again", "lossless again"]
    assert list(read(data, reversed(names))) == sorted(names)
    assert list(read(data)) == [str(i) for i in range(len(names))]
    for wrong in (names[1:], [*names, "another"], ["another", *names[1:]], [names[1], *names[1:]], [""] * len(names)):
        with pytest.raises(CodecError, match="not those that they had"):
            read(data, wrong)
    assert list(read(small_file(), ["ignored"])) == list(CODECS)


def test_tensors_come_one_by_one() -> None:
    data = small_file(FORMS[-1])
    arrays = read(data)
    for name, array in iterate(data):
        assert array.tobytes() == arrays[name].tobytes() and array.flags.writeable
        array[...] = 0.0  # the caller's own, also where later ones are tied to it
    start = next(iter(iterate(data)))
    assert start[0] == "0"
    with pytest.raises(FormatError):
        iterate(data[:-1])  # at once, not at the first tensor


@pytest.mark.parametrize("coder", ["classes", "rans", "mixing"])
def test_iteration_holds_one_tensor_at_a_time(coder: CoderName) -> None:
    writer = Writer(coder)
    shape = (500, 400)
    for i in range(12):
        writer.add(record(str(i), shape))
    data = writer.finish()
    for _ in iterate(data):  # what is compiled or imported at the first time
        pass
    tracemalloc.start()
    try:
        for _, array in iterate(data):
            assert array.shape == shape
            del array
        assert tracemalloc.get_traced_memory()[1] < 40 * shape[0] * shape[1]
    finally:
        tracemalloc.stop()


def test_a_tied_tensor_takes_nothing_of_the_stream() -> None:
    writer = Writer("mixing")
    writer.add(record("w", (20, 30)))
    writer.tie("v", "w")
    (_, tied), _ = inspect(writer.finish())
    assert (tied.name, tied.tied_to, tied.weights) == ("v", "w", 600)
    assert tied.payload_bytes == tied.side_bytes == tied.bits_per_weight == 0


def test_the_least_version_that_will_do_is_written() -> None:
    for coder, plain in (("classes", 1), ("rans", 2), ("mixing", 2)):
        writer, tied, nameless = Writer(coder), Writer(coder), Writer(coder, names=False)  # type: ignore[arg-type]
        for each in (writer, tied, nameless):
            each.add(record("w"))
        tied.tie("x", "w")
        assert [each.finish()[3] for each in (writer, tied, nameless)] == [plain, 3, 3]
