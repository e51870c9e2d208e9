"""Wording of messages: names, lists and counts on one line, however long or many they are."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["counted", "kind_of", "listed", "quoted", "shortened"]

_LONGEST = 80
_LISTED = 5


def shortened(name: str, gap: str = "…") -> str:
    """A name of at most 80 characters: a longer one has `gap` in the place of its middle.

    >>> shortened("a" * 50 + "b" * 50) == "a" * 40 + "…" + "b" * 39
    True
    """
    if len(name) <= _LONGEST:
        return name
    kept = _LONGEST - len(gap)
    return name[: -(-kept // 2)] + gap + name[-(kept // 2) :]


def quoted(name: str) -> str:
    """A shortened name in quotes, as Python writes it."""
    return repr(shortened(name))


def kind_of(value: object) -> str:
    """What a value is, for one that is not what it should be.

    >>> kind_of(3), kind_of("x"), kind_of(None)
    ('an int', 'a str', 'None')
    """
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def listed(items: Sequence[str], limit: int = _LISTED) -> str:
    """The first few, and how many more there are.

    >>> listed("abcdefgh", 2)
    'a, b and 6 more'
    """
    remainder = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + remainder


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "tensor"), counted(0, "tensor")
    ('1 tensor', '0 tensors')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
