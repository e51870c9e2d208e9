"""Decoding budget: each limit is met to the last one, and a writer pads by no byte too many."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.codecs.budget import LIMITS, Budget, Charge, check_max_output_bytes, padding_for
from evocompress.errors import CodecError, FormatError

KINDS: tuple[Charge, ...] = get_args(Charge)


def test_the_limits_are_those_of_the_format() -> None:
    """FORMAT.md, section 2."""
    assert {kind: (limit.base, limit.per_byte) for kind, limit in LIMITS.items()} == {
        "weights": (2**22, 2**10),
        "planes": (2**12, 2**2),
        "numbers": (2**25, 2**13),
        "products": (2**33, 2**20),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_one_that_fits_is_let_in_and_no_more(kind: Charge) -> None:
    budget, limit = Budget(1000), LIMITS[kind].base + 1000 * LIMITS[kind].per_byte
    budget.charge(kind, 7)
    budget.charge(kind, limit - 7)
    assert budget.counted == {**dict.fromkeys(KINDS, 0), kind: limit}
    budget.charge(kind, 0)
    budget.tensor = "w"
    with pytest.raises(FormatError, match=rf"Tensor 'w' .*: {limit + 1} where one of 1000 bytes may have {limit} "):
        budget.charge(kind, 1)


def test_what_is_done_once_is_counted_once() -> None:
    budget = Budget(10)
    for key in ("a", "b", "a"):
        budget.charge_once(key, "numbers", 5)
    assert budget.counted["numbers"] == 10


def test_decoded_bytes_have_a_limit_where_one_is_given() -> None:
    budget = Budget(10, 100)
    budget.output(60)
    budget.output(40)
    budget.tensor = "w"
    with pytest.raises(FormatError, match=r"max_output_bytes, which is 100: up to 'w' they are 101"):
        budget.output(1)
    Budget(10).output(10**18)
    Budget(10, 0).output(0)
    with pytest.raises(FormatError, match="max_output_bytes"):
        Budget(10, 0).output(1)


@pytest.mark.parametrize("limit", [True, False, -1, 1.0, "3"])
def test_what_is_no_number_of_bytes_is_refused(limit: object) -> None:
    with pytest.raises(CodecError, match="max_output_bytes is"):
        check_max_output_bytes(limit)
    for good in (None, 0, 1):
        check_max_output_bytes(good)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KINDS), st.integers(0, 10**13)))
def test_padding_is_the_least_with_which_a_reader_takes_it(counted: dict[Charge, int]) -> None:
    def fits(nbytes: int) -> bool:
        return all(count <= LIMITS[kind].of(nbytes) for kind, count in counted.items())

    least = padding_for(counted)
    assert fits(max(least, 0)) and (not counted or not fits(least - 1))
