from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evocompress.errors import RunError
from evocompress.search import journal as module
from evocompress.search.journal import Journal, read_journal


def payload(n: int) -> dict[str, Any]:
    return {"n": n, "text": 'quote " newline \n ü', "value": n / 3}


def write(folder: Path, count: int, lines_per_file: int = 10_000, first: int = 0) -> None:
    journal = Journal(folder, lines_per_file)
    for n in range(first, first + count):
        journal.append([("event", payload(n))])
    journal.close()


def numbers(folder: Path) -> list[int]:
    records = read_journal(folder)
    for record in records:
        assert {key: record[key] for key in ("n", "text", "value")} == payload(record["n"])
        assert record["type"] == "event" and record["time"] > 1e9
    return [record["n"] for record in records]


def test_round_trip_over_rotated_files(tmp_path: Path) -> None:
    write(tmp_path, 7, lines_per_file=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001.jsonl", "000002.jsonl", "000003.jsonl"]
    write(tmp_path, 2, first=7)
    assert numbers(tmp_path) == list(range(9))
    assert (tmp_path / "000004.jsonl").exists()


def test_several_lines_go_in_one_append(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([("event", payload(n)) for n in range(3)])
    journal.append([])
    journal.close()
    assert numbers(tmp_path) == [0, 1, 2]


def test_truncated_at_every_byte_it_reads_a_prefix_and_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "whole", 3)
    data = (tmp_path / "whole" / "000001.jsonl").read_bytes()
    ends = [n + 1 for n, byte in enumerate(data) if byte == 10]
    for length in range(len(data) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "000001.jsonl").write_bytes(data[:length])
        # A line that lacks nothing but its newline is whole, its checksum says so.
        expected = list(range(sum(end - 1 <= length for end in ends)))
        assert numbers(folder) == expected
        write(folder, 2, first=len(expected))
        assert numbers(folder) == [*expected, len(expected), len(expected) + 1]


def test_a_missing_piece_before_the_end_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 6, lines_per_file=3)
    first = tmp_path / "000001.jsonl"
    data = first.read_bytes()
    for length in range(len(data) - 1):
        first.write_bytes(data[:length])
        with pytest.raises(RunError, match="sequence number"):
            read_journal(tmp_path)
    first.unlink()
    with pytest.raises(RunError, match=r"000001.jsonl is missing"):
        read_journal(tmp_path)


def test_every_bit_flip_is_detected(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([("event", {"n": 0}), ("event", {"n": 1})])
    journal.close()
    path = tmp_path / "000001.jsonl"
    data = bytearray(path.read_bytes())
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            path.write_bytes(data)
            data[position] ^= 1 << bit
            if position == len(data) - 1:
                # Without its newline the last line reads as torn: dropped, never taken for something else.
                assert [record["n"] for record in read_journal(tmp_path)] == [0]
            else:
                with pytest.raises(RunError, match="damaged|sequence"):
                    read_journal(tmp_path)


def test_garbage_and_zeros_at_the_end_are_a_torn_line(tmp_path: Path) -> None:
    write(tmp_path, 2)
    with open(tmp_path / "000001.jsonl", "ab") as file:
        file.write(b"\0" * 100)
    assert numbers(tmp_path) == [0, 1]
    write(tmp_path, 1, first=2)
    assert numbers(tmp_path) == [0, 1, 2]


def test_a_full_disk_leaves_no_half_line_and_the_journal_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.append([("event", payload(0))])

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_all", half)
        with pytest.raises(RunError, match="No space left"):
            journal.append([("event", payload(1))])
    assert numbers(tmp_path) == [0]
    journal.append([("event", payload(1))])
    journal.close()
    assert numbers(tmp_path) == [0, 1]


def test_what_append_returned_from_is_visible_to_a_reader_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    rng = np.random.default_rng(0)
    for n in range(20):
        journal.append([("event", payload(n))])
        if rng.random() < 0.5:
            assert numbers(tmp_path) == list(range(n + 1))
    journal.close()


def test_no_journal_reads_as_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none") == []


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        journal.append([("event", {"n": float("nan")})])
    journal.append([("event", payload(0))])
    journal.close()
    assert numbers(tmp_path) == [0]
