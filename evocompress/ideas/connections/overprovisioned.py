"""Layers with more potential connections than will be used: a plan says which, training thins them.

The weights of connections that the plan does not have do not exist. `thin` drops the weakest that are left (magnitude
pruning: Han et al., 2015), so a loop of training and thinning finds out which connections are worth their bytes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evocompress.errors import ConfigError, ModelError
from evocompress.ideas.connections.checks import checked_plan, lengths
from evocompress.ideas.connections.overprovisioned_base import OverProvisioned
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.connections.planned_layer import Shape

__all__ = ["OverProvisionedConv2d", "OverProvisionedLinear", "hold", "thin"]


class OverProvisionedLinear(OverProvisioned):
    """A dense layer that has the connections of a plan.

    Args:
        in_features, out_features: As for `torch.nn.Linear`.
        plan: The plan.
        in_shape, out_shape: How features lie in space, (channels, *places); None: they do not, and the plan's density
            at distance 0 holds for all of them.
        bias: Whether outputs have a bias, one for each channel of `out_shape`.
        device, dtype: Of the parameters.

    Raises:
        ModelError: A shape has another number of places than there are features.
        ConfigError: As for `OverProvisioned`.

    >>> layer = OverProvisionedLinear(784, 500, ConnectionPlan(kernel=0, near=0.1, shared=False))
    >>> layer.n_values, layer(torch.zeros(2, 784)).shape
    (39106, torch.Size([2, 500]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        plan: ConnectionPlan,
        *,
        in_shape: Shape | None = None,
        out_shape: Shape | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, shape, features in (("in", in_shape, in_features), ("out", out_shape, out_features)):
            if shape is None:
                continue
            if math.prod(lengths(f"{name}_shape", shape, "(channels,) and up to two lengths", range(1, 4))) != features:
                raise ModelError(
                    f"{name}_shape is {shape} and {name}_features is {features}; the shape must have as many places"
                )
        self.in_features, self.out_features = in_features, out_features
        shapes = tuple(out_shape or (out_features,)), tuple(in_shape or (in_features,))
        super().__init__(plan, *shapes, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features)."""
        if x.shape[-1:] != (self.in_features,):
            raise ModelError(f"input is {tuple(x.shape)}; its last dimension must be {self.in_features}")
        y = super().forward(x.reshape(-1, *self.in_shape))
        return y.reshape(*x.shape[:-1], self.out_features)


class OverProvisionedConv2d(OverProvisioned):
    """A convolution with further connections, or one without shared weights, as the plan says.

    Args:
        in_channels, out_channels: As for `torch.nn.Conv2d`. Kernel, stride, padding, dilation and groups are genes.
        plan: The plan.
        in_size: (height, width) of the images; the layer takes no others.
        out_size: (height, width) of what comes out; None: all that the stride gives, or `in_size` with stride 0.
        bias: Whether every channel has a bias.
        device, dtype: Of the parameters.

    Raises:
        ConfigError: As for `OverProvisioned`.

    >>> layer = OverProvisionedConv2d(3, 8, ConnectionPlan(kernel=3, near=0.2, far=0.001), in_size=(16, 16))
    >>> layer(torch.zeros(2, 3, 16, 16)).shape, tuple(layer.kernel.shape), layer.links.numel()
    (torch.Size([2, 8, 16, 16]), (8, 3, 3, 3), 131)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        plan: ConnectionPlan,
        *,
        in_size: tuple[int, int],
        out_size: tuple[int, int] | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        images = lengths("in_size", in_size, "(height, width)", (2,))
        size = checked_plan(plan).out_size(images) if out_size is None else out_size
        if out_size is None and 0 in size:
            raise ConfigError(
                f"in_size is {in_size}, and a window of {plan.window(2)} with padding {plan.padding} and dilation "
                f"{plan.dilation} does not fit into it. Set padding, or stride to 0, or take larger images."
            )
        shapes = (out_channels, *lengths("out_size", size, "(height, width)", (2,))), (in_channels, *images)
        super().__init__(plan, *shapes, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, *in_size) to (n, out_channels, *out_size)."""
        if x.ndim != 4 or tuple(x.shape[1:]) != self.in_shape:
            raise ModelError(f"input is {tuple(x.shape)}; this layer takes (n, {', '.join(map(str, self.in_shape))})")
        return super().forward(x)


def thin(module: nn.Module, keep: float) -> tuple[int, int]:
    """Thin every over-provisioned layer of a network (or the one that it is) by itself: `OverProvisioned.thin`.

    Returns:
        How many weights are left, and how many there were to begin with.

    Raises:
        ModelError: `keep` is no share in [0, 1], or there is no such layer.

    >>> thin(OverProvisionedLinear(784, 500, ConnectionPlan(kernel=0, near=0.1, shared=False)), keep=0.25)
    (9777, 39106)
    """
    layers = _layers(module)
    return sum(layer.thin(keep) for layer in layers), sum(layer.n_values for layer in layers)


def hold(module: nn.Module) -> int:
    """Take zeros for dropped in every over-provisioned layer of a network: `OverProvisioned.hold`.

    Returns:
        How many weights are left.

    Raises:
        ModelError: There is no such layer.
    """
    return sum(layer.hold() for layer in _layers(module))


def _layers(module: nn.Module) -> list[OverProvisioned]:
    layers = [layer for layer in module.modules() if isinstance(layer, OverProvisioned)]
    if not layers:
        kind = type(module).__name__
        raise ModelError(f"{kind} has no OverProvisionedLinear or OverProvisionedConv2d in it, so nothing to thin")
    return layers
