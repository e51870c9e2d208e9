"""Over-provisioned convolutions for calibration: their shared kernel."""

from __future__ import annotations

from torch import nn

from evocompress.calibration.layer_views.base import LayerViewBase
from evocompress.calibration.layer_views.convolution import observe_kernel
from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d
from evocompress.protocols import Add, Call

__all__ = ["OverProvisionedView"]


class OverProvisionedView(LayerViewBase):
    """The shared kernel is a convolution of padded images; what is not shared has no matrix of its own."""

    kinds = (OverProvisionedConv2d,)

    def observe(self, module: OverProvisionedConv2d, call: Call, add: Add) -> None:
        """Report the shared kernel."""
        kernel, genes = module.kernel, module.genes
        if kernel is None or module._margins is None:
            return
        outputs, inputs, *places = kernel.shape
        plain = nn.Conv2d(
            inputs * genes.groups,
            outputs,
            (places[0], places[1]),
            genes.stride or 1,
            dilation=genes.dilation,
            groups=genes.groups,
            device="meta",
        )
        observe_kernel(plain, kernel, nn.functional.pad(call.first, module._margins), call, add)
