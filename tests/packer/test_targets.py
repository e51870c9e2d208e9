"""Targets of a search: what meets them, which file is the best of several, and what is said where none is."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.packer.targets import LossLimit, SizeLimit, Target, Try, _rounded_up, best, fill, find_rate_weight


def limit(increase: float) -> LossLimit:
    """On a network of loss 0.5, of which a file of n bytes loses 1/n more."""
    return LossLimit(lambda data: 0.5 + 1 / len(data), "held-out loss", 0.5, increase)


def tried(target: Target, *sizes: int, refined: int = 0) -> list[Try]:
    """Files of these sizes, judged; the last so many come from the second phase."""
    files = [target.judged(Try(1 / size, bytes(size), meets=False)) for size in sizes]
    return [file._replace(refined=place >= len(files) - refined) for place, file in enumerate(files)]


@pytest.mark.parametrize(
    ("target", "sizes", "refined", "expected"),
    [
        (SizeLimit(50), (40, 60, 49), 0, 49),
        (SizeLimit(50), (49, 60, 45), 1, 45),  # refined is better at a few bytes less
        (SizeLimit(50), (49, 60, 55), 2, 49),
        (SizeLimit(50), (60, 55), 1, None),
        (limit(0.02), (40, 60, 55), 1, 55),
        (limit(0.02), (55, 60, 40), 1, 55),
        (limit(0.0), (40, 60), 0, None),
    ],
)
def test_the_best_is_the_largest_within_a_size_and_the_smallest_within_a_loss(
    target: Target, sizes: tuple[int, ...], refined: int, expected: int | None
) -> None:
    found = best(tried(target, *sizes, refined=refined), small_is_good=target.small_is_good)
    assert (None if found is None else len(found.data)) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (SizeLimit(1), r"at most 1 byte: the smallest of the 2 .* has 40 bytes, 39 more, at λ = 0\.025\.$"),
        (
            limit(0.0),
            r"at most 0\.5: the least of the 2 .* is 0\.51667, an increase of 0\.0167 where 0 is",
        ),
        (LossLimit(lambda _: math.nan, "change of outputs", 0.0, 1.0), "of the 2 .* none has a change of outputs"),
    ],
)
def test_a_target_that_is_missed_says_what_was_reached(target: Target, expected: str) -> None:
    nearest = target.nearest(tried(target, 60, 40))
    assert re.search(expected, target.miss(nearest, 2)) and "\n" not in target.miss(nearest, 2)


def test_the_nearest_is_the_smallest_or_the_one_that_loses_least_and_its_limit_can_be_met() -> None:
    files = tried(limit(0.0), 60, 41)
    assert limit(0.0).nearest(files) is files[0] and SizeLimit(1).nearest(files) is files[1]
    assert limit(float(limit(0.0).within_reach(files[0]))).judged(files[0]).meets
    assert SizeLimit(int(SizeLimit(1).within_reach(files[1]))).judged(files[1]).meets
    broken = [file._replace(loss=loss) for file, loss in zip(files, (math.nan, math.inf), strict=True)]
    assert limit(0.0).nearest(broken) is broken[0] and limit(0.0).within_reach(broken[0]) == ""


def test_a_start_that_is_far_off_is_left_behind() -> None:
    """All that is tried meets the loss up to λ = 3 000, and the bracket starts at 1 with small steps."""
    found = find_rate_weight(
        lambda rate_weight: Try(rate_weight, bytes(int(1e6 / rate_weight)), rate_weight <= 3e3),
        start=1.0, small_is_good=False, tries=7, growth=1.4,
    )  # fmt: skip
    assert found is not None and 300 < found.rate_weight <= 3e3


def test_what_met_the_target_is_found_among_losses_that_do_not_rise_steadily() -> None:
    losses = {1.0: 0.1, 2.0: 0.9, 4.0: 0.2}  # at λ = 2 there is a bump

    def attempt(rate_weight: float) -> Try:
        nearest = min(losses, key=lambda known: abs(known - rate_weight))
        return Try(rate_weight, bytes(int(1000 / rate_weight)), losses[nearest] < 0.5)

    found = find_rate_weight(attempt, start=1.0, small_is_good=False, growth=2.0)
    assert found is not None and 1.0 <= found.rate_weight < 1.5


def test_files_in_vain_come_last() -> None:
    vain, other = SizeLimit(50).judged(Try(1.0, bytes(49), True, in_vain=True)), tried(SizeLimit(50), 40)[0]
    assert best([vain, other], small_is_good=True) is other and best([vain], small_is_good=True) is vain


@pytest.mark.parametrize("exponent", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("limit_bytes", [990, 800, 400])
def test_a_limit_is_filled_along_a_curve_without_jumps(exponent: float, limit_bytes: int) -> None:
    calls = list[float]()

    def attempt(factor: float) -> Try:
        calls.append(factor)
        return SizeLimit(limit_bytes).judged(Try(factor, bytes(round(1000 / factor**exponent)), meets=False))

    found = fill(attempt, 1000, limit_bytes, tries=9)
    assert found is not None and 0.98 * limit_bytes <= len(found.data) <= limit_bytes
    assert len(calls) <= 9 and min(calls) > 1


def test_what_stays_too_large_fills_nothing() -> None:
    assert fill(lambda factor: Try(factor, bytes(900), meets=False), 1000, 500, tries=4) is None


@pytest.mark.parametrize(
    ("growth", "ratios"), [(1.25, [1.25, 1.25**2, 1.25**4, 1.25**8, 8.0, 8.0]), (16.0, [16.0] * 6)]
)
@pytest.mark.parametrize(("small_is_good", "meets"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_bracket_grows_away_from_what_is_known(
    small_is_good: bool, meets: bool, growth: float, ratios: list[float]
) -> None:
    """From what meets the target to what does not, or the other way round, by squares of the growth up to eightfold."""
    asked: list[float] = []

    def attempt(rate_weight: float) -> Try:
        asked.append(rate_weight)
        return Try(rate_weight, bytes(len(asked)), meets)

    found = find_rate_weight(attempt, start=2.0, small_is_good=small_is_good, tries=7, growth=growth)
    steps = [after / before for before, after in zip(asked, asked[1:], strict=False)]
    assert steps == pytest.approx(ratios if meets != small_is_good else [1 / ratio for ratio in ratios])
    assert (None if found is None else len(found.data)) == ((7 if small_is_good else 1) if meets else None)


def test_a_bracket_is_halved_on_a_log_axis_until_its_ends_are_alike() -> None:
    def asked(tries: int, tolerance: float) -> list[float]:
        calls: list[float] = []

        def attempt(rate_weight: float) -> Try:
            calls.append(rate_weight)
            return SizeLimit(100).judged(Try(rate_weight, bytes(round(1000 / rate_weight)), meets=False))

        found = find_rate_weight(attempt, start=1.0, small_is_good=True, tries=tries, tolerance=tolerance)
        assert found is not None and 10 <= found.rate_weight < 65
        return calls

    first = math.sqrt(8 * 64)
    assert asked(5, 0.0) == pytest.approx([1.0, 8.0, 64.0, first, math.sqrt(8 * first)])
    assert len(asked(30, 0.0)) == 30
    # 125 and 16 bytes, then 125 and 44, then 125 and 74: 51 is at most .7 of 74.
    assert len(asked(30, 51.1 / 74)) == 5 and len(asked(30, 50.9 / 74)) == 6


@pytest.mark.parametrize("meets", [True, False])
def test_a_size_that_does_not_change_any_more_ends_a_search(meets: bool) -> None:
    asked: list[float] = []

    def attempt(rate_weight: float) -> Try:
        asked.append(rate_weight)
        return Try(rate_weight, bytes(max(7, 9 - len(asked))), meets)

    found = find_rate_weight(attempt, start=1.0, small_is_good=False)
    assert len(asked) == 3 and (found is not None) == meets


def filled(sizes: list[int], limit_bytes: int, first: float) -> tuple[list[float], Try | None]:
    """The logarithms of the factors that are asked for where files turn out to be of these sizes."""
    asked: list[float] = []

    def attempt(factor: float) -> Try:
        asked.append(math.log(factor))
        return SizeLimit(limit_bytes).judged(Try(factor, bytes(sizes[len(asked) - 1]), meets=False))

    return asked, fill(attempt, 1000, limit_bytes, tries=len(sizes), first=first)


def test_a_limit_is_filled_by_interpolation_between_sizes() -> None:
    asked, found = filled([909, 826, 683, 796], 800, 1.1)
    step = math.log(1.1)
    share = math.log(826 / 796) / math.log(826 / 683)
    assert asked == pytest.approx([step, 2 * step, 4 * step, (2 + 2 * share) * step])
    assert found is not None and len(found.data) == 796
    for enough in (792, 791):  # 99 % of the limit end it
        assert len(filled([600, enough, 700], 800, 1.1)[0]) == (2 if enough == 792 else 3)


def test_the_next_try_is_not_too_near_to_an_end_and_the_largest_file_is_kept() -> None:
    asked, found = filled([100, 999, 780, 700, 600], 800, math.e)
    assert asked[:3] == pytest.approx([1.0, 0.15, 0.15 + 0.15 * 0.85])
    assert found is not None and len(found.data) == 780
    asked, _ = filled([780, 700], 800, math.e)
    assert asked == pytest.approx([1.0, 0.85])


@settings(deadline=None)
@given(st.floats(1e-12, 1e12))
def test_what_is_rounded_up_is_a_limit_that_is_met(number: float) -> None:
    assert number * (1 - 1e-9) <= float(_rounded_up(number)) <= 1.01001 * number
