"""Choice of kernels to snap, and to what, by another way to the same: null spaces, one kernel at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.linalg import null_space
from torch import nn

from evocompress.codecs.symmetry_groups import groups
from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.symmetry.snap import snap

Floats = npt.NDArray[np.float64]


class _Best(NamedTuple):
    gain: float
    kernels: list[Floats]  # all that are as good


def best(kernel: Floats, dropped: npt.NDArray[np.bool_], energy: float, price: float) -> _Best:
    """The best symmetric kernels that are zero where places are dropped."""
    found = list[tuple[float, Floats]]()
    for name, symmetry in groups(3, 3).items():
        if name != "none":
            space = symmetry.basis.T @ null_space(symmetry.basis.T[dropped]) if symmetry.n_free else np.zeros((9, 0))
            snapped = space @ (space.T @ kernel)
            lost = float(((kernel - snapped) ** 2).sum())
            found.append((price * (1 - space.shape[1] / 9) - lost / energy, snapped))
    gain = max(gain for gain, _ in found)
    return _Best(gain, [snapped for other, snapped in found if other > gain - 1e-9])


def layers(keep: float) -> tuple[OverProvisionedConv2d, nn.Conv2d]:
    """Two layers in which kernels' energies are spread differently."""
    torch.manual_seed(3)
    first = OverProvisionedConv2d(2, 8, ConnectionPlan(kernel=3), in_size=(8, 8))
    second = nn.Conv2d(8, 4, 3)
    with torch.no_grad():
        second.weight *= torch.linspace(0.1, 3, 8)[:, None, None] ** 2
    first.thin(keep)
    return first.double(), second.double()


@pytest.mark.parametrize("price", [1.0, 0.4])
@pytest.mark.parametrize("keep", [1.0, 0.9, 0.6])
def test_kernels_that_gain_most_take_their_best_symmetry(keep: float, price: float) -> None:
    first, second = layers(keep)
    model = nn.Sequential(first, second)
    before = {name: model.get_parameter(name).detach().numpy().copy() for name in ("0.kernel", "1.weight")}
    expected = dict[tuple[str, int], _Best]()
    for name, weight in before.items():
        kernels = weight.reshape(-1, 9)
        energy = (kernels**2).sum(axis=1).mean()
        for number, values in enumerate(kernels):
            expected[name, number] = best(values, (values == 0) & (name == "0.kernel"), energy, price)
    frozen = snap(model, 0.5, price=price)
    kernel = first.weights()[0]
    assert kernel is not None
    computed = {"0.kernel": kernel, "1.weight": second.weight}
    limit = sorted((one.gain for one in expected.values()), reverse=True)[len(expected) // 2 - 1]
    for (name, number), one in expected.items():
        found = computed[name].detach().numpy().reshape(-1, 9)[number]
        if abs(one.gain - limit) > 1e-9:
            assert frozen.masks[name].flatten()[number] == (one.gain > limit)
        if frozen.masks[name].flatten()[number]:
            assert any(np.allclose(found, snapped, atol=1e-7) for snapped in one.kernels)
        else:
            assert np.array_equal(found, before[name].reshape(-1, 9)[number])
    assert frozen.fraction == 0.5
