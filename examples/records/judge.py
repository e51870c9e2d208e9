"""Decode the records and judge them: bytes, accuracy on test data, certificate, beside what records.json says.

    python examples/records/judge.py [--only NAME …] [--write]

Needs the data sets (docs: `evocompress.data`); records whose data are not there are named and left out. Exits with 1
where a file does not keep what is recorded. `--write` puts what was measured into records.json and README.md's table:
for whoever adds a record.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from evocompress.data import load
from evocompress.errors import DataError
from evocompress.evolve.certificate import Source, certify
from evocompress.networks import build
from evocompress.tasks import build as build_task

HERE = Path(__file__).resolve().parent
RECORDS = HERE / "records.json"
_BEGIN, _END = "<!-- table -->", "<!-- end of table -->"


def judge(record: dict[str, Any]) -> dict[str, Any]:
    """What is measured of a record.

    Raises:
        DataError: Its data set is not there.
    """
    path = HERE / record["file"]
    splits = load(record["data"], seed=record["seed"], options=record.get("data_options", {}))
    network = build(record["model"], record.get("model_options", {}))
    source = Source(network, splits, build_task("classification"), record["candidates"])
    found = certify(path, source)
    assert found.test is not None
    return {
        "bytes": path.stat().st_size,
        "test_accuracy": round(1 - found.test.error, 6),
        "accuracy_on_what_made_it": round(1 - found.bound.training_error, 6),
        "certified_error": math.ceil(1e6 * found.bound.value) / 1e6,
    }


def _percent_above(share: float) -> str:
    """Rounded up, so that what is printed is a bound too."""
    return f"{math.ceil(1e4 * share) / 100:.2f}"


def table(records: list[dict[str, Any]]) -> str:
    """The records in Markdown, and how each was made."""
    heads = "file", "network", "bytes", "test accuracy", "error certified below", "made by"
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    recipes: dict[tuple[str, ...], str] = {}
    for record in records:
        measured, recipe = record["measured"], (record["commit"], *record["steps"])
        options = ", ".join(f"{name}={value}" for name, value in record.get("model_options", {}).items())
        cells = (
            f"`{record['file']}`",
            record["model"] + (f" ({options})" if options else ""),
            f"{measured['bytes']:,}".replace(",", " "),
            f"{100 * measured['test_accuracy']:.2f} %",
            f"{_percent_above(measured['certified_error'])} %",
            recipes.setdefault(recipe, chr(ord("A") + len(recipes))),
        )
        lines.append("| " + " | ".join(cells) + " |")
    for (commit, *steps), letter in recipes.items():
        lines += ["", f"**{letter}**, commit {commit}, two cores, no GPU:", "", *(f"    {step}" for step in steps)]
    return "\n".join(lines)


def main() -> int:
    """Judge all; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="names of files")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    records, wrong = json.loads(RECORDS.read_text()), 0
    for record in records:
        if options.only and record["file"] not in options.only:
            continue
        try:
            measured = judge(record)
        except DataError as error:
            print(f"{record['file']}: left out, as its data are not there ({error})")
            continue
        if options.write:
            record["measured"] = measured
        kept = measured == record.get("measured")
        wrong += not kept
        print(
            f"{record['file']}: {measured['bytes']} B, {100 * measured['test_accuracy']:.2f} % on test data, error "
            f"certified below {_percent_above(measured['certified_error'])} %"
            + ("" if kept else f"; recorded is {record.get('measured')}")
        )
    if options.write:
        RECORDS.write_text(json.dumps(records, indent=1) + "\n")
        readme = HERE / "README.md"
        before, _, rest = readme.read_text().partition(_BEGIN)
        readme.write_text(f"{before}{_BEGIN}\n{table(records)}\n{_END}{rest.partition(_END)[2]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
