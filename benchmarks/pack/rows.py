"""Rows of RESULTS.md for the packing benchmarks, each with its target where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Row", "level_text", "memory_rows", "others_rows", "ratio_text", "resnet20_rows", "speed_rows"]

#: Bytes against NNCodec's at equal quality, at most.
TARGETS = {
    "best, calibrated": 0.50,
    "best, calibrated, confidence fitted": 0.50,
    "best, calibrated, confidence fitted, allocated": 0.50,
    "best, network and noise, no data": 0.85,
    "best, data-free": 0.85,
}
#: The same of networks that were not tuned on, by network, method and metric.
_TARGETS_OF_OTHERS = {("minilm", "balanced, calibrated", "cosine"): 0.75}
_METRICS = ("accuracy", "cross_entropy")
_NAMES = {"lenet5": "LeNet-5, Fashion-MNIST", "rows": "LSTM, Fashion-MNIST", "minilm": "all-MiniLM-L6-v2"}


class Row(NamedTuple):
    """One line of the table; `met` is None where there is no target."""

    what: str
    measured: str
    target: str
    met: bool | None


def level_text(metric: str, level: float) -> str:
    """A level as it is read: 91.5 %, or a cross-entropy (kept negative in curves)."""
    return f"{100 * level:.1f} %" if metric == "accuracy" else f"{abs(level):.3f}"


def meets(row: dict[str, Any], target: float) -> bool:
    """Whether a ratio, or what it is below, is at most the target."""
    ratio = row["ratio"] or row.get("below")
    return ratio is not None and ratio <= target


def ratio_text(row: dict[str, Any]) -> str:
    """0.87× ± .01 (75 kB), or that a curve does not reach this far."""
    if row["ratio"] is None:
        return f"< {row['below']:.3f}×: our smallest file is better" if row.get("below") else "not reached by both"
    spread = "" if row["ratio_sd"] is None else f" ± {row['ratio_sd']:.3f}"
    seeds = f", {row['seeds']} seeds" if row["seeds"] > 1 else ""
    return f"{row['ratio']:.3f}×{spread} ({row['bytes'] / 1000:.1f} kB to {row['peer_bytes'] / 1000:.1f} kB{seeds})"


def resnet20_rows(line: dict[str, Any]) -> Iterator[Row]:
    """ResNet-20 against NNCodec, and the baselines."""
    for name, method in line["methods"].items():
        target = TARGETS.get(name)
        for metric in _METRICS:
            comparison = method["against_peer"][metric]
            quality = metric.replace("_", "-")
            for row in comparison["at"]:
                what = f"ResNet-20, {name}: bytes to NNCodec's at test {quality} {level_text(metric, row['level'])}"
                met = None if target is None else meets(row, target)
                yield Row(what, ratio_text(row), f"≤ {target:.2f}×" if target else "", met)
            if comparison["bd_rate"] is not None:
                spread = "" if comparison["bd_rate_sd"] is None else f" ± {comparison['bd_rate_sd']:.1f}"
                yield Row(
                    f"ResNet-20, {name}: BD-rate over {quality}", f"{comparison['bd_rate']:.1f}{spread} %", "", None
                )
    for name, comparison in line.get("both_fitted", {}).items():
        for row in comparison["at"]:
            what = f"ResNet-20, {name}: bytes to NNCodec's at test cross-entropy {abs(row['level']):.3f}, "
            met = meets(row, TARGETS[name])
            yield Row(what + "confidence of both fitted", ratio_text(row), f"≤ {TARGETS[name]:.2f}×", met)
    for part, commits in line["commits"].items():
        yield Row(f"ResNet-20: commits that the {part} files are of", ", ".join(commits), "", None)
    for row in line["baselines"]:
        text = f"{row['bytes']} B, {100 * row['test_accuracy']:.2f} %, cross-entropy {row['test_cross_entropy']:.3f}"
        yield Row(f"ResNet-20: {row['name']}", text, "", None)


def others_rows(line: dict[str, Any]) -> Iterator[Row]:
    """A network that was not tuned on."""
    network = _NAMES.get(line["network"], line["network"])
    for name, method in line["methods"].items():
        for metric, comparison in method["against_peer"].items():
            target = _TARGETS_OF_OTHERS.get((line["network"], name, metric))
            for row in comparison["at"]:
                sign = "+" if metric == "cross_entropy" else "−"
                loss = f"{sign}{100 * row['loss']:.2f} points" if metric == "accuracy" else f"{sign}{row['loss']:g}"
                what = f"{network}, {name}: bytes to NNCodec's at {metric.replace('_', '-')} {loss}"
                met = None if target is None or not (row["ratio"] or row.get("below")) else meets(row, target)
                yield Row(what, ratio_text(row), f"≤ {target:.2f}×" if target else "", met)
        for metric, pairs in method["at_equal_bytes"].items():
            text = "; ".join(f"{nbytes / 1e6:.1f} MB: {ours:.4f} to {theirs:.4f}" for nbytes, theirs, ours in pairs)
            if text:
                yield Row(f"{network}, {name}: {metric.replace('_', ' ')} to NNCodec's at equal bytes", text, "", None)


def speed_rows(line: dict[str, Any]) -> Iterator[Row]:
    """Speed on Laplace weights."""
    peer = line["nncodec"]
    if peer != "skipped":
        text = f"{peer['encode_mweights_per_s']} and {peer['decode_mweights_per_s']} M weights/s"
        yield Row("NNCodec: encode, decode, 4.7 M Laplace weights", text, "", None)
        encode, decode, ratio = line["encode_times_faster"], line["decode_times_faster"], line["bytes_ratio"]
        yield Row("fast, stream: encode against NNCodec's", f"{encode:.2f}× as fast", "≥ 3×", encode >= 3)
        yield Row("fast, stream: decode against NNCodec's", f"{decode:.2f}× as fast", "≥ 1.5×", decode >= 1.5)
        yield Row("fast, stream: bytes at equal squared error", f"{ratio:.4f}×", "≤ 1×", ratio <= 1)
    for name, row in line.get("files", {}).items():
        encode, decode = row["encode_mweights_per_s"], row["decode_mweights_per_s"]
        size = f", {row['bytes_at_error'] / line['peer_bytes']:.4f}× NNCodec's bytes" if "peer_bytes" in line else ""
        text = f"encode {encode:.2f}, decode {decode:.2f} M weights/s{size}"
        target, met = ("decode ≥ 1 M weights/s", decode >= 1) if name == "best" else ("", None)
        yield Row(f"{name}, whole file of 4.7 M Laplace weights", text, target, met)


def memory_rows(line: dict[str, Any]) -> Iterator[Row]:
    """Peak memory of a preset."""
    for name in ("pack", "unpack"):
        times = line[f"{name}_times_data"]
        what = f"{line['preset']}: peak memory of {name}, {line['weights'] / 1e6:.0f} M weights"
        yield Row(what, f"{times:.2f}× the tensor data", "≤ 3×", times <= 3)
