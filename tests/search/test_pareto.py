"""Pareto arithmetic, the archive and survivors, each against a slow plain version."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.search.archive import Archive
from evocompress.search.objectives import Member, Scale
from evocompress.search.pareto import contributions, hypervolume, is_nondominated, ranks
from evocompress.search.records import Leaf
from evocompress.search.selection_policies import by_dominance, by_sum, fronts

REFERENCE = (1.0, 1.0)
# A coarse grid on purpose: ties and duplicates are where such code is wrong. It reaches beyond the reference point.
POINT = st.tuples(st.integers(-2, 12), st.integers(-2, 12)).map(lambda p: (p[0] / 10, p[1] / 10))
POINTS = st.lists(POINT, max_size=14)


def members(points: list[tuple[float, float]]) -> list[Member]:
    return [Member(Leaf(f"l{n}", "", "", 1, 0.5, 0.5, {}), (n, 0), *point) for n, point in enumerate(points)]


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def brute_ranks(points: list[tuple[float, float]]) -> list[int]:
    result = [-1] * len(points)
    for rank in itertools.count():
        left = [i for i in range(len(points)) if result[i] < 0]
        if not left:
            return result
        for i in [i for i in left if not any(dominates(points[j], points[i]) for j in left)]:
            result[i] = rank
    raise AssertionError


def brute_hypervolume(points: list[tuple[float, float]]) -> float:
    """Count the cells of the grid, of side 0.1, that some point dominates."""
    cells = itertools.product(range(-2, 10), range(-2, 10))
    return sum(any(px * 10 <= x + 0.01 and py * 10 <= y + 0.01 for px, py in points) for x, y in cells) / 100


def without(points: list[tuple[float, float]], point: tuple[float, float]) -> list[tuple[float, float]]:
    at = points.index(point)
    return points[:at] + points[at + 1 :]


@settings(deadline=None)
@given(POINTS)
def test_ranks_against_brute_force(points: list[tuple[float, float]]) -> None:
    expected = brute_ranks(points)
    assert ranks(points).tolist() == expected
    assert is_nondominated(points).tolist() == [rank == 0 for rank in expected]
    layers = fronts(members(points))
    assert [sorted(layer) for layer in layers] == [
        [i for i, rank in enumerate(expected) if rank == front] for front in range(max(expected, default=-1) + 1)
    ]


@settings(deadline=None)
@given(POINTS)
def test_hypervolume_and_contributions_against_brute_force(points: list[tuple[float, float]]) -> None:
    total = brute_hypervolume(points)
    assert hypervolume(points, REFERENCE, "numpy") == pytest.approx(total, abs=1e-9)
    rank = brute_ranks(points)
    front = [point for point, r in zip(points, rank, strict=True) if r == 0]
    parts = [
        total - brute_hypervolume(without(front, point)) if r == 0 else 0.0
        for point, r in zip(points, rank, strict=True)
    ]
    assert contributions(points, REFERENCE, "numpy") == pytest.approx(parts, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)), max_size=20))
def test_the_fallback_equals_moocore(points: list[tuple[float, float]]) -> None:
    pytest.importorskip("moocore")
    got, expected = (hypervolume(points, REFERENCE, backend) for backend in ("numpy", "moocore"))
    assert got == pytest.approx(expected, abs=1e-12)
    parts: list[npt.NDArray[np.float64]] = [contributions(points, REFERENCE, b) for b in ("numpy", "moocore")]
    assert parts[0] == pytest.approx(parts[1], abs=1e-12)


@settings(deadline=None)
@given(POINTS)
def test_moocore_agrees_on_ties_and_duplicates(points: list[tuple[float, float]]) -> None:
    moocore = pytest.importorskip("moocore")
    assert contributions(points, REFERENCE, "moocore") == pytest.approx(
        contributions(points, REFERENCE, "numpy"), abs=1e-9
    )
    if points:
        assert ranks(points).tolist() == moocore.pareto_rank(np.array(points)).tolist()


def test_points_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        hypervolume([[0.1, float("nan")]], REFERENCE)


@settings(deadline=None)
@given(POINTS, st.randoms())
def test_the_archive_is_the_nondominated_set_in_any_order(points: list[tuple[float, float]], random: object) -> None:
    everyone = members(points)
    shuffled = list(everyone)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    archive = Archive(REFERENCE)
    for member in shuffled:
        before = archive.hypervolume
        entered, displaced = archive.insert(member)
        assert entered == (member.leaf.leaf_id in archive)
        assert not any(old.leaf.leaf_id in archive for old in displaced)
        assert archive.hypervolume >= before
    first = {point: n for n, point in reversed(list(enumerate(points)))}
    rank = brute_ranks(points)
    expected = sorted(n for n, point in enumerate(points) if rank[n] == 0 and first[point] == n)
    assert sorted(member.key[0] for member in archive.members) == expected
    assert [m.x for m in archive.members] == sorted(m.x for m in archive.members)
    assert archive.hypervolume == pytest.approx(brute_hypervolume(points), abs=1e-9)
    again = Archive(REFERENCE)
    for member in archive.members:
        again.insert(member)
    assert again.members == archive.members


def ranks_by_use(points: list[tuple[float, float]]) -> list[int]:
    """Front numbers; points beyond the reference come behind all others."""
    inside = [x < REFERENCE[0] and y < REFERENCE[1] for x, y in points]
    parts = [[n for n, is_inside in enumerate(inside) if is_inside == side] for side in (True, False)]
    result, first = [0] * len(points), 0
    for part in parts:
        for n, rank in zip(part, brute_ranks([points[n] for n in part]), strict=True):
            result[n] = first + rank
        first = max((result[n] for n in part), default=-1) + 1
    return result


@settings(deadline=None)
@given(POINTS, st.integers(1, 8))
def test_survivors_are_those_of_dropping_the_worst_one_by_one(points: list[tuple[float, float]], size: int) -> None:
    kept = members(points)
    while len(kept) > size:
        rank = ranks_by_use([(m.x, m.y) for m in kept])
        front = [(m.x, m.y) for m, r in zip(kept, rank, strict=True) if r == max(rank)]

        def badness(i: int, kept: list[Member] = kept, front: list[tuple[float, float]] = front) -> tuple[float, int]:
            others = without(front, (kept[i].x, kept[i].y))
            return -round(brute_hypervolume(front) - brute_hypervolume(others), 6), kept[i].key[0]

        kept.pop(max((i for i in range(len(kept)) if rank[i] == max(rank)), key=badness))
    fitness = by_dominance(members(points), size, REFERENCE)
    # Rectangles that are equal on the grid may differ in the last bit, and then either may go: compare their sizes.
    lost = [brute_hypervolume([points[i] for i in chosen]) for chosen in (fitness, [m.key[0] for m in kept])]
    assert len(fitness) == min(size, len(points))
    rank = ranks_by_use(points)
    assert sorted(rank[i] for i in fitness) == sorted(rank[m.key[0]] for m in kept)
    assert lost[0] == pytest.approx(lost[1], abs=0.011 * len(points))


@settings(deadline=None)
@given(POINTS, POINT)
def test_the_archive_finds_members_by_their_size(points: list[tuple[float, float]], other: tuple[float, float]) -> None:
    archive = Archive(REFERENCE)
    for member in members(points):
        archive.insert(member)
    xs = [member.x for member in archive.members]
    within = archive.within(other[0])
    assert within == max((m for m in archive.members if m.x <= other[0]), key=lambda m: m.x, default=None)
    assert within is None or within.y == min(m.y for m in archive.members if m.x <= other[0])
    first, end = archive.between(other[0], other[1])
    assert xs[first:end] == [x for x in xs if other[0] <= x < other[1]]
    assert [leaf.leaf_id for leaf in archive] == [member.leaf.leaf_id for member in archive.members]
    assert len(archive) == len(xs)


def test_of_equal_points_the_earlier_one_stays_whichever_comes_first() -> None:
    first, second = (Member(Leaf(f"l{n}", "", "", 1, 0.5, 0.5, {}), (0, n), 0.25, 0.5) for n in range(2))
    for order in ((first, second), (second, first), (first, first)):
        archive = Archive(REFERENCE)
        came_in = [archive.insert(member) for member in order]
        assert archive.members == [first]
        assert came_in[1] == ((True, [second]) if order[1] is first and order[0] is second else (False, []))
        assert archive.hypervolume == 0.375


def test_an_archive_is_the_same_after_it_was_saved() -> None:
    scale, archive = Scale((256, 65536), (0.0, 0.5)), Archive(REFERENCE)
    for n, (nbytes, error) in enumerate([(300, 0.4), (4096, 0.1), (900, 0.3), (5000, 0.3)]):
        archive.insert(scale.member(Leaf(f"l{n}", "p", "s", nbytes, 0.5, error, {}), (n, n + 7)))
    again = Archive.from_state(archive.state_dict(), REFERENCE, scale)
    assert again.members == archive.members and again.hypervolume == archive.hypervolume
    assert [member.key for member in again.members] == [(0, 7), (2, 9), (1, 8)]


def test_a_backend_that_is_not_there_is_an_error_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evocompress.search.pareto._moocore", lambda: None)
    assert hypervolume([[0.5, 0.5]], REFERENCE, "auto") == hypervolume([[0.5, 0.5]], REFERENCE, "numpy") == 0.25
    with pytest.raises(ModuleNotFoundError, match="moocore is not installed"):
        hypervolume([[0.5, 0.5]], REFERENCE, "moocore")


def test_by_sum_keeps_the_smallest_sums() -> None:
    points = [(0.1, 0.9), (0.5, 0.3), (0.2, 0.2), (0.0, 0.9)]
    assert by_sum(members(points), 2, REFERENCE) == {2: (0.4, 0.0), 1: (0.8, 0.0)}
    assert list(by_sum(members([(0.5, 0.25), (0.25, 0.5), (0.5, 0.25)]), 2, REFERENCE)) == [0, 1]  # the earlier ones


def test_fitness_is_the_front_and_what_the_member_alone_dominates() -> None:
    points = [(0.25, 0.5), (0.5, 0.25), (0.75, 0.75), (0.5, 0.25), (1.5, 0.0), (0.0, 1.5)]
    fitness = by_dominance(members(points), 6, REFERENCE)
    assert fitness == {
        0: (0.0, -0.125), 1: (0.0, 0.0), 3: (0.0, 0.0), 2: (1.0, -0.0625), 5: (2.0, 0.0), 4: (2.0, 0.0)
    }  # fmt: skip
    assert set(by_dominance(members(points), 2, REFERENCE)) == {0, 1}  # of equal ones the later one goes
    assert set(by_dominance(members(points), 3, REFERENCE)) == {0, 1, 3}


def test_scale_maps_ranges_to_the_unit_square_and_stays_finite() -> None:
    scale = Scale((1024, 1048576), (0.0, 0.5))
    assert scale.point(1024, 0.0) == (0.0, 0.0)
    assert scale.point(1048576, 0.5) == (1.0, 1.0)
    assert scale.point(32768, 0.25) == (0.5, 0.5)
    assert all(np.isfinite(scale.point(0, float("nan"))))
    assert scale.point(2048, float("nan"))[1] > 1000
    assert scale.point(1, 0.0)[0] == scale.point(0, 0.0)[0] == -1.0
    low, high = scale.point(1024, -1e9)[1], scale.point(1024, 1e9)[1]
    assert low == -high < -1000 and scale.point(1024, float("inf"))[1] == high == scale.point(1024, float("nan"))[1]
