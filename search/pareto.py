"""Two-objective Pareto arithmetic on arrays (n, 2), both columns minimised.

`moocore` is used where it is installed; the numpy versions beside it give the same values and are what the tests
compare it with. The search's own loops use `archive` and `selection`, which work point by point.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from bisect import bisect_right
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Backend", "contributions", "first_front", "hypervolume", "is_nondominated", "ranks"]

Points: TypeAlias = npt.ArrayLike
Backend: TypeAlias = Literal["auto", "moocore", "numpy"]


@functools.cache
def _moocore() -> Any:
    return importlib.import_module("moocore") if importlib.util.find_spec("moocore") else None


def _backend(name: Backend) -> Any:
    """The moocore module, or None for numpy."""
    if name == "numpy":
        return None
    module = _moocore()
    if name == "moocore" and module is None:
        raise ModuleNotFoundError("moocore is not installed; install it or use backend='numpy'")
    return module


def _array(points: Points) -> npt.NDArray[np.float64]:
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(array).all():
        raise ValueError("points holds NaN or infinity; clip objectives to finite values first")
    return array


def is_nondominated(points: Points) -> npt.NDArray[np.bool_]:
    """Which of the (n, 2) points no other point dominates; equal points do not dominate each other.

    >>> is_nondominated([[1, 3], [2, 2], [2, 3], [2, 2]]).tolist()
    [True, True, False, True]
    """
    return np.asarray(ranks(points) == 0)


def ranks(points: Points) -> npt.NDArray[np.intp]:
    """Front number of each of the (n, 2) points, 0 for the non-dominated.

    O(n log n): in lexicographic order a point joins the first front whose last member does not dominate it
    (Jensen, 2003).
    """
    array = _array(points)
    result = np.zeros(len(array), dtype=np.intp)
    last_y: list[float] = []
    previous: tuple[float, float, int] | None = None
    for i in np.lexsort((array[:, 1], array[:, 0])):
        x, y = float(array[i, 0]), float(array[i, 1])
        if previous is not None and previous[:2] == (x, y):
            result[i] = previous[2]
            continue
        front = first_front(last_y, y)
        result[i] = front
        previous = (x, y, front)
    return result


def first_front(last_y: list[float], y: float) -> int:
    """Enter the next point, in lexicographic order, into the first front whose last y is above its `y`; its number.

    A later front never has a smaller last y than an earlier one, so `last_y` stays ascending and bisection finds it.
    """
    front = bisect_right(last_y, y)
    if front == len(last_y):
        last_y.append(y)
    else:
        last_y[front] = y
    return front


def hypervolume(points: Points, reference: tuple[float, float], backend: Backend = "auto") -> float:
    """Area that the (n, 2) points dominate below `reference` (Zitzler and Thiele, 1998).

    >>> hypervolume([[1, 3], [2, 2]], (4, 4), backend="numpy")
    5.0
    """
    array = _array(points)
    array = array[(array < np.asarray(reference)).all(axis=1)]
    if not len(array):
        return 0.0
    module = _backend(backend)
    if module is not None:
        return float(module.hypervolume(array, ref=np.asarray(reference, dtype=np.float64)))
    array = array[np.lexsort((array[:, 1], array[:, 0]))]
    lowest = np.minimum.accumulate(array[:, 1])
    widths = np.diff(np.append(array[:, 0], reference[0]))
    return float(np.sum(widths * (reference[1] - lowest)))


def contributions(points: Points, reference: tuple[float, float], backend: Backend = "auto") -> npt.NDArray[np.float64]:
    """Hypervolume that each of the (n, 2) points adds to the other non-dominated ones.

    0 for a point that is dominated, or a duplicate, or beyond `reference`; dominated points take nothing from others.
    """
    array = _array(points)
    result = np.zeros(len(array))
    inside = np.flatnonzero((array < np.asarray(reference)).all(axis=1))
    if not len(inside):
        return result
    module = _backend(backend)
    if module is not None:
        kept = array[inside]
        result[inside] = module.hv_contributions(kept, ref=np.asarray(reference, dtype=np.float64))
        return result
    result[inside] = _contributions(array[inside], reference)
    return result


def _contributions(array: npt.NDArray[np.float64], reference: tuple[float, float]) -> npt.NDArray[np.float64]:
    result = np.zeros(len(array))
    front = np.flatnonzero(is_nondominated(array))
    front = front[np.argsort(array[front, 0], kind="stable")]
    x, y = array[front, 0], array[front, 1]
    # Of equal neighbours one rectangle has no width and the other no height: duplicates come out as 0 by themselves.
    result[front] = (np.append(x[1:], reference[0]) - x) * (np.append(reference[1], y[:-1]) - y)
    return result
