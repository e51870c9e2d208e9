"""Data of the report's opened views: a long run is thinned, a worker is one lane, a missing Optuna is a sentence."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from synthetic_run import MadeRun, synthetic_run

from evocompress.errors import ConfigError
from evocompress.runs.front import front
from evocompress.runs.importance import importances
from evocompress.runs.report.views import views


def at_times(history: MadeRun, *spans: tuple[str, float, float]) -> MadeRun:
    """The run's first segments as if each had run on such a node from then to then."""
    for place, (node, started, finished) in enumerate(spans):
        outcome = history.outcomes[place]
        metrics = {**outcome.metrics, "node": node, "started": started, "finished": finished}
        history.outcomes[place] = dataclasses.replace(outcome, metrics=metrics)
    del history.outcomes[len(spans) :], history.finished_at[len(spans) :], history.told[len(spans) :]
    return history


def test_segments_that_ran_at_once_lie_in_lanes_of_their_node() -> None:
    spans = ("a", 10.0, 20.0), ("a", 12.0, 15.0), ("b", 13.0, 30.0), ("a", 15.0, 18.0), ("a", 16.0, 40.0)
    made = views(at_times(synthetic_run(5), *spans))["timeline"]
    assert [made["lanes"][lane] for lane in made["lane"]] == ["a · 1", "a · 2", "b · 1", "a · 2", "a · 3"]
    assert made["start"] == [0.0, 2.0, 3.0, 5.0, 6.0] and made["seconds"] == [10.0, 3.0, 17.0, 3.0, 24.0]


def test_a_segment_that_recorded_no_times_ends_when_it_was_told() -> None:
    history = synthetic_run(3)
    for place, outcome in enumerate(history.outcomes):
        history.outcomes[place] = dataclasses.replace(outcome, metrics={})
    made = views(history)
    assert made["timeline"]["lanes"] == ["unknown node · 1"] and made["timeline"]["start"] == [0.0, 2.0, 4.0]
    assert all(curve["trainLoss"] == [] for curve in made["curves"]["segments"])


def test_a_long_run_is_thinned() -> None:
    history = synthetic_run(200)
    made, whole = views(history, max_bars=50, max_curve_points=60), views(history)
    assert 50 <= len(made["timeline"]["start"]) < 75 and made["timeline"]["count"] == 200
    assert 0 < len(made["curves"]["segments"]) < made["curves"]["count"] == len(whole["curves"]["segments"])
    json.dumps(whole, allow_nan=False)


def test_curves_lie_along_the_lineages_of_the_front() -> None:
    history = synthetic_run(60)
    segments = {leaf.leaf_id.partition("-")[0] for p in front(history) for leaf in history.lineage(p.leaf_id)}
    made = views(history)["curves"]["segments"]
    assert {curve["number"] for curve in made} == {history.tasks[segment].index + 1 for segment in segments}
    for curve in made:
        task = next(task for task in history.tasks.values() if task.number == curve["number"])
        assert curve["begin"] == (task.parents[0].epochs if task.parents else 0)
        assert (curve["parent"] >= 0) == bool(task.parents)


def test_importances_name_the_genes_that_decide() -> None:
    found = importances(list(synthetic_run(80).leaves.values()))
    assert next(iter(found["bytes"])) == "dense.rate_weight"  # of which the made-up sizes are
    assert all(sum(shares.values()) == pytest.approx(1.0) for shares in found.values())


def test_genes_of_one_value_or_of_some_files_alone_have_no_importance() -> None:
    leaves = list(synthetic_run(40).leaves.values())
    leaves = [dataclasses.replace(leaf, genome={**leaf.genome, "fixed": 3}) for leaf in leaves]
    leaves[5] = dataclasses.replace(leaves[5], genome={**leaves[5].genome, "rare": 1.0})
    assert {"fixed", "rare"}.isdisjoint(importances(leaves)["error"])
    fixed = [dataclasses.replace(leaf, genome={"fixed": 3}) for leaf in leaves]
    assert importances(fixed) == {"error": {}, "bytes": {}, "front": {}}
    with pytest.raises(ConfigError, match="too few"):
        importances(leaves[:10])


def test_without_optuna_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "evocompress[optuna]" in views(synthetic_run(40))["importances"]["note"]


def test_what_optuna_cannot_judge_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(leaves: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("evocompress.runs.report.views.importances", refuses)
    assert views(synthetic_run(3))["importances"]["note"].endswith("RuntimeError: no")
