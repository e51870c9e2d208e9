"""Speed of the entropy coder, and how far above the adaptive entropy its bytes are: one JSON line.

A million Laplace symbols of about 2.2 bits, as one plane; one thread; medians of five. The entropy that it is held
against is the code length of the same symbols under one adaptive table over all that occur (Krichevsky-Trofimov), which
is ideal for symbols that are independent.

    python -m benchmarks.codecs.entropy_coder
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time

import numpy as np
import numpy.typing as npt

from evocompress.codecs.entropy import Decoder, Encoder

_ROUNDS = 5
_SHAPE = (1000, 1000)
_SCALE = 0.85  # of the Laplace distribution, in quantiser steps: 2.2 bits a symbol


def adaptive_entropy(symbols: npt.NDArray[np.int32]) -> float:
    """Bits of the symbols under an adaptive table that starts with half a count for each symbol that occurs."""
    counts = np.unique(symbols, return_counts=True)[1].tolist()
    k, n = len(counts), symbols.size
    nats = (
        math.lgamma(n + k / 2) - math.lgamma(k / 2) + k * math.lgamma(0.5) - sum(math.lgamma(c + 0.5) for c in counts)
    )
    return nats / math.log(2)


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    symbols = np.random.default_rng(0).laplace(0, _SCALE, _SHAPE).round().astype(np.int32)
    encoding, decoding, stream = [], [], b""
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        encoder = Encoder()
        encoder.plane(symbols, "weights")
        stream = encoder.finish()
        middle = time.perf_counter()
        decoded = Decoder(stream).plane(_SHAPE, "weights")
        end = time.perf_counter()
        assert (decoded == symbols).all()
        encoding.append(middle - begin)
        decoding.append(end - middle)
    result = {
        "benchmark": "entropy_coder",
        "symbols": symbols.size,
        "bits_per_symbol": round(8 * len(stream) / symbols.size, 4),
        "excess_percent": round(100 * (8 * len(stream) / adaptive_entropy(symbols) - 1), 4),
        "encode_msymbols_per_s": round(symbols.size / statistics.median(encoding) / 1e6, 2),
        "decode_msymbols_per_s": round(symbols.size / statistics.median(decoding) / 1e6, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
