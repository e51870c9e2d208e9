"""The fuzzing target of tests/fuzz, driven by hypothesis, so that a little of it always runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.codecs.container import parse

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

from fuzz_files import run  # pyright: ignore[reportMissingImports] # isort: skip
from fuzz_decoder import GOLDEN, check, opened, sealed, target  # pyright: ignore[reportMissingImports]

#: One small file of each codec, coder and version.
SEEDS = {path.stem: opened(path.read_bytes()) for path in sorted(GOLDEN.glob("*.evc")) if path.stat().st_size < 1000}
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4
)


def edited(body: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Overwrite, insert, delete or truncate at places given as shares of the length."""
    for share, kind, data in edits:
        place = int(share * len(body))
        tail = (body[place + len(data) :], body[place:], body[place + len(data) :], b"")[kind]
        body = body[:place] + (b"" if kind == 2 else data) + tail
    return body


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    target(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SEEDS)), EDITS)
def test_edited_files(name: str, edits: list[tuple[float, int, bytes]]) -> None:
    check(sealed(edited(SEEDS[name], edits)))


def test_the_seeds_are_of_every_version_and_coder() -> None:
    def kinds(files: Iterable[bytes]) -> set[tuple[int, int]]:
        return {(data[3], parse(data).coder.number) for data in files}

    assert kinds(map(sealed, SEEDS.values())) == kinds(path.read_bytes() for path in GOLDEN.glob("*.evc"))


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_the_seeds_are_whole_files(name: str) -> None:
    assert sealed(SEEDS[name]) == (GOLDEN / f"{name}.evc").read_bytes()


def test_mutants_are_files_or_refused_at_a_bounded_cost() -> None:
    report = run(4000, seed=0)
    assert not report.failures, [message for message, _ in report.failures]
    assert report.kinds.total() == 4000 and report.kinds["read"] > 400 and report.kinds["refused"] > 1000
