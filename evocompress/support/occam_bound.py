"""Occam bound on the test error from a file's size: Catoni's PAC-Bayes bound for a prior over files.

A file of L bits is a message of L' = L + 2·log2 L bits that also says how long it is, so 2^-L' is a prior over files
(over those that are whole bytes it adds up to 0.03). For a sample of n independent examples, k of which the file's
network gets wrong, with probability at least 1 - δ over the draw of the sample and for all files at once

    test error ≤ min over λ of Φ(λ/n, k/n + (1 + a)/λ · [KL + ln(1/δ) + 2·ln(2 + ln λ / ln(1 + a))]),
    Φ(c, q) = (1 - e^(-c·q)) / (1 - e^(-c)),    KL = (L' + log2 candidates) · ln 2,

where λ runs over the powers of 1 + a. Bound: Catoni (2007, "PAC-Bayesian supervised classification",
https://arxiv.org/abs/0712.0248); with sizes of compressed networks: Zhou et al. (2019,
https://arxiv.org/abs/1804.05862), Lotfi et al. (2022, https://arxiv.org/abs/2211.13609).

This is arithmetic only; `evocompress.evolve.certificate` measures what goes into it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from evocompress.errors import ConfigError

__all__ = ["DEFAULT_DELTA", "OccamBound", "check_candidates", "check_delta", "largest_nbytes", "occam_bound"]

DEFAULT_DELTA = 0.05
_LOG_RATIO = math.log1p(1e-4)  # ln(1 + a)
#: λ/n need not be larger: 1 - e^-64 is 1 in float64, and from there on the bound rises with λ.
_LARGEST_TILT = 64.0

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class OccamBound:
    """A bound on the test error, in [0, 1], and all that went into it.

    `message_bits` are L' and `candidate_bits` the logarithm of how many files were chosen among; `kl_nats` is both in
    nats. `union_nats` is what the choice of λ costs. `value` is 1 where the bound says nothing.
    """

    nbytes: int
    wrong: int
    examples: int
    delta: float
    candidates: int
    message_bits: float
    candidate_bits: float
    kl_nats: float
    union_nats: float
    lam: float
    value: float

    @property
    def bits(self) -> int:
        """L, all bits of the file."""
        return 8 * self.nbytes

    @property
    def training_error(self) -> float:
        """Share of the examples that are wrong, in [0, 1]."""
        return self.wrong / self.examples


def occam_bound(
    nbytes: int, wrong: int, examples: int, *, delta: float = DEFAULT_DELTA, candidates: int = 1
) -> OccamBound:
    """The bound for a file of so many bytes whose network gets `wrong` of the examples wrong.

    Args:
        nbytes: Size of the whole file.
        wrong: How many of the examples are wrong, from 0 to all of them.
        examples: How many independent examples there are.
        delta: The chance, in (0, 1), that the sample is one for which the bound does not hold.
        candidates: How many files this one was chosen among.

    Raises:
        ConfigError: A number is out of its range.

    >>> bound = occam_bound(754, 990, 55_000)  # MNIST, 1.8 % training error
    >>> round(bound.value, 4), bound.bits, round(bound.message_bits, 1)
    (0.1234, 6032, 6057.1)
    """
    nbytes, wrong, examples = (operator.index(number) for number in (nbytes, wrong, examples))
    if nbytes < 1 or examples < 1 or not 0 <= wrong <= examples:
        raise ConfigError(
            f"a file of {nbytes} bytes with {wrong} of {examples} examples wrong: there must be at least one byte and "
            "one example, and from none to all of them wrong."
        )
    check_delta(delta)
    check_candidates(candidates)
    bits = 8 * nbytes
    message_bits, candidate_bits = bits + 2 * math.log2(bits), math.log2(candidates)
    kl_nats = (message_bits + candidate_bits) * math.log(2)
    lam, tilt, union = _grid(examples)
    inner = wrong / examples + math.exp(_LOG_RATIO) / lam * (kl_nats - math.log(delta) + union)
    values = np.expm1(-tilt * inner) / np.expm1(-tilt)
    best = int(values.argmin())
    return OccamBound(
        nbytes,
        wrong,
        examples,
        delta,
        candidates,
        message_bits,
        candidate_bits,
        kl_nats,
        float(union[best]),
        float(lam[best]),
        min(1.0, float(values[best])),
    )


@functools.lru_cache(maxsize=1)
def _grid(examples: int) -> tuple[Array, Array, Array]:
    """Every λ = (1 + a)^j ≥ 1, λ/n, and the nats 2·ln(2 + j) that the choice of j costs.

    These are enough: the probabilities 1/((1 + j)·(2 + j)) add up to 1.
    """
    steps = np.arange(math.ceil(math.log(_LARGEST_TILT * examples) / _LOG_RATIO) + 1, dtype=np.float64)
    lam: Array = np.exp(_LOG_RATIO * steps)
    return lam, lam / examples, 2 * np.log(2 + steps)


def largest_nbytes(
    wrong: int, examples: int, *, below: float = 1.0, delta: float = DEFAULT_DELTA, candidates: int = 1
) -> int | None:
    """Size of the largest file whose bound is less than `below` with so many examples wrong; None if no file is.

    Found by bisection: the bound rises with the size.

    Raises:
        ConfigError: A number is out of its range.

    >>> largest_nbytes(600, 60_000, below=0.116, delta=0.05)
    939
    >>> largest_nbytes(5, 10, below=0.5) is None
    True
    """

    def fits(nbytes: int) -> bool:
        return occam_bound(nbytes, wrong, examples, delta=delta, candidates=candidates).value < below

    if below > 1.0:
        raise ConfigError(f"below {below!r}: every bound is at most 1; give a number of at most that.")
    if not fits(1):
        return None
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def check_delta(delta: Any) -> None:
    """Refuse a δ that is not between 0 and 1.

    Raises:
        ConfigError: It is not.
    """
    if not 0 < delta < 1:
        raise ConfigError(f"delta {delta!r}: must be above 0 and below 1, such as {DEFAULT_DELTA}.")


def check_candidates(candidates: Any) -> None:
    """Refuse a number of candidates below one.

    Raises:
        ConfigError: It is.
    """
    if not candidates >= 1:
        raise ConfigError(f"candidates {candidates!r}: must be at least 1, the file itself.")
