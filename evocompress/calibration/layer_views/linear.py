"""Linear layers."""

from __future__ import annotations

from torch import Tensor, nn

from evocompress.calibration.layer_views.base import LayerViewBase, by_channel, flat_rows, narrow
from evocompress.protocols import Add, Call

__all__ = ["LinearView"]


class LinearView(LayerViewBase):
    """Rows of H are the inputs."""

    kinds = (nn.Linear,)

    def observe(self, module: nn.Linear, call: Call, add: Add) -> None:
        """Report the matrix."""
        if not narrow(module.weight):
            return
        inputs = call.first.detach().float()

        def backward(gradients: Tensor) -> None:
            squares = gradients.float().reshape(-1, gradients.shape[-1]).square().sum(dim=0)
            add(module.weight, flat_rows(inputs), squares)

        call.output.register_hook(backward)

    def rows(self, module: nn.Linear, inputs: Tensor, every: int = 1) -> Tensor | None:
        """The inputs, all of them."""
        return flat_rows(inputs)

    def channels(self, module: nn.Linear, outputs: Tensor) -> Tensor | None:
        """Outputs by feature."""
        return by_channel(outputs, module.out_features, last=True)
