"""A GPU against the CPU: the same numbers, what the rate term costs a training step, and segments beside each other.

    python -m benchmarks.training.gpu [--device cpu] [--quick]

In three stages, each with a time limit, together less than eight minutes:

- checks: rate term, dead parts, calibration, terms of the loss, mixed precision, whole segments, within tolerances
  (benchmarks/training/gpu_checks.py)
- steps: milliseconds of a training step of ResNet-20 at batch 128, plain and with the rate term, in float32 and in
  mixed precision: medians over rounds in which the four take turns
- at once: images per second of 1, 2 and 4 processes that train ResNet-20 on one GPU with the rate term, and how busy
  the GPU says it is

Prints one JSON line, and fails where a check does. Without a GPU it says so, and prints none. With `--device cpu` it
compares the CPU with itself; `--quick` takes small networks and few steps. Nothing is downloaded; Ray, constriction,
PyWavelets, pydantic and platformdirs need not be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import platform
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from benchmarks.training.gpu_checks import Place
    from evocompress.data import Examples

__all__ = ["at_once", "checks", "steps"]

#: Seconds that a stage may take.
_LIMITS = {"checks": 180, "steps": 90, "at_once": 180}
_STEPS = 40  # of an epoch
_EVERY = 0.25  # seconds between looks at how busy the GPU is


class _Late(BaseException):
    """A stage's time is up. No `except Exception` on the way must catch it."""


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise `_Late` inside once the time is up; in the main thread only."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise _Late(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _rounded(value: float) -> float | None:
    return float(f"{value:.3g}") if math.isfinite(value) else None


def checks(place: Place, results: dict[str, Any]) -> None:
    """Fill `results` with each check: whether it passed, and by name what differs, and how much it may."""
    from benchmarks.training.gpu_checks import CHECKS

    results |= {name: {"passed": False, "error": "not reached"} for name in CHECKS}
    for name, check in CHECKS.items():
        results[name]["error"] = "not finished"
        started = time.perf_counter()
        try:
            measures = check(place)
        except Exception as error:
            results[name] = {"passed": False, "error": f"{type(error).__name__}: {error}"}
            continue
        passed = all(value <= most for value, most in measures.values())  # not where one is NaN
        results[name] = {
            "passed": passed,
            "seconds": round(time.perf_counter() - started, 1),
            "found": {what: [_rounded(value), most] for what, (value, most) in measures.items()},
        }


def _examples(place: Place) -> Examples:
    """An epoch of CIFAR-shaped images, which training crops and mirrors."""
    import torch

    from evocompress.data import Examples

    draws = torch.Generator().manual_seed(0)
    count = _batch(place) * (2 if place.quick else _STEPS)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=draws, dtype=torch.uint8)
    labels = torch.randint(10, (count,), generator=draws)
    return Examples(pixels, labels, (127.5,), (74.0,), "crop-flip").to(place.device)


def _batch(place: Place) -> int:
    return 8 if place.quick else 128


def _trainer(place: Place, *, rate: bool, precision: str = "float32") -> Callable[[int], float]:
    """A function that trains a ResNet-20 for so many epochs, as a segment does, and returns the seconds of a step."""
    from evocompress.networks import build
    from evocompress.training.trainer import TrainingGenes, train

    examples, network = _examples(place), build("resnet20", place.resnet, seed=0)
    genes = TrainingGenes(rate_term="on" if rate else "off", batch_size=_batch(place))
    steps_an_epoch = len(examples) // _batch(place)

    def run(epochs: int) -> float:
        started = time.perf_counter()
        given: Any = {"device": place.device, "precision": precision, "rate_weight": 1.0 if rate else 0.0}
        train(network, examples, genes, epochs=epochs, seed=0, **given)  # its last act waits for the device
        return (time.perf_counter() - started) / (epochs * steps_an_epoch)

    return run


def steps(place: Place, results: dict[str, Any]) -> None:
    """Fill `results` with milliseconds of a step, and with what the rate term multiplies them with."""
    kinds = {
        f"{precision}, {'rate' if rate else 'plain'}": _trainer(place, rate=rate, precision=precision)
        for precision in ("float32", "bfloat16")
        for rate in (False, True)
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(1 if place.quick else 8):
        for name, run in kinds.items():
            seconds = run(1)
            if turn or place.quick:  # the first turn warms up
                times[name].append(1e3 * seconds)
        results["ms"] = {name: round(statistics.median(values), 2) for name, values in times.items() if values}
    for precision in ("float32", "bfloat16"):
        ratio = results["ms"][f"{precision}, rate"] / results["ms"][f"{precision}, plain"]
        results[f"rate over plain, {precision}"] = round(ratio, 2)


def _segment(device: str, quick: bool, epochs: int, start: Any, ended: Any) -> None:
    """What one of several processes does: warm up, wait for the others, train; it tells when it began and ended."""
    import torch

    from benchmarks.training.gpu_checks import Place

    torch.set_num_threads(1)
    run = _trainer(Place(torch.device(device), quick), rate=True)
    run(1)
    start.wait()
    began = time.monotonic()  # of the machine, so that processes can be compared
    run(epochs)
    ended.put((began, time.monotonic()))


def at_once(place: Place, results: dict[str, Any], step_ms: float) -> None:
    """Fill `results` with what 1, 2 and 4 processes do, by their number; alone one would train for about 8 seconds."""
    epochs = 1 if place.quick else min(max(round(8000 / (step_ms * _STEPS)), 2), 50)
    processes = results["processes"] = dict[str, dict[str, Any]]()
    for count in (1,) if place.quick else (1, 2, 4):
        entry = processes[str(count)] = _together(place, count, epochs)
        entry["times_one"] = round(entry["images_per_s"] / processes["1"]["images_per_s"], 2)


def _together(place: Place, count: int, epochs: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")  # CUDA does not outlive a fork
    start, ended = context.Barrier(count + 1, timeout=120), context.Queue()
    work = (str(place.device), place.quick, epochs, start, ended)
    processes = [context.Process(target=_segment, args=work, daemon=True) for _ in range(count)]
    spans: list[tuple[float, float]] = []
    busy: list[float] = []
    try:
        for process in processes:
            process.start()
        _wait_for_all(start, processes)
        while len(spans) < count:
            with contextlib.suppress(queue.Empty):
                spans.append(ended.get(timeout=_EVERY))
                continue
            if not spans and (percent := _utilisation(place)) is not None:
                busy.append(percent)  # while all of them train
            _refuse_failed(processes)
    finally:
        for process in processes:
            if process.is_alive() and len(spans) < count:
                process.terminate()
            process.join(10)
    began, end = min(span[0] for span in spans), max(span[1] for span in spans)
    trained = count * epochs * _batch(place) * (2 if place.quick else _STEPS)
    return {
        "images_per_s": round(trained / (end - began), 1),
        "seconds": round(end - began, 2),
        "utilisation_percent": round(statistics.median(busy), 1) if busy else None,
    }


def _wait_for_all(start: Any, processes: list[Any]) -> None:
    """Wait until all processes have warmed up; one that ends before would let the others wait for ever."""

    def watch() -> None:
        while not passed.wait(_EVERY):
            if any(process.exitcode for process in processes):
                start.abort()
                return

    passed = threading.Event()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        start.wait()
    except threading.BrokenBarrierError:
        _refuse_failed(processes)
        raise
    finally:
        passed.set()


def _refuse_failed(processes: list[Any]) -> None:
    codes = [process.exitcode for process in processes if process.exitcode]
    if codes:
        raise RuntimeError(f"a process that trains ended with status {codes[0]}")


def _utilisation(place: Place) -> float | None:
    """Percent of the last moments in which the GPU was computing, as its driver says; None where nobody can say."""
    if place.device.type != "cuda":
        return None
    import torch

    with contextlib.suppress(Exception):  # needs a library of its own
        return float(torch.cuda.utilization(place.device))
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return float(done.stdout.split()[place.device.index or 0])
    return None


def _stage(name: str, work: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """What a stage has found by the end, or by the end of its time; then it also has an `error`."""
    results: dict[str, Any] = {}
    started = time.perf_counter()
    try:
        with _within(_LIMITS[name]):
            work(results)
    except (Exception, _Late) as error:
        results["error"] = f"{type(error).__name__.lstrip('_')}: {error}"
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return results


def _describe(device: torch.device) -> dict[str, Any]:
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def _measure(place: Place) -> dict[str, Any]:
    """All stages; `passed` says whether all checks did, and all stages came to their end."""
    results: dict[str, Any] = {}
    with _plain_products():
        results["checks"] = _stage("checks", lambda filled: checks(place, filled))
    results["steps"] = _stage("steps", lambda filled: steps(place, filled))
    step_ms = results["steps"].get("ms", {}).get("float32, rate", 20.0)
    results["at_once"] = _stage("at_once", lambda filled: at_once(place, filled, step_ms))
    late_or_failed = [name for name, stage in results.items() if "error" in stage]
    failed = [name for name, check in results["checks"].items() if isinstance(check, Mapping) and not check["passed"]]
    return {"passed": not (late_or_failed or failed), **results}


@contextlib.contextmanager
def _plain_products() -> Iterator[None]:
    """Convolutions in float32 as such: cuDNN may use TF32, of ten bits, and does so everywhere else."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 …, or cpu")
    parser.add_argument("--quick", action="store_true", help="small networks and few steps")
    arguments = parser.parse_args()
    import torch

    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu: skipped, all of it: there is no CUDA device here (--device cpu checks the script)", file=sys.stderr)
        return
    from benchmarks.training.gpu_checks import Place

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("EVOCOMPRESS_DATA", folder)  # nothing is read from there
        results = _measure(Place(device, arguments.quick))
    print(json.dumps({"benchmark": "gpu", **_describe(device), "quick": arguments.quick, **results}))
    if not results["passed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
