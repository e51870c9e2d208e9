"""The picture of the README: a front of the demo beside what one would do instead.

    evocompress run configs/digits.toml --out RUN
    python -m benchmarks.search.against --methods ladder --epochs 1400 --seeds 1 --processes 1 > AGAINST.jsonl
    python -m benchmarks.search.demo_picture RUN AGAINST.jsonl --out docs/demo_front.png

The run has one baseline of its own, to train once and then to pack. AGAINST has the other: straight trainings with the
rate in the loss, one for each λ, chosen on validation data and judged on the same images as the front. Its CPU seconds
are in the label, so that anybody sees whether they are the demo's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Draw it."""
    from evocompress.runs.front_figure import front_figure
    from evocompress.search.history import read_history
    from evocompress.support.atomic_files import replacing

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("against", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/demo_front.png"))
    options = parser.parse_args()
    history = read_history(options.run)
    lines = [json.loads(line) for line in options.against.read_text().splitlines() if line.startswith("{")]
    rows = [row for row in lines if row.get("method") == "ladder" and row["seed"] == history.run["seed"]]
    if not rows:
        raise SystemExit(f"{options.against} has no line of the method ladder and seed {history.run['seed']}")
    label = f"a training for each λ ({rows[0]['cpu_seconds']:.0f} CPU s), rate in the loss"
    files = [(int(nbytes), float(value)) for nbytes, value in rows[0]["front"]]
    with replacing(options.out) as temporary:
        front_figure(history, {label: files}).savefig(temporary, dpi=160, format="png")


if __name__ == "__main__":
    main()
