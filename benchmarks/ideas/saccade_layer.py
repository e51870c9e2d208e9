"""One saccade layer against dense convolutions: milliseconds for 100 images, by the share of blocks that get 3×3.

    python -m benchmarks.ideas.saccade_layer [--layers 16,4,2 32,4,2 64,4,2 64,7,7] [--size 28] [--images 100]
        [--device cpu] [--threads 1]

Each of `--layers` is a number of channels, the side of a block and the gate's reduction. Which blocks are chosen is
drawn for each image; the gate runs, and its answer is then replaced. Time is the least of nine, the forms of a layer
taking turns; channels lie last in memory, as in our networks. Prints a JSON line for each layer.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.ideas.saccades.saccade import SaccadeConv2d
from evocompress.support.threads import limit_threads

__all__ = ["layer_times"]

_LAYERS = ("16,4,2", "32,4,2", "64,4,2", "64,7,7")
_SHARES = (0.1, 0.25, 0.5, 1.0)
_REPEATS = 9


def layer_times(channels: int, block: int, reduction: int, images: Tensor) -> dict[str, float]:
    """Milliseconds for all the images (n, channels, h, w), by what is computed: dense, or a share of the blocks."""
    forms: dict[str, nn.Module] = {
        f"dense {side}×{side}": nn.Conv2d(channels, channels, side, padding=side // 2) for side in (3, 5)
    }
    for share in _SHARES:
        layer = SaccadeConv2d(channels, channels, block=block, reduction=reduction)
        layer.gate.register_forward_hook(_choosing(share))
        forms[f"{share:.0%}"] = layer
    least = dict.fromkeys(forms, math.inf)
    with torch.inference_mode():
        for turn in range(_REPEATS + 1):
            for name, form in forms.items():
                seconds = _seconds(form.to(images.device).eval(), images)
                if turn:  # the first one warms up
                    least[name] = min(least[name], seconds)
    return {name: round(1e3 * seconds, 2) for name, seconds in least.items()}


def _choosing(share: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook on a gate: of each image this share of the blocks gets 3×3, the others nothing."""

    def hook(_gate: nn.Module, _inputs: Any, logits: Tensor) -> Tensor:
        draws = torch.Generator().manual_seed(0)
        count, _, rows, columns = logits.shape
        ranks = torch.rand(count, rows * columns, generator=draws).argsort(1).argsort(1)
        chosen = (ranks < round(share * rows * columns)).view(count, rows, columns).to(logits)
        return torch.stack([1 - chosen, chosen, torch.zeros_like(chosen)], 1)

    return hook


def _seconds(form: nn.Module, images: Tensor) -> float:
    began = time.perf_counter()
    form(images)
    if images.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Time each layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="*", default=_LAYERS, metavar="CHANNELS,BLOCK,REDUCTION")
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    for layer in arguments.layers:
        channels, block, reduction = map(int, layer.split(","))
        torch.manual_seed(0)
        images = torch.randn(arguments.images, channels, arguments.size, arguments.size, device=arguments.device)
        images = images.contiguous(memory_format=torch.channels_last)
        row = {"benchmark": "saccade_layer", "layer": layer, "device": arguments.device}
        print(
            json.dumps(row | {"milliseconds": layer_times(channels, block, reduction, images)}, ensure_ascii=False),
            flush=True,
        )


if __name__ == "__main__":
    main()
