"""RESULTS.md from the benchmarks' JSON: every number beside its target, with where and how it was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.ideas.rows import freeze_rows, ideas_rows, kernels_rows, linearconv_rows, saccades_rows
from benchmarks.pack.rows import Row, memory_rows, others_rows, resnet20_rows, speed_rows


def _demo(line: dict[str, Any]) -> Iterator[Row]:
    seconds, points, factor = line["run_seconds"], line["front_points"], line["front_factor_in_bytes"]
    yield Row("demo: the run itself", f"{seconds:.0f} s", "≤ 180 s", seconds <= 180)
    useful = line["points_above_half_accuracy"]
    text = f"{points}, of these {useful} above 50 % accuracy"
    yield Row("demo: points of the audited front", text, "≥ 12", points >= 12)
    yield Row("demo: largest over smallest file of the front", f"{factor:.1f}×", "≥ 8×", factor >= 8)
    within = line["within_one_point"]
    text = "none" if within is None else f"{within[2]:.1f}× ({within[0]} B, {100 * within[1]:.2f} %)"
    whole = f"{100 * line['uncompressed_accuracy']:.2f} %"
    met = within is not None and within[2] >= 40
    yield Row(f"demo: smallest file within 1 point of the uncompressed {whole}", text, "≥ 40×", met)
    busy = line["cores_busy"]
    yield Row("demo: cores busy after warm-up", f"{100 * busy:.1f} %", "≥ 95 %", busy >= 0.95)


def _fashion(line: dict[str, Any]) -> Iterator[Row]:
    share = line["encode_share_total"]
    text = f"{100 * share:.1f} % (K = {line['mean_probes']:.1f} on average)"
    yield Row("Fashion-MNIST: encode + decode + evaluate of K+1 recipes", text, "≤ 20 % of a segment", share <= 0.2)
    busy = line["cores_busy"]
    yield Row("Fashion-MNIST: cores busy after warm-up", f"{100 * busy:.1f} %", "≥ 95 %", busy >= 0.95)


def _ablation(line: dict[str, Any]) -> Iterator[Row]:
    full = line["variants"]["full"]
    for name, entry in line["variants"].items():
        text = f"{entry['audited']:.4f} ± {entry['audited_sd']:.4f}"
        ahead = None if name == "full" else full["audited"] > entry["audited"]
        target = "" if name == "full" else "below full"
        yield Row(
            f"hypervolume (audited), {line['segments']} segments, {line['seeds']} seeds: {name}", text, target, ahead
        )


def _against(line: dict[str, Any]) -> Iterator[Row]:
    search = line["methods"].get("search")
    for name, entry in line["methods"].items():
        sizes = ", ".join(f"{entry['bytes'][level] or '-'} B at {100 * float(level):.0f} %" for level in entry["bytes"])
        text = f"hypervolume {entry['hypervolume']:.3f} ± {entry['sd']:.3f}; {sizes}"
        ahead = None if name == "search" or search is None else search["hypervolume"] > entry["hypervolume"]
        yield Row(f"digits, {line['epochs']} epochs of training: {name}", text, "" if ahead is None else "below", ahead)


def _scale(line: dict[str, Any]) -> Iterator[Row]:
    seconds = line["seconds"]
    yield Row("1 000 simulated workers, 100 000 segments", f"{seconds:.0f} s", "≤ 120 s", seconds <= 120)


def _overhead(line: dict[str, Any]) -> Iterator[Row]:
    if line["benchmark"] == "busy_share":
        share = line["share"]
        yield Row(
            f"workers busy, segments of {line['segment_seconds']} s", f"{100 * share:.1f} %", "≥ 95 %", share >= 0.95
        )
        return
    wall, cpu = line["wall_ms_per_segment"], line["driver_cpu_ms_per_segment"]
    text = f"{wall:.1f} ms from segment to segment, {line['median_ms']:.1f} ms between two of a worker"
    yield Row("segments that only write 4 MB, two workers", text, "≤ 20 ms", wall <= 20)
    yield Row("of it the driver's own CPU time, start-up included", f"{cpu:.1f} ms a segment", "", None)


def _gpu(line: dict[str, Any]) -> Iterator[Row]:
    passed = [check["passed"] for check in line["checks"].values()]
    yield Row(f"{line['device']}: checks against the CPU", f"{sum(passed)} of {len(passed)}", "all", all(passed))
    for name, milliseconds in line["steps"]["ms"].items():
        precision, _, kind = name.partition(", ")
        ratio = f", {line['steps'][f'rate over plain, {precision}']:.2f}× plain" if kind == "rate" else ""
        what = f"{line['device']}: training step of ResNet-20, batch 128, {name}"
        yield Row(what, f"{milliseconds:.1f} ms{ratio}", "", None)
    for count, entry in line["at_once"]["processes"].items():
        busy = "" if (percent := entry["utilisation_percent"]) is None else f", GPU busy {percent:.0f} %"
        what = f"{line['device']}: ResNet-20 with the rate term, {count} at once"
        yield Row(what, f"{entry['images_per_s']:,.0f} images/s{busy}", "", None)


def _coder(line: dict[str, Any]) -> Iterator[Row]:
    excess, encode, decode = line["excess_percent"], line["encode_msymbols_per_s"], line["decode_msymbols_per_s"]
    yield Row("entropy coder: above empirical adaptive entropy", f"{excess:.3f} %", "≤ 0.5 %", excess <= 0.5)
    yield Row("entropy coder: encode", f"{encode:.1f} M symbols/s", "≥ 10", encode >= 10)
    yield Row("entropy coder: decode", f"{decode:.1f} M symbols/s", "≥ 10", decode >= 10)


ROWS: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "demo": _demo,
    "fashion_mnist": _fashion,
    "ablation": _ablation,
    "against": _against,
    "search_scale": _scale,
    "driver_overhead": _overhead,
    "entropy_coder": _coder,
    "pack_resnet20": resnet20_rows,
    "pack_others": others_rows,
    "speed": speed_rows,
    "memory": memory_rows,
    **dict.fromkeys(("ideas", "ideas_connections", "ideas_saccades"), ideas_rows),
    "symmetry_freeze": freeze_rows,
    "kernels": kernels_rows,
    **dict.fromkeys((f"linearconv_{name}" for name in ("networks", "cifar10", "mnist", "vgg11")), linearconv_rows),
    **dict.fromkeys(("saccades", "saccades_robust", "saccades_canvas"), saccades_rows),
    "gpu": _gpu,
}


def write_results(results: dict[str, Any], path: Path) -> None:
    """Write the table, and below it the commands with commit, date and hardware."""
    lines = ["# Results", "", "Written by `make bench` from `results.json`; the machine is shared and noisy.", ""]
    lines += ["| what | measured | target | |", "|---|---|---|---|"]
    for name, rows in ROWS.items():
        for line in results.get(name, {}).get("lines", []):
            for row in rows(line):
                mark = "" if row.met is None else "met" if row.met else "**missed**"
                lines.append(f"| {row.what} | {row.measured} | {row.target} | {mark} |")
    lines += ["", "A command is the one of its commit; `python -m benchmarks NAME` runs today's.", ""]
    lines += ["| benchmark | command | commit | date | hardware |", "|---|---|---|---|---|"]
    for name, entry in results.items():
        lines.append(f"| {name} | `{entry['command']}` | {entry['commit']} | {entry['date']} | {entry['hardware']} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
