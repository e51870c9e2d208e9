"""The append-only journal: JSON lines with epoch, sequence number and checksum, in files 000001.jsonl, 000002.jsonl …

A line is `{"crc":"<8 hex digits>",<the rest>`: the checksum is the CRC-32 of `{<the rest>`, byte for byte, so a flipped
bit anywhere shows. A line without its newline is torn: whoever wrote it died in it, and nobody acted on it, because
every act waits for fsync. A torn line may end any file (each writer opens a file of its own and never cuts an old one),
but the sequence numbers must go on across it; everything else that does not fit is damage and refused.

Each writer has an epoch: the number of its first file, which it makes exclusively, so that no two writers have the
same one, and a later writer has a larger one. Before each append a writer looks whether a later file than its own is
there; then it was overtaken, and stops. What it wrote in between is dropped by readers: a line counts unless a later
epoch begins at its sequence number or before. Lines without epoch, of earlier versions, have their file's number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from evocompress.errors import JournalError, RunError

__all__ = [
    "START",
    "Journal",
    "Line",
    "Overwritten",
    "Place",
    "Record",
    "damage",
    "file_digest",
    "journal_files",
    "journal_names",
    "read_journal",
    "scan",
    "walk",
]

Record: TypeAlias = dict[str, Any]

_LINES_PER_FILE = 10_000
_PART = 1 << 20  # bytes that are read at once
_NAME = re.compile(r"\d{6}\.jsonl")
_CRC = re.compile(rb'\{"crc":"([0-9a-f]{8})",')
_HEAD = re.compile(rb'(?:"epoch":(\d{1,9}),)?"seq":(\d{1,15}),"type":"(\w+)",')
_AFTER_CRC = len(b'{"crc":"01234567",')
_BRACE = zlib.crc32(b"{")


def _encode(epoch: int, seq: int, kind: str, payload: dict[str, Any]) -> bytes:
    record = {"epoch": epoch, "seq": seq, "type": kind, "time": round(time.time(), 3), **payload}
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(body), body[1:])


def _refuse(constant: str) -> float:
    raise ValueError(f"it holds {constant}, which is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A place between two lines: in file `file` after `offset` bytes and `number` lines; `seq` records lie before it.

    `epoch` is that of the last of these.
    """

    file: int = 1
    offset: int = 0
    number: int = 0
    seq: int = 0
    epoch: int = 0


#: Before the first line.
START = Place()


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line with a true checksum and where it stands; `record` is what it says, parsed when it is asked for.

    `text` is without the newline, and `complete` whether that was there.
    """

    path: Path
    number: int
    offset: int
    epoch: int
    seq: int
    kind: str
    text: bytes
    complete: bool = True

    def record(self) -> Record:
        """The JSON object.

        Raises:
            RunError: It is none; the message names file and line.
        """
        try:
            record = _DECODER.decode(self.text.decode())
        except (ValueError, RecursionError) as error:
            raise damage(self, str(error)) from error
        if not isinstance(record, dict):
            raise damage(self, "it is no JSON object")
        return record

    @property
    def after(self) -> Place:
        """The place behind this line."""
        end = self.offset + len(self.text) + self.complete
        return Place(int(self.path.stem), end, self.number, self.seq + 1, self.epoch)


def damage(line: Line, reason: str) -> RunError:
    """The error to raise of a line that cannot be used."""
    return _damaged(line.path, line.number, reason)


def _damaged(path: Path, number: int, reason: str) -> RunError:
    run = path.parent.parent
    words = " ".join(reason.split())[:300]
    return JournalError(f"{path} line {number} is damaged ({words})", run)


def journal_names(folder: Path) -> list[Path]:
    """The files of a journal that are there, in order."""
    return sorted(path for path in folder.glob("*.jsonl") if _NAME.fullmatch(path.name))


def journal_files(folder: Path) -> list[Path]:
    """The files of a journal, in order.

    Raises:
        RunError: One in between is missing.
    """
    files = journal_names(folder)
    for number, path in enumerate(files, start=1):
        if path.name != f"{number:06d}.jsonl":
            missing = folder / f"{number:06d}.jsonl"
            raise JournalError(f"journal file {missing} is missing, but {path.name} is there", folder.parent)
    return files


def _line(path: Path, number: int, offset: int, raw: bytes) -> Line | None:
    """The line that these bytes are; None where the checksum does not fit."""
    complete = raw.endswith(b"\n")
    text = raw[:-1] if complete else raw
    crc = _CRC.match(text)
    if crc is None or zlib.crc32(memoryview(text)[crc.end() :], _BRACE) != int(crc[1], 16):
        return None
    head = _HEAD.match(text, crc.end())
    if head is not None:
        return Line(path, number, offset, int(head[1] or path.stem), int(head[2]), head[3].decode(), text, complete)
    line = Line(path, number, offset, 0, 0, "", text, complete)
    record = line.record()  # of an earlier version, or of another hand
    epoch, seq, kind = record.get("epoch", int(path.stem)), record.get("seq"), record.get("type")
    if type(epoch) is not int or type(seq) is not int or not isinstance(kind, str):
        raise damage(line, "epoch, seq or type is missing, or of a wrong type")
    return dataclasses.replace(line, epoch=epoch, seq=seq, kind=kind)


def walk(
    files: Sequence[Path], after: Place = START, *, strict: bool = True
) -> Iterator[tuple[Path, int, Line | None, bool]]:
    """(file, line number, the line or None where its checksum does not fit, whether its newline is there).

    One line is in memory at a time. One that has a true checksum and no number is None too, if not `strict`.

    Raises:
        RunError: Such a line.
    """
    for path in files:
        number, offset = (after.number, after.offset) if int(path.stem) == after.file else (0, 0)
        if int(path.stem) < after.file:
            continue
        with open(path, "rb") as file:
            file.seek(offset)
            for raw in file:
                number += 1
                try:
                    line = _line(path, number, offset, raw)
                except RunError:
                    if strict:
                        raise
                    line = None
                yield path, number, line, raw.endswith(b"\n")
                offset += len(raw)


def _beginnings(files: Sequence[Path], after: Place) -> dict[int, int]:
    """The sequence number at which each epoch begins, by the heads of lines; whether they are whole is seen later."""
    begins: dict[int, int] = {}
    for path in files:
        if int(path.stem) < after.file:
            continue
        with open(path, "rb") as file:
            file.seek(after.offset if int(path.stem) == after.file else 0)
            for raw in file:
                head = _HEAD.match(raw, _AFTER_CRC) if raw.endswith(b"\n") else None
                if head is not None:
                    begins.setdefault(int(head[1] or path.stem), int(head[2]))
                    continue
                with contextlib.suppress(RunError):
                    if (line := _line(path, 0, 0, raw)) is not None:
                        begins.setdefault(line.epoch, line.seq)
    return begins


class Overwritten(RunError):
    """A later writer's lines begin before the place from which a journal was to be read."""


def scan(folder: str | os.PathLike[str], after: Place = START) -> Iterator[Line]:
    """The lines that count, in order, one at a time in memory; works while somebody writes to the journal.

    Lines of an overtaken writer that a later one did not know of are left out. All that is checked of a line is its
    checksum and its sequence number.

    Raises:
        RunError: The journal is damaged; the message says where.
        Overwritten: Lines before `after` do not count any more.
    """
    files = journal_files(Path(folder))
    begins = _beginnings(files, after)
    if any(seq < after.seq for epoch, seq in begins.items() if epoch > after.epoch):
        raise Overwritten(f"journal {os.fspath(folder)} was written anew from before record {after.seq} on")
    ends = {epoch: min((begins[later] for later in begins if later > epoch), default=None) for epoch in begins}
    last = {after.epoch: after.seq - 1} if after.seq else {}
    expected = after.seq
    for path, number, line, complete in walk(files, after):
        if line is None:
            if complete:
                raise _damaged(path, number, "its checksum is wrong")
            continue  # torn; were it more than that, the numbers would not go on
        if not complete and last.get(line.epoch, line.seq - 1) != line.seq - 1:
            continue
        last[line.epoch] = line.seq
        end = ends.get(line.epoch)
        if end is not None and line.seq >= end:
            continue
        if line.seq != expected:
            raise damage(line, f"its sequence number is {line.seq}, expected {expected}: lines before it are missing")
        expected += 1
        yield line


def read_journal(folder: str | os.PathLike[str]) -> list[Record]:
    """All records in order, in memory; see `scan`."""
    return [{key: value for key, value in line.record().items() if key != "crc"} for line in scan(folder)]


class Journal:
    """The single writer of a journal folder. What `append` returned from is on the disk.

    This writer's file, which says that it began, is made at once. `end` is the place behind what was there before.

    Args:
        folder: The journal's folder, made where it is not there.
        lines_per_file: How long its files may become.
        after: A place in what is there up to which somebody has read it already, so that it is not read again.
    """

    def __init__(
        self, folder: str | os.PathLike[str], lines_per_file: int = _LINES_PER_FILE, *, after: Place = START
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number = len(journal_files(self.folder))  # before reading: of two who begin at once, one finds its file
        self.end = after
        for line in scan(self.folder, after):
            self.end = line.after
        self._seq = self.end.seq
        self._limit = lines_per_file
        self._lines = 0
        self._size = 0
        self._hashes: dict[int, tuple[int, Any]] = {}
        self._fd: int | None = None
        self.epoch = self._number + 1
        self._open()

    def append(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Write one line per (type, payload) and fsync once.

        Raises:
            RunError: The disk does not take them, or another writer has begun since.
        """
        if not entries:
            return
        self.check()
        data = b"".join(_encode(self.epoch, self._seq + n, kind, payload) for n, (kind, payload) in enumerate(entries))
        descriptor = self._open()
        start = os.lseek(descriptor, 0, os.SEEK_END)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        except OSError as error:
            # Half a line would be damage once more lines follow it.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, start)
            self.close()  # whatever comes next goes to a new file, behind a tail that may be torn
            raise RunError(
                f"journal {self.folder} cannot be written ({error}); make room there, then resume"
            ) from error
        self._seq += len(entries)
        self._lines += len(entries)
        self._size = start + len(data)

    def mark(self) -> tuple[Place, list[tuple[int, str]]]:
        """The place behind the last line, and size and SHA-256 of each file up to there."""
        place = Place(self._number, self._size, self._lines, self._seq, self.epoch)
        files = []
        for number in range(1, self._number + 1):
            path = self._path(number)
            size = self._size if number == self._number else path.stat().st_size
            done, digest = self._hashes.get(number, (0, hashlib.sha256()))
            _hash_on(path, digest, done, size)
            self._hashes[number] = (size, digest)
            files.append((size, digest.hexdigest()))
        return place, files

    def check(self) -> None:
        """Raise `RunError` where another writer has begun since this one did."""
        later = journal_files(self.folder)[self._number :]  # by a listing, which network file systems look up anew
        if later:
            raise self._overtaken(later[0])

    def _overtaken(self, path: Path) -> RunError:
        return RunError(f"run {self.folder.parent} was taken over ({path} is another driver's); this driver stops")

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.jsonl"

    def _open(self) -> int:
        if self._fd is not None and self._lines < self._limit:
            return self._fd
        self.close()
        self._number += 1
        path = self._path(self._number)
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except FileExistsError:
            self._number -= 1
            raise self._overtaken(path) from None
        except OSError as error:
            self._number -= 1
            raise RunError(f"journal file {path} cannot be made ({error})") from error
        _sync_folder(self.folder)
        self._lines = self._size = 0
        return self._fd

    def close(self) -> None:
        """Close the current file; the next `append` opens another."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _hash_on(path: Path, digest: Any, done: int, size: int) -> None:
    with open(path, "rb") as file:
        file.seek(done)
        while done < size and (part := file.read(min(_PART, size - done))):
            digest.update(part)
            done += len(part)


def file_digest(path: Path, size: int) -> str:
    """SHA-256 of the first `size` bytes of a file, or of all where it has fewer."""
    digest = hashlib.sha256()
    _hash_on(path, digest, 0, size)
    return digest.hexdigest()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
