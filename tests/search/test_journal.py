"""The journal: round trips, torn and cut files, flipped bits, full disks, and lines that are not what they must be."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evocompress.errors import RunError
from evocompress.search import journal as module
from evocompress.search.journal import START, Journal, Overwritten, file_digest, read_journal, scan
from evocompress.search.journal_index import JournalIndex, Records
from evocompress.search.journal_records import Elapsed, checked_record


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


def test_reading_from_any_place_gives_what_comes_after_it(tmp_path: Path) -> None:
    write(tmp_path, 7, lines_per_file=3)
    write(tmp_path, 2, first=7)
    lines = list(scan(tmp_path))
    assert [(line.path.name, line.number, line.seq, line.epoch) for line in lines] == [
        *((f"00000{1 + n // 3}.jsonl", 1 + n % 3, n, 1) for n in range(7)),
        ("000004.jsonl", 1, 7, 4),
        ("000004.jsonl", 2, 8, 4),
    ]
    for place, after in enumerate([START, *(line.after for line in lines)]):
        assert list(scan(tmp_path, after)) == lines[place:]
        if place:
            data = lines[place - 1].path.read_bytes()
            assert (after.file, after.number, after.seq) == (
                int(lines[place - 1].path.stem), lines[place - 1].number, place
            )  # fmt: skip
            assert data[: after.offset].endswith(b"\n") and data[: after.offset].count(b"\n") == after.number
        folder = tmp_path / f"from {place}"
        folder.mkdir()
        for path in tmp_path.glob("*.jsonl"):
            (folder / path.name).write_bytes(path.read_bytes())
        assert Journal(folder, after=after).end == lines[-1].after


def test_a_place_that_a_later_writer_knew_nothing_of_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Journal(tmp_path)
    old.append([*event(0, "old"), *event(1, "old")])
    new = Journal(tmp_path)
    monkeypatch.setattr(old, "check", lambda: None)
    old.append(event(2, "old"))
    places = [line.after for line in scan(tmp_path)]
    new.append(event(2, "new"))
    assert [line.record()["by"] for line in scan(tmp_path, places[1])] == ["new"]
    with pytest.raises(Overwritten, match="written anew from before record 3 on"):
        list(scan(tmp_path, places[2]))


def test_a_mark_is_place_and_hash_of_all_that_was_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lines_per_file=2)
    for n in range(5):
        journal.append([("event", payload(n))])
        place, files = journal.mark()
        assert place == list(scan(tmp_path))[-1].after
        data = [path.read_bytes() for path in sorted(tmp_path.glob("*.jsonl"))]
        assert files == [(len(part), hashlib.sha256(part).hexdigest()) for part in data]
        last = tmp_path / f"{len(data):06d}.jsonl"
        for size in (0, 1, len(data[-1]) - 1, len(data[-1]), len(data[-1]) + 5):
            assert file_digest(last, size) == hashlib.sha256(data[-1][:size]).hexdigest()


def test_a_line_of_many_parts_is_hashed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART", 7)
    (tmp_path / "file").write_bytes(data := bytes(range(100)))
    for size in (0, 6, 7, 8, 14, 100, 200):
        assert file_digest(tmp_path / "file", size) == hashlib.sha256(data[:size]).hexdigest()


@pytest.mark.parametrize("name", ["notes.jsonl", "0000001.jsonl", "000001.jsonl.bak", "1.jsonl"])
def test_files_of_other_names_are_no_part_of_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no line of a journal\n")
    write(tmp_path, 2)
    assert numbers(tmp_path) == [0, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": 0.0, "type": "event"},
        {"seq": True, "type": "event"},
        {"type": "event"},
        {"seq": 0},
        {"seq": 0, "type": 3},
        {"epoch": "1", "seq": 0, "type": "event"},
        {"epoch": None, "seq": 0, "type": "event"},
    ],
)
def test_a_true_checksum_does_not_make_a_line(tmp_path: Path, fields: dict[str, Any]) -> None:
    body = json.dumps(
        {**fields, "n": 0}
    ).encode()  # with spaces, as no writer of ours: its head is not known by its bytes
    (tmp_path / "000001.jsonl").write_bytes(b'{"crc":"%08x", %s\n' % (zlib.crc32(b"{ " + body[1:]), body[1:]))
    with pytest.raises(RunError, match=r"000001.jsonl line 1 is damaged \(epoch, seq or type"):
        read_journal(tmp_path)
    whole = json.dumps({"epoch": 1, "seq": 0, "type": "event", "n": 0}).encode()
    (tmp_path / "000001.jsonl").write_bytes(b'{"crc":"%08x", %s\n' % (zlib.crc32(b"{ " + whole[1:]), whole[1:]))
    assert read_journal(tmp_path)[0]["n"] == 0


TOLD = {"hypervolume_before": 0, "hypervolume_after": 0.5}
OUTCOME: dict[str, Any] = {"outcome": {}, "told": TOLD}


def record_of(folder: Path, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    journal = Journal(folder)
    journal.append([(kind, content)])
    journal.close()
    return checked_record(next(scan(folder)))


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("submitted", {}, "no 'task'"),
        ("submitted", {"task": []}, "task is a list; it must be a dict"),
        ("submitted", {"task": {}, "elapsed": "3"}, "elapsed is '3'; it must be a finite number"),
        ("submitted", {"task": {}, "elapsed": True}, "elapsed is True"),
        ("finished", {"outcome": {}}, "no 'told'"),
        ("finished", {**OUTCOME, "told": {"hypervolume_before": 0}}, "no 'hypervolume_after'"),
        ("finished", {**OUTCOME, "told": {**TOLD, "hypervolume_after": None}}, "hypervolume_after is None"),
        ("finished", {**OUTCOME, "told": {**TOLD, "accepted": "ab"}}, "accepted is a str; it must be a list"),
        ("finished", {**OUTCOME, "told": {**TOLD, "displaced": ["a", 3]}}, "displaced holds something"),
        ("finished", {**OUTCOME, "completion": 1.0}, "completion is 1.0; it must be a whole number"),
        ("finished", {**OUTCOME, "completion": True}, "completion is True"),
        ("override", {"changes": {}, "search": []}, "search is a list"),
        ("override", {"changes": {}, "config": 3}, "config is a int"),
        ("seeded", {"evaluated": "3"}, "evaluated is a str"),
        ("audited", {"leaves": {"a": 3}}, "a measurement is a int"),
        ("audited", {"leaves": {"a": {"low": "x"}}}, "low is 'x'"),
        ("audited", {"leaves": {"a": {"details": 3}}}, "details is a int"),
        ("audited", {"leaves": {"a": {"details": {"loss": "x"}}}}, "loss is 'x'"),
        ("reference", {"accuracy": []}, "accuracy is "),
        ("reference", {"packed": {}}, "packed is a dict"),
        ("reference", {"packed": [{"nbytes": 3}, {"nbytes": False}]}, "nbytes is False"),
        ("gave_up", {"status": "failed", "error": "e", "segments": "s"}, "segments is a str"),
    ],
)
def test_fields_of_a_wrong_type_are_damage(tmp_path: Path, kind: str, content: dict[str, Any], reason: str) -> None:
    with pytest.raises(RunError) as caught:
        record_of(tmp_path, kind, content)
    assert "000001.jsonl line 1 is damaged (" in str(caught.value) and reason in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("submitted", {"task": {}, "elapsed": 0}),
        ("finished", OUTCOME),
        ("finished", {"outcome": {}, "told": {**TOLD, "accepted": ["a"], "displaced": []}, "completion": 0}),
        ("override", {"changes": {}}),
        ("override", {"changes": {}, "search": {}, "config": {}}),
        (
            "audited",
            {"leaves": {"a": {"low": None, "high": 1, "details": None}, "b": {"details": {"x": None, "y": 1}}}},
        ),
        ("reference", {"accuracy": 0.5, "packed": [{"nbytes": 3}]}),
        ("reference", {}),
        ("something", {"leaves": 3, "told": 3, "packed": 3}),
    ],
)
def test_fields_that_are_right_or_absent_are_none(tmp_path: Path, kind: str, content: dict[str, Any]) -> None:
    record = record_of(tmp_path, kind, content)
    assert {key: record[key] for key in content} == content


def test_time_of_old_journals_goes_from_the_first_submission_to_the_last_outcome_of_each_driver() -> None:
    elapsed = Elapsed()
    seconds = []
    for kind, at in [
        *(("resumed", 1.0), ("submitted", 10.0), ("submitted", 12.0), ("finished", 15.0), ("finished", 16.0)),
        *(("resumed", 90.0), ("resumed", 95.0), ("submitted", 100.0), ("finished", 103.0)),
        *(("resumed", 200.0), ("submitted", 300.0), ("finished", 250.0)),  # a clock that was set back
    ]:
        elapsed.observe({"type": kind, "time": at})
        seconds.append(elapsed.seconds)
    assert seconds == [0, 0, 0, 5, 6, 6, 6, 6, 9, 9, 9, 9]
    elapsed.observe({"type": "submitted", "time": 400.0, "elapsed": 2})
    elapsed.observe({"type": "finished", "time": 500.0})
    assert elapsed.seconds == 2.0
    assert Elapsed(0.0).seconds == 0.0 and Elapsed(3.0).seconds == 3.0


def test_records_are_read_again_where_they_stand(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lines_per_file=2)
    for n in range(3):
        journal.append([("event", payload(n)), ("submitted", {"task": {"n": n}})])
        journal.append([("finished", {**OUTCOME, "n": n})])
    journal.close()
    index = JournalIndex(tmp_path)
    expected = []
    for place, line in enumerate(scan(tmp_path)):
        assert index.add(line, line.record()) == place
        expected.append(line.record())
    records = Records(index)
    assert len(records) == len(expected) == 9
    for place in (0, 5, 8, 8, -1, -9, 1, 2, 0):
        assert records[place] == expected[place]
    for part in (slice(2, 7, 2), slice(None), slice(-2, None), slice(5, 1, -1)):
        assert records[part] == expected[part]
    for place in (9, -10, 100):
        with pytest.raises(IndexError):
            records[place]
    same: object = expected
    assert records == same and records != expected[:-1] and records != [*expected[:-1], {}] and records != 3
    assert [record["n"] for record in records.of_kind("event")] == [0, 1, 2]
    assert [record["task"]["n"] for record in records.of_kind("submitted")] == [0, 1, 2]
    index.close()
    index.close()
    (tmp_path / "000002.jsonl").unlink()
    assert records[1] == expected[1]
    gone = next(place for place in range(9) if index._files[place] == 2 and place not in index.others)
    with pytest.raises(RunError, match="000002.jsonl is gone"):
        records[gone]


def test_segments_that_are_forgotten_leave_their_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([("submitted", {"task": {}}), ("finished", OUTCOME)])
    journal.close()
    index = JournalIndex(tmp_path)
    for line in scan(tmp_path):
        index.add(line, line.record())
    index.tasks["s"], index.parents["s"], index.leaves["s-0"] = 0, "r-0", 0
    index.segment_ids.append("s")
    for numbers in (index.finished, index.failed, index.completions):
        numbers.append(1)
    index.forget_segments()
    assert not index.tasks and not index.parents and not index.leaves and not index.segment_ids
    assert not index.finished and not index.failed and not index.completions
    assert [record["type"] for record in Records(index)] == ["submitted", "finished"]
    index.close()
