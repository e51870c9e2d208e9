"""A picture of every file that the packing benchmark made: bytes against test accuracy and cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pack.curves import envelope

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_COLOURS = ("tab:green", "tab:olive", "tab:blue", "tab:purple", "tab:cyan", "tab:brown")
_AXES = {"accuracy": ("test accuracy, %", (86.0, 92.2)), "cross_entropy": ("test cross-entropy, nats", (0.25, 0.55))}
_BYTES = (30_000, 560_000)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw one result of resnet20.py as PNG (or what else the suffix says)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for axis, (metric, (label, limits)) in zip(axes, _AXES.items(), strict=True):
        _draw(axis, result, metric)
        axis.set(xscale="log", xlim=_BYTES, ylim=limits, xlabel="bytes of the file", ylabel=label)
        ticks = [30_000, 50_000, 70_000, 100_000, 150_000, 200_000, 300_000, 500_000]
        axis.set_xticks(ticks, [f"{tick // 1000} kB" for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right", fontsize="small")
    figure.suptitle(f"ResNet-20, CIFAR-10: one file a point, at commit {result['commit']}", fontsize="medium")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw(axis: Axes, result: dict[str, Any], metric: str) -> None:
    factor = 100 if metric == "accuracy" else 1

    def values(rows: Sequence[dict[str, Any]]) -> tuple[list[int], list[float]]:
        return [row["bytes"] for row in rows], [factor * row[f"test_{metric}"] for row in rows]

    axis.axhline(factor * result["float"]["test"][metric], color="black", linewidth=0.8, linestyle=":")
    if result["peer"]:
        axis.plot(*values(result["peer"]), ".", color="tab:red", alpha=0.35, markersize=4)
        sign = 1 if metric == "accuracy" else -1
        front = envelope((row["bytes"], sign * row[f"test_{metric}"]) for row in result["peer"])
        x, y = zip(*front, strict=True)
        axis.plot(x, [sign * factor * q for q in y], color="tab:red", label="NNCodec, its luckiest settings")
        fitted = [
            (row["bytes"], -row["fitted_cross_entropy"]) for row in result["peer"] if "fitted_cross_entropy" in row
        ]
        if metric == "cross_entropy" and fitted:
            x, y = zip(*envelope(fitted), strict=True)
            axis.plot(x, [-q for q in y], "--", color="tab:red", label="NNCodec, confidence fitted")
            axis.legend(loc="upper right", fontsize="small")
    for (name, method), colour in zip(result["methods"].items(), _COLOURS, strict=False):
        axis.plot(*values(method["files"]), "o", color=colour, markersize=4, alpha=0.8, label=name)
    for row, marker in zip(result["baselines"], "sDv^P", strict=False):
        axis.plot(*values([row]), marker, color="grey", label=row["name"], linestyle="none")
