"""From a file on disk into a torch module: all of it, or a message that says what does not fit."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from evocompress.codecs.container import Contents
from evocompress.codecs.tensor_table import fingerprint
from evocompress.errors import ModelError
from evocompress.weights import read_weights

if TYPE_CHECKING:
    import torch

__all__ = ["load", "names_for"]

ModuleT = TypeVar("ModuleT", bound="torch.nn.Module")
_LISTED = 5


def load(path: str | os.PathLike[str], model: ModuleT, *, strict: bool = True) -> ModuleT:
    """Put the weights of an `.evc` or `.safetensors` file into a module, in place, and return the module.

    Parameters and buffers keep their dtype and device; values are converted to them. A name that the file lacks is no
    fault where the module shares that tensor with a name which the file has (tied weights), nor are batch
    normalisation's counters, which torch does not ask of old checkpoints either.

    The tensors of a file that was packed without names get those of the module's state dict (`names_for`).

    Args:
        path: The file.
        model: The module; where anything is wrong, nothing in it has been changed.
        strict: Names and shapes must agree. If False, what fits in both is loaded, and the rest is left as it is.

    Raises:
        ModelError: The file does not fit; lists the names that only one side has, and both shapes where they differ.
            If not strict: nothing of the file fits.
        EvocompressError: The file cannot be read, or is neither `.evc` nor safetensors.

    >>> import pathlib, tempfile, evocompress, torch
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "linear.evc"
    >>> _ = path.write_bytes(evocompress.pack({"weight": torch.full((2, 3), 0.5), "bias": torch.ones(2)}, 1e-9))
    >>> model = evocompress.load(path, torch.nn.Linear(3, 2))
    >>> bool((model(torch.ones(3)) - 2.5).abs().max() < 0.01)
    True
    """
    own = _tensors(model)
    state = read_weights(path, functools.partial(names_for, model))
    difference = _compare(state, own)
    if strict and any(difference):
        raise ModelError(
            f"{os.fspath(path)} does not fit the model, which is left as it was: {_told(difference)}. "
            "strict=False loads what fits."
        )
    refused = {*difference.extra, *difference.unlike}
    fitting = {name: value for name, value in state.items() if name not in refused}
    if state and own and not fitting:
        raise ModelError(f"Nothing in {os.fspath(path)} fits the model: {_told(difference)}.")
    model.load_state_dict(fitting, strict=False)  # the check above is the strict one; this copies into each tensor
    return model


def names_for(model: torch.nn.Module, contents: Contents) -> list[str]:
    """The names that the tensors of a file had which was packed without names, from this module's state dict.

    It may have been whole, or have lacked what checkpoints commonly do: all but one of the names of tensors that the
    module shares, batch normalisation's counters, or both.

    Raises:
        ModelError: None of these has the file's number of names and their fingerprint.
    """
    own = _tensors(model)
    first = {id(tensor): name for name, tensor in reversed(own.items())}.values()
    last = {id(tensor): name for name, tensor in own.items()}.values()
    for whole in (own.keys(), first, last):
        for names in (sorted(whole), sorted(name for name in whole if not _is_counter(name))):
            if len(names) == len(contents.tensors) and fingerprint(names) == contents.lost_names:
                return names
    raise ModelError(
        f"The file holds {len(contents.tensors)} tensors without names, and they were not those of this model, which "
        f"has {len(own)}: {_listed(list(own)) or 'none'}."
    )


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"


class _Difference(NamedTuple):
    """What keeps a file and a model apart: names with, for `unlike`, what each side has there."""

    missing: list[str]
    extra: list[str]
    unlike: dict[str, str]


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's tensors themselves by name, so that shared ones are the same object.

    Raises:
        ModelError: One has no storage to copy into.
    """
    import torch

    own = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}
    empty = [name for name, value in own.items() if value.is_meta]
    if empty:
        raise ModelError(
            f"The model's tensors {_listed(empty)} are on the meta device and hold nothing to load into; "
            "call model.to_empty(device='cpu') first."
        )
    return own


def _compare(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> _Difference:
    covered = {id(tensor) for name, tensor in own.items() if name in state}
    missing = [
        name
        for name, tensor in own.items()
        if name not in state and id(tensor) not in covered and not _is_counter(name)
    ]
    extra = [name for name in state if name not in own]
    unlike = {name: fault for name in state if name in own for fault in _faults(state[name], own[name])}
    return _Difference(missing, extra, unlike)


def _faults(given: torch.Tensor, wanted: torch.Tensor) -> Iterator[str]:
    """What keeps one tensor of the file from being copied into the model's."""
    from torch.nn.parameter import is_lazy

    if not is_lazy(wanted) and given.shape != wanted.shape:  # a lazy parameter takes the shape that it is given
        yield f"{_shape(given)} in the file, {_shape(wanted)} in the model"
    elif given.is_floating_point() and not (wanted.is_floating_point() or wanted.is_complex()):
        yield f"{given.dtype} in the file, {wanted.dtype} in the model, which cannot hold fractions"


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _told(difference: _Difference) -> str:
    parts = (
        ("missing in the file", difference.missing),
        ("unknown to the model", difference.extra),
        ("not alike", [f"{name} ({fault})" for name, fault in difference.unlike.items()]),
    )
    return "; ".join(f"{title}: {_listed(names)}" for title, names in parts if names)


def _listed(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
