"""Closed-loop allocation, and the change of outputs by which it judges."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from evocompress import pack, unpack
from evocompress.calibration.output_change import OutputChange
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe
from evocompress.codecs import Sensitivity
from evocompress.data import Examples
from evocompress.packer.allocation import _corrected, _Slope, allocate
from evocompress.packer.calibrated import Calibration, calibrate
from evocompress.packer.layerwise import layerwise_records


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5),
        ).eval()  # fmt: skip


def examples(n: int, seed: int) -> Examples:
    images = torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Examples(images, torch.zeros(n, dtype=torch.int64))


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(network(), examples(300, 2), examples(200, 3), samples=300, seed=0)


def misled(calibration: Calibration, name: str, factor: float) -> Calibration:
    """One in which a tensor's errors seem to cost more than they do."""
    sensitivities = dict(calibration.sensitivities)
    wrong = sensitivities[name]
    assert isinstance(wrong, Sensitivity)
    sensitivities[name] = wrong.scaled(factor)
    return dataclasses.replace(calibration, sensitivities=sensitivities)


def file(calibration: Calibration, recipe: Recipe, layerwise: bool) -> tuple[int, float]:
    """Bytes, and change of the outputs on examples that nobody has seen."""
    model, other = network(), network()
    state, sensitivities = model.state_dict(), calibration.sensitivities
    records = layerwise_records(model, state, recipe, calibration.examples, sensitivities) if layerwise else None
    data = pack(state, recipe, sensitivities=sensitivities, records=records)
    other.load_state_dict(unpack(data))
    return len(data), OutputChange(model, examples(500, 9))(other)


@pytest.mark.parametrize("layerwise", [True, False])
def test_a_wrong_sensitivity_is_found_and_corrected(calibration: Calibration, layerwise: bool) -> None:
    wrong = misled(calibration, "4.weight", 30.0)
    recipe = preset("balanced", 3e-4, calibrated=True, layerwise=layerwise)
    shares: list[float] = []
    state = network().state_dict()
    right = allocate(wrong, state, recipe, layerwise=layerwise, rounds=2, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    (bytes_before, before), (bytes_after, after) = (file(c, recipe, layerwise) for c in (wrong, right))
    # At equal change a file of a weight's w bits shrinks with a third of the log of the change, or thereabouts.
    assert bytes_after * after**0.33 < 0.95 * bytes_before * before**0.33
    scales = {name: _scale(right, name) / _scale(wrong, name) for name in ("0.weight", "2.weight", "4.weight")}
    assert scales["4.weight"] < min(scales["0.weight"], scales["2.weight"])


def _scale(calibration: Calibration, name: str) -> float:
    value = calibration.sensitivities[name]
    return value.scale if isinstance(value, Sensitivity) else value


def test_the_rate_weight_keeps_its_meaning(calibration: Calibration) -> None:
    state = network().state_dict()
    recipe = preset("balanced", 1e-3, calibrated=True)
    right = allocate(calibration, state, recipe, layerwise=False, rounds=1)
    names = [name for name in state if isinstance(calibration.sensitivities[name], Sensitivity)]
    logs = [np.log(_scale(right, name) / _scale(calibration, name)) * state[name].numel() for name in names]
    assert sum(logs) == pytest.approx(0, abs=1e-6)
    untouched = set(state) - set(names)
    assert all(right.sensitivities[name] == calibration.sensitivities[name] for name in untouched)


def test_a_small_budget_takes_tensors_together(calibration: Calibration) -> None:
    state = network().state_dict()
    recipe = preset("balanced", 1e-3, calibrated=True)
    right = allocate(misled(calibration, "0.weight", 20.0), state, recipe, layerwise=False, rounds=1, evaluations=2)
    factors = {n: _scale(right, n) / _scale(calibration, n) for n in ("2.weight", "0.weight")}
    assert factors["0.weight"] / 20 == pytest.approx(factors["2.weight"])  # both are in the first group


def test_no_round_changes_nothing(calibration: Calibration) -> None:
    recipe = preset("balanced", 1e-3, calibrated=True)
    same = allocate(calibration, network().state_dict(), recipe, layerwise=False, rounds=0)
    assert same.sensitivities == calibration.sensitivities


def test_slopes_that_say_nothing_correct_nothing() -> None:
    """Coding more coarsely may save no byte of so small a network, or change nothing of what is measured."""
    factors = {"0.weight": 2.0, "2.weight": 0.5}
    for slopes in (
        [_Slope(("0.weight",), 0, 1.0), _Slope(("2.weight",), 0, 2.0)],
        [_Slope(("0.weight",), 8, 0.0), _Slope(("2.weight",), 9, 0.0)],
        [_Slope(("0.weight",), -3, 1.0), _Slope(("2.weight",), 1, 2.0)],
    ):
        assert _corrected(factors, slopes, {}) == factors
