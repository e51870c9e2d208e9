"""ONNX models: their initialisers read as tensors by name, and decoded ones put back into the graph.

Needs the library onnx. A model is data to it: nothing in the file is run, and external data is read from files beside
the model only.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evocompress.codecs.dtypes import DTYPES, name_of
from evocompress.errors import FormatError
from evocompress.support.atomic_files import replacing
from evocompress.support.optional_libraries import needs_extra
from evocompress.support.wording import counted, listed, quoted, shortened

__all__ = ["initialisers", "read_onnx", "write_onnx"]

Array = npt.NDArray[Any]

_LARGE = 1 << 10  # numbers; a smaller constant of a node is a shape or an index, not a weight
_LARGEST = (1 << 31) - (1 << 20)  # bytes; protobuf reads no message of 2 GiB


def read_onnx(path: str | os.PathLike[str]) -> tuple[dict[str, Array], str]:
    """The initialisers of a model's graph by name, with their external data, and what was left out, or "".

    Raises:
        FormatError: It is no ONNX model, is damaged, or its external data is not there.
        EvocompressError: The library onnx is not installed.
    """
    model = _loaded(path)
    arrays = initialisers(model, path)
    if not arrays:
        raise FormatError(f"{os.fspath(path)} is an ONNX model without initialisers, so it holds no weights.")
    return arrays, _left_out(model, arrays)


def initialisers(model: Any, path: str | os.PathLike[str]) -> dict[str, Array]:
    """The initialisers that an `.evc` file can hold, by name; integers of fewer than 8 bits take a byte each.

    Raises:
        FormatError: External data is not there or too short, or two have one name.
    """
    arrays: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        if not _is_kept(tensor):
            continue
        if tensor.name in arrays:
            raise FormatError(f"{os.fspath(path)}: two initialisers have the name {quoted(tensor.name)}.")
        arrays[tensor.name] = _array(tensor, path)
    return arrays


def write_onnx(
    model_path: str | os.PathLike[str],
    arrays: Iterable[tuple[str, Array]],
    output: str | os.PathLike[str],
    source: str | os.PathLike[str],
) -> int:
    """Write a model again with other values of its initialisers, whole or not at all; returns how many they are.

    All else is as it was. What the model has as external data is in the new file itself, which stands alone.

    Args:
        model_path: The model.
        arrays: Name and array of each of its initialisers, in any order.
        output: The file to write.
        source: Names the arrays in errors: the path of their file.

    Raises:
        FormatError: Names, shapes or dtypes are not those of the initialisers, or the model is beyond 2 GiB.
    """
    with needs_extra("onnx"):
        from onnx import helper, numpy_helper
        from onnx.external_data_helper import load_external_data_for_model

    model = _loaded(model_path)
    with _damage_told(model_path):
        load_external_data_for_model(model, os.fspath(Path(model_path).parent))
    wanted = {tensor.name: tensor for tensor in model.graph.initializer if _is_kept(tensor)}
    extra, written = list[str](), set[str]()
    for name, array in arrays:
        if name not in wanted:
            extra.append(name)
            continue
        tensor = wanted[name]
        dtype, shape = helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
        if (name_of(dtype), shape) != (name_of(array.dtype), array.shape):
            raise FormatError(
                f"{os.fspath(source)} does not fit {os.fspath(model_path)}: {quoted(name)} is "
                f"{_kind(array.dtype, array.shape)} in the file, {_kind(dtype, shape)} in the model."
            )
        with _damage_told(model_path):
            coded = numpy_helper.from_array(np.ascontiguousarray(array).view(dtype).reshape(shape), name)
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        tensor.raw_data = coded.raw_data
        written.add(name)
    missing = [name for name in wanted if name not in written]
    if extra or missing:
        differences = [f"{title}: {listed([*map(shortened, names)])}" for title, names in
                       (("missing in the file", missing), ("unknown to the model", extra)) if names]  # fmt: skip
        raise FormatError(f"{os.fspath(source)} does not fit {os.fspath(model_path)}: {'; '.join(differences)}.")
    if model.ByteSize() > _LARGEST:
        raise FormatError(
            f"{os.fspath(output)} would take {model.ByteSize()} bytes, and a file of ONNX holds less than 2 GiB; "
            "unpack to safetensors instead."
        )
    with replacing(Path(output)) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return len(written)


def _loaded(path: str | os.PathLike[str]) -> Any:
    """The model without its external data."""
    with needs_extra("onnx"):
        import onnx
    try:
        with _damage_told(path):
            model = onnx.load(os.fspath(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise FormatError(f"{os.fspath(path)}: {error.strerror or error}.") from None
    if not (model.ir_version and model.HasField("graph")):
        raise FormatError(f"{os.fspath(path)} is no ONNX model: it has no graph.")
    return model


@contextlib.contextmanager
def _damage_told(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # protobuf's, onnx's and numpy's
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise FormatError(f"{os.fspath(path)} is damaged, or no ONNX model: {reason}.") from None


def _array(tensor: Any, path: str | os.PathLike[str]) -> Array:
    from onnx import numpy_helper

    try:
        with _damage_told(path):
            array: Array = numpy_helper.to_array(tensor, os.fspath(Path(path).parent))
    except OSError as error:
        raise FormatError(
            f"{os.fspath(path)}: the external data of {quoted(tensor.name)} cannot be read: {error.strerror or error}."
        ) from None
    return array if array.flags.writeable else array.copy()  # torch shares memory only with what may be written


def _is_kept(tensor: Any) -> bool:
    """Whether a file can hold it: not strings, and not floats of 4 and 6 bits, which torch does not have like that."""
    from onnx import helper

    try:
        return helper.tensor_dtype_to_np_dtype(tensor.data_type).name in DTYPES
    except (KeyError, ValueError, TypeError):
        return False


def _left_out(model: Any, arrays: dict[str, Array]) -> str:
    """What else a model has that looks like weights: a sentence, or ""."""
    parts = []
    if odd := [shortened(tensor.name) for tensor in model.graph.initializer if tensor.name not in arrays]:
        parts.append(f"initialisers of other types ({listed(odd)})")
    if sparse := len(model.graph.sparse_initializer):
        parts.append(counted(sparse, "sparse initialiser"))
    nodes = list(_nodes(model.graph))
    if inner := sum(len(graph.initializer) for node in nodes for graph in _graphs(node)):
        parts.append(f"{counted(inner, 'initialiser')} of graphs inside nodes")
    tensors = [attribute.t for node in nodes for attribute in node.attribute if attribute.HasField("t")]
    if large := sum(math.prod(tensor.dims) >= _LARGE for tensor in tensors):
        parts.append(f"{counted(large, 'large constant')} in nodes")
    return f"left out {', '.join(parts)}" if parts else ""


def _graphs(node: Any) -> list[Any]:
    """The graphs that a node has as attributes, such as the branches of an If."""
    alone = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return alone + [graph for attribute in node.attribute for graph in attribute.graphs]


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for inner in _graphs(node):
            yield from _nodes(inner)


def _kind(dtype: np.dtype[Any], shape: tuple[int, ...]) -> str:
    return f"{name_of(dtype)} {'×'.join(map(str, shape)) or 'scalar'}"
