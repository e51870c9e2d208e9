"""The names of a file that has none, from another file of the same network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from evocompress.codecs.container import Contents
from evocompress.codecs.template import fingerprint_of, template_of
from evocompress.codecs.tensor_table import fingerprint
from evocompress.errors import ConfigError

__all__ = ["fitting_names", "in_order"]

TensorT = TypeVar("TensorT")


def fitting_names(state: Mapping[str, object], contents: Contents) -> Collection[str]:
    """The names of an `.evc` file's tensors, in its order, which is an ascending one, by their fingerprint.

    For a bare file they are those of a mapping to the tensors, which have its shapes and dtypes.

    Raises:
        ConfigError: They were not those of `state`.
    """
    if contents.unread:
        if fingerprint_of(template_of(state)) != contents.lost_names:
            raise ConfigError(
                "The file to compare with is bare, and was not packed with the names, shapes and dtypes of the first "
                "file; compare one network."
            )
        return dict(sorted(state.items()))
    names = sorted(state)
    if len(names) != len(contents.tensors) or fingerprint(names) != contents.lost_names:
        raise ConfigError(
            "The file to compare with was packed without names, and they were not those of the first file; "
            "compare one network."
        )
    return names


def in_order(state: Mapping[str, object], second: Mapping[str, TensorT]) -> dict[str, TensorT] | None:
    """The tensors "0", "1", … of a file that was packed without names and unpacked, under the names of `state`.

    Returns:
        None where `second` has names, or `state` has such ones too.

    Raises:
        ConfigError: There are not as many.

    >>> in_order({"b.weight": 1, "a.weight": 2}, {"0": 3, "1": 4})
    {'a.weight': 3, 'b.weight': 4}
    """
    numbers = [str(number) for number in range(len(second))]
    if not second or second.keys() != set(numbers) or second.keys() <= state.keys():
        return None
    if len(second) != len(state):
        raise ConfigError(
            f"The file to compare with has {len(second)} tensors with numbers for names, "
            f"and the first file has {len(state)}; compare one network."
        )
    return {name: second[number] for name, number in zip(sorted(state), numbers, strict=True)}
