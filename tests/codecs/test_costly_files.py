"""Costs of files for whoever reads them: counted before anything is decoded, and bounded by its size and its shapes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import hostile_files as hostile
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import evocompress
from evocompress.checkpoint.loading import load_formed
from evocompress.checkpoint.weight_files import read_weights, unpack_file
from evocompress.cli import app
from evocompress.codecs import CODECS, Cost, Record, Writer, container, entropy, inspect, iterate, parse_codec, read
from evocompress.codecs.budget import LIMITS, Budget, Charge, padding_for
from evocompress.codecs.classes_decoder import ClassesStream
from evocompress.codecs.coders import CODERS, CoderName
from evocompress.codecs.conformance import encoded
from evocompress.codecs.container import parse
from evocompress.codecs.deflation import inflate
from evocompress.codecs.entropy import Decoder, Encoder, PlainDecoder
from evocompress.codecs.tensor_table import read_table
from evocompress.errors import CodecError, ConfigError, FormatError

_MEMORY = 8 << 20


@pytest.mark.parametrize("kind", hostile.COSTLY)
@pytest.mark.parametrize("reader", [parse, read, inspect, evocompress.unpack])
def test_a_costly_file_is_refused_before_any_work(kind: str, reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for coder in CODERS.values():
        monkeypatch.setattr(coder.decoder, "plane", None)
    data = hostile.costly_file(kind)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=r"gives its file more .* \d+ where one of \d+ bytes may have \d+"):
            reader(data)
        assert tracemalloc.get_traced_memory()[1] < _MEMORY + 200 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", hostile.COSTLY)
def test_padding_that_a_writer_adds_lets_it_in(kind: str) -> None:
    """As far as the tensor table goes: that is what these files are about."""
    data = hostile.costly_file(kind)
    budget = Budget(1 << 62)
    table, _ = inflate(data[container.table_start(data) : -4], 1 << 22)
    read_table(table, 2, budget)
    least = padding_for(budget.counted)
    assert least > len(data)
    for size in (least, least - 1):
        tight = Budget(size)
        if size == least:
            read_table(table, 2, tight)
            assert tight.counted == budget.counted
        else:
            with pytest.raises(FormatError, match="more room by zero bytes before its checksum"):
                read_table(table, 2, tight)


@pytest.mark.parametrize("kind", LIMITS)
def test_each_limit_is_exact(kind: Charge) -> None:
    limit = LIMITS[kind].base + 1000 * LIMITS[kind].per_byte
    budget = Budget(1000)
    budget.charge(kind, limit)
    with pytest.raises(FormatError, match=f"{limit + 1} where one of 1000 bytes may have {limit}"):
        budget.charge(kind, 1)


def small_tensors(count: int, codec: str = "deadzone", coder: CoderName = "classes", *, names: bool = True) -> bytes:
    """Many small tensors, as an encoder writes them."""
    writer, chosen, rng = Writer(coder, names=names), parse_codec(codec), np.random.default_rng(0)
    arrays = [rng.laplace(0, 1, (2, 2)).astype(np.float32) for _ in range(16)]
    records = [encoded(chosen, array, Cost(1e-2)) for array in arrays]
    for place in range(count):
        writer.add(Record(f"{place:05d}", "float32", (2, 2), chosen, records[place % 16]))
    return writer.finish()


@pytest.mark.parametrize(("coder", "count"), [("classes", 1 << 11), ("rans", 1 << 13), ("mixing", 1 << 11)])
def test_many_small_tensors_take_a_call_each(coder: CoderName, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither are statistics copied for each, nor does the classes coder go through a library for each class."""
    data, calls = small_tensors(count, coder=coder), list[tuple[int, int]]()
    decoder, state = CODERS[coder].decoder, CODERS[coder].state
    plane = decoder.plane

    def counted(self: Any, shape: tuple[int, int], kind: Any, period: int = 1) -> Any:
        calls.append(shape)
        return plane(self, shape, kind, period)

    monkeypatch.setattr(decoder, "plane", counted)
    monkeypatch.setattr(state, "copy", None)
    monkeypatch.setattr(entropy, "_stream", None)
    tensors = read(data)
    assert len(tensors) == len(calls) == count
    assert tensors["00007"].tobytes() == tensors["02007"].tobytes() and tensors["00007"].any()
    calls.clear()
    monkeypatch.setattr(container, "decode_in_parts", None)
    infos, _ = inspect(data)
    assert len(infos) == len(calls) == count


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_a_writer_pads_what_it_writes(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With limits that leave next to nothing every codec's file is padded, and read."""
    for kind, limit in LIMITS.items():
        monkeypatch.setitem(LIMITS, kind, limit._replace(base=1, per_byte=1))
    data = small_tensors(40, codec, "rans")
    budget = Budget(len(data))
    table, _ = inflate(data[container.table_start(data) : -4], 1 << 22)
    read_table(table, data[3], budget)
    assert max(budget.counted.values()) == len(data) + 1
    assert len(read(data)) == 40


def test_inspect_makes_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_tensors(3, "coordinates-lowrank")
    expected = inspect(data)
    for name in ("decode_in_parts", "_tensor"):
        monkeypatch.setattr(container, name, None)
    assert inspect(data) == expected
    with pytest.raises(TypeError):
        read(data)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    path = tmp_path / "linear.evc"
    evocompress.save(path, torch.nn.Linear(30, 20), 1e-4)
    return path


_BYTES = 4 * (30 * 20 + 20)


def test_every_reader_takes_max_output_bytes(linear: Path, tmp_path: Path) -> None:
    data, model = linear.read_bytes(), torch.nn.Linear(30, 20)
    readers: list[Any] = [
        lambda limit: parse(data, max_output_bytes=limit),
        lambda limit: list(iterate(data, max_output_bytes=limit)),
        lambda limit: read(data, max_output_bytes=limit),
        lambda limit: inspect(data, max_output_bytes=limit),
        lambda limit: evocompress.unpack(data, max_output_bytes=limit),
        lambda limit: evocompress.load(linear, model, max_output_bytes=limit),
        lambda limit: load_formed(linear, model, max_output_bytes=limit),
        lambda limit: read_weights(linear, max_output_bytes=limit),
        lambda limit: unpack_file(linear, tmp_path / "out.safetensors", max_output_bytes=limit),
    ]
    for reader in readers:
        for enough in (None, _BYTES):
            reader(enough)
        with pytest.raises(FormatError, match=rf"max_output_bytes, which is {_BYTES - 1}.* they are {_BYTES}\."):
            reader(_BYTES - 1)
        for odd in (-1, 2.5, True, "1GB"):
            with pytest.raises(CodecError, match="max_output_bytes is"):
                reader(odd)


def test_tied_and_cropped_tensors_count_whole() -> None:
    x = np.zeros((40, 50), np.float32)
    x[:3, :4] = np.arange(12).reshape(3, 4)
    tied = evocompress.pack({"a": x, "b": x}, 1e-6)
    bare = evocompress.pack({"a": x}, evocompress.Recipe(1e-6, names=False, shapes=False))
    for data, nbytes, names in ((tied, 2 * x.nbytes, None), (bare, x.nbytes, {"a": x})):
        assert read(data, names, max_output_bytes=nbytes)
        with pytest.raises(FormatError, match="max_output_bytes"):
            read(data, names, max_output_bytes=nbytes - 1)


@pytest.mark.parametrize("command", ["inspect", "unpack"])
def test_commands_have_a_limit(command: str, linear: Path, tmp_path: Path) -> None:
    words = [command, str(linear), *(["-o", str(tmp_path / "out.safetensors")] if command == "unpack" else [])]
    assert CliRunner().invoke(app, words).exit_code == 0
    refused = CliRunner().invoke(app, [*words, "--max-output-bytes", "2kB"]).exception
    assert isinstance(refused, FormatError) and "max_output_bytes, which is 2000" in str(refused)
    refused = CliRunner().invoke(app, [*words, "--max-output-bytes", "many"]).exception
    assert isinstance(refused, ConfigError) and str(refused).startswith("--max-output-bytes")


def _symbols(rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], Any]:
    kind = ("weights", "bytes", "trellis")[rng.integers(3)]
    shape = tuple(rng.integers(0, 30, 2))
    if kind == "bytes":
        return rng.integers(0, 256, shape).astype(np.int32), kind
    return np.rint(rng.laplace(0, 10.0 ** rng.uniform(-2, 6), shape)).astype(np.int32), kind


def _decoded(decoder: Any, planes: list[Any]) -> list[Any]:
    found: list[Any] = []
    try:
        found += [decoder.plane(x.shape, kind).tolist() for x, kind in planes]
        decoder.finish()
    except FormatError as error:
        found.append(str(error))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_both_decoders_of_classes_say_the_same_of_any_stream(seed: int) -> None:
    rng = np.random.default_rng(seed)
    encoder, planes = Encoder(), [_symbols(rng) for _ in range(4)]
    for x, kind in planes:
        encoder.plane(x, kind)
    stream = encoder.finish()
    whole, plain = Decoder(stream), PlainDecoder(stream)
    assert _decoded(whole, planes) == _decoded(plain, planes) == [x.tolist() for x, _ in planes]
    assert whole.bits == pytest.approx(plain.bits, rel=1e-9)
    for _ in range(10):
        damaged = bytearray(stream) + rng.bytes(int(rng.integers(0, 5)))
        for place in rng.integers(0, max(len(damaged), 1), rng.integers(0, 4)):
            damaged[place] ^= 1 << int(rng.integers(8))
        cut = bytes(damaged[: rng.integers(len(damaged) + 1)] if rng.integers(2) else damaged)
        assert _decoded(Decoder(cut), planes) == _decoded(PlainDecoder(cut), planes)


def test_an_empty_stream_has_ended() -> None:
    assert ClassesStream(b"").ended and not ClassesStream(b"abcdefghij").ended


def test_working_on_a_tensor_takes_a_bounded_multiple_of_its_weights() -> None:
    rows, columns = 1200, 1100
    for chain, side in (
        ((hostile.DEADZONE,), hostile.numbers(0)),
        ((hostile.DCT, hostile.DEADZONE), hostile.numbers(1, 0)),
        ((hostile.WAVELET, hostile.DEADZONE), hostile.numbers(0, 1, 0)),
        ((hostile.LOWRANK, hostile.DEADZONE), hostile.numbers(500, 0, 0)),
    ):
        data = hostile.forged(hostile.many_alike(1, (rows, columns), chain, side))
        read(data)
        tracemalloc.start()
        try:
            read(data, max_output_bytes=4 * rows * columns)
            assert tracemalloc.get_traced_memory()[1] < (4 << 20) + 60 * rows * columns, chain
        finally:
            tracemalloc.stop()
