"""Packing in processes of their own, timed from outside, with a ledger so that an interrupted benchmark goes on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "ROOT",
    "THREADS",
    "Ledger",
    "PackSetting",
    "Packed",
    "Ran",
    "code",
    "commit",
    "pack",
    "packed_and_judged",
    "run",
    "sha256",
    "unpack",
]

ROOT = Path(__file__).parents[2]
#: One thread everywhere, so that what is timed does not depend on what else the machine does.
THREADS = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}

#: Packs and unpacks with this very tree, whatever is installed.
_ONE_FILE = (sys.executable, "-m", "benchmarks.pack.one_file")

# A process inherits the peak memory of the one that started it, up to the moment it replaces itself. So a small one
# in between starts the command; what it reports is the command's own.
_LAUNCHER = """
import json, os, resource, subprocess, sys, time
begin = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=2)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - begin
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss / 1024]))
"""


@dataclasses.dataclass(frozen=True)
class PackSetting:
    """How a checkpoint is packed: arguments of `PackJob` and its methods.

    With a `network` (a name, or module:factory) it is calibrated, on `data` (a name, or module:loader) or else on
    `noise` of a shape.

    >>> print(PackSetting("best", 1e-4, names=False))
    preset=best rate_weight=0.0001 names=False
    """

    preset: str
    rate_weight: float
    network: str | None = None
    data: str | None = None
    noise: str | None = None
    samples: int = 1024
    seed: int = 0
    fit_confidence: bool = False
    allocation_rounds: int = 0
    inference: bool = False
    names: bool = True

    def __str__(self) -> str:
        fields = dataclasses.fields(self)
        values = {field.name: getattr(self, field.name) for field in fields}
        return " ".join(f"{field.name}={values[field.name]}" for field in fields if values[field.name] != field.default)


class Ran(NamedTuple):
    """What a command took: seconds of wall time, peak resident memory in MiB."""

    seconds: float
    peak_mib: float


class Packed(NamedTuple):
    """A file, its size, and what packing it took."""

    path: Path
    nbytes: int
    ran: Ran


def run(command: Sequence[str | Path]) -> Ran:
    """Run a command on one thread, in the repository's folder, its output to standard error.

    Raises:
        RuntimeError: It ends with another code than 0; the message has the end of what it said.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        [sys.executable, "-S", "-c", _LAUNCHER, *words],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, **THREADS},
    )  # fmt: skip
    returned, seconds, peak = json.loads(done.stdout)
    if returned:
        raise RuntimeError(f"{' '.join(words)} ended with code {returned}: {done.stderr[-2000:]}")
    return Ran(float(seconds), float(peak))


def pack(weights: Path, output: Path, setting: PackSetting) -> Packed:
    """Pack in a process of its own; an older output is replaced."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    ran = run([*_ONE_FILE, "pack", weights.absolute(), output.absolute(), json.dumps(dataclasses.asdict(setting))])
    return Packed(output, output.stat().st_size, ran)


def unpack(packed: Path, output: Path, network: str | None = None) -> Ran:
    """Unpack in a process of its own, with names from a network if need be; an older output is replaced."""
    output.unlink(missing_ok=True)
    names_from = [] if network is None else [network]
    return run([*_ONE_FILE, "unpack", packed.absolute(), output.absolute(), *names_from])


def packed_and_judged(
    weights: Path, work: Path, setting: PackSetting, judge: Callable[[Path], dict[str, Any]], network: str | None = None
) -> dict[str, Any]:
    """Pack into `work`, unpack, judge what came out: bytes, seconds, peak memory and qualities."""
    packed = pack(weights, work / f"{str(setting).replace(' ', '_').replace(':', '.')}.evc", setting)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        decoded = Path(folder) / "decoded.safetensors"
        took = unpack(packed.path, decoded, None if setting.names else network)
        seconds = {"pack_s": round(packed.ran.seconds, 2), "unpack_s": round(took.seconds, 2)}
        return {"bytes": packed.nbytes, **seconds, "pack_mib": round(packed.ran.peak_mib), **judge(decoded)}


def sha256(path: Path) -> str:
    """The first twelve digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@functools.cache
def code() -> str:
    """A digest of all that packing can depend on: the library's Python files as they are now, committed or not."""
    digest = hashlib.sha256()
    for folder in ("codecs", "evocompress"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def commit() -> str:
    """The commit, with a + where files differ from it; empty where there is no git."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@dataclasses.dataclass
class Ledger:
    """Measurements by part and key, one JSON line each, appended the moment they are made.

    What is there is not measured again, whatever code it was measured with; except in the parts of `fresh` (or all, by
    the word "all"), where the code must be the present one. `commits` collects what the results in use come from.
    """

    path: Path
    fresh: frozenset[str] = frozenset()
    commits: dict[str, set[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for line in self.path.read_text("utf-8").splitlines() if self.path.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the benchmark was killed while it wrote this line
            self._entries[entry["part"], entry["key"]] = entry

    def get(self, part: str, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result that is known for this key, or what `measure` returns, which is then written down."""
        entry = self._entries.get((part, key))
        stale = entry is not None and bool(self.fresh & {part, "all"}) and entry["code"] != code()
        if entry is None or stale:
            print(f"{part}: {key}", file=sys.stderr, flush=True)
            entry = {"part": part, "key": key, "code": code(), "commit": commit(), "result": measure()}
            with self._lock, self.path.open("a", encoding="utf-8") as file:
                print(json.dumps(entry), file=file, flush=True)
            self._entries[part, key] = entry
        with self._lock:
            self.commits.setdefault(part, set()).add(entry["commit"])
        result: dict[str, Any] = entry["result"]
        return result

    def measured_with(self, parts: Iterable[str]) -> dict[str, list[str]]:
        """The commits that the results of these parts come from."""
        return {part: sorted(self.commits[part]) for part in parts if part in self.commits}
