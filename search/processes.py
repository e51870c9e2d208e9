"""Processes by their pid and start time, and the boot in which those mean something."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["boot", "born", "cpu_seconds"]


def boot() -> str:
    """Which boot, and which process namespace, this is: pids mean something only within one of each."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    return f"uid{os.getuid()}"


def born(pid: int) -> str:
    """Start time of a process, "" where there is none (a zombie, which holds nothing any more, included)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:  # without /proc the pid alone must do
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads so far; 0 where nobody knows."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0
