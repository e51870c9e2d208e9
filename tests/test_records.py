"""The records are what they say: every file decodes, and is as good and as certain as recorded."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from evocompress import load as load_file
from evocompress.data import Splits, load
from evocompress.errors import DataError
from evocompress.networks import build

FOLDER = Path(__file__).parents[1] / "examples" / "records"
RECORDS: list[dict[str, Any]] = json.loads((FOLDER / "records.json").read_text())


@pytest.fixture(scope="module")
def judging() -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge", FOLDER / "judge.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def splits_of(record: dict[str, Any]) -> Splits:
    try:
        return load(record["data"], seed=record["seed"], options=record.get("data_options", {}))
    except DataError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("record", RECORDS, ids=[record["file"] for record in RECORDS])
def test_a_record_decodes_to_a_network_as_good_as_it_says(record: dict[str, Any]) -> None:
    audit, measured = splits_of(record).audit, record["measured"]
    network = build(record["model"], record.get("model_options", {}))
    load_file(FOLDER / record["file"], network)
    images, labels = audit.batch(slice(0, 1000))
    with torch.no_grad():
        right = float((network.eval()(images).argmax(1) == labels).double().mean())
    assert (FOLDER / record["file"]).stat().st_size == measured["bytes"]
    assert right == pytest.approx(measured["test_accuracy"], abs=0.03)


def test_a_judge_comes_to_what_is_recorded(judging: ModuleType) -> None:
    record = next(record for record in RECORDS if record["data"] == "fashion_mnist")
    splits_of(record)
    measured = judging.judge(record)
    # Sums of floats may turn an example on another machine.
    assert all(value == pytest.approx(record["measured"][name], abs=2e-3) for name, value in measured.items())


def test_the_table_is_of_these_records_and_no_file_is_an_orphan(judging: ModuleType) -> None:
    assert judging.table(RECORDS) in (FOLDER / "README.md").read_text()
    assert {path.name for path in FOLDER.glob("*.evc")} == {record["file"] for record in RECORDS}
