"""The notebook of examples/: its cells run, one after the other, and lose little accuracy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[1] / "examples" / "checkpoint.ipynb"


@pytest.fixture
def notebook() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return loaded


def test_it_is_a_notebook_without_outputs(notebook: dict[str, Any]) -> None:
    assert notebook["nbformat"] == 4 and len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.usefixtures("seeded")
def test_its_cells_run(
    notebook: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="its images are scikit-learn's digits")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name} {cell['id']}", "exec"), names)
    shown = capsys.readouterr().out
    accuracies = [float(value) for value in re.findall(r"accuracy ([\d.]+)%", shown)]
    assert len(accuracies) == 7 and accuracies[0] > 95 and accuracies[-1] > accuracies[0] - 5
    assert (tmp_path / "digits.evc").stat().st_size == names["result"].nbytes <= 4000
