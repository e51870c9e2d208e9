"""State dict to bytes and back: the way of one network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from evocompress.codecs import LOSSLESS, Cost, Record, Sensitivity, Writer, choose, read
from evocompress.codecs.dtypes import DTYPES, is_float
from evocompress.errors import CodecError
from evocompress.recipe import Recipe

if TYPE_CHECKING:
    import torch

__all__ = ["pack", "to_numpy", "to_torch", "unpack"]

Array: TypeAlias = npt.NDArray[Any]


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


def _encode(name: str, array: Array, recipe: Recipe, sensitivity: float | Sensitivity, writer: Writer) -> Record:
    """One tensor under the recipe: integers losslessly, floats by the best candidate of their rule."""
    dtype = array.dtype.name
    rule = recipe.rule(name, array.ndim)
    candidates = rule.candidates()
    if not is_float(dtype) or candidates == (LOSSLESS,):
        return Record(name, dtype, array.shape, LOSSLESS, LOSSLESS.encode(array, Cost(recipe.rate_weight)))
    exact = array.astype(np.float64)
    if not np.isfinite(exact).all():
        what = "NaN" if np.isnan(exact).any() else "Inf"
        raise CodecError(
            f"Tensor {name!r} holds {what}, which no lossy codec can keep. If it is meant (a mask, say), "
            f"add the rule Rule({name!r}, ('lossless',)), or --rule '{name}=lossless'; else the network has diverged."
        )
    rate_weight = recipe.rate_weight * rule.rate_factor
    if isinstance(sensitivity, Sensitivity):
        cost = Cost(rate_weight, sensitivity.scale, sensitivity)
    else:
        cost = Cost(rate_weight, float(sensitivity))
    codec, coded = choose(candidates, exact, cost, writer.state)
    return Record(name, dtype, array.shape, codec, coded)


def pack(
    state_dict: Mapping[str, object],
    recipe: Recipe | float | None = None,
    *,
    sensitivities: Mapping[str, float | Sensitivity] | None = None,
) -> bytes:
    """Compress a state dict to the bytes of an `.evc` file; the same input gives the same bytes.

    Args:
        state_dict: Names to torch tensors or numpy arrays of 0 to 8 dimensions, any float, integer or bool dtype.
        recipe: A `Recipe`, or just its rate weight λ; None is the default recipe.
        sensitivities: Per tensor what an error costs: a number for squared error (calibration.py), or of second order
            (second_order.py); 1 where absent.

    Raises:
        CodecError: NaN or Inf in a tensor, an unknown dtype, a rule that no tensor meets; the message has the name.

    >>> data = pack({"w": np.eye(8, dtype=np.float32)}, 1e-3)
    >>> bool(np.abs(unpack(data, framework="numpy")["w"] - np.eye(8)).max() < 0.1)
    True
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else Recipe(recipe)
    arrays = {name: to_numpy(name, value) for name, value in state_dict.items()}
    recipe.check((name, array.ndim) for name, array in arrays.items())
    writer = Writer(recipe.coder)
    for name, array in arrays.items():
        sensitivity = 1.0 if sensitivities is None else sensitivities.get(name, 1.0)
        try:
            writer.add(_encode(name, array, recipe, sensitivity, writer))
        except CodecError as error:
            if repr(name) in str(error):
                raise
            raise CodecError(f"Tensor {name!r}: {error}") from error
    return writer.finish()


@overload
def unpack(data: bytes, framework: Literal["torch"] = "torch") -> dict[str, torch.Tensor]: ...
@overload
def unpack(data: bytes, framework: Literal["numpy"]) -> dict[str, Array]: ...
def unpack(data: bytes, framework: Literal["torch", "numpy"] = "torch") -> dict[str, Any]:
    """The state dict of an `.evc` file, with the original names, order, shapes and dtypes.

    Args:
        data: The file's bytes.
        framework: "torch" for tensors, "numpy" for arrays (torch is then not imported).

    Raises:
        FormatError: The bytes are not a whole, undamaged file of a version that this release reads.
    """
    arrays = read(bytes(data))
    return arrays if framework == "numpy" else {name: to_torch(array) for name, array in arrays.items()}
