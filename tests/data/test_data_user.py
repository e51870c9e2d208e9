"""Data sets of users, by reference and with options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evocompress.data import Examples, Splits, load
from evocompress.data.user import as_splits
from evocompress.errors import DataError


def pair(n: int = 6, dtype: Any = np.float32, classes: int = 3) -> tuple[Any, Any]:
    return np.ones((n, 1, 4, 4), dtype), np.arange(n) % classes


def test_three_pairs_of_arrays_or_tensors() -> None:
    x, y = pair()
    splits = as_splits(
        "m:f", (pair(9), (torch.tensor(x), torch.tensor(y, dtype=torch.int32)), [x.tolist(), y.tolist()])
    )
    assert splits.name == "m:f" and splits.classes == 3
    assert [len(part) for part in (splits.train, splits.validation, splits.audit)] == [9, 6, 6]
    assert splits.validation.labels.dtype == torch.int64


@pytest.mark.parametrize(
    "part",
    [np.ones((6, 7)), torch.ones(6, 7), [torch.ones(7)] * 6, (torch.ones(6, 7), None), [[1.0] * 7] * 6],
    ids=["array", "tensor", "sequence of tensors", "pair without labels", "lists"],
)
def test_inputs_may_be_without_labels(part: Any) -> None:
    splits = as_splits("m:f", {"train": part, "validation": part, "audit": part})
    assert not splits.validation.is_labelled and splits.classes == 1
    assert torch.equal(splits.train.inputs, torch.ones(6, 7))


def test_a_dict_may_say_the_classes_and_give_examples() -> None:
    own = Examples(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), augmentation="crop-flip")
    splits = as_splits("m:f", {"train": own, "validation": pair(), "audit": pair(), "classes": 7})
    assert splits.classes == 7 and splits.train is own
    assert as_splits("m:f", splits) is splits


def test_bytes_are_scaled_and_floats_are_not() -> None:
    bytes_, floats = np.full((2, 1, 4, 4), 255, np.uint8), np.full((2, 1, 4, 4), 255.0)
    for x, expected in ((bytes_, 1.0), (floats, 255.0)):
        splits = as_splits("m:f", [(x, [0, 1])] * 3)
        assert np.unique(splits.train.batch(slice(None))[0].numpy()) == pytest.approx([expected])


def test_the_callers_array_stays_theirs() -> None:
    x, y = pair()
    splits = as_splits("m:f", [(x, y)] * 3)
    x[:] = 5
    assert splits.train.inputs.max() == 1


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned a NoneType; must be three pairs"),
        ([pair()] * 2, "returned a list of 2; must be three pairs"),
        ("abc", "returned a str"),
        ({"train": pair(), "test": pair()}, "keys test, train; must be train, validation, audit"),
        ([pair(), pair(), 3], "m:f, audit: must be a pair .*or images alone without labels; is a int"),
        ([pair(), pair(), "ab"], "m:f, audit: must be a pair .*; is a str"),
        ([[torch.zeros(9, 4)], pair(), pair()], "m:f, train: must be a pair .*; is a list of 1"),
        ([[torch.zeros(4), torch.zeros(4), torch.zeros(5)], pair(), pair()], "train, images: a list is no array"),
        ([pair(), (np.zeros((2, 1, 4, 4)), [0, 1, 1]), pair()], r"m:f, validation: .*must be int64 \(2,\)"),
        ([(np.zeros((2, 1, 4, 4)), [0.0, np.nan]), pair(), pair()], "train: labels hold NaN"),
        ([(np.zeros((2, 1, 4, 4)), [True, False]), pair(), pair()], "train: labels are torch.bool; must be integers"),
        ([(np.zeros((2, 1, 4, 4)), np.zeros((2, 2, 2), int)), pair(), pair()], "train: labels"),
        ([(np.zeros(2), [0, 1]), pair(), pair()], r"train: images .*\(n, c, h, w\)"),
        ([(np.zeros((2, 1, 4, 4), np.int16), [0, 1]), pair(), pair()], "torch.int16.*must be uint8 or float32"),
        ([(np.full((2, 1, 4, 4), np.nan), [0, 1]), pair(), pair()], "train: images hold NaN"),
        ([([["a"]], [0]), pair(), pair()], "train, images: a list is no array of numbers"),
        ([([[1], [2, 3]], [0, 1]), pair(), pair()], "train, images: a list is no array"),
        ([(np.zeros((0, 1, 4, 4)), np.zeros(0, int)), pair(), pair()], "train: there are no examples"),
        ([(np.zeros((2, 1, 4, 5)), [0, 1]), pair(), pair()], "images are .*must be the same"),
        ([(np.zeros((2, 1, 4, 4)), [0, -1]), pair(), pair()], "labels of train are -1..0; must be 0 or more"),
        ([(np.zeros((2, 1, 4, 4)), [-7, -3])] * 3, "labels of train are -7..-3; must be 0 or more.*-100: no label"),
        (
            {"train": pair(), "validation": pair(), "audit": pair(), "classes": 2},
            r"labels of train are 0..2; must be 0..1",
        ),
        ({"train": pair(), "validation": pair(), "audit": pair(), "classes": "ten"}, "classes 'ten'"),
    ],
)
def test_what_is_wrong_is_said(result: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_splits("m:f", result)


def test_a_loader_is_called_with_the_seed_and_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data_module.py").write_text(
        "import numpy as np\n"
        "def loader(seed, *, n=5):\n"
        "    rng = np.random.default_rng(seed)\n"
        "    return [(rng.normal(size=(n, 1, 8, 8)), np.arange(n) % 2) for _ in range(3)]\n"
        "def broken(seed):\n"
        "    raise OSError('disk on fire')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    splits = load("my_data_module:loader", seed=4, options={"n": 8})
    assert isinstance(splits, Splits) and len(splits.train) == 8
    assert splits.sha256 == load("my_data_module:loader", seed=4, options={"n": 8}).sha256
    assert splits.sha256 != load("my_data_module:loader", seed=5, options={"n": 8}).sha256
    with pytest.raises(DataError, match="loader failed for seed 0.*OSError: disk on fire"):
        load("my_data_module:broken")
    with pytest.raises(DataError, match="loader failed.*TypeError.*'m'"):
        load("my_data_module:loader", options={"m": 8})
    with pytest.raises(DataError, match="has no 'load'. Did you mean 'loader'"):
        load("my_data_module:load")
