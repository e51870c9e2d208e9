"""Loading weights into a torch module: all of a file or state dict, or a message that says what does not fit."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from evocompress.checkpoint.weight_files import read_weights
from evocompress.codecs.container import Contents
from evocompress.codecs.dtypes import DTYPES, is_float
from evocompress.codecs.template import fingerprint_of, template_of
from evocompress.codecs.tensor_table import fingerprint
from evocompress.errors import ModelError
from evocompress.support.wording import kind_of, listed, shortened

if TYPE_CHECKING:
    import torch

    from evocompress.checkpoint.recipe import Recipe

__all__ = [
    "fitting_names",
    "have_names",
    "load",
    "load_bytes",
    "load_formed",
    "load_state",
    "names_for",
    "save",
    "without_prefix",
]

ModuleT = TypeVar("ModuleT", bound="torch.nn.Module")


def load(
    path: str | os.PathLike[str],
    model: ModuleT,
    *,
    strict: bool = True,
    strip_prefix: str = "",
    max_output_bytes: int | None = None,
) -> ModuleT:
    """Put the weights of a file into a module, in place, and return the module.

    The file is `.evc`, safetensors, one of torch.save, or a folder with shards (`weight_files.read_weights`).

    Parameters and buffers keep their dtype and device; values are converted to them. A name that the file lacks is no
    fault where the module shares that tensor with a name which the file has (tied weights), nor are batch
    normalisation's counters, which torch does not ask of old checkpoints either.

    The tensors of a file that was packed without names get those of the module's state dict (`names_for`), and those of
    a bare file its shapes too. Where the
    file holds layers in another form than the module's, such as factors of its weights, and that form can be gathered
    exactly, the module gets the weights that it stands for; all of the file must then fit. `load_formed` and
    `evocompress.checkpoint.forms.loaded` keep the form instead.

    Args:
        path: The file.
        model: The module; where anything is wrong, nothing in it has been changed.
        strict: Names and shapes must agree. If False, what fits in both is loaded, and the rest is left as it is.
        strip_prefix: What to take away from names that begin with it, such as "module." or "_orig_mod.".
        max_output_bytes: Refuse an `.evc` file whose tensors take more bytes together, as for `unpack`.

    Raises:
        ModelError: The file does not fit; lists the names that only one side has, and both shapes where they differ,
            and what to strip where names only begin differently. If not strict: nothing of the file fits.
        EvocompressError: The file cannot be read, or is none of these.

    >>> import pathlib, tempfile, evocompress, torch
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "linear.evc"
    >>> _ = path.write_bytes(evocompress.pack({"weight": torch.full((2, 3), 0.5), "bias": torch.ones(2)}, 1e-9))
    >>> model = evocompress.load(path, torch.nn.Linear(3, 2))
    >>> bool((model(torch.ones(3)) - 2.5).abs().max() < 0.01)
    True
    """
    _tensors(model)  # refuses what is no module
    naming = functools.partial(names_for, model)
    state = without_prefix(read_weights(path, naming, max_output_bytes=max_output_bytes), strip_prefix)
    state = _gathered(state, model, os.fspath(path))
    try:
        load_state(model, state, os.fspath(path), strict=strict)
    except ModelError as error:
        if strict:
            error.add_note("The model is left as it was; strict=False loads what fits.")
        raise
    return model


def load_bytes(
    data: bytes, model: ModuleT, source: str = "the file", *, max_output_bytes: int | None = None
) -> ModuleT:
    """As `load`, of the bytes of an `.evc` file; `source` names them in errors."""
    from evocompress.checkpoint.packing import unpack

    _tensors(model)
    state = unpack(data, names=model.state_dict(), max_output_bytes=max_output_bytes)
    load_state(model, _gathered(state, model, source), source)
    return model


def save(
    path: str | os.PathLike[str], model: torch.nn.Module, recipe: Recipe | float | None = None, **options: Any
) -> int:
    """Write the weights of a module as an `.evc` file, whole or not at all, and return its size in bytes.

    Args:
        path: The file.
        model: The module; it is left as it is.
        recipe: How, or the rate weight λ of the default preset, in squared error per bit, or None, as for `pack`.
        options: Further arguments of `pack`, such as `sensitivities` or `grid`.

    Raises:
        ModelError: It is no module, or has tensors without values.
        CodecError: A tensor cannot be coded.
        OSError: The file cannot be written.

    >>> import pathlib, tempfile, torch
    >>> path, model = pathlib.Path(tempfile.mkdtemp()) / "linear.evc", torch.nn.Linear(3, 2)
    >>> nbytes = save(path, model, 1e-9)
    >>> nbytes == path.stat().st_size
    True
    >>> bool((load(path, torch.nn.Linear(3, 2)).weight - model.weight).abs().max() < 1e-3)
    True
    """
    from evocompress.checkpoint.packing import pack
    from evocompress.support.atomic_files import write_bytes

    data = pack(_tensors(model), recipe, **options)
    write_bytes(Path(path), data)
    return len(data)


def without_prefix(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """A state dict whose names have lost what some of them begin with.

    Raises:
        ModelError: No name begins with it, or two names become one.

    >>> without_prefix({"module.a": 1, "b": 2}, "module.")
    {'a': 1, 'b': 2}
    """
    if not prefix:
        return state
    stripped = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    if not any(name.startswith(prefix) for name in state):
        raise ModelError(f"no tensor's name begins with {prefix!r}: {listed([*map(shortened, state)])}.")
    if len(stripped) < len(state):
        raise ModelError(f"without {prefix!r} two tensors have one name; leave it where it is.")
    return stripped


def load_formed(
    path: str | os.PathLike[str],
    model: torch.nn.Module,
    *,
    strip_prefix: str = "",
    max_output_bytes: int | None = None,
) -> torch.nn.Module:
    """A copy of a module with a file's weights, its layers in the form that the file has.

    Otherwise as `load`: the module is the plain network, and what it lacks of the file's form the copy gets.

    Raises:
        ModelError: The file fits the module in no form.
        EvocompressError: The file cannot be read, or is neither `.evc` nor safetensors.
    """
    from evocompress.checkpoint.forms import formed

    _tensors(model)  # refuses what is no module
    naming = functools.partial(names_for, model)
    state = without_prefix(read_weights(path, naming, max_output_bytes=max_output_bytes), strip_prefix)
    network = formed(model, state)
    load_state(network, state, os.fspath(path))
    return network


def load_state(model: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str, *, strict: bool = True) -> None:
    """Put a state dict into a module, in place, or leave the module as it was and say on both sides what does not fit.

    Args:
        model: The module.
        state: Its tensors by name, of the module's shapes; `load` says which names may be absent.
        source: Names the state dict in errors: a path, say.
        strict: As for `load`.

    Raises:
        ModelError: Names or shapes differ, or a layer refuses its values, such as those of another plan.
    """
    tensors = _tensors(model)
    state = {name: _as_integers(value, tensors.get(name)) for name, value in state.items()}
    difference = _compare(_kinds(state), _kinds(tensors), tensors)
    if strict and any(difference):
        raise ModelError(f"{source} does not fit the model: {_described(difference)}.")
    left_out = {*difference.extra, *difference.unlike}
    fitting = {name: value for name, value in state.items() if name not in left_out}
    if state and tensors and not fitting:
        raise ModelError(f"Nothing in {source} fits the model: {_described(difference)}.")
    if refusals := _refusals(model, fitting):
        raise ModelError(f"{source} does not fit the model: {'; '.join(refusals)}")
    try:
        model.load_state_dict(fitting, strict=False)  # the check above is the strict one; this copies into each tensor
    except RuntimeError as problem:  # names and shapes agree, so a layer that could not be asked refused the values
        raise ModelError(f"{source} does not fit the model: {' '.join(str(problem).split())}") from problem


def _as_integers(value: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """Floats that are whole numbers as those, where the model holds whole numbers or truth values (a mask, say)."""
    if target is None or target.is_floating_point() or not value.is_floating_point():
        return value
    return value.long() if bool((value == value.round()).all()) else value


def _refusals(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> list[str]:
    """What layers that load in a way of their own have against their values; torch would tell after loading others.

    They are asked on a copy. Torch's own layers refuse only names and shapes, which have been compared.
    """
    refusals: list[str] = []
    for name, layer in model.named_modules():
        if type(layer)._load_from_state_dict.__module__.partition(".")[0] == "torch":
            continue
        try:
            trial = copy.deepcopy(layer)
        except Exception:  # a layer that cannot be copied is asked by torch, when others are loaded already
            continue
        try:
            trial._load_from_state_dict(dict(state), f"{name}." if name else "", {}, False, [], [], refusals)
        except Exception as error:
            refusals.append(f"{name or type(layer).__name__}: {type(error).__name__}: {error}")
    return refusals


def names_for(model: torch.nn.Module, contents: Contents) -> dict[str, tuple[tuple[int, ...], str]]:
    """The names that the tensors of a file had which was packed without names, from this module's state dict.

    It may have been whole, or have lacked what checkpoints commonly do: all but one of the names of tensors that the
    module shares, batch normalisation's counters, or both. A bare file's floats may also all have been of one other
    dtype than the module's.

    Returns:
        The names in ascending order, each with a shape and a dtype: for a bare file those that it was packed with.

    Raises:
        ModelError: None of these has the file's number of names and their fingerprint.
    """
    tensors = _tensors(model)
    first = {id(tensor): name for name, tensor in reversed(tensors.items())}.values()
    last = {id(tensor): name for name, tensor in tensors.items()}.values()
    kinds = _kinds(tensors)
    if contents.unread and (lazy := [shortened(name) for name, kind in kinds.items() if kind.shape is None]):
        raise ModelError(f"The model's tensors {listed(lazy)} have no shape yet; run the module once.")
    for all_names in (tensors.keys(), first, last):
        for names in (sorted(all_names), sorted(name for name in all_names if not _is_counter(name))):
            for dtype in ("", *filter(is_float, DTYPES)) if contents.unread else ("",):
                template = {name: kinds[name].signature(dtype) for name in names}
                if have_names(template, contents):
                    return template
    held = "tensors without names, shapes and dtypes"
    if not contents.unread:
        held = f"{len(contents.tensors)} tensors without names"
    raise ModelError(
        f"The file holds {held}, and they were not those of this model, which "
        f"has {len(tensors)}: {listed([shortened(name) for name in tensors]) or 'none'}."
    )


def have_names(template: Mapping[str, object], contents: Contents) -> bool:
    """Whether these are the names of a file that was packed without; of a bare file also shapes and dtypes."""
    if contents.unread:
        return fingerprint_of(template_of(template)) == contents.lost_names
    return len(template) == len(contents.tensors) and fingerprint(template) == contents.lost_names


def fitting_names(model: torch.nn.Module, contents: Contents) -> Collection[str]:
    """The names of a file's tensors, its own or by `names_for`, if they and the shapes are those of this module.

    Names that the file has itself may be those of another form. Of layers that say `shapes_follow_values`, because
    what they hold depends on a tensor's values, which are not known here, only the names count. A bare file has the
    shapes that `names_for` gives.

    Raises:
        ModelError: They are not, as `load` says it.
    """
    import torch

    from evocompress.checkpoint.forms import formed

    _tensors(model)  # refuses what is no module
    if contents.unread:
        return names_for(model, contents)
    unknown = {name for name, module in model.named_modules() if getattr(module, "shapes_follow_values", False)}
    names = [e.name for e in contents.tensors] if contents.lost_names is None else [*names_for(model, contents)]
    held = {
        name: _Kind(entry.full_shape, entry.dtype, is_float(entry.dtype))
        for name, entry in zip(names, contents.tensors, strict=True)
    }
    shapes = {
        name: torch.empty(entry.full_shape, device="meta") for name, entry in zip(names, contents.tensors, strict=True)
    }
    tensors = _tensors(formed(model, shapes))
    kinds = _kinds(tensors)
    for name in kinds.keys() & held.keys():
        if name.rpartition(".")[0] in unknown:
            held[name] = kinds[name]
    difference = _compare(held, kinds, tensors)
    if any(difference):
        raise ModelError(f"the file does not fit the model: {_described(difference)}.")
    return names


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


class _Kind(NamedTuple):
    """What a tensor is, without its values; `shape` is None for a lazy parameter, which takes any."""

    shape: tuple[int, ...] | None
    dtype: str
    is_float: bool

    def signature(self, floats: str = "") -> tuple[tuple[int, ...], str]:
        """Its shape and dtype, or that of `floats` for one of floats."""
        return self.shape or (), floats if floats and self.is_float else self.dtype


class _Difference(NamedTuple):
    """What keeps a file and a model apart: names with, for `unlike`, what each side has there."""

    missing: list[str]
    extra: list[str]
    unlike: dict[str, str]


def _tensors(model: object) -> dict[str, torch.Tensor]:
    """The module's tensors themselves by name, so that shared ones are the same object.

    Raises:
        ModelError: It is no module, or a scripted one, or a tensor has no storage to copy into.
    """
    import torch

    from evocompress.support.modules import check_not_scripted  # imports torch, too

    if not isinstance(model, torch.nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else kind_of(model)
        raise ModelError(f"model is {kind}; it must be a torch.nn.Module, made already.")
    check_not_scripted(model)
    state = model.state_dict(keep_vars=True)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    empty = [shortened(name) for name, value in tensors.items() if value.is_meta]
    if empty:
        raise ModelError(
            f"The model's tensors {listed(empty)} are on the meta device and hold nothing to load into; "
            "call model.to_empty(device='cpu') first."
        )
    return tensors


def _kinds(tensors: Mapping[str, torch.Tensor]) -> dict[str, _Kind]:
    from torch.nn.parameter import is_lazy

    return {
        name: _Kind(
            None if is_lazy(tensor) else tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            tensor.is_floating_point() or tensor.is_complex(),
        )
        for name, tensor in tensors.items()
    }


def _gathered(state: dict[str, torch.Tensor], model: torch.nn.Module, source: str) -> dict[str, torch.Tensor]:
    """The state dict of the plain network from one of a form that can be gathered exactly; another as it is."""
    from evocompress.checkpoint.forms import formed, gathered

    names = model.state_dict().keys()
    if names >= state.keys():
        return state
    network = formed(model, state)
    if network.state_dict().keys() == names:
        return state
    load_state(network, state, source)
    return gathered(network, model).state_dict()


def _compare(
    state: Mapping[str, _Kind], kinds: Mapping[str, _Kind], tensors: Mapping[str, torch.Tensor]
) -> _Difference:
    """What keeps a file and a model of these kinds apart, whose `tensors` say which names share one."""
    covered = {id(tensor) for name, tensor in tensors.items() if name in state}
    missing = [
        name
        for name, tensor in tensors.items()
        if name not in state and id(tensor) not in covered and not _is_counter(name)
    ]
    extra = [name for name in state if name not in kinds]
    unlike = {name: fault for name in state if name in kinds for fault in _faults(state[name], kinds[name])}
    return _Difference(missing, extra, unlike)


def _faults(in_file: _Kind, in_model: _Kind) -> Iterator[str]:
    """What keeps one tensor of the file from being copied into the model's."""
    if in_model.shape is not None and in_file.shape != in_model.shape:
        yield f"{_shape(in_file)} in the file, {_shape(in_model)} in the model"
    elif in_file.is_float and not in_model.is_float:
        yield f"{in_file.dtype} in the file, {in_model.dtype} in the model, which cannot hold fractions"
    elif in_file.dtype.startswith("complex") and not in_model.dtype.startswith("complex"):
        yield f"{in_file.dtype} in the file, {in_model.dtype} in the model, which cannot hold imaginary parts"


def _shape(kind: _Kind) -> str:
    return "×".join(map(str, kind.shape or ())) or "scalar"


def _described(difference: _Difference) -> str:
    parts = (
        ("missing in the file", [shortened(name) for name in difference.missing]),
        ("unknown to the model", [shortened(name) for name in difference.extra]),
        ("not alike", [f"{shortened(name)} ({fault})" for name, fault in difference.unlike.items()]),
    )
    sentences = [f"{title}: {listed(items)}" for title, items in parts if items]
    if prefix := _prefix(difference.extra, {*difference.missing}):
        sentences.append(
            f"all of these in the file begin with {prefix!r}: load(…, strip_prefix={prefix!r}) takes it away"
        )
    elif prefix := _prefix(difference.missing, {*difference.extra}):
        sentences.append(f"all of these in the model begin with {prefix!r}: use the module inside, model.{prefix[:-1]}")
    return "; ".join(sentences)


def _prefix(names: Sequence[str], others: Set[str]) -> str:
    """What all names begin with, and without which one of them is among the others; empty where there is none.

    >>> _prefix(["module.a.weight", "module.a.bias"], {"a.weight", "a.bias"})
    'module.'
    """
    for name in names:
        parts = name.split(".")
        for count in range(1, len(parts)):
            prefix = ".".join(parts[:count]) + "."
            if name[len(prefix) :] in others and all(other.startswith(prefix) for other in names):
                return prefix
    return ""
