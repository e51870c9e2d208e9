"""Any bytes are a file or a FormatError: a target for atheris (`make fuzz`); the suite drives it with hypothesis.

The checksum would stop nearly every mutation at the door, so the target makes it good again, and the tensor table is
mutated before it is deflated.
"""

from __future__ import annotations

import binascii
import gc
import math
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evocompress.codecs import inspect, iterate, read
from evocompress.codecs.container import MAGIC, parse, table_start
from evocompress.codecs.deflation import deflate, inflate
from evocompress.codecs.dtypes import name_of
from evocompress.errors import CodecError, FormatError

GOLDEN = Path(__file__).parents[1] / "golden"
_FEW = 1 << 12  # files of more weights are parsed, not decoded: valid ones take their time
_SMALL = 1000
_LENGTH = 1 << 18
_BARE = (4, 5)  # versions whose tables are not deflated, and which are read with one of these
TEMPLATES = [read((GOLDEN / f"{name}.evc").read_bytes()) for name in ("rans", "tied", "zero-ended")]


def sealed(body: bytes) -> bytes:
    """A file with this head, tensor table and stream: first three bytes, then these three.

    Of the three bytes the lowest 18 bits are the table's length, then six say that of the head without the magic.
    """
    sizes = int.from_bytes(body[:3], "little")
    begin = 3 + sizes // _LENGTH
    end = begin + sizes % _LENGTH
    bare = body[3:begin] in [bytes([version]) for version in _BARE]
    file = MAGIC + body[3:begin] + (body[begin:end] if bare else deflate(body[begin:end])) + body[end:]
    return file + binascii.crc32(file).to_bytes(4, "little")


def opened(data: bytes) -> bytes:
    """The inverse of `sealed`."""
    start = table_start(data)
    if data[3] in _BARE:
        return (_LENGTH * (start - len(MAGIC))).to_bytes(3, "little") + data[len(MAGIC) : -4]
    table, stream = inflate(data[start:-4], _LENGTH - 1)
    head = data[len(MAGIC) : start]
    return (len(table) + _LENGTH * len(head)).to_bytes(3, "little") + head + table + stream


def check(data: bytes) -> None:
    """One input: a list of tensors, or a FormatError, and nothing else; of a bare file also another network's."""
    for names in TEMPLATES if data[3:4] in [bytes([version]) for version in _BARE] else (None,):
        try:
            _check(data, names)
        except CodecError as error:
            assert names is not None and "with which it was packed" in str(error)


def _check(data: bytes, names: Mapping[str, object] | None) -> None:
    try:
        contents = parse(data, names)
        symbols = sum(plane.rows * plane.columns for entry in contents.tensors for plane in entry.planes)
        if symbols + sum(math.prod(entry.full_shape) for entry in contents.tensors) > _FEW:
            return
        infos, rest = inspect(data, names)
    except FormatError:
        return
    try:
        assert len(infos) == check_tensors(data, names) and rest >= 0
    except FormatError:
        return


def check_tensors(data: bytes, names: Mapping[str, object] | None) -> int:
    """Decode a file, and see that its tensors are what its table says; returns how many.

    Raises:
        FormatError: The file is damaged.
    """
    contents, tensors = parse(data, names), dict(iterate(data, names))
    assert [entry.name for entry in contents.tensors] == list(tensors)
    for entry in contents.tensors:
        array = tensors[entry.name]
        assert array.shape == entry.full_shape and name_of(array.dtype) == entry.dtype
        assert entry.codec.stages[0].id == "lossless" or np.isfinite(array.astype(np.float64)).all()
        if entry.source is not None:
            assert array.tobytes() == tensors[contents.tensors[entry.source].name].tobytes()
    return len(tensors)


def target(data: bytes) -> None:
    """What atheris calls: as it is, and with the checksum made good."""
    check(data)
    check(sealed(data))


def main() -> None:
    """Run atheris with the smaller golden files as its corpus.

    The coders run as plain Python: atheris sees into them then, and an index out of range is an error.
    """
    if os.environ.get("NUMBA_DISABLE_JIT") != "1":  # numba asks for it when it is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "NUMBA_DISABLE_JIT": "1"})
    try:
        import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # pyright: ignore
    except ImportError:
        sys.exit("atheris is not installed; `make fuzz` installs it and runs this.")
    import tempfile

    with tempfile.TemporaryDirectory() as corpus:
        for path in GOLDEN.glob("*.evc"):
            if path.stat().st_size < _SMALL:
                (Path(corpus) / path.stem).write_bytes(opened(path.read_bytes()))
        for function in [each for each in gc.get_objects() if isinstance(each, types.FunctionType)]:
            if (function.__module__ or "").startswith("evocompress."):
                atheris.instrument_func(function)  # pyright: ignore
        atheris.Setup([*sys.argv, corpus], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
