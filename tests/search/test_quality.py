"""Quality: its JSON, old runs that have none, and values that it cannot have."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from synthetic_run import synthetic_run

from evocompress.errors import ConfigError, RunError
from evocompress.search.old_runs import OLD_QUALITY, quality_of_run
from evocompress.search.quality import Quality
from evocompress.tasks.classification import ACCURACY


def test_a_quality_is_its_own_json() -> None:
    made = Quality("RMSE", unit="m", direction="minimise", digits=3)
    assert quality_of_run(made.to_json()) == made and quality_of_run(None) == OLD_QUALITY == ACCURACY
    assert made.merit(0.5) == -0.5 and ACCURACY.merit(0.5) == 0.5
    assert ACCURACY.is_share and not made.is_share and not dataclasses.replace(ACCURACY, direction="minimise").is_share
    assert Quality("loss", digits=0).show(1.6) == "2"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": ""}, "has no name"),
        ({"direction": "up"}, "direction is 'up'"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"digits": -1}, "digits is -1"),
        ({"digits": 1.5}, "digits is 1.5"),
    ],
)
def test_what_no_quality_can_be(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Quality(**{"name": "RMSE", **changes})
    history = synthetic_run(1)
    history.run["quality"] = {"name": "RMSE", **changes}
    with pytest.raises(RunError, match=f"quality in run.json is damaged .*{text}"):
        _ = history.quality
    history.run["quality"] = {"name": "RMSE", "colour": "red"}
    with pytest.raises(RunError, match="colour"):
        _ = history.quality
