"""A small convolutional network whose layers have more connections than a convolution."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d
from evocompress.ideas.connections.plan import ConnectionPlan, Scalar
from evocompress.networks.memory_format import channels_last

__all__ = ["ConnectedCNN"]

#: A 3×3 convolution, some of its surroundings, and a link or two to anywhere from each channel.
_PLAN: dict[str, Scalar] = {"kernel": 3, "near": 0.25, "decay": 0.5, "far": 0.002}


class ConnectedCNN(nn.Module):
    """Two over-provisioned convolutions of one plan, each with ReLU and pooled by 2, and a linear layer.

    Takes images (n, in_channels, image_size, image_size) and gives logits (n, classes). The layers have `width` and
    2·`width` channels.

    Args:
        plan: Genes of the layers' plan (`ConnectionPlan`) that are to be other than {"kernel": 3, "near": 0.25,
            "decay": 0.5, "far": 0.002}. With {"near": 0, "far": 0} the layers are plain 3×3 convolutions; with
            {"shared": False, "period": 0} they are locally connected.

    Raises:
        ModelError: `plan` has no genes, or images are smaller than 4×4 pixels.
        ConfigError: An unknown gene, one out of its range, or a plan that gives images another size.

    >>> import torch
    >>> plain = ConnectedCNN(plan={"near": 0, "far": 0})
    >>> {name: tuple(p.shape) for name, p in plain.named_parameters() if p.ndim > 1}
    {'conv1.kernel': (8, 1, 3, 3), 'conv2.kernel': (16, 8, 3, 3), 'linear.weight': (10, 784)}
    >>> ConnectedCNN()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        width: int = 8,
        plan: Mapping[str, Scalar] | None = None,
    ) -> None:
        super().__init__()
        if plan is not None and not isinstance(plan, Mapping):
            raise ModelError(f"plan is {plan!r}; it must be a table of genes, such as {{near = 0.2, far = 0.001}}")
        if image_size < 4:
            raise ModelError(f"image_size is {image_size}; this network pools twice and needs 4 pixels or more")
        genes = ConnectionPlan.from_genes({**_PLAN, **(plan or {})})
        half = image_size // 2
        self.conv1 = OverProvisionedConv2d(
            in_channels, width, genes, in_size=(image_size, image_size), out_size=(image_size, image_size)
        )
        self.conv2 = OverProvisionedConv2d(width, 2 * width, genes, in_size=(half, half), out_size=(half, half))
        self.linear = nn.Linear(2 * width * (half // 2) ** 2, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        x = nn.functional.max_pool2d(self.conv1(channels_last(images)).relu(), 2)
        x = nn.functional.max_pool2d(self.conv2(x).relu(), 2)
        logits: Tensor = self.linear(x.flatten(1))
        return logits
