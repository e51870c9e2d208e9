"""Disturb runs in every way that is known here, and print a table of what became of them.

    make chaos                          # one round of every scenario
    make chaos ROUNDS=3 SEED=7
    make chaos ONLY="storage unmounted"

Every scenario begins a run of toy segments, or of real ones on digits, disturbs it by a schedule that follows from the
seed, and compares all that it came to with an undisturbed run in one process. It ends with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]

from chaos_run import Report  # noqa: E402
from chaos_scenarios import SCENARIOS, Skipped  # noqa: E402

__all__ = ["main"]


def _round(name: str, seed: str, keep: Path) -> Report | None:
    """One scenario once; what it wrote is kept where something differs."""
    folder = Path(tempfile.mkdtemp(prefix="evc-chaos-"))
    try:
        report = SCENARIOS[name](name, folder, random.Random(seed))
    except Skipped as reason:
        print(f"{name}: left out, {reason}", flush=True)
        return None
    except BaseException:
        shutil.copytree(folder, keep, dirs_exist_ok=True)
        raise
    else:
        if not report.equal:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
        return report
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """The exit status: 0 if nothing was lost and nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="scenarios, with semicolons between them")
    parser.add_argument("--keep", default="build/chaos/failed", help="gets the folders of runs that differ")
    words = parser.parse_args()
    names = [name.strip() for name in words.only.split(";") if name.strip()] or list(SCENARIOS)
    reports: dict[str, Report] = {}
    failed = False
    for number in range(words.rounds):
        for name in names:
            began = time.monotonic()
            seed = f"{words.seed} {number} {name}"
            try:
                report = _round(name, seed, Path(words.keep, f"{name}-{words.seed}-{number}"))
            except Exception:
                failed = True
                traceback.print_exc()
                continue
            if report is None:
                continue
            failed |= not report.equal
            reports[name] = reports[name].merged(report) if name in reports else report
            print(f"{report.row()} {time.monotonic() - began:.0f} s", flush=True)
            for line in [*report.differences, *report.notes]:
                print(f"    {line}", flush=True)
    print(Report.head())
    for report in reports.values():
        print(report.row())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
