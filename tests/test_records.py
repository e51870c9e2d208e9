"""The records are what they say: every file decodes, and is as good and as certain as recorded."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evocompress.errors import DataError

FOLDER = Path(__file__).parents[1] / "examples" / "records"
RECORDS: list[dict[str, Any]] = json.loads((FOLDER / "records.json").read_text())


@pytest.fixture(scope="module")
def judging() -> ModuleType:
    spec = importlib.util.spec_from_file_location("judge", FOLDER / "judge.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("record", RECORDS, ids=[record["file"] for record in RECORDS])
def test_a_record_is_what_it_says(judging: ModuleType, record: dict[str, Any]) -> None:
    try:
        measured = judging.judge(record)
    except DataError as error:
        pytest.skip(str(error))
    assert measured["bytes"] == record["measured"]["bytes"]
    # Sums of floats may turn an example on another machine.
    for name in ("test_accuracy", "accuracy_on_what_made_it", "certified_error"):
        assert measured[name] == pytest.approx(record["measured"][name], abs=2e-3)


def test_the_table_is_of_these_records_and_no_file_is_an_orphan(judging: ModuleType) -> None:
    assert judging.table(RECORDS) in (FOLDER / "README.md").read_text()
    assert {path.name for path in FOLDER.glob("*.evc")} == {record["file"] for record in RECORDS}
