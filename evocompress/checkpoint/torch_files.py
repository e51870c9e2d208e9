"""Files of torch.save (.pt, .pth, .bin, .ckpt): the state dict in them, found without running anything."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from evocompress.checkpoint.other_files import kind_of_archive
from evocompress.errors import FormatError
from evocompress.support.wording import listed, shortened

if TYPE_CHECKING:
    import torch

__all__ = ["is_torch_file", "read_torch"]

#: What such files begin with: zip since torch 1.6, plain pickles of protocol 2 before.
_MAGICS = (b"PK\x03\x04", b"\x80\x02")
_OPTIMISERS = ("optim", "sched", "scaler", "lr_", "exp_avg", "momentum")
_DEEPEST = 4
_SAVE = "open it with what wrote it, and save its state dict: torch.save(model.state_dict(), …)"


class _Found(NamedTuple):
    """A dictionary with tensors: where it is, its tensors, what else lies in it, how many numbers the tensors have."""

    path: tuple[str, ...]
    tensors: dict[str, torch.Tensor]
    others: list[str]
    size: int


def is_torch_file(head: bytes) -> bool:
    """Whether a file that begins like this may be one of torch.save."""
    return head.startswith(_MAGICS)


def read_torch(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict in a file of torch.save, and a sentence about what was left out, or "".

    Only tensors and plain containers are read (`weights_only`), so nothing that the file names is run. Of several
    dictionaries with tensors the largest counts, the first one of equal ones; those of optimisers and schedulers do
    not, and neither do averages of weights that lie behind the weights themselves.

    Raises:
        FormatError: It holds objects of other classes, no state dict, or is damaged.
    """
    content = _loaded(path)
    dictionaries = sorted(_dictionaries(content, ()), key=lambda one: -one.size)  # stable: the first of equal ones
    if not dictionaries:
        raise FormatError(f"{os.fspath(path)} holds no state dict, a dictionary of tensors by name; {_SAVE}.")
    best = dictionaries[0]
    if any(hasattr(tensor, "full_tensor") for tensor in best.tensors.values()):
        raise FormatError(_parts_of_tensors(os.fspath(path)))
    left = [shortened(name) for name in best.others]
    if best.path and isinstance(content, Mapping):
        left += [shortened(str(key)) for key in content if key != best.path[0]]
    where = f"took the tensors in {'.'.join(best.path)!r}" if best.path else ""
    without = f"left out {listed(left)}" if left else ""
    return best.tensors, "; ".join(filter(None, (where, without)))


def _loaded(path: str | os.PathLike[str]) -> Any:
    import torch

    name = os.fspath(path)
    zipped = zipfile.is_zipfile(name)
    if zipped and (refusal := _no_checkpoint(name)):
        raise FormatError(f"{name} {refusal}.")
    try:
        if zipped and not name.endswith(".safetensors"):  # by that ending torch chooses another reader
            return torch.load(name, map_location="cpu", weights_only=True, mmap=True)
        with open(name, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "DTensor" in str(error):
            raise FormatError(_parts_of_tensors(name)) from None
        classes = re.findall(r"GLOBAL (\S+)", str(error))
        if classes:
            raise FormatError(
                f"{name} holds an object of {shortened(classes[0])}, whose code would run when it is opened; {_SAVE}."
            ) from None
        raise FormatError(f"{name} is no checkpoint of torch.save, or damaged; {_SAVE}.") from None
    except Exception as error:  # torch raises any kind on damaged files
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise FormatError(f"{name} is damaged, or no checkpoint of torch.save: {reason}.") from None


def _parts_of_tensors(name: str) -> str:
    return (
        f"{name} holds DTensors, one process's parts of tensors; gather the state dict before it is saved, by "
        "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)) of "
        "torch.distributed.checkpoint.state_dict."
    )


def _no_checkpoint(name: str) -> str:
    """Why a zip archive is no checkpoint: a sentence without its subject; nothing if it may be one."""
    try:
        with zipfile.ZipFile(name) as archive:
            names = archive.namelist()
            members = {member.rpartition("/")[2] for member in names}
            folders = {part for member in names for part in member.split("/")[:-1]}
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        return f"is a damaged zip archive: {error}"
    if "constants.pkl" in members and "code" in folders:
        return "is a TorchScript archive, which is code; save torch.jit.load(…).state_dict() with torch.save"
    if "data.pkl" not in members:
        return kind_of_archive(names)
    return ""


def _dictionaries(content: Any, path: tuple[str, ...]) -> Iterator[_Found]:
    """All dictionaries that hold tensors by name, the outer ones first."""
    import torch

    if not isinstance(content, Mapping) or len(path) > _DEEPEST or any(map(_of_an_optimiser, path)):
        return
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if tensors:
        others = [str(key) for key in content if key not in tensors]
        yield _Found(path, tensors, others, sum(tensor.numel() for tensor in tensors.values()))
    for key, value in content.items():
        if isinstance(key, str):
            yield from _dictionaries(value, (*path, key))


def _of_an_optimiser(name: str) -> bool:
    return any(part in name.lower() for part in _OPTIMISERS)
