"""Pack and unpack: a state dict to the bytes of an `.evc` file, and back."""

from __future__ import annotations

import dataclasses
import functools
import glob
import math
import numbers
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from evocompress.checkpoint.norm_statistics import kept_in_proportion
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.checkpoint.relative_rate_weight import rate_weight_for, with_small_raised
from evocompress.checkpoint.size_prior import size_prior
from evocompress.checkpoint.tied_tensors import tied_tensors
from evocompress.codecs import LOSSLESS, Codec, Cost, Record, Sensitivity, Writer, choose, read
from evocompress.codecs.coders import CODERS
from evocompress.codecs.cropping import chosen_corners, corner, live_corner, worth_cropping
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.dtypes import DTYPES, FOREIGN, dtype_named, is_float, name_of
from evocompress.codecs.planes import matrix_shape
from evocompress.codecs.row_scales import RowScales
from evocompress.errors import CodecError, FormatError
from evocompress.support.wording import kind_of, listed, quoted, shortened

if TYPE_CHECKING:
    import torch

__all__ = ["TensorError", "encode_tensor", "is_zeroed", "pack", "pack_without_loss", "to_numpy", "to_torch", "unpack"]

Array: TypeAlias = npt.NDArray[Any]

_VALUES_OF_A_MASK = 2
_LARGE = 1 << 23  # weights; larger tensors are not copied to float64


class TensorError(CodecError):
    """A tensor that no lossy codec can keep; a rule with the glob `match` keeps it as it is."""

    def __init__(self, message: str, match: str = "") -> None:
        super().__init__(message, match)
        self.message, self.match = message, match

    def __str__(self) -> str:
        return self.message


def to_numpy(name: str, value: object) -> Array:
    """A tensor or array as a numpy array (of the dtype `dtype_named` has), without its gradient or device.

    Raises:
        CodecError: It is neither, or of a dtype that the format does not have.
    """
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
    elif hasattr(value, "detach") and any(kind.__module__.partition(".")[0] == "torch" for kind in type(value).__mro__):
        array = _from_torch(name, value)
    else:
        hint = f" If that is one, pack it alone: checkpoint[{quoted(name)}]." if isinstance(value, Mapping) else ""
        raise CodecError(f"{quoted(name)} is {kind_of(value)}; a state dict holds torch tensors or numpy arrays.{hint}")
    if name_of(array.dtype) not in DTYPES:
        raise _no_such_dtype(name, name_of(array.dtype))
    return array


def _no_such_dtype(name: str, dtype: str) -> CodecError:
    return CodecError(f"Tensor {quoted(name)} has dtype {dtype}; convert it to one of {listed(DTYPES)}.")


def _from_torch(name: str, value: Any) -> Array:
    import torch

    if torch.nn.parameter.is_lazy(value):
        raise CodecError(f"Tensor {quoted(name)} has no shape yet; run the module once, so that it gets values.")
    tensor: torch.Tensor = _local(name, value).detach()
    if tensor.is_meta:
        raise CodecError(f"Tensor {quoted(name)} is on the meta device, which holds no values; load some first.")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        raise CodecError(
            f"Tensor {quoted(name)} is sparse, quantised or nested; make it dense (to_dense, dequantize) first."
        )
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise _no_such_dtype(name, str(tensor.dtype))
    tensor = tensor.resolve_conj().resolve_neg()
    if dtype in FOREIGN:  # the bits, as integers of the same size
        tensor = tensor.view(getattr(torch, f"int{8 * tensor.element_size()}"))
    array: Array = tensor.cpu().contiguous().numpy()
    return array.view(dtype_named(dtype)) if dtype in FOREIGN else array


def _local(name: str, value: Any) -> torch.Tensor:
    """A DTensor of a single process as the tensor that it is; any other tensor as it is."""
    if not hasattr(value, "full_tensor"):  # `DTensor` has it, and is imported only where somebody has made one
        tensor: torch.Tensor = value
        return tensor
    if value.device_mesh.size() > 1:
        raise CodecError(
            f"Tensor {quoted(name)} is a DTensor, of which this process has a part; gather the state dict first, by "
            "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)) of "
            "torch.distributed.checkpoint.state_dict."
        )
    whole: torch.Tensor = value.to_local()
    return whole


def to_torch(array: Array) -> torch.Tensor:
    """A decoded array as a torch tensor of the same dtype.

    Raises:
        CodecError: This version of torch has no such dtype.
    """
    import torch

    array = np.ascontiguousarray(array).reshape(array.shape)
    name = name_of(array.dtype)
    if name not in FOREIGN:
        return torch.from_numpy(array)
    if not hasattr(torch, name):
        raise CodecError(
            f"torch {torch.__version__} has no dtype {name}; a newer one has, and framework='numpy' reads it."
        )
    return torch.from_numpy(array.view(f"i{array.dtype.itemsize}")).view(getattr(torch, name))


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
        TensorError: NaN or Inf, or weights whose squares overflow.
        CodecError: A sensitivity that does not fit.
    """
    dtype = name_of(array.dtype)
    rule = recipe.rule(name, array.ndim)
    candidates = rule.candidates
    if not is_float(dtype) or candidates == (LOSSLESS,):
        return Record(name, dtype, array.shape, LOSSLESS, LOSSLESS.encode(array, Cost(recipe.rate_weight)))
    exact = _floats(array if values is None else values)
    ends = (float(exact.min()), float(exact.max())) if exact.size else ()  # NaN goes through both
    if _is_mask(exact, ends):
        return Record(name, dtype, array.shape, LOSSLESS, LOSSLESS.encode(array, Cost(recipe.rate_weight)))
    if not all(map(math.isfinite, ends)):
        non_finite = "NaN" if any(map(math.isnan, ends)) else "Inf"
        raise TensorError(
            f"Tensor {quoted(name)} holds {non_finite}, which no lossy codec can keep. If it is meant (a mask, say), "
            f"add the rule {_lossless_rule(name)}; else the network has diverged.",
            shortened(_escaped(name), "*"),
        )
    try:
        cost = _cost(recipe.rate_weight * rule.rate_factor, sensitivity, array.shape)
    except CodecError as error:
        raise CodecError(f"Tensor {quoted(name)}: {error}") from error
    if cost.sensitivity is not None and cost.sensitivity.uneven_rows and rule not in recipe.rules:
        candidates = tuple(Codec((RowScales(), *codec.stages)) for codec in candidates)
    try:
        codec, coded = choose(candidates, exact, cost, CODERS[recipe.coder].state() if state is None else state)
    except CodecError as error:
        hint = f"To keep it as it is, add the rule {_lossless_rule(name)}."
        raise TensorError(f"Tensor {quoted(name)}: {error} {hint}", shortened(_escaped(name), "*")) from error
    return Record(name, dtype, array.shape, codec, coded)


def _lossless_rule(name: str) -> str:
    return f"Rule({shortened(_escaped(name), '*')!r}, ('lossless',))"


def _escaped(name: str) -> str:
    """A name as a glob that matches it alone."""
    return glob.escape(name)


def _is_mask(exact: Array, ends: tuple[float, ...]) -> bool:
    """Whether infinities are meant: those of one sign, beside one or two other values, as in a mask for attention."""
    low, high = ends or (0.0, 0.0)
    if math.isinf(low) == math.isinf(high):  # neither, or both signs, or nothing else; NaN is neither
        return False
    return len(np.unique(exact[np.isfinite(exact)])) <= _VALUES_OF_A_MASK


def is_zeroed(record: Record, array: npt.NDArray[Any]) -> bool:
    """Whether a tensor that is not zero decodes to zeros, by its symbols, which are all 0 then.

    Nothing is decoded, and most tensors tell by their first row. Codecs that mark something
    all the same, such as which filters they keep, are not seen through.

    Args:
        record: Its coded form.
        array: Its values as they were.
    """
    planes = [plane.symbols for plane in record.coded.planes]
    return not any(row.any() for plane in planes for row in plane) and bool(np.count_nonzero(array))


def _cost(rate_weight: float, sensitivity: object, shape: tuple[int, ...]) -> Cost:
    if isinstance(sensitivity, Sensitivity):
        if not sensitivity.fits(*matrix_shape(shape)):
            of = (len(sensitivity.g), sensitivity.width)
            raise CodecError(f"its sensitivity is that of a matrix {of}; its own shape is {shape}.")
        return Cost(rate_weight, sensitivity.scale, sensitivity)
    try:
        scale = float(sensitivity)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise CodecError(f"its sensitivity is {kind_of(sensitivity)}; give a number, or a Sensitivity.") from None
    return Cost(rate_weight, scale)


def pack(
    state_dict: Mapping[str, object],
    recipe: Recipe | float | None = None,
    *,
    sensitivities: Mapping[str, float | Sensitivity] | None = None,
    records: Mapping[str, Record] | None = None,
    zeroed: list[str] | None = None,
    grid: Mapping[str, float] | None = None,
) -> bytes:
    """Compress a state dict to the bytes of an `.evc` file; the same input gives the same bytes.

    Given a rate weight, or nothing, they are those of the command `pack` with its default preset: `presets.preset`
    with sensitivities by `size_prior`. Its trellis takes longer than `Recipe(λ)`, which has none.

    Tensors of more than 64 elements that equal an earlier one bit for bit (tied ones do) are stored once, unless their
    rules differ; what holds for the first of them, its sensitivity too, holds for all.

    Args:
        state_dict: Names to torch tensors or numpy arrays of 0 to 8 dimensions, of any dtype in `codecs.dtypes.DTYPES`.
            Those of float16, bfloat16, float32 and float64 are coded lossily, all others exactly.
        recipe: A rate weight λ for the default preset; None: λ relative to the weights (`relative_rate_weight`); or a
            `Recipe`, which counts as it is.
        sensitivities: Per tensor what an error costs: a number for squared error (`calibration.fisher`), or of second
            order (`calibration.second_order`); 1 where absent. None: `size_prior`, but 1 for all beside a `Recipe`.
        records: Tensors that are coded already, by name (`packer.layerwise`); they go into the file as they are.
        zeroed: Is filled with the names of tensors that are not zero and decode to zeros.
        grid: Steps of tensors whose weights training has left on multiples of them, by name; these go into the file
            exactly, whatever their rule, unless it is `lossless`.

    Raises:
        CodecError: NaN or Inf in a tensor, an unknown dtype, a rule that no tensor meets; the message has the name. Or
            an argument is none of what is listed here.

    >>> data = pack({"w": np.eye(8, dtype=np.float32)}, 1e-3)
    >>> bool(np.abs(unpack(data, framework="numpy")["w"] - np.eye(8)).max() < 0.1)
    True
    """
    arrays, is_whole = _arrays(state_dict), isinstance(recipe, Recipe)
    by_default, from_weights_alone = recipe is None, sensitivities is None
    recipe = _recipe(rate_weight_for(arrays) if recipe is None else recipe)
    if sensitivities is None:
        sensitivities = {} if is_whole else size_prior(arrays)
        sensitivities = with_small_raised(arrays, sensitivities) if by_default else sensitivities
    elif not isinstance(sensitivities, Mapping):
        raise CodecError(f"sensitivities is {kind_of(sensitivities)}; it must map names of tensors to theirs.")
    recipe.check((name, array.ndim) for name, array in arrays.items())
    tied, stored = tied_tensors(arrays), dict[str, str]()
    whole = {name for name in arrays if isinstance(sensitivities.get(tied.get(name, name)), Sensitivity)}
    croppable = {name: array for name, array in arrays.items() if name not in whole and name not in (records or ())}
    on_grid = {name for name in arrays if tied.get(name, name) in (grid or ())}
    corners = {} if recipe.shapes else _corners(arrays, croppable, recipe, on_grid)
    writer = Writer(recipe.coder, names=recipe.names, shapes=recipe.shapes)
    for name, array in arrays.items() if recipe.names else sorted(arrays.items()):
        first = tied.get(name, name)
        if records is not None and name in records:
            record = records[name]
        elif first in stored and recipe.alike(name, stored[first], array.ndim):
            writer.tie(name, stored[first])
            continue
        else:
            sensitivity = sensitivities.get(first, 1.0)
            part = corner(array, corners[name]) if name in corners else array
            step, beside = (grid or {}).get(first), arrays if from_weights_alone else None
            record = _record(name, part, recipe, sensitivity, writer.state, step=step, beside=beside)
            record = record if part is array else record._replace(whole=array.shape)
        stored.setdefault(first, name)
        writer.add(record)
        if zeroed is not None and is_zeroed(record, array):
            zeroed.append(name)
    return writer.finish()


def pack_without_loss(state_dict: Mapping[str, Any]) -> bytes:
    """Encode a state dict into the bytes of an `.evc` file, every bit of every tensor."""
    return pack(state_dict, Recipe(rules=(Rule(codecs=("lossless",)),)))


def _record(
    name: str,
    array: Array,
    recipe: Recipe,
    sensitivity: float | Sensitivity,
    state: Any,
    *,
    step: float | None,
    beside: Mapping[str, Array] | None,
) -> Record:
    """A tensor, coded: on its grid of this step, if it is on one; else by its rule.

    Where sensitivities come from the weights alone, it keeps its share of the bytes `beside` the others.
    """
    on_grid = None if step is None else _on_grid(name, array, step, recipe)
    if on_grid is not None:
        return on_grid
    if beside is not None:
        encode = functools.partial(_at_factor, name, array, recipe, sensitivity, state)
        return kept_in_proportion(name, array, beside, encode)
    return encode_tensor(name, array, recipe, sensitivity, state=state)


def _at_factor(
    name: str, array: Array, recipe: Recipe, sensitivity: float | Sensitivity, state: Any, factor: float
) -> Record:
    """A tensor at λ times a factor; without loss for 0."""
    if factor == 0:
        cost = Cost(recipe.rate_weight)
        return Record(name, name_of(array.dtype), array.shape, LOSSLESS, LOSSLESS.encode(array, cost))
    recipe = dataclasses.replace(recipe, rate_weight=factor * recipe.rate_weight)
    return encode_tensor(name, array, recipe, sensitivity, state=state)


def _corners(
    arrays: Mapping[str, Array], croppable: Mapping[str, Array], recipe: Recipe, on_grid: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the corners of tensors outside of which all is zero; nothing where that does not pay.

    Those stay whole that are kept as they are, and those whose rule may see images in a dense layer's columns.
    """
    names = sorted(arrays)
    whole, live = [arrays[name].shape for name in names], []
    for name, shape in zip(names, whole, strict=True):
        lossy = name in croppable and _is_lossy(name, arrays[name], recipe)
        crops = lossy and (name in on_grid or not _sees_coordinates(recipe.rule(name, len(shape))))
        live.append(live_corner(arrays[name]) if crops else shape)
    corners = chosen_corners(whole, live)
    if not worth_cropping(whole, corners):
        return {}
    return {name: part for name, shape, part in zip(names, whole, corners, strict=True) if part != shape}


def _sees_coordinates(rule: Rule) -> bool:
    return any(stage.id == "coordinates" for codec in rule.candidates for stage in codec.stages)


def _is_lossy(name: str, array: Array, recipe: Recipe) -> bool:
    return is_float(name_of(array.dtype)) and recipe.rule(name, array.ndim).candidates != (LOSSLESS,)


def _on_grid(name: str, array: Array, step: float, recipe: Recipe) -> Record | None:
    """A float tensor as multiples of a step, to the nearest one; None where its rule is `lossless`."""
    if not _is_lossy(name, array, recipe):
        return None
    values = _floats(array)
    if not np.isfinite(values).all():
        raise TensorError(f"Tensor {quoted(name)} holds NaN or Inf, and lies on no grid: the network has diverged.")
    codec = Codec((DeadZone(passes=0, step=step),))
    return Record(name, name_of(array.dtype), array.shape, codec, codec.encode(values, Cost(recipe.rate_weight)))


def _recipe(recipe: object) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, numbers.Real):
        raise CodecError(
            f"recipe is {shortened(repr(recipe))}; it must be a Recipe, or its rate weight, a number such as 1e-4. "
            "evocompress.checkpoint.presets.preset('best', 1e-4) is the recipe of a preset."
        )
    return preset(rate_weight=float(recipe))


def _arrays(state_dict: object) -> dict[str, Array]:
    if not isinstance(state_dict, Mapping):
        raise CodecError(f"state_dict is {kind_of(state_dict)}; it must map names to tensors: model.state_dict() does.")
    odd = [name for name in state_dict if not isinstance(name, str)]
    if odd:
        raise CodecError(f"state_dict has the name {odd[0]!r}, {kind_of(odd[0])}; names must be text.")
    return {name: to_numpy(name, value) for name, value in state_dict.items()}


@overload
def unpack(
    data: bytes,
    framework: Literal["torch"] = "torch",
    *,
    names: Iterable[str] | Mapping[str, object] | None = None,
    max_output_bytes: int | None = None,
) -> dict[str, torch.Tensor]: ...
@overload
def unpack(
    data: bytes,
    framework: Literal["numpy"],
    *,
    names: Iterable[str] | Mapping[str, object] | None = None,
    max_output_bytes: int | None = None,
) -> dict[str, Array]: ...
def unpack(
    data: bytes,
    framework: Literal["torch", "numpy"] = "torch",
    *,
    names: Iterable[str] | Mapping[str, object] | None = None,
    max_output_bytes: int | None = None,
) -> dict[str, Any]:
    """The state dict of an `.evc` file, with the original names, order, shapes and dtypes.

    Args:
        data: The file's bytes.
        framework: "torch" for tensors, "numpy" for arrays (torch is then not imported).
        names: For a file that was packed without names: those of its tensors, in any order; else they are called "0",
            "1", … . A file that has names keeps them. A bare file (without shapes) needs a module's state dict, or any
            mapping from names to what has a shape and a dtype, or to pairs of both.
        max_output_bytes: Refuse a file whose tensors take more bytes together than this, before any is decoded. None:
            as many as a file of its size may hold, 2^10 weights for each byte. Working on a tensor takes up to 60 bytes
            for each of its weights besides.

    Raises:
        FormatError: The bytes are not a whole, undamaged file of a version that this release reads, or no bytes; or its
            tensors take more than `max_output_bytes`.
        CodecError: The names (of a bare file: shapes, dtypes) are not those with which the file was packed, or are
            missing for a bare file, or the framework is another.
    """
    if framework not in ("torch", "numpy"):
        raise CodecError(f"framework is {framework!r}; it must be 'torch' or 'numpy'.")
    arrays = read(_bytes(data), None if names is None else _names(names), max_output_bytes=max_output_bytes)
    return arrays if framework == "numpy" else {name: to_torch(array) for name, array in arrays.items()}


def _bytes(data: object) -> bytes:
    """What is bytes, or can be read as bytes without a copy; `bytes` itself would also take a number or a list."""
    try:
        return data if isinstance(data, bytes) else bytes(memoryview(data))  # type: ignore[arg-type]
    except TypeError:
        raise FormatError(
            f"data is {kind_of(data)}; give the bytes of an .evc file, such as Path('w.evc').read_bytes(), "
            "or put a file into a module by evocompress.load(path, model)."
        ) from None


def _names(names: object) -> list[str] | Mapping[str, object]:
    items = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    text = [item for item in items if isinstance(item, str)]
    if len(text) < len(items):
        odd = next(item for item in items if not isinstance(item, str))
        raise CodecError(f"names holds {shortened(repr(odd))}; names of tensors are text: list(model.state_dict()).")
    return names if isinstance(names, Mapping) else text
