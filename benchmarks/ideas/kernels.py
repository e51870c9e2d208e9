"""Accuracy of `evocompress kernels` on kernels whose class is known: the tables of docs/kernels.md.

    python -m benchmarks.ideas.kernels right [--draws 200]
    python -m benchmarks.ideas.kernels row [--draws 200]
    python -m benchmarks.ideas.kernels confidence [--draws 60]
    python -m benchmarks.ideas.kernels noise [--draws 2000]
    python -m benchmarks.ideas.kernels time [--draws 1000]
    python -m benchmarks.ideas.kernels picture --output docs/kernels_compared.png

`right`: per cent of the kernels of each kind that get their class and order, by size and by noise, which is in norms of
the kernel, and the median error of the angle in degrees; random angles, signs, scales. Of 11×11, 60 are drawn at most.
`row`: the same of kernels of one row. `confidence`: of all kernels with a class, by confidence, how many are right
(3×3 to 7×7, noise of .2 to 1, `--draws` of each kind, size and noise). `noise`: per cent of kernels of white Gaussian
and of Laplace noise that get a class. `time`: seconds for so many kernels of Gaussian noise (100 at most from 21×21
on) once what depends on the size alone is there, for the first five without it, and the memory of the process, on one
thread. `picture`: kernels of 11×11 of each kind with 25 % of noise, before and after `pack`, with a zone plate
filtered by each. Prints one JSON line for each size and kind, or size, or range of confidences, or picture; of `right`
also one for all sizes together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ideas.known_kernels import KINDS, ORIENTED, ROW_KINDS, Floats, draws, row_draws
from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.recipe import Recipe
from evocompress.ideas.kernels.classify import Kernel, classify

__all__ = ["confidence_rows", "noise_rows", "picture_row", "right_rows", "right_summary", "row_rows", "time_rows"]

_SIZES = (3, 5, 7, 11)
_LENGTHS = (7, 9, 11, 15)
_NOISE = (0.0, 0.2, 0.4)
#: What sizes have no room for: not counted among the right or wrong.
_UNCLEAR = {
    3: (
        "second derivative of a Gaussian",
        "elongated Gaussian",
        "difference of Gaussians",
        "Gabor function",
        "Gabor function, wide window",
    ),
    5: ("difference of Gaussians", "Gabor function, wide window"),
}
#: Their like is in the picture already.
_NOT_PICTURED = ("Gabor function, wide window", "second Sobel")
_PICTURE_NOISE, _PICTURE_RATE = 0.25, 3e-3
_EDGES = (0.0, 0.5, 0.7, 0.9, 0.99, 1.01)
_ODD_SIZES = ((1, 2), (1, 3), (1, 5), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (11, 11))


def _is_right(kernel: Kernel, kind: str) -> bool:
    return (kernel.kernel_class, kernel.order) == KINDS[kind]


def _angle_error(kernels: Sequence[Kernel], kind: str, degrees: Floats) -> float | None:
    """The median, in degrees, of those that are right."""
    errors = [
        abs((kernel.orientation_degrees - truth + 90) % 180 - 90)
        for kernel, truth in zip(kernels, degrees, strict=True)
        if _is_right(kernel, kind) and kernel.orientation_degrees is not None
    ]
    return round(float(np.median(errors)), 1) if errors else None


def right_rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each kind and size: per cent right at each level of noise, and how far off the angle is."""
    for kind in KINDS:
        for size in _SIZES:
            row: dict[str, Any] = {"kind": kind, "size": size, "noise": _NOISE, "right_percent": []}
            if kind in ORIENTED:
                row["angle_error_degrees"] = []
            for noise in _NOISE:
                kernels, degrees = draws(size, kind, noise, min(count, 60) if size > 7 else count, 9)
                classified = classify(kernels)
                row["right_percent"].append(round(100 * np.mean([_is_right(kernel, kind) for kernel in classified])))
                if kind in ORIENTED:
                    row["angle_error_degrees"].append(_angle_error(classified, kind, degrees))
            yield row


def right_summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each kind, per cent right at each level of noise: least and mean over the sizes that can show the kind."""
    summary = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        shown = [row for row in rows if row["kind"] == kind and kind not in _UNCLEAR.get(row["size"], ())]
        percent = np.array([row["right_percent"] for row in shown])
        least, mean = percent.min(axis=0).tolist(), percent.mean(axis=0).round(1).tolist()
        sizes = [row["size"] for row in shown]
        summary.append({"kind": kind, "sizes": sizes, "noise": _NOISE, "least_percent": least, "mean_percent": mean})
    return summary


def row_rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each kind and length of kernels of one row: per cent right at each level of noise."""
    for kind, length in itertools.product(ROW_KINDS, _LENGTHS):
        percent = []
        for noise in _NOISE:
            classified = classify(row_draws(length, kind, noise, count, 9))
            right = [(kernel.kernel_class, kernel.order) == ROW_KINDS[kind] for kernel in classified]
            percent.append(round(100 * np.mean(right)))
        yield {"kind": kind, "length": length, "noise": _NOISE, "right_percent": percent}


def confidence_rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each range of confidences: kernels with a class, mean confidence, share of them that are right."""
    judged = [
        (kernel.confidence, _is_right(kernel, kind))
        for size in _SIZES[:3]
        for kind in KINDS
        if kind not in _UNCLEAR.get(size, ())
        for noise in (0.2, 0.4, 0.6, 0.8, 1.0)
        for kernel in classify(draws(size, kind, noise, count, 4)[0])
        if kernel.kernel_class != "none"
    ]
    confidences, right = np.array(judged).T
    for low, high in zip(_EDGES, _EDGES[1:], strict=False):
        in_range = (confidences >= low) & (confidences < high)
        yield {
            "confidence": [low, min(high, 1.0)],
            "kernels": int(in_range.sum()),
            "mean_confidence": round(float(confidences[in_range].mean()), 3) if in_range.any() else None,
            "right": round(float(right[in_range].mean()), 3) if in_range.any() else None,
        }


def noise_rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each size: per cent of kernels of noise that are given a class."""
    rng = np.random.default_rng(77)
    for size in _ODD_SIZES:
        row: dict[str, Any] = {"size": size}
        for name, kernels in (
            ("Gaussian", rng.standard_normal((count, *size))),
            ("Laplace", rng.laplace(size=(count, *size))),
        ):
            row[f"{name}_percent"] = round(100 * np.mean([k.kernel_class != "none" for k in classify(kernels)]), 1)
        yield row


def time_rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each size: seconds of the first five kernels and of so many, memory of the process at its peak."""
    for size in (*_SIZES, 21, 33):
        kernels = np.random.default_rng(0).standard_normal((min(count, 100) if size > 11 else count, size, size))
        seconds = []
        for part in (kernels[:5], kernels):
            start = time.process_time()
            classify(part)
            seconds.append(round(time.process_time() - start, 2))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        row = {"size": size, "kernels": len(kernels), "cpu_seconds": seconds[1], "cpu_seconds_first": seconds[0]}
        yield {**row, "peak_mib": peak}


def picture_row(output: Path) -> dict[str, Any]:
    """Draw the gallery of the comparison; the row has the size of the file that it is with."""
    from evocompress.ideas.kernels.analysis import compare
    from evocompress.ideas.kernels.gallery_png import write_gallery_png
    from evocompress.ideas.kernels.panels import sections

    made = [draws(11, kind, _PICTURE_NOISE, 3, 1)[0] for kind in KINDS if kind not in _NOT_PICTURED]
    made = [kernels / np.linalg.norm(kernels, axis=(1, 2), keepdims=True) for kernels in made]
    made.append(np.random.default_rng(1).standard_normal((3, 11, 11)) / 11)
    before = {"conv.weight": np.concatenate(made)[:, None].astype(np.float32)}
    data = pack(before, Recipe(_PICTURE_RATE))
    after = unpack(data, "numpy")
    rows = compare(before, after, list(before))
    y, x = np.mgrid[:64, :64] - 31.5
    plate = np.repeat(0.5 + 0.5 * np.cos(np.pi / 64 * (x * x + y * y))[:, :, None], 3, axis=2)
    bits = round(8 * len(data) / before["conv.weight"].size, 2)
    title = f"Kernels of 11×11 with 25 % noise, before and after packing to {bits} bits per weight"
    write_gallery_png(sections(rows, before, after, image=plate, per_class=3), title, output)
    return {"kernels": len(rows), "bytes": len(data), "bits_per_weight": bits, "changed": sum(r.changed for r in rows)}


def main() -> None:
    """Print the lines of one part."""
    parts = {
        "right": (right_rows, 200), "row": (row_rows, 200), "confidence": (confidence_rows, 60),
        "noise": (noise_rows, 2000), "time": (time_rows, 1000),
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*parts, "picture"])
    parser.add_argument("--draws", type=int, default=None)
    parser.add_argument("--output", type=Path, default=Path("kernels_compared.png"))
    arguments = parser.parse_args()
    if arguments.part == "picture":
        print(json.dumps({"benchmark": "kernels_picture", **picture_row(arguments.output)}))
        return
    rows, count = parts[arguments.part]
    printed = []
    for row in rows(arguments.draws or count):
        print(json.dumps({"benchmark": f"kernels_{arguments.part}", **row}), flush=True)
        printed.append(row)
    if arguments.part == "right":
        print(json.dumps({"benchmark": "kernels_right", "summary": right_summary(printed)}))


if __name__ == "__main__":
    main()
