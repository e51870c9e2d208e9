"""Repair of a run: flipped bytes, lost lines and files, and runs where it is refused."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest

from evocompress.errors import RunError
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.repair import repair_run
from evocompress.search.run_folder import Run, open_run
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

SEGMENTS = 14


def open_toy(folder: Path, *, resume: bool = False, **changes: Any) -> Run:
    settings = toy_settings(**{"segments": SEGMENTS, "deterministic": True, "lag": 4, "initial": 4, **changes})
    arguments: dict[str, Any] = {"header": {"config": {}}, "space": toy_space(), "settings": settings}
    return open_run(folder, **arguments, resume=resume)


def archive(folder: Path) -> list[tuple[str, int, float]]:
    return [(leaf.leaf_id, leaf.nbytes, leaf.quality) for leaf in read_history(folder).archive]


def resumed(folder: Path, **changes: Any) -> None:
    with open_toy(folder, resume=True, **changes) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage), pauses=()) == "finished"
    history = read_history(folder)
    assert all(len(history.storage.read(leaf.path)) == leaf.nbytes for leaf in history.archive)


@pytest.fixture(scope="module", params=["deterministic", "free"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    changes: dict[str, Any] = {} if request.param == "deterministic" else {"deterministic": False}
    with open_toy(folder, **changes) as run:
        executor = SimulatedExecutor(ToySegment(), run.storage, workers=3)
        assert run.drive(executor) == "finished"
    return folder, changes


def lay(folder: Path, source: Path) -> Path:
    """A copy of a run whose files are links, but for the journal's."""
    shutil.copytree(source, folder, copy_function=os.link)
    shutil.rmtree(folder / "journal")
    shutil.copytree(source / "journal", folder / "journal")
    return folder


def test_a_journal_that_is_gone_is_no_empty_run(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = lay(tmp_path / "run", whole[0])
    shutil.rmtree(folder / "journal")
    with pytest.raises(RunError, match="its journal is gone"):
        read_history(folder)


def test_files_of_the_front_that_are_gone_are_said(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = lay(tmp_path / "run", whole[0])
    front = [leaf.path for leaf in read_history(folder).archive]
    (folder / front[0]).unlink()
    done = repair_run(folder)
    assert not done.damage
    assert done.broken == [f"files of the front are gone, 1 of {len(front)}, such as {front[0]}; restore them"]


def test_every_kth_byte_flipped(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    source, changes = whole
    data = (source / "journal" / "000001.jsonl").read_bytes()
    expected = archive(source)
    for number, position in enumerate(range(0, len(data), len(data) // 23)):
        folder = lay(tmp_path / str(number), source)
        flipped = bytearray(data)
        flipped[position] ^= 1 << (number % 8)
        (folder / "journal" / "000001.jsonl").write_bytes(flipped)
        try:
            assert archive(folder) == expected
            continue
        except RunError as error:
            assert "repair_run(" in str(error) and "\n" not in str(error) and "line" in str(error)
        report = repair_run(folder)
        assert report.aside is not None and (report.aside / "000001.jsonl").read_bytes() == bytes(flipped)
        assert not report.broken and not report.given_up and not report.unknown_tasks
        assert archive(folder) == expected
        if number % 6 == 0:
            resumed(folder, **changes)
            assert archive(folder) == expected
        shutil.rmtree(folder)


@pytest.mark.parametrize("loss", ["torn", "first half", "file", "all", "newline", "epoch"])
def test_what_is_lost_of_a_journal_comes_back(whole: tuple[Path, dict[str, Any]], tmp_path: Path, loss: str) -> None:
    source, changes = whole
    folder = lay(tmp_path / "run", source)
    path = folder / "journal" / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    if loss == "torn":
        lines[middle] = lines[middle][: len(lines[middle]) // 2]
    if loss == "newline":
        lines[middle] = lines[middle][:-1]
    if loss == "first half":
        lines = lines[middle:]
    path.write_bytes(b"".join(lines))
    if loss in ("file", "epoch"):  # of three files the second, or the first line of it
        path.write_bytes(b"".join(lines[:middle]))
        second = lines[middle : middle + 9]
        if loss == "epoch":
            second[0] = b"#" + second[0][1:]
            (folder / "journal" / "000002.jsonl").write_bytes(b"".join(second))
        (folder / "journal" / "000003.jsonl").write_bytes(b"".join(lines[middle + 9 :]))
    if loss == "all":
        shutil.rmtree(folder / "journal")
        with pytest.raises(RunError, match="repair_run"):
            open_toy(folder, resume=True, **changes)
    else:
        with pytest.raises(RunError, match="repair_run"):
            read_history(folder)
    before = sorted(p.relative_to(folder) for p in folder.rglob("*"))
    dry = repair_run(folder, dry_run=True)
    assert sorted(p.relative_to(folder) for p in folder.rglob("*") if p.name != "lease.lock") == [
        p for p in before if p.name != "lease.lock"
    ]
    report = repair_run(folder)
    assert report.aside is not None and dry.aside is None
    assert (dry.outcomes, dry.tasks, dry.decided) == (report.outcomes, report.tasks, report.decided)
    if loss == "all":
        assert (report.kept, report.outcomes, report.tasks, report.decided) == (0, SEGMENTS, SEGMENTS, 0)
    assert archive(folder) == archive(source)
    assert len(read_history(folder).outcomes) == SEGMENTS
    assert set(read_history(folder).leaves) == set(read_history(source).leaves)
    assert {p.parents[0].leaf_id for p in read_history(folder).tasks.values() if p.parents} == {
        p.parents[0].leaf_id for p in read_history(source).tasks.values() if p.parents
    }
    resumed(folder, **changes)
    assert repair_run(folder).damage == []


def test_a_run_of_before_tasks_were_in_commits(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """In deterministic mode every task follows; in free mode the one whose neighbours are whole does."""
    source, changes = whole
    folder = tmp_path / "run"
    shutil.copytree(source, folder)
    for path in folder.glob("seg/*/COMMIT.json"):
        path.write_text(
            json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "task"})
        )
    journal = folder / "journal" / "000001.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    place = next(n for n in range(len(lines) // 2, len(lines)) if b'"type":"submitted"' in lines[n])
    lines[place] = b"?" + lines[place][1:]
    journal.write_bytes(b"".join(lines))
    report = repair_run(folder)
    assert (report.decided, report.tasks, report.unknown_tasks) == (1, 0, [])
    assert archive(folder) == archive(source)
    resumed(folder, **changes)


def test_an_outcome_of_which_nothing_is_left_is_given_up_and_said(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    source, _ = whole
    folder = lay(tmp_path / "run", source)
    journal = folder / "journal" / "000001.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"type":"finished"' in line)
    lost = json.loads(lines[place])["outcome"]["segment_id"]
    journal.write_bytes(b"".join([*lines[:place], *lines[place + 1 :]]))
    (metrics,) = (folder / "seg" / lost).glob("*/metrics.json")
    metrics.unlink()
    report = repair_run(folder)
    assert lost in report.given_up or report.open == 1
    assert len(report.broken) == 1 and lost in report.broken[0]
    others = {leaf_id for leaf_id in read_history(source).leaves if not leaf_id.startswith(lost)}
    assert set(read_history(folder).leaves) == others


def test_it_is_refused_while_a_driver_is_alive_and_does_nothing_to_a_whole_run(tmp_path: Path) -> None:
    with open_toy(tmp_path) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
        with pytest.raises(RunError, match="held by pid"):
            repair_run(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "journal").iterdir()}
    assert repair_run(tmp_path).damage == []
    assert {path: path.read_bytes() for path in (tmp_path / "journal").iterdir()} == before
    with pytest.raises(RunError, match="is no run"):
        repair_run(tmp_path / "none")


@pytest.mark.parametrize("space", [{}, {"genes": [], "recipe": []}, {"genes": {"x": {"type": "flaot"}}, "recipe": []}])
def test_a_damaged_space_is_said(whole: tuple[Path, dict[str, Any]], tmp_path: Path, space: dict[str, Any]) -> None:
    folder = lay(tmp_path / "run", whole[0])
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").unlink()
    (folder / "run.json").write_text(json.dumps({**run, "space": space}))
    with pytest.raises(RunError, match=r"run\.json is damaged \(space: .*restore it from a copy"):
        repair_run(folder)


def test_a_repair_that_was_killed_is_gone_on_with(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    source, _ = whole
    folder = lay(tmp_path / "run", source)
    (folder / "journal.new").mkdir()
    (folder / "journal.new" / "000001.jsonl").write_bytes(b"half")
    path = folder / "journal" / "000001.jsonl"
    path.write_bytes(b"?" + path.read_bytes()[1:])
    repair_run(folder)
    assert archive(folder) == archive(source)
    (folder / "journal").rename(folder / "journal.new")  # between the two renames
    assert repair_run(folder).damage == []
    assert archive(folder) == archive(source)


def signed(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(body), body[1:])


WRONG: list[tuple[str, str, Any]] = [
    ("finished", "outcome.leaves.0.nbytes", "large"),
    ("finished", "outcome.leaves.0.nbytes", True),
    ("finished", "outcome.leaves.0.error", float("nan")),
    ("finished", "outcome.leaves.0.quality", "good"),
    ("finished", "outcome.leaves.0.genome", ["a", "list"]),
    ("finished", "outcome.leaves.0.genome", {"step": None}),
    ("finished", "outcome.leaves.0.measurements", []),
    ("finished", "outcome.leaves.0.leaf_id", "of-another"),
    ("finished", "outcome.leaves.0.path", 7),
    ("finished", "outcome.leaves", {"a": "mapping"}),
    ("finished", "outcome.index", "0"),
    ("finished", "outcome.status", None),
    ("finished", "outcome", "text"),
    ("finished", "outcome", None),
    ("finished", "told", []),
    ("finished", "told.hypervolume_after", "high"),
    ("finished", "completion", "first"),
    ("finished", "time", "noon"),
    ("finished", "elapsed", float("inf")),
    ("submitted", "task", [1]),
    ("submitted", "task.index", 1.5),
    ("submitted", "task.genome", None),
    ("submitted", "task.parents", {"a": 1}),
    ("submitted", "task.parents", ["x"]),
    ("submitted", "task.probes", [3]),
    ("submitted", "seq", "zero"),
]


@pytest.mark.parametrize(("kind", "place", "value"), WRONG)
def test_wrong_types_are_one_line_with_file_and_line(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, kind: str, place: str, value: Any
) -> None:
    source, changes = whole
    folder = lay(tmp_path / "run", source)
    path = folder / "journal" / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    number = [n for n, line in enumerate(lines) if b'"type":"%s"' % kind.encode() in line][1]
    record = json.loads(lines[number])
    del record["crc"]
    *outer, last = place.split(".")
    within: Any = record
    for key in outer:
        within = within[int(key) if key.isdigit() else key]
    if value is None and last in ("outcome", "status", "genome"):
        del within[last]  # missing is as wrong as another type
    else:
        within[last] = value
    lines[number] = signed(record)
    path.write_bytes(b"".join(lines))
    for look in (read_history, lambda folder: open_toy(folder, resume=True, **changes)):
        with pytest.raises(RunError, match=rf"000001\.jsonl line {number + 1} is damaged") as caught:
            look(folder)
        assert "\n" not in str(caught.value)
    if number == 3:
        repair_run(folder)
        assert archive(folder) == archive(source)


@pytest.mark.parametrize("kind", ["submitted", "finished"])
def test_the_same_segment_twice_is_damage(whole: tuple[Path, dict[str, Any]], tmp_path: Path, kind: str) -> None:
    source, changes = whole
    folder = lay(tmp_path / "run", source)
    path = folder / "journal" / "000001.jsonl"
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    place = next(n for n, record in enumerate(records) if record["type"] == kind)
    records.insert(place + 1, dict(records[place]))
    path.write_bytes(
        b"".join(signed({k: v for k, v in {**r, "seq": n}.items() if k != "crc"}) for n, r in enumerate(records))
    )
    for look in (read_history, lambda folder: open_toy(folder, resume=True, **changes)):
        with pytest.raises(RunError, match=rf"line {place + 2} is damaged"):
            look(folder)
    assert repair_run(folder).damage
    assert archive(folder) == archive(source)


def test_storage_that_is_not_mounted_is_not_taken_for_lost_segments(tmp_path: Path) -> None:
    run_folder, files = tmp_path / "run", tmp_path / "files"
    settings = toy_settings(segments=6, deterministic=True, lag=4, initial=4)
    arguments: dict[str, Any] = {"header": {"config": {}}, "space": toy_space(), "settings": settings}
    with open_run(run_folder, **arguments, storage_uri=str(files)) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    expected = archive(run_folder)
    journal = run_folder / "journal" / "000001.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"finished"' not in line))
    files.rename(tmp_path / "away")
    files.mkdir()
    with pytest.raises(RunError, match="files' has no RUN.json: it is not mounted"):
        repair_run(run_folder)
    files.rmdir()
    (tmp_path / "away").rename(files)
    repair_run(run_folder)
    assert archive(run_folder) == expected
