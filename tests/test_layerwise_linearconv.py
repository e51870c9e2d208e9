"""Layers of this package in calibrated packing: what is known of their factors makes files better."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import nn

from evocompress import pack
from evocompress.calibrated import Calibration, calibrate, pack_calibrated
from evocompress.codecs import Sensitivity
from evocompress.connections import ConnectionPlan
from evocompress.data import Examples
from evocompress.layers import LinearConv2d, OverProvisionedConv2d
from evocompress.output_change import OutputChange
from evocompress.presets import preset

PLAN = ConnectionPlan(kernel=3, near=0.005)
KINDS: dict[str, Callable[[], list[nn.Module]]] = {
    "combined filters": lambda: [LinearConv2d(2, 12, 3, padding=1), LinearConv2d(12, 12, 3, padding=1, alpha=0.34)],
    "of low rank": lambda: [LinearConv2d(2, 12, 3, padding=1), LinearConv2d(12, 12, 3, padding=1, rank=0.5)],
    "more connections": lambda: [OverProvisionedConv2d(n, 12, PLAN, in_size=(8, 8)) for n in (2, 12)],
}
FACTORS = ("primary", "coefficients", "coefficients_left", "coefficients_right", "kernel")


def calibrated(kind: str) -> Calibration:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first, second = KINDS[kind]()
        model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 5))
        images = torch.randn(400, 2, 8, 8)
    examples = Examples.unlabelled(images + images.roll(1, 3) + images.roll(1, 2) + 0.5)
    halves = (examples.take(torch.arange(200)), examples.take(torch.arange(200, 400)))
    return calibrate(model.eval(), *halves, samples=200, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_second_moments_of_a_layers_factors_pay(kind: str) -> None:
    found = calibrated(kind)
    state, change = found.model.state_dict(), OutputChange(found.model, found.held_out)
    matrices = [name for name, s in found.sensitivities.items() if name[0] in "02" and isinstance(s, Sensitivity)]
    assert matrices == [name for name in state if name[0] in "02" and name.split(".")[1] in FACTORS]
    scales = {n: s.scale if isinstance(s, Sensitivity) and n in matrices else s for n, s in found.sensitivities.items()}

    def packed(rate_weight: float, sensitivities: Mapping[str, float | Sensitivity]) -> tuple[int, float]:
        data = pack(state, preset("fast", rate_weight, calibrated=True), sensitivities=sensitivities)
        return len(data), change(found.decoded(data))

    nbytes, cost = packed(3e-4, found.sensitivities)
    plain = [packed(rate_weight, scales) for rate_weight in np.geomspace(3e-5, 3e-3, 15)]
    assert cost < 0.8 * min(other for size, other in plain if size <= 1.02 * nbytes)


def test_layer_by_layer_is_better_than_all_at_once() -> None:
    found = calibrated("combined filters")
    recipes = preset("balanced", 1e-3, layerwise=True), preset("balanced", 1e-3, calibrated=True)
    assert pack_calibrated(found.model.state_dict(), recipes[0], found, one_shot=recipes[1]).layerwise
