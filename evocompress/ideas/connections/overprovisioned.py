"""Layers with more potential connections than will be used: a plan says which, training thins them.

The weights of connections that the plan does not have do not exist. `thin` drops the weakest that are left (magnitude
pruning: Han et al., 2015), so a loop of training and thinning finds out which connections are worth their bytes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.errors import ConfigError, FormatError, ModelError
from evocompress.ideas.connections.drawing import (
    Connections,
    Shape,
    check_fits,
    checked_plan,
    connect,
    lengths,
    origins,
)
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.connections.product import Product

__all__ = ["OverProvisioned", "OverProvisionedConv2d", "OverProvisionedLinear", "hold", "stored_plan", "thin"]

#: Places of an image with its padding, from which on a kernel is computed connection by connection.
_LARGEST_PADDED = 1 << 16


class OverProvisioned(nn.Module):
    """What both layers have in common: values for the connections of a plan between two shapes.

    Parameters and buffers, None where there is nothing of the kind:

    - `kernel` (channels, channels of a group, *places): a shared kernel, as a convolution has it;
    - `links` (1, n): all other values, in the order of `drawing.connect`; a row, so that whoever tells
      weights from biases by their dimensions takes them for weights;
    - `bias` (output channels,);
    - `plan` uint8 (bytes,): `ConnectionPlan.to_bytes`. A file holds this, and no mask.

    Values that `thin` has dropped are zeros in the state dict, and stay zero in training. A state dict that is loaded
    brings no such mark: its zeros may come back, until `thin` or `hold` is called again.

    Args:
        plan: The plan.
        out_shape, in_shape: (channels, *places) of both layers.
        bias: Whether outputs have a bias, one for each channel.
        device, dtype: Of the parameters.

    Raises:
        ConfigError: `plan` is none, shapes do not go together or do not fit it, or it has far too many connections.
    """

    #: What a layer holds depends on the values of its `plan`: whoever knows only shapes knows nothing of it.
    shapes_follow_values = True
    #: It has kernels, as a convolution has.
    has_kernels = True

    kernel: nn.Parameter | None
    links: nn.Parameter | None
    bias: nn.Parameter | None
    plan: Tensor
    kernel_alive: Tensor | None
    """Which values of the kernel are not dropped, bool; None: all."""
    links_alive: Tensor | None
    """Which of the links are not dropped, bool; None: all."""

    def __init__(
        self,
        plan: ConnectionPlan,
        out_shape: Shape,
        in_shape: Shape,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.out_shape, self.in_shape = out_shape, in_shape
        self.lay(plan, bias=bias, device=device, dtype=dtype)
        self.reset_parameters()

    def lay(
        self,
        plan: ConnectionPlan,
        *,
        bias: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the connections of a plan, and memory for their values, in place of what there was; none is set yet."""
        check_fits(plan, self.out_shape, self.in_shape)
        self.genes = plan
        self._margins = _margins(plan, self.out_shape, self.in_shape)
        connections = connect(plan, self.out_shape, self.in_shape, kernel=self._margins is None)
        self._register(connections, bias, device, dtype)
        first = 0 if self._margins is None else connections.n_kernel
        self.product = Product(connections, math.prod(self.out_shape), math.prod(self.in_shape), first, device)
        kernel_inputs = math.prod(connections.kernel_shape[1:]) if self._margins is not None else 0
        self.fan_in = kernel_inputs + len(connections.outputs) / math.prod(self.out_shape)

    def _register(
        self, connections: Connections, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        def new(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        # All are registered, None too, so that a state dict has one order whatever the plan was before.
        self.register_parameter("kernel", new(*connections.kernel_shape) if connections.kernel_shape else None)
        self.register_parameter("links", new(1, connections.n_links) if connections.n_links else None)
        self.register_parameter("bias", new(self.out_shape[0]) if bias else None)
        data = torch.frombuffer(bytearray(self.genes.to_bytes()), dtype=torch.uint8).clone()
        self.register_buffer("plan", data.to(device))
        self.register_buffer("kernel_alive", None, persistent=False)
        self.register_buffer("links_alive", None, persistent=False)

    @property
    def bound(self) -> float:
        """Largest value of a fresh layer: 1/√(mean number of connections of an output), as torch's layers have it."""
        return 1 / math.sqrt(max(self.fan_in, 1))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all values anew, uniform up to `bound`."""
        for parameter in (self.kernel, self.links, self.bias):
            if parameter is not None:
                parameter.uniform_(-self.bound, self.bound)
        self.kernel_alive = self.links_alive = None

    @property
    def dtype(self) -> torch.dtype:
        """That of the parameters; torch's usual one where there is none."""
        return next((parameter.dtype for parameter in self.parameters()), torch.get_default_dtype())

    @property
    def n_values(self) -> int:
        """How many weights there are, without bias: dropped ones too."""
        return sum(parameter.numel() for parameter in (self.kernel, self.links) if parameter is not None)

    @property
    def n_alive(self) -> int:
        """How many weights are not dropped."""
        return sum(int(alive.sum()) for _, alive in self.living_weights())

    def living_weights(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Kernel and links where they exist, and what of them is not dropped (bool, of their shapes)."""
        pairs = []
        for parameter, alive in ((self.kernel, self.kernel_alive), (self.links, self.links_alive)):
            if parameter is not None:
                living = torch.ones_like(parameter, dtype=torch.bool) if alive is None else alive
                pairs.append((parameter, living))
        return pairs

    @torch.no_grad()
    def thin(self, keep: float) -> int:
        """Keep this share, in [0, 1], of the weights that are not dropped yet; drop those of least magnitude.

        Returns:
            How many are left. At least one is, unless `keep` is 0.

        Raises:
            ModelError: `keep` is no share.
        """
        if not isinstance(keep, int | float) or isinstance(keep, bool) or not 0 <= keep <= 1:
            raise ModelError(f"keep is {keep!r}; it is a share and must be a number in [0, 1], such as 0.8")
        count = math.ceil(keep * self.n_alive - 1e-9)
        # A dropped weight ranks behind one that happens to be zero.
        ranks = [
            torch.where(alive, parameter.abs().float(), -1.0).flatten() for parameter, alive in self.living_weights()
        ]
        if ranks:
            flat = torch.cat(ranks)
            alive = torch.zeros_like(flat, dtype=torch.bool)
            alive[flat.topk(count).indices] = True
            self._mark(alive)
        return count

    @torch.no_grad()
    def hold(self) -> int:
        """Take every weight that is zero for dropped (after loading a file, say); returns how many are left."""
        flat = [(parameter != 0) & alive for parameter, alive in self.living_weights()]
        if flat:
            self._mark(torch.cat([part.flatten() for part in flat]))
        return self.n_alive

    def _mark(self, alive: Tensor) -> None:
        """Drop what is not alive, of the kernel's and the links' values one after the other."""
        n_kernel = 0 if self.kernel is None else self.kernel.numel()
        if self.kernel is not None:
            self.kernel_alive = alive[:n_kernel].reshape(self.kernel.shape)
            self.kernel.mul_(self.kernel_alive)
        if self.links is not None:
            self.links_alive = alive[n_kernel:].reshape(self.links.shape)
            self.links.mul_(self.links_alive)

    def weights(self) -> tuple[Tensor | None, Tensor | None]:
        """Kernel and links as they are computed with: what is dropped is zero, and gets no gradient."""
        kernel = self.kernel if self.kernel is None or self.kernel_alive is None else self.kernel * self.kernel_alive
        links = self.links if self.links is None or self.links_alive is None else self.links * self.links_alive
        return kernel, links

    def matrix(self) -> Tensor:
        """All weights as a dense matrix (outputs, inputs), zero where there is no connection; for small layers."""
        connections = connect(self.genes, self.out_shape, self.in_shape)
        parts = [part.flatten() for part in self.weights() if part is not None]
        values = torch.cat(parts or [self.plan.new_empty(0, dtype=self.dtype)])
        dense = values.new_zeros(math.prod(self.out_shape), math.prod(self.in_shape))
        outputs, inputs, weights = (torch.from_numpy(part).to(values.device) for part in connections[:3])
        return dense.index_put((outputs, inputs), values[weights])

    def forward(self, x: Tensor) -> Tensor:
        """(n, *in_shape) to (n, *out_shape)."""
        kernel, links = self.weights()
        y: Tensor | None = None
        if kernel is not None and self._margins is not None:
            padded = nn.functional.pad(x, self._margins)
            genes = self.genes
            y = nn.functional.conv2d(padded, kernel, None, genes.stride or 1, 0, genes.dilation, genes.groups)
            kernel = None
        if kernel is not None or links is not None:
            values = torch.cat([part.flatten() for part in (kernel, links) if part is not None])
            z = self.product(x.flatten(1), values).unflatten(1, self.out_shape)
            y = z if y is None else y + z
        if y is None:  # by lot, there is no connection at all
            y = x.new_zeros(len(x), *self.out_shape)
        return y if self.bias is None else y + self.bias.reshape(-1, *[1] * (len(self.out_shape) - 1))

    def extra_repr(self) -> str:
        """Shapes, genes that are not at their default, and how many weights there are."""
        plain = ConnectionPlan.from_genes({"kernel": 1}).genes() | {"kernel": None}
        genes = ", ".join(f"{name}={value}" for name, value in self.genes.genes().items() if value != plain[name])
        return f"{self.in_shape} → {self.out_shape}, {genes}, weights={self.n_values}"

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not keep_vars:  # an optimiser's momentum may have moved what is dropped
            for name, value in zip(("kernel", "links"), self.weights(), strict=True):
                if value is not None:
                    destination[prefix + name] = value.detach()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        stored_plan = state_dict.get(prefix + "plan")
        if isinstance(stored_plan, Tensor) and not torch.equal(stored_plan.cpu(), self.plan.cpu()):
            error_msgs.append(f"{prefix}plan {_other_plan(stored_plan)}; the layer's is {self.genes}")
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self.kernel_alive = self.links_alive = None


def stored_plan(tensor: Tensor) -> ConnectionPlan | None:
    """The plan whose bytes a tensor of a state dict holds, as whole numbers; None where it holds no plan."""
    if tensor.is_meta or tensor.ndim != 1:
        return None
    try:
        return ConnectionPlan.from_bytes(bytes(tensor.tolist()))
    except (FormatError, TypeError, ValueError):  # not whole, or no bytes, or not those of a plan
        return None


def _other_plan(tensor: Tensor) -> str:
    """What a tensor is that does not hold a layer's own plan, and what to do."""
    plan = stored_plan(tensor)
    if plan is None:
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"is {kind} {tuple(tensor.shape)}, which are not the bytes of a plan, uint8 (n,); save the layer anew"
    return (
        f"is {plan.to_bytes().hex()}, whose values belong to other connections; build the layer with "
        "ConnectionPlan.from_bytes of it"
    )


def _margins(plan: ConnectionPlan, out_shape: Shape, in_shape: Shape) -> tuple[int, int, int, int] | None:
    """What to pad images with, left, right, top, bottom, so that torch's convolution is the kernel's part; or None."""
    if len(in_shape) != 3 or not (plan.shared and plan.kernel) or plan.period != 1:
        return None
    margins: list[int] = []
    for outputs, inputs, places in reversed(list(zip(out_shape[1:], in_shape[1:], plan.window(2), strict=False))):
        if not plan.stride and outputs != inputs:
            return None  # windows that are spread evenly lie at uneven distances
        first = origins(plan, outputs, inputs, places)
        last = int(first[-1]) + plan.dilation * (places - 1)
        margins += [-int(first[0]), last - inputs + 1]
    padded = (in_shape[2] + margins[0] + margins[1]) * (in_shape[1] + margins[2] + margins[3])
    if padded > max(_LARGEST_PADDED, 4 * math.prod(in_shape[1:])):
        return None  # a window far larger than the image
    return margins[0], margins[1], margins[2], margins[3]


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
