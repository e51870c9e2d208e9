"""Networks with dead parts, and what holds for every one of them once these are cut."""

from __future__ import annotations

import copy

import torch
from network_shapes import image_shape
from torch import Tensor, nn
from torch.nn import functional

from evocompress.training.dead_parts import LiveNetwork, cut

__all__ = ["check", "close", "damage", "images", "scattered", "trained"]


def images(name: str, count: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if name.startswith("byte_"):
        return torch.randint(256, (count, 9), generator=generator)
    return torch.randn(count, *image_shape(name), generator=generator)


@torch.no_grad()
def damage(network: nn.Module, *, share: float, seed: int) -> nn.Module:
    """Random statistics and biases; a share of the rows and columns of all weights is zero, but no row of the last."""
    generator = torch.Generator().manual_seed(seed)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                assert tensor is not None
                tensor.add_(0.3 * torch.randn(len(tensor), generator=generator))
    for layer in layers:
        rows, columns = layer.weight.shape[:2]
        if layer is not layers[-1]:
            layer.weight[torch.rand(rows, generator=generator) < share] = 0
        layer.weight[:, torch.rand(columns, generator=generator) < share / 4] = 0
        if layer.bias is not None:
            layer.bias.add_(0.1 * torch.randn(rows, generator=generator))
    return network.eval()


def close(one: Tensor, other: Tensor) -> bool:
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[one.dtype]
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance * (1 + float(one.detach().abs().max())))


def scattered(plain: nn.Module, live: LiveNetwork) -> nn.Module:
    network = copy.deepcopy(plain)
    network.load_state_dict(live.scatter(live.network.state_dict()), strict=True)
    return network


def check(network: nn.Module, x: Tensor, *, smaller: bool = True) -> LiveNetwork:
    """Equal outputs in both modes, of the smaller network and of the plain one with what comes back from it."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    live = cut(network, x)
    assert (live.reason is None) == smaller, live.reason
    assert (live.network is network) != smaller
    assert (live.parameters_after < live.parameters_before) == smaller
    assert live.parameters_after == sum(p.numel() for p in live.network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    for training in (False, True):
        plain = network, live.network, scattered(network, live), in_order(network, live)
        networks = [copy.deepcopy(n).train(training) for n in plain]
        outputs = [n(x) for n in networks]
        assert all(close(outputs[0], other) for other in outputs[1:])
    return live


def in_order(network: nn.Module, live: LiveNetwork) -> nn.Module:
    """The plain network with its live parts first."""
    ordered = copy.deepcopy(network)
    ordered.load_state_dict(live.live_first(live.network.state_dict()))
    return ordered


def trained(network: nn.Module, x: Tensor, *, steps: int = 4) -> nn.Module:
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    network.train()
    for step in range(steps):
        optimiser.zero_grad()
        outputs = network(x)
        labels = (torch.arange(len(x)) + step) % outputs.shape[1]
        functional.cross_entropy(outputs, labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()
