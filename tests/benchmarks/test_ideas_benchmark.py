"""The benchmark of ideas in the search: its settings, its comparison of fronts, and one run of two short segments."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest
from ideas_present import with_all_ideas

from evocompress.evolve.config import load_config

ROOT = Path(__file__).resolve().parents[2]
IN_SEARCH = runpy.run_path(str(ROOT / "benchmarks" / "ideas" / "in_search.py"))
IDEAS, WITHOUT = IN_SEARCH["IDEAS"], IN_SEARCH["WITHOUT"]

pytestmark = with_all_ideas


@pytest.mark.parametrize("idea", IDEAS)
def test_the_settings_of_an_idea_are_read(idea: str) -> None:
    config = load_config(ROOT / "configs" / "digits.toml", IDEAS[idea])
    assert config.data == "digits" and WITHOUT.get(idea, idea) in IDEAS


def test_bytes_are_compared_at_levels_that_both_fronts_reach() -> None:
    ratio = IN_SEARCH["bytes_ratio"]
    assert ratio([(100, 0.86), (400, 0.94)], [(200, 0.86), (400, 0.91)]) == pytest.approx(math.sqrt(0.5) ** (4 / 3))
    assert ratio([(100, 0.5)], [(200, 0.99)]) is None


def row(idea: str, seed: int, hypervolume: float, nbytes: int) -> dict[str, Any]:
    return {"idea": idea, "seed": seed, "hypervolume": hypervolume, "front": [(nbytes, 0.9)]}


def test_each_idea_is_compared_with_what_lacks_it_over_the_seeds_of_both() -> None:
    rows = [row("plain", 0, 0.5, 100), row("linearconv", 0, 0.6, 50), row("linearconv", 1, 0.9, 10)]
    (comparison,) = IN_SEARCH["summary"](rows)
    assert comparison["idea"] == "linearconv" and comparison["without"] == "plain" and comparison["seeds"] == 1
    assert comparison["difference"] == [0.1, 0.0] and comparison["bytes_ratio"] == [0.5, 0.5, 0.5]


def test_a_run_is_made_once_and_then_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_run = IN_SEARCH["one_run"]
    monkeypatch.setitem(one_run.__globals__, "EACH", 1)
    first = one_run("symmetry", 3, 2, str(tmp_path))
    assert first["failed"] == 0 and first["front"] and 0 <= first["hypervolume"] < 1
    (kept,) = tmp_path.glob("*.json")
    stored = {**first, "hypervolume": -1.0}
    kept.write_text(json.dumps(stored))
    assert one_run("symmetry", 3, 2, str(tmp_path))["hypervolume"] == -1.0
