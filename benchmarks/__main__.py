"""Run every benchmark and write RESULTS.md: `python -m benchmarks [NAME …]`. The raw JSON goes to results.json."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
#: What to run, by name: a module and its arguments.
BENCHMARKS: dict[str, list[str]] = {
    "entropy_coder": ["benchmarks.codecs.entropy_coder"],
    "search_scale": ["benchmarks.search.search_scale"],
    "large_run": ["benchmarks.search.large_run"],
    "driver_overhead": ["benchmarks.search.driver_overhead"],
    "demo": ["benchmarks.search.whole_run", "configs/digits.toml", "--name", "demo", "--seeds", "5"],
    "fashion_mnist": [
        "benchmarks.search.whole_run", "configs/fashion_mnist.toml", "--name", "fashion_mnist",
        "--set", "search.segments=16", "--set", "search.initial=4", "--set", "reference_epochs=1",
    ],
    "ablation": ["benchmarks.search.ablation"],
    "against": ["benchmarks.search.against"],
    "rate_model": ["benchmarks.training.rate_model"],
    "text_models": ["benchmarks.search.text_models", "configs/text.toml"],
    "real_networks": ["benchmarks.pack.real_networks"],
    "overfitting": ["benchmarks.search.overfitting"],
    "pack_resnet20": ["benchmarks.pack.resnet20"],
    "pack_others": ["benchmarks.pack.others"],
    "speed": ["benchmarks.codecs.speed"],
    "memory": ["benchmarks.pack.memory"],
    "ideas": [
        "benchmarks.ideas.in_search", "--ideas", "linearconv", "symmetry", "snapping", "entropy and distinct values",
        "coordinates",
    ],
    "ideas_connections": ["benchmarks.ideas.in_search", "--ideas", "connections"],
    "ideas_saccades": ["benchmarks.ideas.in_search", "--ideas", "saccades"],
    "symmetry_freeze": ["benchmarks.ideas.symmetry", "freeze", "--fractions", "0.75", "0.9", "1.0"],
    "kernels": ["benchmarks.ideas.kernels", "right", "--draws", "60"],
    "linearconv_networks": [
        "benchmarks.ideas.linearconv_networks", "--data", "fashion_mnist", "--epochs", "5", "--precision", "bfloat16",
    ],
    "linearconv_cifar10": [
        "benchmarks.ideas.linearconv_networks", "--data", "cifar10", "--epochs", "5", "--precision", "bfloat16",
    ],
    "linearconv_mnist": [
        "benchmarks.ideas.linearconv_networks", "--data", "mnist", "--epochs", "2", "--precision", "bfloat16",
    ],
    "linearconv_vgg11": [
        "benchmarks.ideas.linearconv_networks", "--networks", "vgg11", "--data", "cifar10", "fashion_mnist",
        "--seeds", "1", "--train", "20000", "--epochs", "4", "--precision", "bfloat16",
    ],
    "saccades": [
        "benchmarks.ideas.saccades", "--width", "64", "--train", "10000", "--epochs", "6", "--cost-weights", "0.05",
        "0.2", "--seeds", "2", "--sequences", "8", "--precision", "bfloat16",
    ],
    "saccades_robust": [
        "benchmarks.ideas.saccades", "--width", "32", "--train", "10000", "--epochs", "6", "--cost-weights", "0.2",
        "--consistency-weights", "1", "--sequences", "--seeds", "2", "--precision", "bfloat16",
    ],
    "saccades_canvas": [
        "benchmarks.ideas.saccades", "--canvas", "84", "--width", "32", "--train", "5000", "--epochs", "6", 
        "--cost-weights", "0.1", "0.3", "--plans", "7/7", "--sequences", "--precision", "bfloat16", "--seeds", "1",
    ],
    "gpu": ["benchmarks.training.gpu"],
}  # fmt: skip


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE.parent).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def where(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Commit, date and hardware of the run that printed these lines."""
    gpus = sorted({line["device"] for line in lines if line.get("device", "cpu") != "cpu"})
    model = next((line.split(":")[1].strip() for line in _output("lscpu").splitlines() if "Model name" in line), "")
    return {
        "commit": _output("git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"),
        "date": datetime.date.today().isoformat(),
        "hardware": f"{psutil.cpu_count()} cores ({model or platform.processor()}), "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, {', '.join(gpus) or 'no GPU used'}",
        "python": platform.python_version(),
    }


def run(name: str) -> list[dict[str, Any]]:
    """The JSON lines that a benchmark prints; none where this machine lacks what it is for."""
    command = [sys.executable, "-m", *BENCHMARKS[name]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def asked(words: Sequence[str] | None = None) -> list[str]:
    """The benchmarks that a command line names (`sys.argv` if None); all, if it names none."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run benchmarks, and write benchmarks/RESULTS.md and benchmarks/results.json.",
        epilog=f"The benchmarks: {', '.join(BENCHMARKS)}.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; default all")
    names: list[str] = parser.parse_args(words).names
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    return names or list(BENCHMARKS)


def main() -> None:
    """Run what was asked for (all by default), and write what is known by now."""
    names = asked()
    path = HERE / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        if not (lines := run(name)):
            continue  # it has said why; what is known from another machine stays
        results[name] = {**where(lines), "command": "python -m " + shlex.join(BENCHMARKS[name]), "lines": lines}
        path.write_text(json.dumps(results, indent=1) + "\n")
    from benchmarks.table import write_results

    write_results(results, HERE / "RESULTS.md")


if __name__ == "__main__":
    main()
