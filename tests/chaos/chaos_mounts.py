"""File systems that fill up or go away, on a machine where this user may mount."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["can_mount", "fill", "mount_folder", "tmpfs", "unmount"]


def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tmpfs(Path(folder), 1):
                return True
        except subprocess.CalledProcessError:
            return False


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


@contextlib.contextmanager
def tmpfs(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system in memory at a folder, of that size."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)
    try:
        yield
    finally:
        unmount(folder)


def mount_folder(disk: Path, folder: Path) -> None:
    """Show what is in `disk` at `folder`."""
    _run("mount", "--bind", disk, folder)


def unmount(folder: Path) -> None:
    """As when a disk is pulled: whoever has files open there keeps them."""
    _run("umount", "--lazy", folder)


def fill(file: Path) -> None:
    """Write to a file until its file system has not one byte left."""
    with open(file, "ab", buffering=0) as ballast:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(size))
