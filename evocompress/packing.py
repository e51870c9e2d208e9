"""State dict to bytes and back: the way of one network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from evocompress.codecs import LOSSLESS, Cost, Record, Sensitivity, Writer, choose, read
from evocompress.codecs.coders import CODERS
from evocompress.codecs.dtypes import DTYPES, is_float
from evocompress.errors import CodecError
from evocompress.recipe import Recipe
from evocompress.tied import tied_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["encode_tensor", "pack", "to_numpy", "to_torch", "unpack"]

Array: TypeAlias = npt.NDArray[Any]

_LARGE = 1 << 23  # weights; larger tensors are not copied to float64


def to_numpy(name: str, value: object) -> Array:
    """A tensor or array as a numpy array (bfloat16 as ml_dtypes has it), without its gradient or device.

    Raises:
        CodecError: It is neither, or of a dtype that the format does not have.
    """
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
    elif type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        array = _from_torch(name, value)
    else:
        raise CodecError(f"{name!r} is a {type(value).__name__}; a state dict holds torch tensors or numpy arrays.")
    if array.dtype.name not in DTYPES:
        raise CodecError(f"Tensor {name!r} has dtype {array.dtype.name}; a file holds {', '.join(DTYPES)}.")
    return array


def _from_torch(name: str, value: Any) -> Array:
    import torch

    tensor: torch.Tensor = value.detach()
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise CodecError(f"Tensor {name!r} is sparse or quantised; make it dense (to_dense, dequantize) first.")
    tensor = tensor.cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:
        raise CodecError(f"Tensor {name!r} of dtype {tensor.dtype} cannot be packed: {error}") from error


def to_torch(array: Array) -> torch.Tensor:
    """A decoded array as a torch tensor of the same dtype."""
    import torch

    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _floats(array: Array) -> Array:
    """What codecs compute with: float64, but float32 where that is all there is of a large tensor."""
    large = array.size > _LARGE and array.dtype.itemsize <= 4
    return array.astype(np.float32, copy=False) if large else array.astype(np.float64)


def encode_tensor(
    name: str,
    array: Array,
    recipe: Recipe,
    sensitivity: float | Sensitivity,
    *,
    values: Array | None = None,
    state: Any = None,
) -> Record:
    """One tensor under the recipe: integers losslessly, floats by the best candidate of their rule.

    Args:
        name: Its name.
        array: Its values.
        recipe: The recipe.
        sensitivity: What an error costs.
        values: Floats to code in place of a float array's own, unless its rule is lossless.
        state: The entropy coder's statistics by now, which candidates are compared under; fresh ones by default.

    Raises:
        CodecError: NaN or Inf, or weights whose squares overflow.
    """
    dtype = array.dtype.name
    rule = recipe.rule(name, array.ndim)
    candidates = rule.candidates()
    if not is_float(dtype) or candidates == (LOSSLESS,):
        return Record(name, dtype, array.shape, LOSSLESS, LOSSLESS.encode(array, Cost(recipe.rate_weight)))
    exact = _floats(array if values is None else values)
    ends = (float(exact.min()), float(exact.max())) if exact.size else ()  # NaN goes through both
    if not all(map(math.isfinite, ends)):
        what = "NaN" if any(map(math.isnan, ends)) else "Inf"
        raise CodecError(
            f"Tensor {name!r} holds {what}, which no lossy codec can keep. If it is meant (a mask, say), "
            f"add the rule Rule({name!r}, ('lossless',)), or --rule '{name}=lossless'; else the network has diverged."
        )
    rate_weight = recipe.rate_weight * rule.rate_factor
    if isinstance(sensitivity, Sensitivity):
        cost = Cost(rate_weight, sensitivity.scale, sensitivity)
    else:
        cost = Cost(rate_weight, float(sensitivity))
    codec, coded = choose(candidates, exact, cost, CODERS[recipe.coder].state() if state is None else state)
    return Record(name, dtype, array.shape, codec, coded)


def pack(
    state_dict: Mapping[str, object],
    recipe: Recipe | float | None = None,
    *,
    sensitivities: Mapping[str, float | Sensitivity] | None = None,
    records: Mapping[str, Record] | None = None,
) -> bytes:
    """Compress a state dict to the bytes of an `.evc` file; the same input gives the same bytes.

    Tensors of more than 64 elements that equal an earlier one bit for bit (tied ones do) are stored once, unless their
    rules differ; what holds for the first of them, its sensitivity too, holds for all.

    Args:
        state_dict: Names to torch tensors or numpy arrays of 0 to 8 dimensions, any float, integer or bool dtype.
        recipe: A `Recipe`, or just its rate weight λ; None is the default recipe.
        sensitivities: Per tensor what an error costs: a number for squared error (calibration.py), or of second order
            (second_order.py); 1 where absent.
        records: Tensors that are coded already, by name (layerwise.py); they go into the file as they are.

    Raises:
        CodecError: NaN or Inf in a tensor, an unknown dtype, a rule that no tensor meets; the message has the name.

    >>> data = pack({"w": np.eye(8, dtype=np.float32)}, 1e-3)
    >>> bool(np.abs(unpack(data, framework="numpy")["w"] - np.eye(8)).max() < 0.1)
    True
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else Recipe(recipe)
    arrays = {name: to_numpy(name, value) for name, value in state_dict.items()}
    recipe.check((name, array.ndim) for name, array in arrays.items())
    tied, stored = tied_tensors(arrays), dict[str, str]()
    writer = Writer(recipe.coder, names=recipe.names)
    for name, array in arrays.items() if recipe.names else sorted(arrays.items()):
        if records is not None and name in records:
            stored.setdefault(tied.get(name, name), name)
            writer.add(records[name])
            continue
        first = tied.get(name, name)
        if first in stored and recipe.alike(name, stored[first], array.ndim):
            writer.tie(name, stored[first])
            continue
        stored.setdefault(first, name)
        sensitivity = 1.0 if sensitivities is None else sensitivities.get(first, 1.0)
        try:
            writer.add(encode_tensor(name, array, recipe, sensitivity, state=writer.state))
        except CodecError as error:
            if repr(name) in str(error):
                raise
            raise CodecError(f"Tensor {name!r}: {error}") from error
    return writer.finish()


@overload
def unpack(
    data: bytes, framework: Literal["torch"] = "torch", *, names: Iterable[str] | None = None
) -> dict[str, torch.Tensor]: ...
@overload
def unpack(data: bytes, framework: Literal["numpy"], *, names: Iterable[str] | None = None) -> dict[str, Array]: ...
def unpack(
    data: bytes, framework: Literal["torch", "numpy"] = "torch", *, names: Iterable[str] | None = None
) -> dict[str, Any]:
    """The state dict of an `.evc` file, with the original names, order, shapes and dtypes.

    Args:
        data: The file's bytes.
        framework: "torch" for tensors, "numpy" for arrays (torch is then not imported).
        names: For a file that was packed without names: those of its tensors, in any order; else they are called "0",
            "1", … . A file that has names keeps them.

    Raises:
        FormatError: The bytes are not a whole, undamaged file of a version that this release reads.
        CodecError: The names are not those with which the file was packed.
    """
    arrays = read(bytes(data), names)
    return arrays if framework == "numpy" else {name: to_torch(array) for name, array in arrays.items()}
