"""Rows about kernels as JSON and CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from evocompress.ideas.kernels.analysis import KernelRow
from evocompress.ideas.kernels.shapes import Floats
from evocompress.support.atomic_files import replacing, write_bytes

__all__ = ["Scalar", "rows_as_objects", "write_csv", "write_json"]

Scalar: TypeAlias = str | int | float | bool | None


def rows_as_objects(rows: Sequence[KernelRow]) -> list[dict[str, Scalar]]:
    """Rows as flat objects; with a second file they also have `class_after`, `changed` and more."""
    return [_object(row) for row in rows]


def write_json(rows: Sequence[KernelRow], path: Path, responses: Floats | None = None) -> None:
    """Write a list of objects, one a line, whole or not at all; what is unknown or infinite is null.

    Args:
        rows: Of kernels.
        path: The file.
        responses: (rows, 17), of `response.radial_response`, to be written as `response`.
    """
    objects: list[dict[str, object]] = [{**row} for row in rows_as_objects(rows)]
    if responses is not None:
        for entry, gains in zip(objects, responses, strict=True):
            entry["response"] = [float(f"{gain:.5g}") if math.isfinite(gain) else None for gain in gains]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in objects)
    write_bytes(path, f"[\n{lines}\n]\n".encode())


def write_csv(rows: Sequence[KernelRow], path: Path) -> None:
    """Write the same as a CSV file, whole or not at all; what is unknown is empty."""
    objects = rows_as_objects(rows)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(objects[0]) if objects else ["layer"], lineterminator="\n")
        table.writeheader()
        table.writerows(objects)


def _object(row: KernelRow) -> dict[str, Scalar]:
    kernel = row.kernel
    entry: dict[str, Scalar] = {
        "layer": row.layer,
        "output": row.output,
        "input": row.input,
        "class": kernel.kernel_class,
        "order": kernel.order,
        "orientation_degrees": _rounded(kernel.orientation_degrees, 2),
        "confidence": _rounded(kernel.confidence, 4),
        "frequency": _rounded(kernel.frequency, 5),
        "bandwidth": _rounded(kernel.bandwidth, 4),
        "phase": _rounded(kernel.phase, 4),
        "r2": _rounded(kernel.r2, 5),
        "fit_orientation_degrees": _rounded(kernel.fit_orientation_degrees, 2),
        "isotropic": kernel.isotropic,
        "colour": row.colour,
        "norm": kernel.norm if math.isfinite(kernel.norm) else None,
    }
    if row.after is not None:
        entry |= {
            "class_after": row.after.kernel_class,
            "order_after": row.after.order,
            "orientation_degrees_after": _rounded(row.after.orientation_degrees, 2),
            "confidence_after": _rounded(row.after.confidence, 4),
            "norm_after": row.after.norm if math.isfinite(row.after.norm) else None,
            "changed": row.changed,
            "relative_error": _rounded(row.relative_error, 5),
        }
    return entry


def _rounded(value: float | None, digits: int) -> float | None:
    """To what is known of it."""
    return None if value is None or not math.isfinite(value) else round(value, digits)
