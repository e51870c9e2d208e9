"""Running statistics keep their proportion at any λ: a channel in small units is not lost beside one in large ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import evocompress
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe


def norms() -> nn.Sequential:
    """A normalisation whose channels have units from 1e-5 to 1e3, one dead channel, and another of one size."""
    model = nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4))
    first, second = model[0], model[2]
    units = 10.0 ** torch.tensor([-5.0, -3.0, -1.0, 1.0, 3.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    assert isinstance(first, nn.BatchNorm2d) and isinstance(second, nn.BatchNorm2d)
    assert first.running_mean is not None and first.running_var is not None and second.running_mean is not None
    first.running_mean.copy_(units * (1 + torch.rand(6, generator=generator)))
    first.running_var.copy_((units * (1 + torch.rand(6, generator=generator))).square())
    first.running_var[5] = 0.0
    second.running_mean.copy_(torch.randn(4, generator=generator))
    return model


@pytest.mark.parametrize("rate_weight", [1e-5, 1e-3, 1e-1])
@pytest.mark.parametrize("kind", ["preset", "recipe", "bare", "nameless"])
def test_means_and_variances_keep_their_proportion(rate_weight: float, kind: str) -> None:
    state = norms().state_dict()
    named, shaped = kind not in ("bare", "nameless"), kind != "bare"
    recipe = preset("fast", rate_weight) if kind == "preset" else Recipe(rate_weight, names=named, shapes=shaped)
    decoded = evocompress.unpack(evocompress.pack(state, recipe), names=state)
    for layer in ("0", "2"):
        mean, variance = (state[f"{layer}.running_{leaf}"].double() for leaf in ("mean", "var"))
        off = (decoded[f"{layer}.running_mean"] - mean).abs() / variance.sqrt()
        assert off[variance > 0].max() <= 0.2501
        assert ((decoded[f"{layer}.running_var"] - variance).abs() / (variance + 1e-5)).max() <= 0.2501


def test_where_nothing_is_out_of_proportion_nothing_changes() -> None:
    model = nn.BatchNorm1d(5)
    state = model.state_dict()
    renamed = {name.replace("running_", "walking_"): tensor for name, tensor in state.items()}
    assert len(evocompress.pack(state, Recipe(1e-4, names=False))) == len(
        evocompress.pack(renamed, Recipe(1e-4, names=False))
    )


def test_statistics_under_a_lossless_rule_stay_as_they_are() -> None:
    from evocompress.checkpoint.recipe import Rule

    state = norms().state_dict()
    decoded = evocompress.unpack(evocompress.pack(state, Recipe(1.0, (Rule("*running*", ("lossless",)),))))
    assert all(torch.equal(decoded[name], state[name]) for name in state if "running" in name)
