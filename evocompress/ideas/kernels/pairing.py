"""The names of a file that has none, from another file of the same network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from evocompress.checkpoint.loading import have_names
from evocompress.codecs.container import Contents
from evocompress.errors import ConfigError

__all__ = ["in_order", "names_from"]

TensorT = TypeVar("TensorT")


def names_from(state: Mapping[str, object], contents: Contents) -> Collection[str]:
    """The names of an `.evc` file's tensors, in its order, which is an ascending one, by their fingerprint.

    For a bare file they are those of a mapping to the tensors, which have its shapes and dtypes.

    Raises:
        ConfigError: They were not those of `state`.
    """
    in_order_of_names = dict(sorted(state.items()))
    if have_names(in_order_of_names, contents):
        return in_order_of_names
    if contents.unread:
        raise ConfigError(
            "The file to compare with is bare, and was not packed with the names, shapes and dtypes of the first "
            "file; compare one network."
        )
    raise ConfigError(
        "The file to compare with was packed without names, and they were not those of the first file; "
        "compare one network."
    )


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
