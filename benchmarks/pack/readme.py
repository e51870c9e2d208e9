"""The tables of packing, in Markdown, from results.json, for docs/measured.md and docs/pack.md.

python -m benchmarks.pack.readme
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pack.rows import level_text

__all__ = ["tables"]

_METRICS = {"accuracy": "", "cross_entropy": "CE "}


def tables(results: dict[str, Any]) -> str:
    """All tables that there are results for."""
    lines: list[str] = []
    tables = (_against_peer, _both_fitted, _baselines)
    for name, write in (*(("pack_resnet20", table) for table in tables), ("speed", _presets)):
        for line in results.get(name, {}).get("lines", []):
            lines += [*write(line, results), ""]
            lines += [_where(results[name]), ""]
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _where(entry: dict[str, Any]) -> str:
    settings = entry["lines"][0].get("settings", {})
    seeds = f"; {settings['seeds']} calibration seeds of {settings['samples']} images" if settings else ""
    return f"Commit {entry['commit']}, {entry['date']}, {entry['hardware']}{seeds}."


def _against_peer(line: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    """Bytes against NNCodec's at equal quality, a column a level, a row a method."""
    methods = line["methods"]
    if not methods:
        return
    first = next(iter(methods.values()))["against_peer"]
    head = ["at equal test"]
    theirs = ["NNCodec, its luckiest settings"]
    for metric, prefix in _METRICS.items():
        for row in first[metric]["at"]:
            head.append(prefix + level_text(metric, row["level"]))
            theirs.append("" if row["peer_bytes"] is None else f"{row['peer_bytes'] / 1000:.1f} kB")
    head += ["BD-rate, accuracy", "BD-rate, CE"]
    rows = [[*theirs, "", ""]]
    for name, method in reversed(methods.items()):
        comparison = method["against_peer"]
        cells = [_ratio(row) for metric in _METRICS for row in comparison[metric]["at"]]
        rows.append([name, *cells, *(_percent(comparison[metric]) for metric in _METRICS)])
    yield from _table(head, rows)


def _both_fitted(line: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    """Bytes against NNCodec's at equal cross-entropy, both with their confidence fitted."""
    for name, comparison in line.get("both_fitted", {}).items():
        head = [
            "confidence of both fitted, at equal test",
            *(f"CE {abs(row['level']):.3f}" for row in comparison["at"]),
        ]
        theirs = [
            "–" if row["peer_bytes"] is None else f"{row['peer_bytes'] / 1000:.1f} kB" for row in comparison["at"]
        ]
        rows = [["NNCodec", *theirs, ""], [name, *map(_ratio, comparison["at"]), _percent(comparison)]]
        yield from _table([*head, "BD-rate"], rows)


def _ratio(row: dict[str, Any]) -> str:
    if row["ratio"] is None:
        return f"< {row['below']:.2f}×" if row.get("below") else "–"
    spread = "" if row["ratio_sd"] is None else f" ± {row['ratio_sd']:.2f}"
    return f"{row['ratio']:.2f}×{spread}"


def _percent(comparison: dict[str, Any]) -> str:
    if comparison["bd_rate"] is None:
        return "–"
    spread = "" if comparison["bd_rate_sd"] is None else f" ± {comparison['bd_rate_sd']:.0f}"
    return f"{comparison['bd_rate']:.0f}{spread} %"


def _baselines(line: dict[str, Any], _: dict[str, Any]) -> Iterator[str]:
    """What users do otherwise."""
    rows = [
        [row["name"], str(row["bytes"]), f"{100 * row['test_accuracy']:.2f} %", f"{row['test_cross_entropy']:.3f}"]
        for row in line["baselines"]
    ]
    if rows:
        yield from _table(["as users do", "bytes", "accuracy", "cross-entropy"], rows)


def _presets(line: dict[str, Any], results: dict[str, Any]) -> Iterator[str]:
    """Size, speed and memory of each preset."""
    memory = {row["preset"]: row for row in results.get("memory", {}).get("lines", [])}
    rows = []
    for name, row in line.get("files", {}).items():
        size = f"{row['bytes_at_error'] / line['peer_bytes']:.3f}×" if "peer_bytes" in line else str(row["bytes"])
        used = [f"{memory[name][f'{way}_times_data']:.1f}×" if name in memory else "" for way in ("pack", "unpack")]
        rows.append([name, size, f"{row['encode_mweights_per_s']:.2f}", f"{row['decode_mweights_per_s']:.2f}", *used])
    peer = line.get("nncodec")
    if isinstance(peer, dict):
        rows.append(
            ["NNCodec", "1×", f"{peer['encode_mweights_per_s']:.2f}", f"{peer['decode_mweights_per_s']:.2f}", "", ""]
        )
    head = ["preset", "bytes at equal error", "encode, M weights/s", "decode, M weights/s", "memory: pack", "unpack"]
    yield from _table(head, rows)


def main() -> None:
    """Print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(tables(json.loads((Path(__file__).parents[1] / "results.json").read_text("utf-8"))))


if __name__ == "__main__":
    main()
