"""Tensors that are lost whole: not zero, and decoded to zeros, because no bit of theirs was worth its price."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from evocompress.codecs import Record

__all__ = ["is_zeroed"]


def is_zeroed(record: Record, array: npt.NDArray[Any]) -> bool:
    """Whether a tensor that is not zero decodes to zeros, by its symbols, which are all 0 then.

    Nothing is decoded, and most tensors tell by their first row. Only the codecs of LinearConv, which mark a filter all
    the same, are not seen through.

    Args:
        record: Its coded form.
        array: Its values as they were.
    """
    planes = [plane.symbols for plane in record.coded.planes]
    return not any(row.any() for plane in planes for row in plane) and bool(np.count_nonzero(array))
