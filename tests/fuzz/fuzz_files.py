"""Mutants of small files, whose checksums are made good again: each is a file or a FormatError, at a bounded cost.

`make fuzz-files` reads a million of them (FILES=200000 for fewer, SEED=1 for others); the suite runs some thousand.
What fails is written beside the output, as a file that `evocompress inspect` reads.

The cost of a mutant is bounded by what its table announces (`Budget.counted`): processor time by `allowed_seconds`, and
for one in sixteen memory by `allowed_bytes`. Both are a few times what was measured.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

import hostile_files as hostile  # noqa: E402
from fuzz_decoder import GOLDEN, TEMPLATES, check_tensors, opened, sealed  # noqa: E402 # pyright: ignore

from evocompress.codecs.budget import Budget  # noqa: E402
from evocompress.codecs.container import parse  # noqa: E402
from evocompress.codecs.inspection import inspect  # noqa: E402
from evocompress.errors import CodecError, FormatError  # noqa: E402

__all__ = ["Report", "allowed_bytes", "allowed_seconds", "mutant", "run", "seeds"]

_SMALL = 1000
_EVERY = 16  # mutants, of which one's memory is traced: that makes it several times slower
#: What is decoded, and not only parsed: all that takes no longer than a few hundredths of a second.
_DECODED = {"weights": 1 << 14, "planes": 1 << 8, "numbers": 1 << 17, "products": 1 << 26}
_LENGTH = 1 << 18  # as fuzz_decoder.sealed has it
_EDGES = (0, 1, -1, 2, 8, 63, 64, 255, 256, 1024, 1 << 16, 1 << 20, 1 << 22, 1 << 31, 1 << 40, (1 << 63) - 1)


class Report(NamedTuple):
    """How many mutants there were of each kind ("read", "parsed", and messages of refusals), and the dearest."""

    kinds: collections.Counter[str]
    slowest: float
    largest: int
    failures: list[tuple[str, bytes]]


def allowed_seconds(budget: Budget, tensors: int) -> float:
    """Processor time that reading and inspecting may take, on a slow and busy core."""
    counted = budget.counted
    each = 1e-3 * (counted["planes"] + tensors) + 1e-5 * budget.nbytes
    return 0.5 + each + 1e-5 * counted["weights"] + 1e-6 * counted["numbers"] + 1e-8 * counted["products"]


def allowed_bytes(budget: Budget, tensors: int) -> int:
    """Memory that reading and inspecting may take, above what was there."""
    counted = budget.counted
    each = (1 << 13) * (counted["planes"] + tensors) + 64 * budget.nbytes
    return (8 << 20) + each + 2 * budget.output_bytes + 64 * counted["weights"] + 32 * counted["numbers"]


def seeds() -> list[bytes]:
    """Small files of every codec, coder and version, and hostile ones, `opened`."""
    files = [path.read_bytes() for path in sorted(GOLDEN.glob("*.evc"))]
    files = [data for data in files if len(data) < _SMALL]
    files += [
        hostile.forged(hostile.nested_planes(2)),
        hostile.forged(hostile.nested_products(20)),
        hostile.forged(hostile.many_kernel_sizes(8)),
        hostile.forged(hostile.many_alike(40, (3,)), "mixing"),
    ]
    return [opened(data) for data in files]


def mutant(bodies: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the files with one to four edits of its head, its table or its stream; its checksum is good."""
    parts = [bytearray(part) for part in _parts(rng.choice(bodies))]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        part = parts[rng.choice((0, 1, 1, 1, 1, 2, 2))] or parts[2]
        place = rng.randrange(len(part) + 1)
        kind = rng.randrange(8)
        if kind < 2 and part:
            part[place % len(part)] ^= 1 << rng.randrange(8)
        elif kind == 2:  # another small number
            part[place : place + 1] = hostile.numbers(rng.randrange(-4, 30))
        elif kind == 3:
            part[place : place + rng.randrange(2)] = hostile.numbers(rng.choice(_EDGES))
        elif kind == 4:
            del part[place : place + rng.randrange(1, 4)]
        elif kind == 5:
            start = rng.randrange(len(part) + 1)
            part[place:place] = part[start : start + rng.randrange(1, 32)] * rng.choice((1, 1, 2, 16))
        elif kind == 6:
            other = _parts(rng.choice(bodies))[rng.randrange(1, 3)]
            start, length = rng.randrange(len(other) + 1), rng.randrange(1, 32)
            part[place : place + length] = other[start : start + length]
        else:
            part[place : place + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
    head, table, stream = parts
    sizes = min(len(table), _LENGTH - 1) + _LENGTH * min(len(head), 63)
    return sealed(sizes.to_bytes(3, "little") + bytes(head) + bytes(table) + bytes(stream))


def _parts(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Head, table and stream; of a bare file, whose table is not told apart from its stream, head, nothing and both."""
    sizes = int.from_bytes(body[:3], "little")
    begin = 3 + sizes // _LENGTH
    end = begin + sizes % _LENGTH
    return body[3:begin], body[begin:end], body[end:]


def _read(data: bytes, names: Mapping[str, Any] | None, traced: bool) -> tuple[str, float, int]:
    """What became of a file, the seconds that it took, and the bytes if these were traced."""
    budget, tensors = Budget(len(data)), 0
    if traced:
        tracemalloc.start()
    begin = time.process_time()
    try:
        contents = parse(data, names)
        budget, tensors = contents.budget, len(contents.tensors)
        kind = "parsed"
        if all(budget.counted[what] <= most for what, most in _DECODED.items()):  # type: ignore[index]
            try:
                infos, _ = inspect(data, names)
            finally:
                found = check_tensors(data, names)
            assert len(infos) == found
            kind = "read"
    except (FormatError, CodecError) as error:
        if not isinstance(error, FormatError):
            assert "with which it was packed" in str(error), error
        kind = "refused"
    finally:
        seconds = time.process_time() - begin
        nbytes = tracemalloc.get_traced_memory()[1] if traced else 0
        tracemalloc.stop()
    if kind != "refused":
        assert seconds < allowed_seconds(budget, tensors), f"{seconds} s"
    else:  # whatever it had announced by then, it was too much or wrong
        assert seconds < 2 + 1e-4 * len(data), f"{seconds} s"
    most = allowed_bytes(budget, tensors) if kind != "refused" else 64 << 20
    assert nbytes < most, f"{nbytes} bytes of memory"
    return kind, seconds, nbytes


def _names(data: bytes, rng: random.Random) -> Mapping[str, Any] | None:
    return rng.choice(TEMPLATES) if data[3:4] in (b"\x04", b"\x05") else None


def run(count: int, seed: int = 0) -> Report:
    """Read so many mutants; the same seed gives the same ones."""
    rng, bodies = random.Random(seed), seeds()
    report = Report(collections.Counter(), 0.0, 0, [])
    slowest, largest = 0.0, 0
    for body in bodies:  # compile what is compiled, before time is measured
        data = sealed(body)
        templates: list[Any] = [*TEMPLATES] if data[3:4] in (b"\x04", b"\x05") else [None]
        for template in templates:
            try:
                inspect(data, template)
                check_tensors(data, template)
            except (FormatError, CodecError):
                continue
    for number in range(count):
        data = mutant(bodies, rng)
        names = _names(data, rng)
        try:
            try:
                kind, seconds, nbytes = _read(data, names, number % _EVERY == 0)
            except AssertionError:  # once more, as something may have been compiled or collected meanwhile
                kind, seconds, nbytes = _read(data, names, number % _EVERY == 0)
        except Exception as error:
            report.failures.append((f"{type(error).__name__}: {error}", data))
            continue
        report.kinds[kind] += 1
        slowest, largest = max(slowest, seconds), max(largest, nbytes)
    return report._replace(slowest=slowest, largest=largest)


def main() -> None:
    """Run mutants and say what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    arguments = parser.parse_args()
    begin = time.process_time()
    report = run(arguments.count, arguments.seed)
    print(f"{arguments.count} mutants, seed {arguments.seed}: {dict(report.kinds)}, {len(report.failures)} failures")
    print(f"{time.process_time() - begin:.0f} s; dearest {report.slowest:.3f} s, {report.largest / 1e6:.1f} MB")
    for place, (message, data) in enumerate(report.failures):
        arguments.failures.mkdir(exist_ok=True)
        (arguments.failures / f"{place}.evc").write_bytes(data)
        print(f"{arguments.failures / f'{place}.evc'}: {message[:300]}")
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    main()
