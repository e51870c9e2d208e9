"""Data that processes of one machine share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from evocompress.data import Examples, Splits, shared
from evocompress.data.shared import as_arrays, from_arrays
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import run_experiment
from evocompress.search.history import read_history

_LOADER = """
import os
import pathlib
import numpy as np
from torch import nn

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 2))

def data(seed, marks):
    pathlib.Path(marks, str(os.getpid())).touch()
    rng = np.random.default_rng(seed)
    parts = []
    for n in (8000, 600, 600):
        images = rng.integers(0, 255, (n, 1, 64, 64), dtype=np.uint8)
        parts.append((images, (images[:, 0, 0, 0] > 127).astype(int)))
    return parts
"""


def splits(n: int = 40) -> Splits:
    images = torch.arange(n * 12, dtype=torch.uint8).view(n, 3, 2, 2)
    part = Examples(images, torch.arange(n) % 4, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), augmentation="crop-flip")
    named = Examples({"a": torch.ones(n, 2), "b": (torch.zeros(n, 3),)}, torch.ones(n, 2))
    return Splits("s", 4, part, part, part) if n == 40 else Splits("s", 4, named, named, named)


@pytest.mark.parametrize("n", [40, 41])
def test_back_and_forth(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_LEAST", 0)
    before = splits(n)
    plain = as_arrays(before)
    assert plain is not None
    for part in plain["parts"].values():
        for array in (part["labels"], part["inputs"] if n == 40 else part["inputs"]["a"]):
            array.flags.writeable = False  # as Ray's object store has them
    after = from_arrays(plain)
    assert (
        after.sha256 == before.sha256 and after.classes == 4 and after.train.augmentation == before.train.augmentation
    )
    if n == 40:
        assert after.train.inputs.data_ptr() == before.train.inputs.data_ptr()
        assert torch.equal(after.audit.batch(slice(3))[0], before.audit.batch(slice(3))[0])


def test_what_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_arrays(splits()) is None
    monkeypatch.setattr(shared, "_LEAST", 0)
    lazy = Examples.of_dataset(TensorDataset(torch.ones(3, 2), torch.tensor([0, 1, 0])))
    assert as_arrays(Splits("s", 2, lazy, lazy, lazy)) is None


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_workers_on_ray_do_not_read_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    (tmp_path / "large_data.py").write_text(_LOADER)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "marks").mkdir()
    values: dict[str, Any] = {
        "model": "large_data:network",
        "data": "large_data:data",
        "data_options": {"marks": str(tmp_path / "marks")},
        "reference_epochs": 0,
        "search": {"segments": 2, "initial": 2, "probes": 0, "deterministic": True},
        "genes": {"epochs": 1, "batch_size": 500},
        "resources": {"executor": "ray", "workers": 1},
    }
    run_experiment(parse_config(values), tmp_path / "ray")
    assert len(list((tmp_path / "marks").iterdir())) == 1  # this process's
    values["resources"] = {"executor": "inline"}
    run_experiment(parse_config(values), tmp_path / "inline")
    files = [
        sorted(leaf.sha256 for outcome in read_history(tmp_path / name).outcomes for leaf in outcome.leaves)
        for name in ("ray", "inline")
    ]
    assert files[0] == files[1] and files[0]
