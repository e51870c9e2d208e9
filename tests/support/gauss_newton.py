"""Second-order sensitivities against the Gauss-Newton matrix itself, for a small network of any kind."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from evocompress import pack, unpack
from evocompress.calibration.output_change import are_logits
from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.checkpoint.presets import preset
from evocompress.codecs import Sensitivity
from evocompress.data import Examples

__all__ = ["check_diagonal", "check_packs", "curvature"]

Floats = npt.NDArray[np.float64]


def curvature(model: nn.Module, data: Examples) -> dict[str, Floats]:
    """The diagonal of the Gauss-Newton matrix of the outputs, of logits centred ones, in each parameter's shape."""
    parameters = dict(model.named_parameters())

    def outputs(some: dict[str, Tensor], x: Tensor) -> Tensor:
        result = functional_call(model, some, (x[None],))
        result = (result["logits"] if isinstance(result, dict) else result)[0]
        counted: Tensor = (result - result.mean(-1, keepdim=True) if are_logits(data) else result).flatten()
        return counted

    found = {name: np.zeros(tuple(p.shape)) for name, p in parameters.items()}
    with sdpa_kernel(SDPBackend.MATH):  # the others cannot be vectorised
        for x in data.inputs:
            for name, jacobian in jacrev(outputs)({k: v.detach() for k, v in parameters.items()}, x).items():
                found[name] += jacobian.detach().double().square().sum(0).numpy() / len(data)
    return found


def check_diagonal(model: nn.Module, data: Examples) -> None:
    """Sensitivities have about the diagonal of the matrix, in rows and columns, and one normalisation for all."""
    exact = curvature(model, data)
    more = Examples.unlabelled(data.inputs.repeat(20, *[1] * (data.inputs.ndim - 1)))  # many directions for each
    found = second_order_sensitivities(model, more, samples=len(more), seed=0)
    ratios = []
    for tensor, diagonal in exact.items():
        sensitivity, factor = found[tensor], diagonal.mean() / 2
        if diagonal.ndim == 1 or "weight_hr" in tensor or "links" in tensor:
            assert isinstance(sensitivity, float)
            ratios.append(factor / sensitivity)
            continue
        assert isinstance(sensitivity, Sensitivity), tensor
        diagonals = np.repeat(np.einsum("gkk->gk", sensitivity.H), len(diagonal) // len(sensitivity.H), axis=0)
        mine = sensitivity.g[:, None] * diagonals / 2
        ratios.append(factor / mine.mean())
        diagonal = diagonal.reshape(mine.shape)
        for axis in (0, 1) if tensor != "embedding.weight" else (0,):  # rows of words are evened out
            one, other = mine.sum(axis) / mine.sum(), diagonal.sum(axis) / diagonal.sum()
            assert np.abs(one - other).sum() < 0.45, (tensor, axis)  # of 2 at most
    assert max(ratios) / min(ratios) < 1.6  # one normalisation for all


def check_packs(model: nn.Module, data: Examples) -> None:
    """Every float tensor has a sensitivity, and all of it packs."""
    found = second_order_sensitivities(model, data, samples=128, seed=0)
    state = model.state_dict()
    packed = pack(state, preset("fast", 1e-3, calibrated=True), sensitivities=found)
    assert found.keys() == {name for name, tensor in state.items() if tensor.is_floating_point()}
    assert state.keys() == unpack(packed).keys()
