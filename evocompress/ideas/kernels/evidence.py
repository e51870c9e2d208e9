"""Bayes factors of families of shapes against white noise, for each kernel.

A kernel of n numbers is a member of a family plus white noise of unknown variance. With Zellner's g-prior on the d
weights of a member, its Bayes factor against noise alone depends only on R², the share of the kernel's energy in the
member's span (Liang, Paulo, Molina, Clyde and Berger, 2008, "Mixtures of g priors for Bayesian variable selection"):

    (1 + g)^(-d/2) · (1 - R²·g/(1 + g))^(-n/2)

A family's is the mean over its grid. So a family that can look like anything is paid less for it, which is what keeps
a Gabor function, or any fit with as many parameters as the kernel has numbers, from winning always.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from evocompress.ideas.kernels.families import FAMILIES, Family, families
from evocompress.ideas.kernels.shapes import Floats, pixels

__all__ = ["FALSE_ALARMS", "Evidence", "evidence", "evidence_of", "log_bayes_factor", "noise_threshold", "posterior"]

FALSE_ALARMS = 0.05
"""The share of white-noise kernels that get a class other than `none`, for kernels of 3×3 and more."""

_G = 100.0  # the variance of a weight over the noise's: 1/101 of a kernel's energy may always be misfit or noise
_MARGIN = float(np.log(4))  # odds of four to one for a perfect box or ramp
_DRAWS, _DRAWN = (200, 1000), 169_000  # kernels of noise: as many as make up so many numbers, within the limits
_BLOCK = 2**24  # numbers in the largest array


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Of K kernels and the F families of `FAMILIES`: a family that has no members at this size has -inf.

    `log_bayes` (K, F) are logarithms of Bayes factors against noise, `best` (K, F) the member with the most.
    """

    log_bayes: Floats
    best: NDArray[np.intp]


def log_bayes_factor(r2: Floats, numbers: int, weights: int) -> Floats:
    """The logarithm of the Bayes factor of a member with this R², of `weights` linear weights.

    >>> log_bayes_factor(np.array([0.0, 0.5, 1.0]), 9, 1).round(2).tolist()
    [-2.31, 0.77, 18.46]
    """
    explained = np.clip(r2, 0.0, 1.0) * (_G / (1 + _G))
    factor: Floats = -0.5 * weights * np.log1p(_G) - 0.5 * numbers * np.log1p(-explained)
    return factor


def evidence(kernels: Floats, height: int, width: int) -> Evidence:
    """Bayes factors of kernels (K, height·width) of unit norm."""
    count = len(kernels)
    log_bayes = np.full((count, len(FAMILIES)), -np.inf)
    best = np.zeros((count, len(FAMILIES)), dtype=np.intp)
    for family in families(height, width):
        column = FAMILIES.index(family.name)
        rows = max(1, _BLOCK // (family.basis.shape[0] * family.basis.shape[1]))
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            log_bayes[part, column], best[part, column] = evidence_of(kernels[part], family)
    return Evidence(log_bayes, best)


def evidence_of(kernels: Floats, family: Family) -> tuple[Floats, NDArray[np.intp]]:
    """The logarithm of the mean Bayes factor over one grid (K,), and the best member (K,).

    In float32, whose error is far below the noise that a Bayes factor allows for.
    """
    members, weights, numbers = family.basis.shape
    basis = family.basis.reshape(members * weights, numbers).astype(np.float32, copy=False)
    score = kernels.astype(np.float32) @ basis.T
    np.square(score, out=score)
    if weights > 1:
        score = score.reshape(-1, members, weights).sum(axis=2)
    np.minimum(score, 1.0, out=score)
    score *= -_G / (1 + _G)
    np.log1p(score, out=score)
    score *= -0.5 * numbers
    score += (family.log_prior - 0.5 * weights * np.log1p(_G)).astype(np.float32)
    best = score.argmax(axis=1)
    top = np.take_along_axis(score, best[:, None], axis=1)
    score -= top
    np.exp(score, out=score)
    return top[:, 0] + np.log(score.sum(axis=1, dtype=np.float64)), best


def posterior(log_bayes: Floats, threshold: float) -> Floats:
    """Probabilities (K, F + 1) of the families, equal beforehand, and of noise, which comes last.

    The prior odds of noise are exp(`threshold`): where they equal the mean Bayes factor, noise has one half.
    """
    family_count = np.isfinite(log_bayes).sum(axis=1, keepdims=True)
    logs = np.column_stack([log_bayes - np.log(family_count), np.full(len(log_bayes), threshold)])
    shares: Floats = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])
    return shares


@functools.lru_cache(maxsize=64)
def noise_threshold(height: int, width: int) -> float:
    """The logarithm of the prior odds of noise against structure for which white noise looks structured rarely.

    It is the upper quantile (`FALSE_ALARMS`) of the mean Bayes factor on white noise, drawn with a fixed seed. Fewer
    than nine numbers can look like anything: there the odds stop short of those that would hide a perfect member of a
    family, and false alarms are more (docs/kernels.md has the table).
    """
    draws = int(np.clip(_DRAWN // (height * width), *_DRAWS))
    noise = np.random.default_rng(20260).standard_normal((draws, height * width))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    x, y = pixels(height, width)
    perfect = [np.ones_like(x), *(axis for axis in (x, y) if axis.any())]
    normalised = np.stack([shape / np.linalg.norm(shape) for shape in perfect])
    quantile = np.quantile(_mean_factor(noise, height, width), 1 - FALSE_ALARMS)
    return float(min(quantile, _mean_factor(normalised, height, width).min() - _MARGIN))


def _mean_factor(kernels: Floats, height: int, width: int) -> Floats:
    """The logarithm of the mean Bayes factor over the families that there are."""
    log_bayes = evidence(kernels, height, width).log_bayes
    family_count = np.isfinite(log_bayes).sum(axis=1)
    mean: Floats = np.logaddexp.reduce(log_bayes, axis=1) - np.log(family_count)
    return mean
