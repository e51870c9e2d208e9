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
import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from evocompress.errors import RunError

__all__ = ["Journal", "Record", "read_journal"]

Record: TypeAlias = dict[str, Any]

_LINES_PER_FILE = 10_000
_NAME = re.compile(r"\d{6}\.jsonl")
_HEAD = re.compile(rb'\{"crc":"([0-9a-f]{8})",')


def _encode(epoch: int, seq: int, kind: str, payload: dict[str, Any]) -> bytes:
    record = {"epoch": epoch, "seq": seq, "type": kind, "time": round(time.time(), 3), **payload}
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(body), body[1:])


def _decode(line: bytes) -> Record | None:
    """The record of a line without its newline; None where the checksum does not fit."""
    head = _HEAD.match(line)
    if head is None:
        return None
    body = b"{" + line[head.end() :]
    if zlib.crc32(body) != int(head[1], 16):
        return None
    record = json.loads(body)
    return record if isinstance(record, dict) else None


def _files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("*.jsonl") if _NAME.fullmatch(path.name))
    for number, path in enumerate(files, start=1):
        if path.name != f"{number:06d}.jsonl":
            raise RunError(f"journal file {folder / f'{number:06d}.jsonl'} is missing, but {path.name} is there")
    return files


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """(line number, line without newline, whether the newline was there)."""
    parts = path.read_bytes().split(b"\n")
    for number, line in enumerate(parts, start=1):
        if number < len(parts) or line:
            yield number, line, number < len(parts)


@dataclasses.dataclass(frozen=True)
class _Line:
    """A whole line and where it stands."""

    record: Record
    path: Path
    number: int

    def fits(self, expected: int) -> bool:
        return bool(self.record["seq"] == expected)


def _by_epoch(folder: Path) -> dict[int, list[_Line]]:
    """The lines of each writer, in the order in which it wrote them; epochs ascend."""
    epochs: dict[int, list[_Line]] = {}
    for path in _files(folder):
        for number, text, complete in _lines(path):
            record = _decode(text)
            if record is None:
                if complete:
                    raise RunError(f"{path} line {number} is damaged (checksum); restore the file from a copy")
                continue  # torn; were it more than that, the numbers would not go on
            lines = epochs.setdefault(int(record.get("epoch", path.stem)), [])
            if not complete and lines and not lines[-1].fits(record["seq"] - 1):
                continue
            lines.append(_Line(record, path, number))
    return dict(sorted(epochs.items()))


def read_journal(folder: str | os.PathLike[str]) -> list[Record]:
    """All records in order; `RunError` says where the journal is damaged. Works while somebody writes to it.

    Lines of an overtaken writer that a later one did not know of are left out.
    """
    records: list[Record] = []
    for lines in _by_epoch(Path(folder)).values():
        expected = min(len(records), lines[0].record["seq"])
        del records[expected:]
        for line in lines:
            if not line.fits(len(records)):
                raise RunError(
                    f"{line.path} line {line.number} has sequence number {line.record['seq']}, expected "
                    f"{len(records)}; lines before it are missing; restore the file from a copy"
                )
            records.append(line.record)
    return records


class Journal:
    """The single writer of a journal folder. What `append` returned from is on the disk.

    `records` is what was there; this writer's file, which says that it began, is made at once.
    """

    def __init__(self, folder: str | os.PathLike[str], lines_per_file: int = _LINES_PER_FILE) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number = len(_files(self.folder))  # before reading: of two who begin at once, one finds its file made
        self.records = read_journal(self.folder)
        self._seq = len(self.records)
        self._limit = lines_per_file
        self._lines = 0
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

    def check(self) -> None:
        """Raise `RunError` where another writer has begun since this one did."""
        later = _files(self.folder)[self._number :]  # by a listing, which network file systems look up anew
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
        self._lines = 0
        return self._fd

    def close(self) -> None:
        """Close the current file; the next `append` opens another."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


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
