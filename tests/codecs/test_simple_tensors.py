"""Constants, masks and other tensors much simpler than trained weights: few bytes, small errors, an honest choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from evocompress import Recipe, Rule, pack, unpack
from evocompress.checkpoint.presets import PRESETS, preset
from evocompress.codecs import Cost, Sensitivity, choice, choose, inspect, parse_codec, rans, try_codec
from evocompress.codecs.choice import Trial
from evocompress.codecs.codec import Codec, Floats
from evocompress.codecs.simple_tensors import simple_codecs

Array = npt.NDArray[Any]
RNG = np.random.default_rng(4)

#: Tensors, the most bytes that a file of one may take, and the largest relative error.
SIMPLE = {
    "constant": (np.full((64, 64), 0.1), 48, 2e-3),
    "large constant": (np.full((1024, 300), -0.37), 80, 2e-3),
    "equal statistics": (np.ones(64), 48, 0.0),
    "zeros": (np.zeros((64, 64)), 40, 0.0),
    "one element": (np.full(1, 0.1), 40, 0.01),
    "mask": (RNG.random((64, 64)) < 0.3, 600, 0.0),
    "binary weights": (RNG.choice([-0.0371, 0.0371], (64, 64)), 620, 0.01),
    "clusters": (RNG.choice(RNG.normal(size=16), (64, 64)), 2300, 1e-3),
    "constant rows": (np.repeat(RNG.normal(size=(64, 1)), 64, 1), 200, 1e-3),
    "constant kernels": (np.repeat(RNG.normal(size=(300, 2)), 9, 1).reshape(300, 2, 3, 3), 1200, 0.02),
    "far apart": (np.array([-3e38, 1e-38, 3e38] * 9), 90, 1e-6),
    "denormal": (np.full((8, 8), 1e-45), 48, 1.0),
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("case", SIMPLE)
def test_a_simple_tensor_takes_few_bytes_and_is_nearly_exact(name: str, case: str) -> None:
    values, most, error = SIMPLE[case]
    x = values.astype(np.float32)
    data = pack({"w": x}, preset(name, 1e-4))
    decoded = unpack(data, framework="numpy")["w"]
    assert len(data) <= most
    assert np.abs(decoded.astype(np.float64) - x).max() <= error * np.abs(x).max()


def test_the_choice_is_that_of_least_score() -> None:
    """A mask with one 1 in a thousand, and errors that cost next to nothing: zeros are cheaper than the codebook."""
    x, candidates = np.zeros((40, 100)), [parse_codec("trellis")]
    x[::13, 5] = 1e-3
    for rate_weight in (1e-9, 1e-3):
        cost = Cost(rate_weight)
        codec, coded = choose(candidates, x, cost, rans.State())
        trials = [try_codec(each, x, cost, rans.State()) for each in (*candidates, *simple_codecs(x, cost))]
        least = min(trials, key=lambda trial: trial.score)
        assert (codec, coded.side) == (least.codec, least.coded.side)
        assert (codec.stages[0].id == "codebook") == (rate_weight < 1e-6)


def test_a_sensitivity_of_second_order_counts_in_the_choice() -> None:
    x = RNG.choice([-0.5, 0.25], (8, 40))
    cost = Cost(1e-4, 1.0, Sensitivity(np.eye(40)[None] * 50, np.ones(8)))
    codec, coded = choose([parse_codec("trellis")], x, cost, rans.State())
    assert codec.stages[0].id == "codebook"
    assert np.array_equal(codec.decode(coded, x.shape), x)


@pytest.mark.parametrize(
    "x",
    [
        RNG.laplace(size=(40, 50)),
        np.where(RNG.random((400, 500)) < 0.01, RNG.normal(size=(400, 500)), 0.0),  # few values at first sight
        np.arange(9.0),
        np.zeros((0, 3)),
        np.concatenate([np.ones((60, 60)), RNG.normal(size=(60, 60))]),  # repeats, and has few values, in its corner
    ],
)
def test_other_tensors_get_no_further_candidates(x: Array) -> None:
    assert simple_codecs(x, Cost(1e-4)) == ()


@pytest.mark.parametrize(
    "x",
    [
        np.full((4, 4), 0.25),  # the codebook says it all
        np.repeat(RNG.normal(size=(1, 900)), 900, 0),  # so many would take too long
    ],
)
def test_repetition_is_looked_for_where_it_can_pay(x: Array) -> None:
    assert all(codec.stages[0].id == "codebook" for codec in simple_codecs(x, Cost(1e-4)))


def test_a_long_row_is_chosen_for_by_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def best(codecs: Sequence[Codec], x: Floats, cost: Cost, state: Any) -> Trial:
        seen.append(x.size)
        return try_codec(codecs[0], x, cost, state)

    monkeypatch.setattr(choice, "best", best)
    choose([parse_codec("trellis"), parse_codec("deadzone")], RNG.laplace(size=(1, 1 << 20)), Cost(1e-2), rans.State())
    assert seen == [1 << 18]


def test_lossless_stays_lossless() -> None:
    data = pack({"w": np.full((64, 64), 0.1, np.float32)}, Recipe(1e-4, (Rule("w", ("lossless",)),)))
    assert inspect(data)[0][0].codec == "lossless"
