"""Speed and size against NNCodec (ISO/IEC 15938-17) on 4.7 M Laplace weights: one JSON line.

Both encode one float32 matrix with dependent quantisation, from weights to bytes and back, on one thread, turn by turn
in one run; medians. Our step is set so that our squared error is NNCodec's or less. NNCodec runs in a Python of its
own, named by --peer-python or $NNCODEC_PYTHON (`pip install nncodec==2.1.3`, which needs numpy < 2); without one, only
we are measured, at a fixed step, and the line says so. `fast` is the stream alone, quantised and coded; `files` are
whole files of every preset through pack and unpack, at NNCodec's squared error (--no-files: without).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.codecs.speed_files import bracket, files
from evocompress.codecs.rans import Decoder, Encoder
from evocompress.codecs.viterbi import dequantise, trellis_quantise

_SHAPE = (2048, 2304)
_SCALE = 0.05
_PRICE = 0.3  # squared steps a bit: the best at this rate
_STEP = 0.65 * _SCALE
_RATE_WEIGHT = 3e-4  # of files, where there is no error to match
_QP = -19  # NNCodec's step: about 2.2 bits a weight
_THREADS = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}

# Run by the peer's Python: for every line that comes in, compress and decompress once.
_PEER = """
import contextlib, io, json, os, sys, tempfile, time
import numpy as np
from nncodec import nnc

weights = np.load(sys.argv[1])
for line in sys.stdin:
    setting = json.loads(line)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path, copy = os.path.join(folder, "stream.nnc"), weights.copy()
        begin = time.perf_counter()
        stream = nnc.compress(
            {"w": copy}, bitstream_path=path, qp=setting["qp"], nonweight_qp=-40, use_dq=True, opt_qp=False,
            lambda_scale=setting["lambda"], param_opt=True, return_bitstream=True,
        )
        middle = time.perf_counter()
        decoded = nnc.decompress(stream)["w"]
        end = time.perf_counter()
    error = float(((decoded.astype(np.float64) - weights) ** 2).mean())
    print(json.dumps([len(stream), error, middle - begin, end - middle]), flush=True)
"""


class Trial(NamedTuple):
    """One encoding and decoding: bytes, mean squared error, seconds."""

    nbytes: int
    error: float
    encode_s: float
    decode_s: float


def ours(weights: npt.NDArray[np.float32], step: float) -> Trial:
    """Quantise, code, decode and dequantise once."""
    begin = time.perf_counter()
    x = weights.astype(np.float64)
    x /= step
    symbols = trellis_quantise(x, _PRICE)
    encoder = Encoder()
    encoder.plane(symbols, "trellis")
    stream = encoder.finish()
    middle = time.perf_counter()
    decoder = Decoder(stream)
    decoded = dequantise(decoder.plane(weights.shape, "trellis"), step)
    decoder.finish()
    end = time.perf_counter()
    return Trial(len(stream), float(((decoded.astype(np.float64) - weights) ** 2).mean()), middle - begin, end - middle)


def peers(python: str, path: Path) -> Generator[Trial, None, None]:
    """NNCodec's trials without end: first one with its rate-distortion optimisation, then those that are timed."""
    command = [python, "-c", _PEER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **_THREADS}
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        rate_weight = 1.0
        try:
            while True:
                print(json.dumps({"qp": _QP, "lambda": rate_weight}), file=process.stdin, flush=True)
                yield Trial(*json.loads(process.stdout.readline()))
                rate_weight = 0.0
        finally:
            process.stdin.close()


def matched_step(weights: npt.NDArray[np.float32], error: float) -> float:
    """The step, to about 0.1 %, whose squared error is just `error` or less: the error goes with the step's square."""
    step = _STEP
    for _ in range(3):
        step *= (error / ours(weights, step).error) ** 0.5
    while ours(weights, step).error > error:
        step *= 0.9995
    return step


def _summary(weights: int, trials: list[Trial]) -> dict[str, Any]:
    last = trials[-1]
    return {
        "bits_per_weight": round(8 * last.nbytes / weights, 4),
        "error": float(f"{last.error / _SCALE**2:.6g}"),
        "encode_mweights_per_s": round(weights / statistics.median(trial.encode_s for trial in trials) / 1e6, 2),
        "decode_mweights_per_s": round(weights / statistics.median(trial.decode_s for trial in trials) / 1e6, 2),
    }


def _compare(weights: npt.NDArray[np.float32], python: str, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npy"
        np.save(path, weights)
        peer = peers(python, path)
        optimised, first = next(peer), next(peer)
        step = matched_step(weights, first.error)
        pairs = [(ours(weights, step), next(peer)) for _ in range(rounds)]
        peer.close()
    mine, theirs = [list(trials) for trials in zip(*pairs, strict=True)]
    step = matched_step(weights, optimised.error)
    fast, nncodec = _summary(weights.size, mine), _summary(weights.size, theirs)
    return {
        "peer_bytes": theirs[-1].nbytes,
        "peer_error": first.error,
        "fast": fast,
        "nncodec": nncodec,
        "encode_times_faster": round(fast["encode_mweights_per_s"] / nncodec["encode_mweights_per_s"], 2),
        "decode_times_faster": round(fast["decode_mweights_per_s"] / nncodec["decode_mweights_per_s"], 2),
        "bytes_ratio": round(mine[-1].nbytes / theirs[-1].nbytes, 4),
        "bytes_ratio_to_optimised": round(ours(weights, step).nbytes / optimised.nbytes, 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default=os.environ.get("NNCODEC_PYTHON", ""))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-files", action="store_true", help="only the stream of `fast`")
    arguments = parser.parse_args()
    weights = np.random.default_rng(0).laplace(0, _SCALE, _SHAPE).astype(np.float32)
    ours(weights[:64, :64], _STEP)  # compiles
    result: dict[str, Any] = {"benchmark": "speed", "weights": weights.size}
    if arguments.peer_python:
        result |= _compare(weights, arguments.peer_python, arguments.rounds)
    else:
        print("no --peer-python and no $NNCODEC_PYTHON: NNCodec is skipped", file=sys.stderr)
        result |= {"fast": _summary(weights.size, [ours(weights, _STEP) for _ in range(arguments.rounds)])}
        result["nncodec"] = "skipped"
    if not arguments.no_files:
        error = result.get("peer_error")
        around = bracket(weights, error) if error else (_RATE_WEIGHT, _RATE_WEIGHT)
        result["rate_weights"] = around
        result["files"] = files(weights, around, arguments.rounds, error)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
