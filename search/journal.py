"""The append-only journal: JSON lines with a sequence number and a checksum, in files 000001.jsonl, 000002.jsonl …

A line is `{"crc":"<8 hex digits>",<the rest>`: the checksum is the CRC-32 of `{<the rest>`, byte for byte, so a flipped
bit anywhere shows. A line without its newline is torn: whoever wrote it died in it, and nobody acted on it, because
every act waits for fsync. A torn line may end any file (each writer opens a file of its own and never cuts an old one),
but the sequence numbers must go on across it; everything else that does not fit is damage and refused.
"""

from __future__ import annotations

import contextlib
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


def _encode(seq: int, kind: str, payload: dict[str, Any]) -> bytes:
    record = {"seq": seq, "type": kind, "time": round(time.time(), 3), **payload}
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


def read_journal(folder: str | os.PathLike[str]) -> list[Record]:
    """All records in order; `RunError` says where the journal is damaged. Works while somebody writes to it."""
    records: list[Record] = []
    for path in _files(Path(folder)):
        for number, line, complete in _lines(path):
            record = _decode(line)
            if not complete and (record is None or record["seq"] != len(records)):
                continue  # torn; were it more than that, the next file's numbers would not go on
            if record is None:
                raise RunError(f"{path} line {number} is damaged (checksum); restore the file from a copy")
            if record["seq"] != len(records):
                raise RunError(
                    f"{path} line {number} has sequence number {record['seq']}, expected {len(records)}; "
                    "lines before it are missing; restore the file from a copy"
                )
            records.append(record)
    return records


class Journal:
    """The single writer of a journal folder. What `append` returned from is on the disk."""

    def __init__(self, folder: str | os.PathLike[str], lines_per_file: int = _LINES_PER_FILE) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.records = read_journal(self.folder)
        self._seq = len(self.records)
        self._number = len(_files(self.folder))
        self._limit = lines_per_file
        self._lines = 0
        self._fd: int | None = None

    def append(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Write one line per (type, payload) and fsync once; `RunError` where the disk does not take them."""
        if not entries:
            return
        data = b"".join(_encode(self._seq + n, kind, payload) for n, (kind, payload) in enumerate(entries))
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

    def _open(self) -> int:
        if self._fd is not None and self._lines < self._limit:
            return self._fd
        self.close()
        self._number += 1
        path = self.folder / f"{self._number:06d}.jsonl"
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
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
