"""Wide layers: what is kept of their second moments, what that allocates, and that others are as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evocompress.calibration import moments
from evocompress.calibration.moments import blocked_columns, second_moment
from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.checkpoint.presets import preset
from evocompress.codecs import Sensitivity
from evocompress.data.examples import Examples
from evocompress.packer import layerwise
from evocompress.packer.calibrated import Calibration, calibrate, pack_calibrated
from evocompress.packer.layerwise import _Moments, _target


def network(columns: int = 150) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(columns, 12), nn.ReLU(), nn.Linear(12, 4)).eval()


def examples(n: int, columns: int = 150, seed: int = 2) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(20, columns, generator=generator)
    return Examples.unlabelled(torch.randn(n, 20, generator=generator) @ mixing / 4)


@pytest.fixture
def narrow_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "WIDE", 100)
    monkeypatch.setattr(moments, "BLOCK", 64)


def test_a_moment_in_blocks_is_the_diagonal_of_the_whole(narrow_blocks: None) -> None:
    left, right = torch.randn(2, 1, 30, 150)
    whole, parts = left[0].mT @ right[0], second_moment(left, right)
    assert parts.shape == (3, 64, 64) and blocked_columns(1, 150) == 150
    for part, first in zip(parts, (0, 64, 128), strict=True):
        size = min(64, 150 - first)
        assert torch.allclose(part[:size, :size], whole[first : first + size, first : first + size], atol=1e-5)
        assert not part[size:].any() and not part[:, size:].any()
    # With groups, or narrow, it is whole.
    assert blocked_columns(2, 150) == blocked_columns(1, 100) == 0
    assert second_moment(left.expand(2, -1, -1), right.expand(2, -1, -1)).shape == (2, 150, 150)


def test_sensitivities_of_a_wide_layer_are_blocks_of_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = second_order_sensitivities(network(), examples(64), seed=0)["0.weight"]
    monkeypatch.setattr(moments, "WIDE", 100)
    monkeypatch.setattr(moments, "BLOCK", 64)
    found = second_order_sensitivities(network(), examples(64), seed=0)
    parts = found["0.weight"]
    assert isinstance(whole, Sensitivity) and isinstance(parts, Sensitivity)
    assert parts.columns == 150 and parts.H.shape == (3, 64, 64) and parts.scale == pytest.approx(whole.scale, rel=1e-5)
    assert np.allclose(parts.H[1], whole.H[0, 64:128, 64:128], rtol=1e-4, atol=1e-5 * float(whole.H.max()))
    assert np.allclose(parts.g, whole.g, rtol=1e-4)
    small = found["2.weight"]
    assert isinstance(small, Sensitivity) and small.columns == 0 and small.H.shape == (1, 12, 12)


def test_a_layer_of_8192_columns_allocates_no_matrix_of_as_many_rows() -> None:
    columns = 8192
    sensitivities = second_order_sensitivities(network(columns), examples(64, columns), seed=0)
    wide = sensitivities["0.weight"]
    assert isinstance(wide, Sensitivity) and wide.H.shape == (8, 1024, 1024) and wide.columns == columns
    assert wide.H.nbytes <= columns**2 * 4 / 8


def test_a_target_in_blocks_is_that_of_the_whole_where_blocks_are_all_there_is(
    monkeypatch: pytest.MonkeyPatch, narrow_blocks: None
) -> None:
    monkeypatch.setattr(layerwise, "_RIDGE_PER_COLUMN", 0.0)
    weight, inputs = torch.randn(6, 150), torch.randn(1, 400, 150)
    moved = inputs + 0.2 * torch.randn(1, 400, 150)
    H, C = second_moment(moved, moved).double(), second_moment(inputs, moved).double()
    dense_H, dense_C = torch.zeros(2, 1, 192, 192, dtype=torch.float64)
    for number, part in enumerate([slice(0, 64), slice(64, 128), slice(128, 192)]):
        dense_H[0, part, part], dense_C[0, part, part] = H[number], C[number]
    dense_H, dense_C = dense_H[:, :150, :150], dense_C[:, :150, :150]
    found = _target(weight, _Moments(H, C, 400, 150))
    expected = _target(weight, _Moments(dense_H, dense_C, 400, 0))
    assert torch.allclose(found, expected, atol=1e-6) and not torch.allclose(found, weight.double(), atol=1e-2)


def packed(calibration: Calibration, rate_weight: float) -> bytes:
    state = calibration.model.state_dict()
    recipe = preset("balanced", rate_weight, layerwise=True)
    return pack_calibrated(state, recipe, calibration).data


def test_narrow_layers_have_the_bytes_that_they_had_and_wide_ones_are_nearly_as_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, held_out = examples(200), examples(100, seed=2)
    files, losses = [], []
    for wide, block in ((10**9, 64), (150, 64), (100, 64)):
        monkeypatch.setattr(moments, "WIDE", wide)
        monkeypatch.setattr(moments, "BLOCK", block)
        calibration = calibrate(network(), train, held_out, samples=200, seed=0)
        files.append(packed(calibration, 1e-3))
        losses.append(calibration.loss(files[-1]))
    assert files[0] == files[1] != files[2]
    # What blocks do not know of their neighbours costs; without any second moments it is far more.
    plain = calibrate(network(), train, held_out, samples=200, seed=0)
    numbers = {name: s.scale if isinstance(s, Sensitivity) else s for name, s in plain.sensitivities.items()}
    alone = Calibration(plain.model, plain.examples, held_out, numbers)
    others = [packed(alone, rate) for rate in np.geomspace(1e-4, 1e-2, 9)]
    assert losses[2] < min(alone.loss(data) for data in others if len(data) <= len(files[2]))
