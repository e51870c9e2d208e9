"""Budget of a reader: what a file of so many bytes may cost whoever reads it (FORMAT.md, section 2).

A small file can say much: a thousand planes by one nested chain, products of large matrices, tensors that are zero
everywhere. Everything that takes time or memory is therefore counted while the tensor table is read, before anything is
decoded. Each limit is a constant plus a constant for each byte of the file, so that a file is never dearer than its
size and what its shapes declare. A writer that needs more room adds zero bytes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from evocompress.errors import CodecError, FormatError

__all__ = ["LIMITS", "Budget", "Charge", "Limit", "check_max_output_bytes", "padding_for", "weight_limit"]

#: What is counted. "weights": of a tensor its weights, or its symbols if more. "planes": of a tensor all but its first.
#: "numbers": elements of the arrays that the stages of a chain hand to each other, and 2^8 for each such array.
#: "products": multiplications of matrix products, and whatever else a stage does that outgrows its arrays.
Charge: TypeAlias = Literal["weights", "planes", "numbers", "products"]


class Limit(NamedTuple):
    """At most `base` + `per_byte` · (bytes of the file); `what` is counted, in words."""

    base: int
    per_byte: int
    what: str

    def of(self, nbytes: int) -> int:
        """The limit for a file of this size."""
        return self.base + self.per_byte * nbytes


#: Measured on one core: a weight takes up to 0.6 µs, a plane 15 µs, a number 30 ns, a product 0.05 ns.
LIMITS: dict[Charge, Limit] = {
    "weights": Limit(1 << 22, 1 << 10, "weights or symbols"),
    "planes": Limit(1 << 12, 1 << 2, "planes beside the first one of each tensor"),
    "numbers": Limit(1 << 25, 1 << 13, "numbers in arrays between stages"),
    "products": Limit(1 << 33, 1 << 20, "multiplications in matrix products"),
}


def weight_limit(nbytes: int) -> int:
    """How many weights a file of this size may hold.

    >>> weight_limit(1000)
    5218304
    """
    return LIMITS["weights"].of(nbytes)


class Budget:
    """What a file may still cost; every charge comes before the work that it stands for.

    `counted` says what has been charged so far. `max_output_bytes` bounds the bytes of all decoded tensors together;
    None: they are bounded by the limits on weights alone.

    >>> budget = Budget(100)
    >>> budget.charge("planes", 3)
    >>> budget.counted["planes"]
    3
    """

    def __init__(self, nbytes: int, max_output_bytes: int | None = None) -> None:
        check_max_output_bytes(max_output_bytes)
        self.nbytes, self.max_output_bytes = nbytes, max_output_bytes
        self.counted: dict[Charge, int] = dict.fromkeys(LIMITS, 0)
        self.tensor = ""  # whose charges come, for messages
        self.output_bytes = 0
        self._seen: set[object] = set()

    def charge(self, kind: Charge, amount: int) -> None:
        """Count something.

        Raises:
            FormatError: It is more than a file of this size may cost.
        """
        limit = LIMITS[kind]
        self.counted[kind] += amount
        if self.counted[kind] > limit.of(self.nbytes):
            raise FormatError(
                f"Tensor {self.tensor!r} gives its file more {limit.what} than it may have: {self.counted[kind]} where "
                f"one of {self.nbytes} bytes may have {limit.of(self.nbytes)} ({limit.base}, and {limit.per_byte} a "
                "byte). It is damaged or hostile. A file that is meant gets more room by zero bytes before its "
                "checksum, which a writer adds by itself: pack it anew."
            )

    def charge_once(self, key: object, kind: Charge, amount: int) -> None:
        """Count something that is done once in a file, however often it is needed; `key` says what it is.

        Raises:
            FormatError: As for `charge`.
        """
        if key not in self._seen:
            self._seen.add(key)
            self.charge(kind, amount)

    def output(self, nbytes: int) -> None:
        """Count the bytes of a decoded tensor.

        Raises:
            FormatError: There are more than `max_output_bytes`.
        """
        self.output_bytes += nbytes
        if self.max_output_bytes is not None and self.output_bytes > self.max_output_bytes:
            raise FormatError(
                f"The file's tensors take more bytes than max_output_bytes, which is {self.max_output_bytes}: up to "
                f"{self.tensor!r} they are {self.output_bytes}. Where the file is to be trusted, give a larger limit."
            )


def check_max_output_bytes(limit: object) -> None:
    """Refuse what is no number of bytes.

    Raises:
        CodecError: It is neither None nor a whole number from 0 on.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise CodecError(f"max_output_bytes is {limit!r}; it must be a number of bytes, or None for no limit.")


def padding_for(counted: dict[Charge, int]) -> int:
    """The least size in bytes of a file that costs so much.

    >>> padding_for({"planes": 5000})
    226
    """
    return max((-(-(n - LIMITS[kind].base) // LIMITS[kind].per_byte) for kind, n in counted.items()), default=0)
