"""Old runs: records of before there were tasks, when every run classified and recorded an accuracy in [0, 1].

Nothing else of the search knows the word: what it minimises is an error, which the task defines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evocompress.search.quality import Quality

__all__ = ["OLD_KEY", "OLD_QUALITY", "leaf_with_quality", "quality_of_run"]

#: What records of leaves and of audits have in place of "quality" and "error".
OLD_KEY = "accuracy"
#: The quality of runs that do not say what it is.
OLD_QUALITY = Quality(OLD_KEY, unit="%", scale=100.0)


def quality_of_run(data: Mapping[str, Any] | None) -> Quality:
    """The quality of a run from its entry in `run.json`, which old runs lack.

    >>> quality_of_run(None).name
    'accuracy'
    """
    return OLD_QUALITY if data is None else Quality.from_json(data)


def leaf_with_quality(data: Mapping[str, Any]) -> dict[str, Any]:
    """An old leaf's record as they are now.

    >>> leaf_with_quality({"leaf_id": "0/0", "accuracy": 0.75})
    {'leaf_id': '0/0', 'quality': 0.75, 'error': 0.25}
    """
    rest = {key: value for key, value in data.items() if key != OLD_KEY}
    return rest | {"quality": data[OLD_KEY], "error": 1.0 - data[OLD_KEY]}
