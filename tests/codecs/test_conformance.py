"""One suite for every named codec, and for stages that none has: what holds for all, for all shapes and dtypes."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import pytest

from evocompress.codecs import CODECS, LOSSLESS, STAGES, Cost, best, conformance, parse_codec, read
from evocompress.codecs.conformance import CHECKS, SHAPES, same, written
from evocompress.codecs.entropy import State
from evocompress.errors import CodecError

pytestmark = pytest.mark.slow

IN_CODECS = {stage.id for chain in CODECS.values() for stage in parse_codec(chain).stages}
FURTHER = [name for name in STAGES.builtin if name not in IN_CODECS]
NAMES = sorted(CODECS) + [name if STAGES[name].terminal else f"{name}+deadzone" for name in FURTHER]
#: Coarser by their nature, at any rate weight: few values, or a rank.
COARSE: dict[str, dict[str, float]] = {
    "check_shapes_and_dtypes": {"codebook": np.inf, "linearconv-lowrank": np.inf},
    "check_negligible_rate_weight": {"codebook": 2e-2},
}
BY_SHAPE: list[Callable[..., None]] = [conformance.check_shapes_and_dtypes, conformance.check_layout]


def tolerance(check: Callable[..., None], name: str) -> dict[str, float]:
    limits = COARSE.get(check.__name__, {})
    return {"tolerance": limits[name]} if name in limits else {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", [check for check in CHECKS if check not in BY_SHAPE], ids=lambda f: f.__name__)
def test_what_holds_for_every_codec(check: Callable[..., None], name: str) -> None:
    check(name, **tolerance(check, name))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", BY_SHAPE, ids=lambda f: f.__name__)
def test_what_holds_for_every_codec_and_shape(check: Callable[..., None], name: str, shape: tuple[int, ...]) -> None:
    check(name, [shape], **tolerance(check, name))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (1000,), (3, 4), (2, 3, 2, 2, 3)], ids=str)
def test_integers_come_back_exactly(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    low, high = (0, 1) if dtype == "bool" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    kind = np.uint8 if dtype == "bool" else np.dtype(dtype).type
    full = np.asarray(rng.integers(low, high, size=shape, dtype=kind, endpoint=True)).astype(dtype)
    for x in (full, np.full(shape, low, dtype), np.full(shape, high, dtype), np.zeros(shape, dtype)):
        assert same(x, read(written(LOSSLESS, x, Cost(1.0)))["x"])


def test_the_page_of_the_format_has_every_stage() -> None:
    page = resources.files("evocompress.codecs").joinpath("FORMAT.md").read_text(encoding="utf-8")
    rows = {(int(number), name) for number, name in re.findall(r"^\| (\d+) \| (\w+)", page, flags=re.MULTILINE)}
    assert rows >= {(STAGES[name].number, name) for name in STAGES.builtin}


def test_a_counter_takes_few_bytes() -> None:
    counter = np.array(64_000, np.int64)
    assert len(written(LOSSLESS, counter, Cost(1.0))) < 32


def test_weights_whose_squares_overflow_are_refused() -> None:
    x = np.full((3, 3), np.finfo(np.float64).max)
    with pytest.raises(CodecError, match="overflow"):
        best([parse_codec("deadzone")], x, Cost(1.0), State())


def test_lossless_keeps_the_bits_of_floats() -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324], np.float64)
    assert same(x, read(written(LOSSLESS, x, Cost(1.0)))["x"])


@pytest.mark.parametrize(
    "argument", [{"rate_weight": 0.0}, {"rate_weight": float("nan")}, {"rate_weight": 1.0, "scale": -1.0}]
)
def test_a_cost_must_be_positive(argument: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="positive"):
        Cost(**argument)
