"""The bound against its formula written out, against exact probabilities, against published numbers; its limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.errors import ConfigError
from evocompress.support.occam_bound import largest_nbytes, occam_bound


def plain_bound(nbytes: int, error: float, n: int, delta: float, candidates: int) -> float:
    """The formula as the reference gives it, one λ after the other."""
    a, best, j, bits = 1e-4, 1.0, 0, 8 * nbytes
    kl = (bits + 2 * math.log2(bits) + math.log2(candidates)) * math.log(2)
    while (1 + a) ** j < 40 * n:
        lam = (1 + a) ** j
        union = 2 * math.log(2 + math.log(lam) / math.log(1 + a))
        q = error + (1 + a) / lam * (kl + math.log(1 / delta) + union)
        best = min(best, (1 - math.exp(-lam / n * q)) / (1 - math.exp(-lam / n)))
        j += 1
    return best


@pytest.mark.parametrize(
    ("nbytes", "wrong", "examples", "delta", "candidates"),
    [(754, 990, 55_000, 0.05, 1), (40, 0, 1000, 0.01, 240), (30, 25, 500, 1e-6, 10**6), (2, 0, 100, 0.9, 1)],
)
def test_it_is_the_formula(nbytes: int, wrong: int, examples: int, delta: float, candidates: int) -> None:
    bound = occam_bound(nbytes, wrong, examples, delta=delta, candidates=candidates)
    assert bound.value == pytest.approx(plain_bound(nbytes, wrong / examples, examples, delta, candidates), rel=1e-9)
    # λ is the one that gives it, and the parts are those of the formula.
    assert bound.kl_nats == pytest.approx((bound.message_bits + bound.candidate_bits) * math.log(2))
    tilt = bound.lam / examples
    inner = wrong / examples + 1.0001 / bound.lam * (bound.kl_nats - math.log(delta) + bound.union_nats)
    assert bound.value == pytest.approx(math.expm1(-tilt * inner) / math.expm1(-tilt))


@pytest.mark.parametrize(
    ("nbytes", "training_error", "examples", "percent"),
    [
        # MNIST, 55 000 examples trained on: the project's first trial
        (1176, 0.009, 55_000, 14.3),
        (935, 0.013, 55_000, 13.0),
        (754, 0.018, 55_000, 12.4),
        # the sizes that reach what Lotfi et al. (2022) published for MNIST and CIFAR-10
        (940, 0.01, 60_000, 11.6),
        (2750, 0.20, 50_000, 58.2),
    ],
)
def test_known_values(nbytes: int, training_error: float, examples: int, percent: float) -> None:
    bound = occam_bound(nbytes, round(training_error * examples), examples)
    assert 100 * bound.value == pytest.approx(percent, abs=0.07)


@pytest.mark.parametrize(("nbytes", "examples"), [(1, 60), (1, 200), (4, 400)])
@pytest.mark.parametrize("risk", [0.02, 0.1, 0.3, 0.6, 0.9])
def test_it_fails_no_more_often_than_it_says(nbytes: int, examples: int, risk: float) -> None:
    """Exactly: the probability, over samples, that one file's bound is below its network's true error.

    The file's share of δ is 2^-L', since the bound is for all files at once.
    """
    from scipy import stats  # takes longer to import than most files of tests to run

    delta = 0.5
    bounds = [occam_bound(nbytes, wrong, examples, delta=delta) for wrong in range(examples + 1)]
    failing = sum(float(stats.binom.pmf(bound.wrong, examples, risk)) for bound in bounds if bound.value < risk)
    assert failing <= delta * 2 ** -bounds[0].message_bits


SIZES = st.integers(1, 5000)
SAMPLES = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SAMPLES, st.integers(0, 5000), st.integers(1, 20), st.floats(1e-9, 0.999), st.integers(1, 10**9))
def test_more_bytes_more_errors_and_fewer_examples_make_it_larger(
    nbytes: int, more: int, sample: tuple[int, int], further: int, times: int, delta: float, candidates: int
) -> None:
    wrong, examples = sample
    bound = occam_bound(nbytes, wrong, examples, delta=delta, candidates=candidates).value
    slack = 1e-9  # of rounding, and of λ being a power of 1 + a
    assert wrong / examples - slack <= bound <= 1
    assert occam_bound(nbytes + more, wrong, examples, delta=delta, candidates=candidates).value >= bound - slack
    assert occam_bound(nbytes, wrong, examples, delta=delta / 2, candidates=candidates).value >= bound - slack
    assert occam_bound(nbytes, wrong, examples, delta=delta, candidates=2 * candidates).value >= bound - slack
    more_wrong = min(examples, wrong + further)
    assert occam_bound(nbytes, more_wrong, examples, delta=delta, candidates=candidates).value >= bound - slack
    larger = occam_bound(nbytes, times * wrong, times * examples, delta=delta, candidates=candidates)
    assert larger.value <= bound + slack


@settings(max_examples=25, deadline=None)
@given(SAMPLES, st.floats(0.05, 1.0))
def test_the_largest_file_is_the_last_that_fits(sample: tuple[int, int], below: float) -> None:
    wrong, examples = sample
    nbytes = largest_nbytes(wrong, examples, below=below)
    if nbytes is not None:
        assert occam_bound(nbytes, wrong, examples).value < below
    assert occam_bound((nbytes or 0) + 1, wrong, examples).value >= below


def test_the_ends() -> None:
    assert occam_bound(10, 1000, 1000).value == 1.0
    assert occam_bound(1, 1, 1).value == 1.0
    assert occam_bound(1, 0, 1).value == pytest.approx(1.0)
    assert occam_bound(10**12, 0, 10**6).value == 1.0
    assert largest_nbytes(1000, 1000) is None
    # With no error at all, so much is true of every sample: ln(1 - bound) · n is what the message costs.
    bound = occam_bound(30, 0, 10**6)
    cost = bound.kl_nats - math.log(0.05) + bound.union_nats
    assert -math.log1p(-bound.value) * 10**6 == pytest.approx(cost, rel=1e-3)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"delta": 0.0}, "delta 0.0: must be above 0 and below 1"),
        ({"delta": 1.0}, "delta 1.0"),
        ({"delta": math.nan}, "delta nan"),
        ({"candidates": 0}, "candidates 0: must be at least 1"),
        ({"nbytes": 0}, "a file of 0 bytes"),
        ({"examples": 0, "wrong": 0}, "0 of 0 examples wrong"),
        ({"wrong": 11}, "11 of 10 examples wrong"),
        ({"wrong": -1}, "-1 of 10 examples wrong"),
    ],
)
def test_numbers_out_of_range(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        occam_bound(**({"nbytes": 5, "wrong": 1, "examples": 10} | numbers))


def test_a_limit_above_one_is_no_limit() -> None:
    with pytest.raises(ConfigError, match=r"below 1\.5"):
        largest_nbytes(0, 10, below=1.5)
