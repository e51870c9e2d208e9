"""Any bytes are a file or a FormatError: a target for atheris (`make fuzz`); the suite drives it with hypothesis.

The checksum would stop nearly every mutation at the door, so the target makes it good again, and the tensor table is
mutated before it is deflated.
"""

from __future__ import annotations

import binascii
import sys
from pathlib import Path

import numpy as np

from evocompress.codecs.container import MAGIC, _deflate, inspect, parse, read
from evocompress.errors import FormatError

GOLDEN = Path(__file__).parents[1] / "golden"
_FEW = 1 << 16  # files of more weights are parsed, not decoded: valid ones take their time


def sealed(body: bytes) -> bytes:
    """A file with this tensor table and stream: first its length in two bytes, then the table, then the stream.

    The length's top bit says that the stream is that of entropy coder 1, in a file of version 2.
    """
    coder, length = divmod(int.from_bytes(body[:2], "little"), 1 << 15)
    table, stream = body[2 : 2 + length], body[2 + length :]
    file = MAGIC + (b"\x02\x01" if coder else b"\x01") + _deflate(table) + stream
    return file + binascii.crc32(file).to_bytes(4, "little")


def opened(data: bytes) -> bytes:
    """The inverse of `sealed`."""
    import zlib

    from evocompress.codecs.container import _DICTIONARY

    opener = zlib.decompressobj(-15, zdict=_DICTIONARY)
    coder = data[3] - 1
    table = opener.decompress(data[4 + coder : -4])
    return (len(table) + (coder << 15)).to_bytes(2, "little") + table + opener.unused_data


def check(data: bytes) -> None:
    """One input: a list of tensors, or a FormatError, and nothing else."""
    try:
        contents = parse(data)
        if sum(plane.rows * plane.columns for entry in contents.tensors for plane in entry.planes) > _FEW:
            return
        tensors = read(data)
        infos, rest = inspect(data)
    except FormatError:
        return
    assert [info.name for info in infos] == list(tensors) and rest >= 0
    for entry in contents.tensors:
        array = tensors[entry.name]
        assert array.shape == entry.shape and array.dtype.name == entry.dtype
        assert entry.codec.stages[0].id == "lossless" or np.isfinite(array.astype(np.float64)).all()


def target(data: bytes) -> None:
    """What atheris calls: as it is, and with the checksum made good."""
    check(data)
    check(sealed(data))


def main() -> None:
    """Run atheris with the golden files as its corpus."""
    try:
        import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]  # pyright: ignore
    except ImportError:
        sys.exit("atheris is not installed; `make fuzz` installs it and runs this.")
    import tempfile

    with tempfile.TemporaryDirectory() as corpus:
        for path in GOLDEN.glob("*.evc"):
            (Path(corpus) / path.stem).write_bytes(opened(path.read_bytes()))
        atheris.instrument_all()  # pyright: ignore
        atheris.Setup([*sys.argv, corpus], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
