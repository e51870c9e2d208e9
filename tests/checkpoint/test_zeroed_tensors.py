"""Tensors that are lost whole are found from their coded form."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from evocompress.checkpoint.packing import encode_tensor, is_zeroed, pack
from evocompress.checkpoint.presets import PRESETS, preset
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.codecs import CODECS

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    ("array", "rate_weight", "lost"),
    [
        (RNG.normal(size=(40, 30)), 1e4, True),
        (np.where(np.arange(600).reshape(20, 30) == 599, 3.0, 1e-9), 1e-4, False),  # the very last is kept
        (RNG.normal(0, 1e-6, 17).astype(np.float16), 1.0, True),
        (RNG.normal(0, 1e-6, (4, 3, 3, 3)).astype(ml_dtypes.bfloat16), 1.0, True),
        (np.zeros((8, 8)), 1.0, False),  # nothing to lose
        (np.zeros((0, 8)), 1.0, False),
        (np.arange(-3, 4), 1e4, False),  # integers are never lost
    ],
)
def test_what_is_lost_is_found(name: str, array: np.ndarray[Any, Any], rate_weight: float, lost: bool) -> None:
    record = encode_tensor("w", array, preset(name, rate_weight), 1.0)
    assert is_zeroed(record, array) is lost


@pytest.mark.parametrize("codec", [name for name in CODECS if "linearconv" not in name])
@pytest.mark.parametrize("array", [RNG.normal(size=(16, 3, 3, 3)), RNG.laplace(size=40), np.full((8, 8), 0.7)])
def test_symbols_are_zero_exactly_where_what_they_decode_to_is(codec: str, array: np.ndarray[Any, Any]) -> None:
    for rate_weight in (1e-3, 0.1, 1.0, 10.0, 1e6):
        record = encode_tensor("w", array, Recipe(rate_weight, (Rule("w", (codec,)),)), 1.0)
        assert is_zeroed(record, array) is not bool(record.codec.decode(record.coded, array.shape).any())


def test_pack_names_what_is_lost_also_of_what_is_coded_already() -> None:
    state = {"a": RNG.normal(0, 1e-3, (9, 9)), "b": RNG.normal(size=(9, 9)), "c": np.zeros((9, 9))}
    names: list[str] = []
    record = encode_tensor("a", state["a"], Recipe(1e-2), 1.0)
    for records in ({}, {"a": record}):
        pack(state, 1e-2, records=records, zeroed=names)
    assert names == ["a", "a"]
