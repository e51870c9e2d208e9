"""The data sets that are known by name. Another one is one file beside this and one row in `DATASETS`.

A row's loader takes (root, seed) and keyword-only options and returns `Splits`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from evocompress.data.cifar10 import cifar10
from evocompress.data.digits import digits
from evocompress.data.examples import Augmentation, Examples, Splits
from evocompress.data.location import data_root
from evocompress.data.mnist import fashion_mnist, mnist
from evocompress.data.user import as_splits
from evocompress.errors import DataError, EvocompressError
from evocompress.support.user_objects import check_options, is_reference, one_of, resolve

__all__ = ["DATASETS", "Augmentation", "Examples", "Splits", "data_root", "load"]

DATASETS: dict[str, Callable[..., Splits]] = {
    "cifar10": cifar10,
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
}


def load(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Splits:
    """A data set's splits, fixed by `seed`: one of `DATASETS`, or a user's `package.module:loader`.

    A user's loader is called as `loader(seed, **options)`; `as_splits` says what it may return. Raises DataError for an
    unknown name or option, a data set that is missing or damaged, and a loader that fails.
    """
    options = dict(options or {})
    if is_reference(name):
        return as_splits(name, _call(name, seed, options))
    if name not in DATASETS:
        hint = "Data of your own is written 'package.module:loader'."
        raise DataError(f"data set {name!r} is unknown. {one_of(DATASETS, name)} {hint}")
    check_options(DATASETS[name], options, what=f"data set {name!r}", error=DataError)
    return DATASETS[name](data_root(root), seed, **options)


def _call(name: str, seed: int, options: Mapping[str, Any]) -> Any:
    loader = resolve(name, what="data set", error=DataError)
    try:
        return loader(seed, **options)
    except EvocompressError:
        raise
    except Exception as failure:
        cause = f"{type(failure).__name__}: {failure}"
        raise DataError(
            f"data set {name!r}: its loader failed for seed {seed}, options {options}: {cause}"
        ) from failure
