"""Front of a run: its points, and which of them pictures show."""

import dataclasses
import math

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import START, synthetic_run

from evocompress.errors import ConfigError, EvocompressError
from evocompress.runs.comparison import attainment, bd_rate, steps
from evocompress.runs.display import against_packing_table
from evocompress.runs.front import (
    FrontPoint,
    against_packing,
    audits,
    best_under,
    file_name,
    front,
    hypervolume_curve,
    in_view,
    knee,
    parse_level,
    reference,
    smallest_meeting,
)
from evocompress.runs.recorded_measurements import Recorded
from evocompress.search.quality import Quality
from evocompress.support.intervals import wilson_interval
from evocompress.tasks.classification import ACCURACY

RMSE = Quality("RMSE", unit="m", direction="minimise", digits=3)
FRONTS = st.lists(
    st.tuples(st.integers(100, 4000), st.integers(0, 1000).map(lambda n: n / 1000)), min_size=1, max_size=8
)


def point(nbytes: int, quality: float) -> FrontPoint:
    history = synthetic_run(1, 1)
    return dataclasses.replace(front(history)[0], nbytes=nbytes, quality=quality, error=1 - quality)


def error_of(audit: Recorded) -> float:
    assert audit.error is not None
    return audit.error


def test_front_is_ranked_by_audited_error() -> None:
    history = synthetic_run(120)
    found, points = audits(history), front(history)
    assert len(points) >= 5
    assert all(item.audited and item.quality == found[item.leaf_id].quality for item in points)
    for item in points:
        assert not any(
            history.leaves[leaf_id].nbytes <= item.nbytes and error_of(audit) < item.error
            for leaf_id, audit in found.items()
        ), item
    kept = {item.leaf_id for item in points}
    for leaf_id, audit in found.items():
        nbytes = history.leaves[leaf_id].nbytes
        covered = any(item.nbytes <= nbytes and item.error <= error_of(audit) for item in points)
        assert leaf_id in kept or covered


def test_front_without_audit_is_the_archive_and_says_so() -> None:
    history = synthetic_run(60, audited=False)
    points = front(history)
    assert [item.leaf_id for item in points] == [leaf.leaf_id for leaf in history.archive]
    assert not any(item.audited for item in points)
    assert all(item.quality == item.validation_quality for item in points)
    with pytest.raises(EvocompressError, match="audited=True"):
        front(history, audited=True)


def test_audited_leaf_that_left_the_archive_is_not_on_the_front() -> None:
    history = synthetic_run(60)
    gone = history.archive.pop(0)
    assert gone.leaf_id in audits(history)
    assert gone.leaf_id not in {item.leaf_id for item in front(history)}


def test_front_points_carry_the_record() -> None:
    history = synthetic_run(60)
    for item in front(history):
        leaf = history.leaves[item.leaf_id]
        assert item.ratio == pytest.approx(leaf.measurements["float32_bytes"] / leaf.nbytes)
        assert item.segment_id == history.segment_of[leaf.leaf_id]
        assert item.low < item.quality < item.high
        assert item.file == f"{leaf.nbytes:06d}B_{item.quality:.4f}.evc"
        assert item.total == 360 and item.details["correct"] == round(360 * item.quality)


def test_empty_run_has_empty_answers() -> None:
    history = synthetic_run(0, reference=False)
    assert front(history) == [] and hypervolume_curve(history) == [] and reference(history) is None
    assert best_under([], 100) is None and smallest_meeting([], 0.5, ACCURACY) is None and knee([], ACCURACY) is None


def test_best_under_and_smallest_meeting() -> None:
    points = front(synthetic_run(120))
    for item in points:
        assert best_under(points, item.nbytes) == item
        assert smallest_meeting(points, item.quality, ACCURACY) == item
    assert best_under(points, points[0].nbytes - 1) is None
    assert best_under(points, 10**9) == points[-1]
    assert smallest_meeting(points, points[-1].quality + 1e-6, ACCURACY) is None


def test_a_minimised_quality_is_better_where_it_is_smaller() -> None:
    history = synthetic_run(120, quality=RMSE)
    points = front(history)
    assert [item.quality for item in points] == sorted((item.quality for item in points), reverse=True)
    assert best_under(points, 10**9) == points[-1]
    for item in points:
        assert item.quality == item.error and item.file == f"{item.nbytes:06d}B_{item.quality:.3f}.evc"
        assert smallest_meeting(points, item.quality, RMSE) == item
    assert smallest_meeting(points, points[-1].quality - 1e-6, RMSE) is None
    # The same files in the same order as where the share that is right is maximised, and so the same knee.
    same = front(synthetic_run(120))
    assert [item.leaf_id for item in points] == [item.leaf_id for item in same]
    bends = knee(points, RMSE), knee(same, ACCURACY)
    assert bends[0] is not None and bends[1] is not None and bends[0].leaf_id == bends[1].leaf_id
    merits = steps(points, RMSE), steps(same, ACCURACY)
    assert [nbytes for nbytes, _ in merits[0]] == [nbytes for nbytes, _ in merits[1]]
    halved = [(size // 2, merit) for size, merit in merits[0]]
    assert bd_rate(merits[0], halved) == pytest.approx(-50.0, abs=0.5)


def test_a_file_whose_audit_is_not_finite_is_not_on_the_front() -> None:
    history = synthetic_run(60)
    before = front(history)
    entry = next(record for record in history.records if record["type"] == "audited")["leaves"][before[-1].leaf_id]
    entry |= {"quality": None, "error": None}
    after = front(history)
    assert before[-1].leaf_id not in {item.leaf_id for item in after} and all(item.audited for item in after)


def test_pictures_show_what_is_not_far_worse() -> None:
    shares = [point(n, quality) for n, quality in enumerate((0.1, 0.3, 0.5, 0.9), 1)]
    assert in_view(shares, ACCURACY) == shares[2:]
    errors = [
        dataclasses.replace(item, quality=value, error=value) for item, value in zip(shares, (90, 3, 2, 1), strict=True)
    ]
    assert in_view(errors, RMSE) == errors[1:]
    logs = Quality("log likelihood")
    likely = [
        dataclasses.replace(item, quality=-value, error=value)
        for item, value in zip(shares, (90, 3, 2, 1), strict=True)
    ]
    assert in_view(likely, logs) == likely[1:]
    assert in_view(errors[:1], RMSE) == errors[:1] and in_view([], RMSE) == []


def test_levels_are_read_as_they_are_shown() -> None:
    assert parse_level(" 0.25 ", RMSE) == parse_level("0.25 m", RMSE) == parse_level("0.25m", RMSE) == 0.25
    assert parse_level("12%", Quality("MAPE", "%", "minimise", 100.0)) == pytest.approx(0.12)
    assert parse_level("150", Quality("MAPE", "%", "minimise", 100.0)) == pytest.approx(1.5)
    assert parse_level("-1.5", Quality("log likelihood")) == -1.5
    for text in ("", "m", "0.25 km", "nan", "inf"):
        with pytest.raises(ConfigError, match=r"RMSE='.*' is not a number, with or without the unit m: .* 0\.500 m"):
            parse_level(text, RMSE)
    with pytest.raises(ConfigError, match="accuracy='7' is not within 0 to 1"):
        parse_level("7", ACCURACY)
    assert file_name(9, 0.123456, Quality("MAPE", "%", "minimise", 100.0, digits=1)) == "000009B_0.123.evc"


def test_knee_is_the_farthest_above_the_chord() -> None:
    points = [point(1000, 0.5), point(2000, 0.9), point(4000, 0.95), point(8000, 1.0)]
    assert knee(points, ACCURACY) == points[1]
    assert knee(points[::-1], ACCURACY) == points[1]
    assert knee(points[:2], ACCURACY) is None
    # Straight in log2 bytes, and bent the wrong way: no knee.
    assert knee([point(1000, 0.5), point(2000, 0.6), point(4000, 0.7)], ACCURACY) is None
    assert knee([point(1000, 0.5), point(2000, 0.51), point(4000, 0.7)], ACCURACY) is None


def test_a_file_that_guesses_is_no_end_of_the_chord() -> None:
    guess, points = point(20, 0.1), [point(1000, 0.55), point(1500, 0.6), point(2000, 0.9), point(8000, 1.0)]
    assert knee([guess, *points], ACCURACY) == knee(points, ACCURACY) == points[2]
    # With the guess as an end, hardly anything would do: from there to the first useful file is most of the error.
    assert knee([guess, *points[:2]], ACCURACY) is None


def test_hypervolume_curve_leaves_pauses_out() -> None:
    history = synthetic_run(10, reference=False, audited=False)
    curve = hypervolume_curve(history)
    assert [item.seconds for item in curve] == [2.0 * n for n in range(1, 11)]
    assert [item.hypervolume for item in curve] == [told["hypervolume_after"] for told in history.told]
    history.records.append({"seq": 0, "type": "resumed", "time": START + 1000.0})
    history.finished_at[5:] = [time + 990.0 for time in history.finished_at[5:]]
    # Five results by second 10, the resume at 1000, then five more, the first at 1002.
    assert [item.seconds for item in hypervolume_curve(history)] == [2.0 * n for n in range(1, 11)]


@given(st.integers(1, 5000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
@settings(max_examples=60, deadline=None)
def test_wilson_interval_matches_the_closed_form(counts: tuple[int, int]) -> None:
    correct, total = counts
    z, p = 1.959963984540054, correct / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    low, high = wilson_interval(correct, total)
    assert low == pytest.approx(centre - half, abs=1e-9) and high == pytest.approx(centre + half, abs=1e-9)


def test_bd_rate_of_a_scaled_front_is_the_scale() -> None:
    base = [(1000, 0.5), (1800, 0.8), (4000, 0.9), (9000, 0.95)]
    assert bd_rate(base, base) == pytest.approx(0.0, abs=1e-9)
    assert bd_rate(base, [(round(0.7 * size), accuracy) for size, accuracy in base]) == pytest.approx(-30.0, abs=0.05)
    doubled = [(2 * size, accuracy) for size, accuracy in base]
    assert bd_rate(base, doubled) == pytest.approx(100.0)
    assert bd_rate(doubled, base) == pytest.approx(-50.0)


def test_bd_rate_counts_the_common_range_only() -> None:
    base = [(1000, 0.5), (2000, 0.7), (4000, 0.9)]
    assert bd_rate(base, [(500, 0.5), (1000, 0.7)]) == pytest.approx(-50.0)
    # A dominated point changes nothing.
    assert bd_rate(base, [(500, 0.5), (900, 0.4), (1000, 0.7)]) == pytest.approx(-50.0)


def test_bd_rate_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(EvocompressError, match="no range of quality in common"):
        bd_rate([(1, 0.1), (2, 0.2)], [(1, 0.3), (2, 0.4)])
    with pytest.raises(EvocompressError, match="test has 1 non-dominated"):
        bd_rate([(1, 0.1), (2, 0.2)], [(1, 0.3), (2, 0.2)])


@given(st.lists(FRONTS, min_size=1, max_size=5), st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_attainment_agrees_with_moocore(fronts: list[list[tuple[int, float]]], rank: int) -> None:
    level = min(rank, len(fronts)) / len(fronts)
    rows = np.array([(size, -accuracy) for run in fronts for size, accuracy in run], dtype=float)
    sets = np.repeat(np.arange(1, len(fronts) + 1), [len(run) for run in fronts])
    surface = moocore.eaf(rows, sets=sets, percentiles=[100 * level])
    expected = sorted((float(size), -float(error)) for size, error, _ in surface)
    assert np.array(attainment(fronts, level)) == pytest.approx(np.array(expected))


def test_attainment_of_runs() -> None:
    fronts = [steps(front(synthetic_run(80, seed=seed)), ACCURACY) for seed in range(3)]
    best, median, worst = (attainment(fronts, level) for level in (0.01, 0.5, 1.0))
    assert best[0][0] <= median[0][0] <= worst[0][0]
    assert best[-1][1] >= median[-1][1] >= worst[-1][1]
    assert attainment([], 0.5) == []
    with pytest.raises(ConfigError, match=r"level=0\.0"):
        attainment(fronts, 0.0)


def test_what_training_once_and_packing_gives_stands_beside_the_front() -> None:
    history = synthetic_run(60)
    points = front(history)
    best, small = points[-1], points[len(points) // 2]
    sizes = 10 * small.nbytes, 11 * small.nbytes, 12 * small.nbytes, 90 * best.nbytes
    errors = small.error, small.error + 0.01, None, best.error - 0.001  # then dominated, not finite, better than all
    files = [
        {"nbytes": n, "quality": None if error is None else 1 - error, "error": error, "rate_weight": 1 / n}
        for n, error in zip(sizes, errors, strict=True)
    ]
    assert against_packing(history, points) == []  # runs of before have none
    next(record for record in history.records if record["type"] == "reference")["packed"] = files
    rows = against_packing(history, points)
    assert [row.packed.nbytes for row in rows] == [sizes[0], sizes[3]]
    assert rows[0].point is small and rows[0].times_smaller == 10
    assert rows[1].point is None and rows[1].times_smaller is None
    table = against_packing_table(rows, history.quality, reference(history))
    assert [column.header.plain for column in table.columns][-1] == "times smaller"  # type: ignore[union-attr]
    assert list(table.columns[-1].cells) == ["10.0", "-"]
