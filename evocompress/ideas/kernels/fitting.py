"""Least-squares fits of oriented shapes to many kernels at once: Levenberg-Marquardt with the weights projected out.

The linear weights (amplitude; cosine and sine of a Gabor function) are solved for exactly at every step, so only the
angle, the widths, the centre and the frequency are searched (variable projection: Golub and Pereyra, 1973).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from evocompress.ideas.kernels.evidence import evidence_of
from evocompress.ideas.kernels.families import GABOR_EXTENT, gabor_family
from evocompress.ideas.kernels.shapes import (
    CENTRE_X,
    CENTRE_Y,
    FREQUENCY,
    LOG_SIGMA_U,
    LOG_SIGMA_V,
    THETA,
    Floats,
    Shape,
    orthonormal,
    pixels,
    sampled,
)

__all__ = ["GaborFit", "fit_gabor", "folded", "refine"]

_ROUNDS = 14
_STEP = 1e-5  # of the numeric derivative
_BLOCK = 100_000  # numbers of kernels at a time
_HALF_POWER = math.sqrt(math.log(2) / 2) / math.pi


@dataclasses.dataclass(frozen=True)
class GaborFit:
    """Gabor functions fitted to K kernels, arrays (K,); NaN where a kernel is zero or has fewer than six numbers.

    A·exp(-u²/(2σ²) - v²/(2σ_v²))·cos(2π·`frequency`·u + `phase`), A > 0, u along `orientation_degrees` in [0, 180)
    and zero in the middle of the kernel for the cosine. `frequency` in cycles per pixel, `bandwidth` in octaves at
    half of the peak response (NaN where it reaches down to frequency zero), `phase` in radians in (-π, π], `r2` the
    share of the kernel's energy that is explained.
    """

    frequency: Floats
    orientation_degrees: Floats
    bandwidth: Floats
    phase: Floats
    r2: Floats


def fit_gabor(kernels: Floats, height: int, width: int) -> GaborFit:
    """Fit kernels (K, height·width) of unit norm or zero, from the best member of the family's grid."""
    x, y = pixels(height, width)
    parameters, r2 = np.full((len(kernels), 6), np.nan), np.full(len(kernels), np.nan)
    alive = np.flatnonzero(np.any(kernels != 0, axis=1)) if x.size >= 6 else np.array([], dtype=int)
    if alive.size:
        family = gabor_family(height, width)
        best = evidence_of(kernels[alive], family)[1]
        parameters[alive], r2[alive] = refine("gabor", kernels[alive], family.parameters[best], height, width)
    return _described(kernels, parameters, r2, x, y)


def refine(shape: Shape, kernels: Floats, start: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """Parameters (K, 6) of the best fits near `start` (K, 6), and their R² (K,).

    Args:
        shape: The family's shape.
        kernels: (K, height·width), of unit norm.
        start: Parameters to begin with.
        height: Of the kernels, and `width`: a fit of few pixels has fewer parameters.
    """
    directions = _directions(shape, height, width)
    bounds = _bounds(height, width)
    parameters, r2 = np.array(start, dtype=np.float64), np.zeros(len(kernels))
    block = max(1, _BLOCK // (height * width))
    for first in range(0, len(kernels), block):
        part = slice(first, first + block)
        parameters[part], r2[part] = _descend(
            shape, kernels[part], parameters[part], directions, bounds, pixels(height, width)
        )
    return parameters, r2


def _directions(shape: Shape, height: int, width: int) -> Floats:
    """What may change, a row each: on a row or column no angle, on few pixels one width and no centre."""
    rows = [[LOG_SIGMA_U, LOG_SIGMA_V]] if max(height, width) < GABOR_EXTENT else [[LOG_SIGMA_U], [LOG_SIGMA_V]]
    if max(height, width) >= GABOR_EXTENT:
        rows += [[CENTRE_X], [CENTRE_Y]] if min(height, width) > 1 else [[CENTRE_X if height == 1 else CENTRE_Y]]
    if min(height, width) > 1:
        rows.append([THETA])
    else:
        rows = [row for row in rows if row != [LOG_SIGMA_V]]
    if shape == "gabor":
        rows.append([FREQUENCY])
    directions = np.zeros((len(rows), 6))
    for number, row in enumerate(rows):
        directions[number, row] = 1.0
    return directions


def _bounds(height: int, width: int) -> tuple[Floats, Floats]:
    """Least and largest parameters: nothing thinner than pixels show, no far centre, half a period to Nyquist's."""
    extent = max(height, width)
    low = [-np.inf, math.log(0.3), math.log(0.3), -width / 3, -height / 3, 0.5 / math.hypot(height, width)]
    high = [np.inf, math.log(2.0 * extent), math.log(50.0), width / 3, height / 3, 0.5]
    return np.array(low), np.array(high)


def _descend(
    shape: Shape,
    kernels: Floats,
    parameters: Floats,
    directions: Floats,
    bounds: tuple[Floats, Floats],
    grid: tuple[Floats, Floats],
) -> tuple[Floats, Floats]:
    """Levenberg-Marquardt with a damping for each kernel (Marquardt, 1963)."""
    parameters = np.clip(parameters, *bounds)
    rest = _rest(shape, kernels, parameters, grid)
    cost, damping = np.square(rest).sum(axis=1), np.full(len(kernels), 1e-2)
    for _ in range(_ROUNDS):
        slopes = [
            (_rest(shape, kernels, parameters + _STEP * direction, grid) - rest) / _STEP for direction in directions
        ]
        jacobian = np.stack(slopes, axis=2)
        normal = jacobian.transpose(0, 2, 1) @ jacobian
        gradient = np.einsum("knp,kn->kp", jacobian, rest)
        diagonal = np.einsum("kpp->kp", normal)
        damped = normal + (damping[:, None] * diagonal + 1e-9)[:, :, None] * np.eye(len(directions))
        step = np.linalg.solve(damped, gradient[:, :, None])[:, :, 0]
        trial = np.clip(parameters - np.clip(step, -0.5, 0.5) @ directions, *bounds)
        trial_rest = _rest(shape, kernels, trial, grid)
        trial_cost = np.square(trial_rest).sum(axis=1)
        better = trial_cost < cost
        parameters = np.where(better[:, None], trial, parameters)
        rest, cost = np.where(better[:, None], trial_rest, rest), np.where(better, trial_cost, cost)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-7, 1e5)
    energy = np.square(kernels).sum(axis=1)
    return parameters, 1 - cost / np.where(energy > 0, energy, 1.0)


def _rest(shape: Shape, kernels: Floats, parameters: Floats, grid: tuple[Floats, Floats]) -> Floats:
    """What the span of each shape leaves of its kernel."""
    basis = orthonormal(sampled(shape, parameters, *grid))
    rest: Floats = kernels - np.einsum("kd,kdn->kn", np.einsum("kdn,kn->kd", basis, kernels), basis)
    return rest


def folded(degrees: Floats) -> Floats:
    """Angles in [0, 180), and 0 for what is printed as 180, to two digits.

    The sign of a phase goes with it: a wave along 180 degrees is one along 0 with the other sign.

    >>> folded(np.array([-1e-9, 179.996, 225.0])).tolist()
    [0.0, 0.0, 45.0]
    """
    turned = np.asarray(degrees) % 180.0
    return np.where(turned >= 179.995, 0.0, np.round(turned, 6))


def _described(kernels: Floats, parameters: Floats, r2: Floats, x: Floats, y: Floats) -> GaborFit:
    """Amplitude positive, orientation folded into [0, 180), phase taken at the kernel's middle."""
    finite = np.isfinite(r2)
    theta, frequency = parameters[:, THETA], parameters[:, FREQUENCY]
    phase = np.full(len(kernels), np.nan)
    basis = sampled("gabor", parameters[finite], x, y)
    gram, right = basis @ basis.transpose(0, 2, 1), np.einsum("kdn,kn->kd", basis, kernels[finite])
    weights = np.einsum("kde,ke->kd", np.linalg.pinv(gram, hermitian=True), right)
    middle = -(parameters[:, CENTRE_X] * np.cos(theta) + parameters[:, CENTRE_Y] * np.sin(theta))
    phase[finite] = np.arctan2(-weights[:, 1], weights[:, 0]) + (2 * np.pi * frequency * middle)[finite]
    degrees = folded(np.degrees(theta))
    half_turns = np.rint((np.degrees(theta) - degrees) / 180)
    phase = np.where(half_turns % 2 == 1, -phase, phase)
    cycles = frequency * np.exp(parameters[:, LOG_SIGMA_U])
    with np.errstate(divide="ignore", invalid="ignore"):
        bandwidth = np.log2((cycles + _HALF_POWER) / (cycles - _HALF_POWER))
    bandwidth = np.where(cycles > _HALF_POWER, bandwidth, np.nan)
    return GaborFit(frequency, degrees, bandwidth, np.pi - (np.pi - phase) % (2 * np.pi) + 0.0, r2)
