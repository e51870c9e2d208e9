"""Second decoders in plain Python integers, after codecs/FORMAT.md, must find the same symbols in every stream.

They are in the files oracle_*.py, which import nothing of ours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle_classes import ClassesDecoder
from oracle_file import Tensor, read_bare, read_symbols
from oracle_mixing import MixingDecoder
from oracle_rans import RansDecoder
from test_golden import STATES, TEMPLATES, template

from evocompress.codecs import CODECS, Cost, Record, Writer, mixing, parse_codec, rans
from evocompress.codecs.container import decode_each, parse
from evocompress.codecs.dependent import KINDS
from evocompress.codecs.entropy import BitCounter, Decoder, Encoder, Kind, State, Symbols
from evocompress.codecs.planes import kernel_places
from evocompress.codecs.tensor_table import Entry

GOLDEN = Path(__file__).parents[1] / "golden"


def planes(seed: int) -> list[tuple[Symbols, Kind]]:
    rng = np.random.default_rng(seed)
    made: list[tuple[Symbols, Kind]] = []
    for rows, width, scale in (
        (1, 1, 1.0),
        (12, 27, 0.1),
        (7, 1, 3.0),
        (1, 300, 2.0),
        (40, 6, 40.0),
        (9, 5, 1e8),
        (3, 2, 0),
    ):
        spread = rng.gamma(1.0, 1.0, (rows, 1)) * rng.gamma(1.0, 1.0, (1, width))
        made.append(
            (
                np.rint(np.clip(rng.laplace(0, scale + 1e-9, (rows, width)) * spread, -2e9, 2e9)).astype(np.int32),
                "weights",
            )
        )
    made.append((rng.integers(0, 256, (4, 50)).astype(np.int32), "bytes"))
    return made


def trellis_planes(seed: int) -> list[tuple[Symbols, Kind]]:
    """Of one machine after the other."""
    weights = [symbols for symbols, kind in planes(seed) if kind == "weights"]
    kinds: list[Kind] = [*KINDS.values()] * 2
    return list(zip(weights, kinds, strict=False))


@pytest.mark.parametrize("seed", range(4))
def test_plain_python_finds_the_same_symbols(seed: int) -> None:
    encoder = Encoder()
    for symbols, kind in planes(seed):
        encoder.plane(symbols, kind)
    stream = encoder.finish()
    plain, fast = ClassesDecoder(stream), Decoder(stream)
    for symbols, kind in planes(seed):
        assert plain.plane(symbols.shape[0], symbols.shape[1], kind) == symbols.tolist()
        assert fast.plane(symbols.shape, kind).tolist() == symbols.tolist()


def test_plain_python_reads_whole_files() -> None:
    rng, writer = np.random.default_rng(5), Writer()
    for name in CODECS:
        x = rng.laplace(0, 0.05, (12, 3, 3, 3)).astype(np.float32)
        coded = parse_codec(name).encode(x if name == "lossless" else x.astype(np.float64), Cost(1e-5))
        writer.add(Record(name, "float32", x.shape, parse_codec(name), coded))
    contents = parse(writer.finish())
    plain, fast = ClassesDecoder(contents.stream), Decoder(contents.stream)
    for entry in contents.tensors:
        for layout in entry.planes:
            expected = fast.plane((layout.rows, layout.columns), layout.kind)
            assert plain.plane(*layout) == expected.tolist()


def test_counts_are_halved_alike() -> None:
    symbols = (np.random.default_rng(0).random((80, 300)) < 0.002).astype(np.int32)
    encoder = Encoder()
    encoder.plane(symbols, "weights")
    assert ClassesDecoder(encoder.finish()).plane(80, 300, "weights") == symbols.tolist()
    counter = BitCounter(State())
    counter.plane(symbols, "weights")
    assert (counter.state.weights.table == encoder.state.weights.table).all()
    assert encoder.state.weights.table.sum() < State().weights.table.sum() + 32 * symbols.size, "nothing was halved"


@pytest.mark.parametrize("seed", range(3))
def test_plain_python_reads_rans(seed: int) -> None:
    made = planes(seed) + trellis_planes(seed + 9)
    encoder = rans.Encoder()
    for symbols, kind in made:
        encoder.plane(symbols, kind)
    plain = RansDecoder(encoder.finish())
    for symbols, kind in made:
        assert plain.plane(symbols.shape[0], symbols.shape[1], kind) == symbols.tolist()
    plain.finish()


def test_plain_python_reads_loud_symbols_among_small_ones() -> None:
    """Loud ones count as 1023 in the means that choose the classes of the small ones."""
    rng = np.random.default_rng(0)
    symbols = np.where(rng.random((40, 60)) < 0.05, 5000, rng.laplace(0, 1, (40, 60)).round()).astype(np.int32)
    encoder = rans.Encoder()
    encoder.plane(symbols, "weights")
    assert RansDecoder(encoder.finish()).plane(40, 60, "weights") == symbols.tolist()


@pytest.mark.parametrize("period", [1, 3, 9])
def test_plain_python_reads_mixing(period: int) -> None:
    made = planes(period) + trellis_planes(period + 9)
    encoder = mixing.Encoder()
    for symbols, kind in made:
        encoder.plane(symbols, kind, period)
    plain = MixingDecoder(encoder.finish())
    for symbols, kind in made:
        assert plain.plane(symbols.shape[0], symbols.shape[1], kind, period) == symbols.tolist()
    plain.finish()


@pytest.mark.parametrize(
    "name",
    [
        "deadzone",
        "codebook",
        "lossless",
        "dct-trellis",
        "trellis",
        "rans",
        "mixing",
        "tied",
        "dtypes",
        "rowscales",
        *STATES,
    ],
)
def test_plain_python_reads_golden_files(name: str) -> None:
    data = (GOLDEN / f"{name}.evc").read_bytes()
    check(data, None)


@pytest.mark.parametrize("name", ["nameless", "tied-nameless"])
def test_plain_python_reads_files_without_names(name: str) -> None:
    data = (GOLDEN / f"{name}.evc").read_bytes()
    check(data, None)
    known = [tensor.name for tensor in read_symbols((GOLDEN / "tied.evc").read_bytes())]
    if name == "nameless":
        known = [tensor for tensor in known if tensor not in ("trellis:head", "trellis:again")]
    assert [tensor.name for tensor in read_symbols(data, known)] == sorted(known)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_plain_python_reads_bare_files(name: str) -> None:
    arrays = template(name)
    assert arrays is not None
    data = (GOLDEN / f"{name}.evc").read_bytes()
    pairs = {name: (array.dtype.name, list(array.shape)) for name, array in arrays.items()}
    compare(read_bare(data, pairs), list(decode_each(parse(data, arrays))))


def check(data: bytes, names: list[str] | None) -> None:
    compare(read_symbols(data, names), list(decode_each(parse(data))))


def compare(plain: list[Tensor], found: list[tuple[Entry, list[Symbols], Any]]) -> None:
    """The oracle finds what the reader does: names, dtypes, shapes and symbols; a tied tensor has its source's."""
    assert len(plain) == len(found)
    for place, (entry, planes, _) in enumerate(found):
        assert plain[place][:3] == (entry.name, entry.dtype, list(entry.full_shape))
        symbols = planes if entry.source is None else found[entry.source][1]
        assert plain[place].planes == [plane.tolist() for plane in symbols]


@pytest.mark.parametrize("preset", ["fast", "best"])
def test_plain_python_reads_the_first_tensor_of_a_preset(preset: str) -> None:
    contents = parse((GOLDEN / f"preset-{preset}.evc").read_bytes())
    entry, planes, _ = next(decode_each(contents))
    assert math.prod(entry.shape) == planes[0].size
    if preset == "best":
        found = MixingDecoder(contents.stream).plane(*entry.planes[0], kernel_places(entry.shape))
    else:
        found = RansDecoder(contents.stream).plane(*entry.planes[0])
    assert found == planes[0].tolist()
