"""DEFLATE of the tensor table, with a preset dictionary of common tensor names (FORMAT.md, section 9)."""

from __future__ import annotations

import zlib

from evocompress.errors import FormatError

__all__ = ["deflate", "inflate"]

# Common runs of tensor names, the most common last, so that a file need not spell them out.
_NORM = "{0}.weight\0{0}.bias\0{0}.running_mean\0{0}.running_var\0{0}.num_batches_tracked\0"
_DICTIONARY = (
    "word_embeddings.position_embeddings.token_type_embeddings.LayerNorm.encoder.layer.attention.self.query.key.value."
    "output.dense.intermediate.weight_ih_l0\0weight_hh_l0\0bias_ih_l0\0bias_hh_l0\0head.stem.blocks.0.norm1.attn.qkv."
    "proj.norm2.mlp.embed.features.classifier.shortcut.downsample.0.layer4.layer3.layer2."
    + "".join(f"layer1.0.conv{i}.weight\0" + _NORM.format(f"layer1.0.bn{i}") for i in (3, 2, 1))
    + "linear.weight\0linear.bias\0fc.weight\0fc.bias\0conv1.weight\0" + _NORM.format("bn1")
    + "".join(f"{name}.weight\0{name}.bias\0" for name in ("conv1", "conv2", "conv3", "fc1", "fc2", "fc3"))
).encode()  # fmt: skip


def deflate(table: bytes) -> bytes:
    """A table as a raw DEFLATE stream with the preset dictionary."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=_DICTIONARY)
    return squeezer.compress(table) + squeezer.flush()


def inflate(data: bytes, limit: int) -> tuple[bytes, bytes]:
    """What a deflated table at the start of data holds, and the data behind it.

    Raises:
        FormatError: It is damaged, does not end, or is longer than `limit` bytes; no more than that is inflated.
    """
    opener = zlib.decompressobj(-15, zdict=_DICTIONARY)
    try:
        table = opener.decompress(data, limit + 1)
    except zlib.error as error:
        raise FormatError(f"The tensor table is damaged: {error}.") from error
    if len(table) > limit:
        raise FormatError(f"The tensor table is longer than {limit} bytes, more than a file of this size may hold.")
    if not opener.eof:
        raise FormatError("The tensor table has no end: the file is damaged.")
    return table, opener.unused_data
