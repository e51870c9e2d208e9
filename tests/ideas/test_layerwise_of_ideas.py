"""Layers of this package in calibrated packing: what is known of their factors makes files better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evocompress import pack
from evocompress.calibration.output_change import OutputChange
from evocompress.checkpoint.presets import preset
from evocompress.codecs import Sensitivity
from evocompress.data import Examples
from evocompress.ideas.connections import OverProvisionedConv2d
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.linearconv import LinearConv2d
from evocompress.ideas.linearconv.layer_view import LinearConvView
from evocompress.packer.calibrated import Calibration, calibrate, pack_calibrated
from evocompress.protocols import Call

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


@pytest.mark.parametrize("shares", [{"alpha": 0.5}, {"alpha": 0.25, "rank": 0.5}, {"alpha": 0.5, "sparsity": 0.5}])
@pytest.mark.parametrize("mixed", [False, True])
def test_what_is_known_of_factors_makes_up_their_gradients(shares: dict[str, Any], mixed: bool) -> None:
    """One example, one position: a gradient is then an output's gradient times what that output sees."""
    torch.manual_seed(0)
    layer = LinearConv2d(4, 16, 3, groups=2, **shares)
    if mixed:
        order = torch.cat([torch.randperm(8) < layer.primaries for _ in range(2)])
        layer.is_primary = order
    images, made = torch.randn(1, 4, 3, 3), dict[Tensor, Tensor]()

    def add(parameter: Tensor, rows: Tensor, squares: Tensor | None = None, seen: int = 0) -> None:
        assert squares is not None and rows.shape[:2] == (2, 1)
        made[parameter] = squares.reshape(2, -1, 1) * rows.square()

    output = layer(images)
    LinearConvView().observe(layer, Call((images,), {}, output), add)
    (output * torch.randn_like(output)).sum().backward()
    factors = {name: parameter for name, parameter in layer.named_parameters() if name != "bias"}
    assert set(made) == set(factors.values())
    for name, parameter in factors.items():
        assert parameter.grad is not None
        expected = parameter.grad.square().reshape(made[parameter].shape)
        torch.testing.assert_close(made[parameter], expected, msg=name)


def test_layer_by_layer_is_better_than_all_at_once() -> None:
    found = calibrated("combined filters")
    recipes = preset("balanced", 1e-3, layerwise=True), preset("balanced", 1e-3, calibrated=True)
    assert pack_calibrated(found.model.state_dict(), recipes[0], found, one_shot=recipes[1]).layerwise
