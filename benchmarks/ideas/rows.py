"""Rows of RESULTS.md for the ideas: LinearConv, symmetry, connections, coordinates, saccades."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from benchmarks.pack.rows import Row
from evocompress.support.wording import counted

__all__ = ["freeze_rows", "ideas_rows", "kernels_rows", "linearconv_rows", "saccades_rows"]

_DATA = {"fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "mnist": "MNIST"}
_VARIANTS = {"plain": "plain", "full": "alpha 0.5", "low": "alpha 0.5, rank 0.05"}


def ideas_rows(line: dict[str, Any]) -> Iterator[Row]:
    """The search with each idea beside the search without it."""
    if "train" in line:  # recorded before the rate was in the loss
        shape = f"Fashion-MNIST, {line['segments']} segments of {line['train']} images"
    else:
        shape = f"digits, the rate in the loss, {line['epochs']} epochs"
    for idea in line["ideas"]:
        mine, theirs, gain = (idea[key] for key in ("hypervolume", "hypervolume_without", "difference"))
        what = f"{shape}, {idea['seeds']} seeds: {idea['idea']} against {idea['without']}: "
        text = f"{mine[0]:.3f} ± {mine[1]:.3f} against {theirs[0]:.3f} ± {theirs[1]:.3f}; "
        yield Row(what + "hypervolume (audited)", f"{text}{gain[0]:+.3f} ± {gain[1]:.3f}", "", None)
        if idea["bytes_ratio"]:
            text = "{:.2f}× ({:.2f} to {:.2f})".format(*idea["bytes_ratio"])
            yield Row(what + "bytes at equal accuracy", text, "", None)


def freeze_rows(line: dict[str, Any]) -> Iterator[Row]:
    """Kernels snapped in several steps against all at once, fine-tuned for as long."""
    if line["steps"] < 2:
        return
    mean, sd = line["points_less_at_once"]
    share, error = f"{100 * line['frozen']:.0f} %", sd / math.sqrt(line["seeds"])
    what = f"digits, {line['seeds']} seeds: {share} of the kernels snapped in {line['steps']} steps, less at once"
    yield Row(what, f"{mean:+.1f} ± {error:.1f} points (standard error)", "> 0", mean > 0)


def kernels_rows(line: dict[str, Any]) -> Iterator[Row]:
    """The last line of benchmarks/ideas/kernels.py right: what share of kernels of a known class is told so."""
    for entry in line.get("summary", []):
        noise = " / ".join(f"{100 * level:.0f}" for level in entry["noise"])
        text = " / ".join(f"{mean:.0f}" for mean in entry["mean_percent"])
        least = " / ".join(f"{value:.0f}" for value in entry["least_percent"])
        sizes = ", ".join(map(str, entry["sizes"]))
        what = f"kernels, {entry['kind']}, sides of {sizes}, {noise} % noise: right class"
        yield Row(what, f"{text} % (worst size {least})", "", None)


def linearconv_rows(line: dict[str, Any]) -> Iterator[Row]:
    """The last line of benchmarks/ideas/linearconv_networks.py: accuracy by network, data and variant."""
    for entry in line.get("summary", []):
        what = f"LinearConv, {entry['network']}, {_DATA[entry['data']]}, {entry['epochs']} epochs, "
        what += f"{counted(entry['seeds'], 'seed')}: {_VARIANTS[entry['variant']]}"
        spread = f" ± {100 * entry['test_accuracy_sd']:.2f}" if "test_accuracy_sd" in entry else ""
        yield Row(what, f"{100 * entry['test_accuracy']:.2f}{spread} %, {entry['parameters']} parameters", "", None)


def saccades_rows(line: dict[str, Any]) -> Iterator[Row]:
    """The last line of benchmarks/ideas/saccades.py: each network, and those with saccades beside dense ones."""
    entries = line.get("summary", [])
    width = max((int(entry["network"].split()[-1]) for entry in entries if "width" in entry["network"]), default=0)
    for entry in entries:
        name, _, canvas = entry["data"].partition(" ")
        where, seeds = " ".join([_DATA[name], canvas]).strip(), counted(entry["seeds"], "seed")
        shape = f"saccades, {where}, {seeds}: {entry['network']}"
        shape += f", width {width}" if entry["network"].startswith("saccades") else ""
        text = f"{100 * entry['test_accuracy']:.1f} %, on corrupted images {100 * entry['corrupted_accuracy']:.1f} %, "
        text += f"{entry['multiply_adds'] / 1e6:.2f} M multiply-adds, {entry['ms_per_100']:.1f} ms per 100 images"
        yield Row(shape, text, "", None)
        if "multiply_adds_against" in entry:
            text = f"{entry['multiply_adds_ratio']:.2f}× the multiply-adds, {entry['ms_per_100_ratio']:.2f}× the time"
            wins = entry["multiply_adds_ratio"] < 1 and entry["ms_per_100_ratio"] < 1
            yield Row(f"{shape}: over the cheapest dense network as accurate", text, "< 1", wins)
        if "deleted_chosen" in entry:
            text = f"{100 * entry['deleted_chosen']:.1f} % against {100 * entry['deleted_others']:.1f} %"
            faithful = entry["deleted_chosen"] < entry["deleted_others"]
            yield Row(f"{shape}: accuracy after deletion of chosen against other blocks", text, "lower", faithful)
        if "verdict" in entry:
            yield Row(f"{shape}: against dense ones", entry["verdict"], "", None)
