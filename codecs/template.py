"""Templates: names, dtypes and shapes of a network's tensors, for a file that holds none (FORMAT.md, section 13)."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from evocompress.codecs.codec import Shape, varint
from evocompress.codecs.dtypes import DTYPES, dtype_name
from evocompress.codecs.tensor_table import MAX_TENSORS, check_row, encoded_name
from evocompress.errors import CodecError

__all__ = ["Signature", "fingerprint_of", "template_of"]


class Signature(NamedTuple):
    """What is known of a tensor without its weights."""

    name: str
    dtype: str
    shape: Shape


def template_of(tensors: Mapping[str, object]) -> list[Signature]:
    """The signatures of named tensors, in ascending order of their names.

    Args:
        tensors: Torch tensors, numpy arrays, or whatever has a shape and a dtype, such as a module's state dict; or
            pairs of a shape and a dtype.

    Raises:
        CodecError: One of them has none, or what no file holds.

    >>> import numpy as np
    >>> template_of({"w": np.zeros((2, 3), np.float32), "b": ((3,), "bfloat16")})
    [Signature(name='b', dtype='bfloat16', shape=(3,)), Signature(name='w', dtype='float32', shape=(2, 3))]
    """
    if len(tensors) > MAX_TENSORS:
        raise CodecError(f"The network has {len(tensors)} tensors; a file holds at most {MAX_TENSORS}.")
    signatures = []
    for name, tensor in sorted(tensors.items()):
        try:
            shape, dtype = tensor if isinstance(tensor, tuple) else (tensor.shape, tensor.dtype)  # type: ignore[attr-defined]
            signature = Signature(name, dtype_name(dtype), tuple(int(length) for length in shape))
            if min(signature.shape, default=0) < 0:
                raise ValueError(f"a length of {min(signature.shape)}")
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise CodecError(
                f"Tensor {name!r} of the network has no shape and dtype ({error}); give tensors, such as those of "
                "model.state_dict(), or pairs of a shape and a dtype."
            ) from error
        if signature.dtype not in DTYPES:
            raise CodecError(f"Tensor {name!r} of the network has dtype {dtype}; a file holds {', '.join(DTYPES)}.")
        check_row(name, signature.shape)
        signatures.append(signature)
    return signatures


def fingerprint_of(signatures: Iterable[Signature]) -> int:
    """20 bits by which a bare file knows its template."""
    parts = []
    for name, dtype, shape in signatures:
        numbers = (DTYPES.index(dtype), len(shape), *shape)
        parts.append(encoded_name(name) + b"\0" + b"".join(map(varint, numbers)))
    return binascii.crc32(b"".join(parts)) >> 12
