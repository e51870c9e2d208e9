"""Data sets by name, from `extensions.DATA_SETS` or a user's own code; their splits and where they lie.

A loader takes (root, seed) and keyword-only options and returns `Splits`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from evocompress.data.examples import Augmentation, Examples, Splits
from evocompress.data.location import data_root
from evocompress.data.user import as_splits
from evocompress.errors import DataError, EvocompressError
from evocompress.extensions import DATA_SETS
from evocompress.support.user_objects import check_options, is_reference, resolve

__all__ = ["DATA_SETS", "Augmentation", "Examples", "Splits", "data_root", "load"]


def load(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Splits:
    """A data set's splits, fixed by `seed`: one of `DATA_SETS`, or a user's `package.module:loader`.

    A user's loader is called as `loader(seed, **options)`; `as_splits` says what it may return. Raises DataError for an
    unknown name or option, a data set that is missing or damaged, and a loader that fails.
    """
    options = dict(options or {})
    if is_reference(name):
        return as_splits(name, _call(name, seed, options))
    loader = DATA_SETS.find(name, error=DataError, hint="Data of your own is written 'package.module:loader'.")
    check_options(loader, options, what=f"data set {name!r}", error=DataError)
    splits: Splits = loader(data_root(root), seed, **options)
    return splits


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
