"""Inspection of a file: the bytes that each tensor's symbols and side information take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from evocompress.codecs.codec import Shape
from evocompress.codecs.container import Contents, file_names, parse, symbols_each
from evocompress.codecs.registry import codec_spec
from evocompress.codecs.tensor_table import Entry

__all__ = ["TensorInfo", "inspect"]


class TensorInfo(NamedTuple):
    """What one tensor takes of a file, in bytes.

    `payload_bytes` is its share of the entropy-coded stream, `side_bytes` its side information in the tensor table. A
    tensor that is tied to another takes nothing of either; `tied_to` is the other's name.
    """

    name: str
    shape: Shape
    dtype: str
    codec: str
    weights: int
    payload_bytes: float
    side_bytes: int
    tied_to: str | None = None

    @property
    def bits_per_weight(self) -> float:
        """8·(payload + side) / weights."""
        return 8 * (self.payload_bytes + self.side_bytes) / max(self.weights, 1)


def inspect(
    data: bytes, names: Iterable[str] | Mapping[str, object] | None = None, *, max_output_bytes: int | None = None
) -> tuple[list[TensorInfo], int]:
    """What each tensor of a file takes, and the bytes of everything else; together they add up to the file.

    The stream is shared, so a tensor's part of it is its share of the ideal code length. For that the symbols are
    decoded, and no weights are made of them. Arguments and errors are those of `iterate`, but that symbols which stand
    for no weights (NaN, integers beyond their dtype) are not seen.
    """
    contents = parse(data, names, max_output_bytes=max_output_bytes)
    contents = _named(contents, file_names(contents, names))
    bits = list[float]()
    for _, planes, used in symbols_each(contents):
        bits.append(used)
        del planes  # so that only one tensor's are there at a time
    scale = len(contents.stream) / sum(bits) if sum(bits) else 0.0
    # The table is deflated, or in bits; where much side information is alike, it takes less there than it is long.
    share = min(1.0, contents.table_bytes / max(sum(len(entry.side) for entry in contents.tensors), 1))
    infos = [_info(contents, e, used * scale, share) for e, used in zip(contents.tensors, bits, strict=True)]
    tensor_bytes = sum(info.side_bytes for info in infos) + (len(contents.stream) if scale else 0)
    return infos, len(data) - tensor_bytes


def _named(contents: Contents, names: Sequence[str]) -> Contents:
    pairs = zip(contents.tensors, names, strict=True)
    return contents._replace(tensors=tuple(entry._replace(name=name) for entry, name in pairs))


def _info(contents: Contents, entry: Entry, payload: float, share: float) -> TensorInfo:
    tied_to = None if entry.source is None else contents.tensors[entry.source].name
    side, weights = int(len(entry.side) * share), math.prod(entry.full_shape)
    return TensorInfo(
        entry.name, entry.full_shape, entry.dtype, codec_spec(entry.codec), weights, payload, side, tied_to
    )
