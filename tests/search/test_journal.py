from __future__ import annotations

import errno
import json
import os
import zlib
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


def event(number: int, writer: str) -> list[tuple[str, dict[str, Any]]]:
    return [("event", {"n": number, "by": writer})]


def read(folder: Path) -> list[tuple[int, str]]:
    return [(record["n"], record["by"]) for record in read_journal(folder)]


def test_a_writer_that_was_overtaken_stops_before_it_writes(tmp_path: Path) -> None:
    old = Journal(tmp_path)
    old.append(event(0, "old"))
    new = Journal(tmp_path)  # which has written nothing yet
    with pytest.raises(RunError, match=r"taken over \(.*000002.jsonl is another driver's\); this driver stops"):
        old.append(event(1, "old"))
    new.append(event(1, "new"))
    assert read(tmp_path) == [(0, "old"), (1, "new")]
    assert (old.epoch, new.epoch) == (1, 2)


def test_lines_of_an_overtaken_writer_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its look and its append are two steps; whatever comes between, in whatever order they write."""
    old = Journal(tmp_path, lines_per_file=4)
    monkeypatch.setattr(old, "check", lambda: None)
    for n in range(3):
        old.append(event(n, "old"))
    new = Journal(tmp_path)
    old.append(event(3, "old"))
    assert read(tmp_path) == [(n, "old") for n in range(4)]  # nobody has contradicted that yet
    new.append(event(3, "new"))
    assert read(tmp_path) == [(0, "old"), (1, "old"), (2, "old"), (3, "new")]
    new.append(event(4, "new"))
    with pytest.raises(RunError, match=r"taken over \(.*000002.jsonl"):
        old.append(event(4, "old"))  # its file is full, and the next one is not its own
    newest = Journal(tmp_path)
    newest.append(event(5, "newest"))
    new.close()
    assert read(tmp_path) == [(0, "old"), (1, "old"), (2, "old"), (3, "new"), (4, "new"), (5, "newest")]


def test_old_and_new_lines_in_one_file_are_told_apart_by_their_epochs(tmp_path: Path) -> None:
    lines = [(1, 0), (1, 1), (5, 2), (1, 2), (5, 3), (1, 3), (1, 4), (5, 4), (7, 4), (5, 5)]
    data = b"".join(module._encode(epoch, seq, "event", {"n": seq, "by": str(epoch)}) for epoch, seq in lines)
    (tmp_path / "000001.jsonl").write_bytes(data)
    assert read(tmp_path) == [(0, "1"), (1, "1"), (2, "5"), (3, "5"), (4, "7")]


def old_line(seq: int, writer: str) -> bytes:
    """As versions before there were epochs wrote them."""
    body = json.dumps({"seq": seq, "type": "event", "time": 1.7e9, "n": seq, "by": writer}).encode()
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(body), body[1:])


def test_journals_without_epochs_are_read_and_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "000001.jsonl").write_bytes(old_line(0, "a") + old_line(1, "a"))
    (tmp_path / "000002.jsonl").write_bytes(old_line(2, "a"))
    Journal(tmp_path).append(event(3, "b"))
    assert read(tmp_path) == [(0, "a"), (1, "a"), (2, "a"), (3, "b")]
    (tmp_path / "000004.jsonl").write_bytes(old_line(4, "c"))  # by an earlier version again
    Journal(tmp_path).append(event(5, "d"))
    assert read(tmp_path)[3:] == [(3, "b"), (4, "c"), (5, "d")]


def test_a_journal_that_two_drivers_of_an_earlier_version_wrote_is_readable(tmp_path: Path) -> None:
    (tmp_path / "000001.jsonl").write_bytes(b"".join(old_line(n, "overtaken") for n in range(5)))
    (tmp_path / "000002.jsonl").write_bytes(b"".join(old_line(n, "later") for n in range(2, 4)))
    assert read(tmp_path) == [(0, "overtaken"), (1, "overtaken"), (2, "later"), (3, "later")]


def test_no_journal_reads_as_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none") == []


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        journal.append([("event", {"n": float("nan")})])
    journal.append([("event", payload(0))])
    journal.close()
    assert numbers(tmp_path) == [0]
