"""Baselines of small checkpoints without training: cast, round, cluster, then a general compressor.

Every baseline writes a whole file and decodes it again; its size is that file's.
"""

from __future__ import annotations

import gzip
import importlib
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy

__all__ = ["Baseline", "baselines", "compressor", "rounded"]

Array: TypeAlias = npt.NDArray[Any]
State: TypeAlias = Mapping[str, Array]
_ITERATIONS = 50  # of k-means


class Baseline(NamedTuple):
    """Its name, the size of its file, and the weights that the file decodes to."""

    name: str
    nbytes: int
    state: dict[str, Array]


def compressor() -> tuple[str, Callable[[bytes], bytes]]:
    """zstd at level 19 where the package `zstandard` is installed; else xz, which compresses better."""
    try:
        zstandard = importlib.import_module("zstandard")
    except ModuleNotFoundError:
        return "xz", lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    return "zstd", zstandard.ZstdCompressor(level=19).compress


def baselines(state: State) -> list[Baseline]:
    """All of them on one network; matrices and kernels are made small, vectors are kept as they are."""
    return [_float16(state), *rounded(state), *(_clustered(state, bits) for bits in (5, 4))]


def rounded(state: State) -> list[Baseline]:
    """Those that round to 8 and to 4 bits, which take seconds for a million weights."""
    return [_rounded(state, bits) for bits in (8, 4)]


def _is_weight(array: Array) -> bool:
    return array.ndim >= 2 and array.dtype.kind == "f"


def _float16(state: State) -> Baseline:
    half = {name: array.astype(np.float16) if array.dtype.kind == "f" else array for name, array in state.items()}
    data = gzip.compress(safetensors.numpy.save(half), 9)
    return Baseline("float16 + gzip", len(data), {name: array.astype(np.float32) for name, array in half.items()})


def _rounded(state: State, bits: int) -> Baseline:
    """Round to nearest, symmetric, one float32 scale for each output channel, its largest weight at the last level."""
    stored: dict[str, Array] = {}
    decoded = dict(state)
    top = 2 ** (bits - 1) - 1
    for name, array in state.items():
        if not _is_weight(array):
            stored[name] = array
            continue
        rows = array.reshape(len(array), -1)
        scale = (np.abs(rows).max(1, keepdims=True) / top).astype(np.float32)
        scale[scale == 0] = 1
        levels = np.clip(np.rint(rows / scale), -top, top).astype(np.int8)
        stored[name] = levels if bits == 8 else _nibbles(levels)
        stored[f"{name}.scale"] = scale
        decoded[name] = (levels * scale).astype(np.float32).reshape(array.shape)
    kind, compress = compressor()
    return Baseline(f"int{bits} per channel + {kind}", len(compress(safetensors.numpy.save(stored))), decoded)


def _nibbles(levels: npt.NDArray[np.int8]) -> Array:
    """Two levels in -8 … 7 to a byte."""
    flat = np.resize((levels.ravel() + 8).astype(np.uint8), levels.size + levels.size % 2)
    return flat[::2] | flat[1::2] << 4


def _clustered(state: State, bits: int) -> Baseline:
    """Deep Compression without its pruning (Han and others, 2016): k-means and Huffman codes, layer by layer."""
    stored: dict[str, Array] = {}
    decoded = dict(state)
    for name, array in state.items():
        if not _is_weight(array):
            stored[name] = array
            continue
        centres, nearest = _k_means(array.ravel().astype(np.float64), 2**bits)
        stored[f"{name}.codebook"] = centres
        stored[f"{name}.indices"] = np.frombuffer(_huffman(nearest.tobytes()), np.uint8)
        decoded[name] = centres[nearest].reshape(array.shape)
    return Baseline(f"k-means, {bits} bits + Huffman", len(safetensors.numpy.save(stored)), decoded)


def _huffman(data: bytes) -> bytes:
    """Deflate, told to do nothing but Huffman coding."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(data) + coder.flush()


def _k_means(values: npt.NDArray[np.float64], count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Lloyd's iterations from equally spaced centres, which Deep Compression found to be the best start."""
    centres = np.linspace(values.min(), values.max(), count)
    for _ in range(_ITERATIONS):
        nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        members = np.bincount(nearest, minlength=count)
        sums = np.bincount(nearest, values, minlength=count)
        moved = np.where(members > 0, sums / np.maximum(members, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = np.sort(moved)
    nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
    return centres.astype(np.float32), nearest.astype(np.uint8)
