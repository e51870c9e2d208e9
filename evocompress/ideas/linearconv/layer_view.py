"""LinearConv layers for calibration: primary filters, and the coefficients of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from evocompress.calibration.layer_views.base import LayerViewBase, narrow
from evocompress.calibration.layer_views.convolution import batched, patches
from evocompress.ideas.linearconv.linear_conv import LinearConv2d
from evocompress.protocols import Add, Call

__all__ = ["LinearConvView"]


class LinearConvView(LayerViewBase):
    """Primary filters are those of a convolution, coefficients linear layers on what these give.

    A primary filter gets the gradients of its own output and, through the coefficients, of all that it is part of.
    """

    kinds = (LinearConv2d,)

    def observe(self, module: LinearConv2d, call: Call, add: Add) -> None:
        """Report primary filters and coefficients."""
        if not narrow(module.primary):
            return
        groups, outputs = module.geometry.groups, module.geometry.out_channels
        plain = module.geometry.module(bias=False, device=torch.device("meta"), dtype=torch.float32)
        inputs = batched(plain, call.first)
        filters = module.primary.detach().float().reshape(groups, module.primaries, -1)
        first = torch.arange(outputs, device=inputs.device) % (outputs // groups) < module.primaries
        is_primary = first if module.is_primary is None else module.is_primary
        chain = _coefficients(module)

        def backward(gradients: Tensor) -> None:
            flat = gradients.float().reshape(len(inputs), outputs, -1).transpose(0, 1).reshape(outputs, -1)
            above = flat[~is_primary].reshape(groups, outputs // groups - module.primaries, -1)
            squares: list[Tensor] = []
            for _, matrix in reversed(chain):
                squares.insert(0, above.square().sum(dim=2).flatten())
                above = matrix.mT @ above
            below = flat[is_primary].reshape(groups, module.primaries, -1)
            below = below + above if chain else below
            rows = patches(plain, inputs)
            add(module.primary, rows, below.square().sum(dim=2).flatten())
            rows = rows @ filters.mT
            for (parameter, matrix), g in zip(chain, squares, strict=True):
                add(parameter, rows, g)
                rows = rows @ matrix.mT

        call.output.register_hook(backward)


def _coefficients(module: LinearConv2d) -> list[tuple[Tensor, Tensor]]:
    """The matrices (groups, O, K) that primary filters' outputs go through in turn, each after its parameter."""
    shapes = (
        (module.coefficients, module.primaries),
        (module.coefficients_right, module.primaries),
        (module.coefficients_left, module.components),
    )
    return [
        (parameter, module._sparse(parameter).detach().float().reshape(module.geometry.groups, -1, columns))
        for parameter, columns in shapes
        if parameter is not None
    ]
