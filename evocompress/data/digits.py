"""The 8×8 handwritten digits that come with scikit-learn (Alpaydin & Kaynak, 1998); nothing to download."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from evocompress.data.examples import Splits
from evocompress.data.splits import examples, hold_out
from evocompress.errors import DataError

__all__ = ["digits"]


def digits(root: Path, seed: int) -> Splits:
    """1 797 grey images of 8×8 in 17 shades, split 60 : 20 : 20; `root` is not used."""
    try:
        bundle = importlib.import_module("sklearn.datasets").load_digits()
    except ImportError as failure:
        raise DataError("data set 'digits' comes with scikit-learn: pip install 'evocompress[digits]'") from failure
    images, labels = bundle.images.astype(np.uint8)[:, None], bundle.target.astype(np.uint8)
    rng = np.random.default_rng(seed)
    fifth = len(labels) // 5
    rest, audit = hold_out(labels, fifth, rng)
    train, validation = (rest[part] for part in hold_out(labels[rest], fifth, rng))
    mean, std = (float(images[train].mean()),), (float(images[train].std()),)
    parts = [examples(images[index], labels[index], mean, std) for index in (train, validation, audit)]
    return Splits("digits", 10, *parts)
