"""Classes of kernels in plain words, each with a confidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from evocompress.errors import EvocompressError
from evocompress.ideas.kernels.evidence import Evidence, evidence, noise_threshold, posterior
from evocompress.ideas.kernels.families import FAMILIES, Family, FamilyName, families
from evocompress.ideas.kernels.fitting import GaborFit, fit_gabor, folded, refine
from evocompress.ideas.kernels.narrow_derivatives import steered
from evocompress.ideas.kernels.response import bands
from evocompress.ideas.kernels.shapes import (
    CENTRE_X,
    CENTRE_Y,
    FREQUENCY,
    LOG_SIGMA_U,
    LOG_SIGMA_V,
    THETA,
    Floats,
    Shape,
)

__all__ = ["CLASSES", "MOST_PIXELS", "Kernel", "KernelClass", "classify"]

MOST_PIXELS = 33 * 33
"""Of the largest kernels that are classified: the grids that they are compared with hold 0.5 GB."""

KernelClass: TypeAlias = Literal[
    "low-pass", "high-pass", "band-pass", "derivative", "gabor", "blob", "identity", "none"
]
CLASSES: tuple[KernelClass, ...] = get_args(KernelClass)

_NYQUIST = 0.45  # cycles per pixel along an axis: a stripe so fine has no band above it, so it is high-pass


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel's class and fits.

    `confidence` is the posterior probability of the class; `order` of a derivative; `orientation_degrees` the
    direction in which the kernel varies, in [0, 180), 0 along x (columns), 90 along y (rows, downwards), None if it has
    none; `isotropic` whether it is alike in all directions, None for a class that does not say. `frequency`
    (cycles/pixel), `bandwidth` (octaves), `phase` (radians, at the kernel's middle), `r2` and `fit_orientation_degrees`
    (in which the phase grows) are the Gabor fit's, whatever the class; of a `gabor` both orientations are the same.
    `norm` is the Euclidean one.
    """

    kernel_class: KernelClass
    confidence: float
    order: int | None = None
    orientation_degrees: float | None = None
    isotropic: bool | None = None
    frequency: float | None = None
    bandwidth: float | None = None
    phase: float | None = None
    r2: float | None = None
    norm: float = 0.0
    fit_orientation_degrees: float | None = None


@dataclasses.dataclass(frozen=True)
class _Verdict:
    """A family's reading of one kernel."""

    kernel_class: KernelClass
    order: int | None = None
    degrees: float | None = None
    isotropic: bool | None = None


def classify(kernels: NDArray[np.floating]) -> list[Kernel]:
    """Say what each kernel of one size does.

    Args:
        kernels: (K, h, w). Scale and sign do not matter for the class.

    Raises:
        EvocompressError: They are not of three dimensions, have no pixels or more than `MOST_PIXELS`, or are not
            finite.

    >>> sobel = classify(np.array([[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1.0]]]))[0]
    >>> sobel.kernel_class, sobel.order, sobel.orientation_degrees, sobel.confidence > 0.9
    ('derivative', 1, 0.0, True)
    """
    exact = _checked(kernels)
    count, height, width = exact.shape
    flat = exact.reshape(count, height * width)
    units, norms = _unit(flat)
    alive = np.flatnonzero(norms)
    fits = fit_gabor(units, height, width)
    named = [Kernel("none", 1.0)] * count
    if height * width == 1:
        for number in alive:
            named[number] = Kernel("identity", 1.0, isotropic=True)
    elif alive.size:
        for number, kernel in zip(alive, _structured(units[alive], height, width), strict=True):
            named[number] = kernel
    return [_with_fit(kernel, fits, number, float(norms[number])) for number, kernel in enumerate(named)]


def _checked(kernels: NDArray[np.floating]) -> Floats:
    exact = np.asarray(kernels, dtype=np.float64)
    if exact.ndim != 3 or 0 in exact.shape[1:]:
        raise EvocompressError(f"kernels have the shape {exact.shape}; give (number, height, width), all positive.")
    if exact.shape[1] * exact.shape[2] > MOST_PIXELS:
        size = f"{exact.shape[1]}×{exact.shape[2]}"
        raise EvocompressError(f"kernels are of {size}; those of at most {MOST_PIXELS} numbers (33×33) have a class.")
    if not np.isfinite(exact).all():
        raise EvocompressError("kernels hold NaN or infinity; only finite numbers have a class.")
    return exact


def _unit(flat: Floats) -> tuple[Floats, Floats]:
    """Kernels of unit norm and the norms; through the largest number first, so that nothing under- or overflows."""
    largest = np.abs(flat).max(axis=1, keepdims=True)
    scaled = flat / np.where(largest > 0, largest, 1.0)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        return scaled / np.where(norms > 0, norms, 1.0), (norms * largest)[:, 0]


def _structured(units: Floats, height: int, width: int) -> list[Kernel]:
    """Classes of kernels (K, n) of unit norm by their posterior probabilities."""
    family_evidence = evidence(units, height, width)
    probability = posterior(family_evidence.log_bayes, noise_threshold(height, width))
    verdicts = {
        column: _verdicts(name, units, family_evidence, column, probability[:, column], (height, width))
        for column, name in enumerate(FAMILIES)
        if np.isfinite(family_evidence.log_bayes[:, column]).all()
    }
    kernels = []
    for number, row in enumerate(probability):
        if row[-1] >= 0.5:
            kernels.append(Kernel("none", float(row[-1])))
            continue
        shares: dict[KernelClass, float] = {}
        for column, verdict in verdicts.items():
            name = verdict[number].kernel_class
            shares[name] = shares.get(name, 0.0) + float(row[column])
        chosen = max(shares, key=lambda name: shares[name])
        columns = [column for column, verdict in verdicts.items() if verdict[number].kernel_class == chosen]
        top = verdicts[max(columns, key=lambda column: float(row[column]))][number]
        kernels.append(Kernel(chosen, min(1.0, shares[chosen]), top.order, top.degrees, top.isotropic))
    return kernels


def _verdicts(
    name: FamilyName, units: Floats, family_evidence: Evidence, column: int, share: Floats, size: tuple[int, int]
) -> Sequence[_Verdict]:
    """How one family reads every kernel, by its best member; refined where the family has a say."""
    family = next(family for family in families(*size) if family.name == name)
    best = family_evidence.best[:, column]
    if name == "point":
        return [_Verdict("identity", isotropic=True)] * len(units)
    if name == "gaussian":
        return [_Verdict("low-pass", isotropic=True)] * len(units)
    if name == "saddle":
        return [_Verdict("derivative", order=2, isotropic=False)] * len(units)
    if name == "surround":
        basis = family.basis[best]
        fitted = np.einsum("kd,kdn->kn", np.einsum("kdn,kn->kd", basis, units), basis)
        named = bands(fitted.reshape(len(units), *size))
        degrees = None if min(size) > 1 else 0.0 if size[0] == 1 else 90.0
        second = _Verdict("derivative", 2, degrees, degrees is None)
        return [second if band == "laplacian" else _Verdict(band, isotropic=True) for band in named]
    if name == "alternating":
        stripes = family.parameters[best, THETA]
        return [_alternates(float(theta)) for theta in stripes]
    if name in ("laplacian", "sharpen"):
        return _laplacians(name, units, family_evidence, size)
    return _oriented(family, units, best, share > 0.05, size)


def _laplacians(name: FamilyName, units: Floats, family_evidence: Evidence, size: tuple[int, int]) -> list[_Verdict]:
    """A Laplacian and one that sharpens are so near that only a kernel with next to no noise tells them apart.

    There the tenth of the other's misfit decides; else each family stands for itself.
    """
    misfit = {}
    for family in families(*size):
        if family.name in ("laplacian", "sharpen"):
            basis = family.basis[family_evidence.best[:, FAMILIES.index(family.name)], 0]
            misfit[family.name] = 1 - np.square((basis * units).sum(axis=1)) + 1e-9
    sharp, smooth = misfit["sharpen"], misfit["laplacian"]
    sharpens = sharp < 10 * smooth if name == "sharpen" else 10 * sharp < smooth
    derivative, high = _Verdict("derivative", 2, None, True), _Verdict("high-pass", isotropic=True)
    return [high if sharpened else derivative for sharpened in sharpens]


def _alternates(theta: float) -> _Verdict:
    """Stripes vary across; a chessboard varies along both diagonals."""
    along_an_axis = min(theta, abs(theta - np.pi / 2)) < 1e-6
    return _Verdict("high-pass", degrees=float(np.degrees(theta)) if along_an_axis else None, isotropic=False)


def _oriented(
    family: Family, units: Floats, best: NDArray[np.intp], matters: NDArray[np.bool_], size: tuple[int, int]
) -> list[_Verdict]:
    """Verdicts with a direction."""
    parameters = family.parameters[best]
    assert family.shape is not None
    operator = family.corner[best, 0] >= 0
    whole = np.flatnonzero(matters & ~operator)
    parameters[whole] = _refined(family.shape, units[whole], parameters[whole], size)
    inner = np.flatnonzero(matters & operator)
    parameters[inner[:, None], [CENTRE_X, CENTRE_Y]] = 0.0
    windows = _windows(units[inner].reshape(-1, *size), family.corner[best[inner]])
    parameters[inner] = _refined(family.shape, windows, parameters[inner], (3, 3))
    degrees = folded(np.degrees(parameters[:, THETA])).tolist()
    if family.name == "gabor":
        along = np.abs(np.stack([np.cos(parameters[:, THETA]), np.sin(parameters[:, THETA])]))
        fine = (parameters[:, FREQUENCY] * along).max(axis=0) > _NYQUIST
        return [_Verdict("high-pass" if f else "gabor", None, d, False) for f, d in zip(fine, degrees, strict=True)]
    order = {"gaussian": None, "first": 1, "second": 2}[family.shape]
    return [_Verdict("low-pass" if order is None else "derivative", order, value, False) for value in degrees]


def _windows(kernels: Floats, corners: NDArray[np.int64]) -> Floats:
    """The 3×3 parts of kernels (K, h, w) at corners (K, 2), flattened: (K, 9)."""
    parts = [kernel[row : row + 3, column : column + 3] for kernel, (row, column) in zip(kernels, corners, strict=True)]
    return np.stack(parts).reshape(-1, 9) if parts else np.zeros((0, 9))


def _refined(shape: Shape, units: Floats, start: Floats, size: tuple[int, int]) -> Floats:
    """The fit from the member that was found; of a first derivative, the better of that and one from equal widths.

    An elongated start may end at a wrong angle on few pixels, a round one at a wrong elongation.
    """
    fitted, r2 = refine(shape, units, start, *size)
    if shape == "second":
        return steered(2, units, fitted, *size)
    if shape != "first":
        return fitted
    equal = start.copy()
    equal[:, LOG_SIGMA_V] = equal[:, LOG_SIGMA_U]
    other, other_r2 = refine(shape, units, equal, *size)
    return steered(1, units, np.where((other_r2 > r2)[:, None], other, fitted), *size)


def _with_fit(kernel: Kernel, fits: GaborFit, number: int, norm: float) -> Kernel:
    def finite(values: Floats) -> float | None:
        value = float(values[number])
        return value if np.isfinite(value) else None

    fitted = finite(fits.orientation_degrees)
    is_gabor = fitted is not None and kernel.kernel_class == "gabor"
    return dataclasses.replace(
        kernel,
        orientation_degrees=fitted if is_gabor else kernel.orientation_degrees,
        frequency=finite(fits.frequency),
        bandwidth=finite(fits.bandwidth),
        phase=finite(fits.phase),
        r2=finite(fits.r2),
        norm=norm,
        fit_orientation_degrees=fitted,
    )
