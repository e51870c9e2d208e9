"""Channel graph: channels followed through sums, branches, unknown layers, and code that depends on sizes."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from damaged_networks import check, close, images, scattered, trained
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from evocompress.networks import build
from evocompress.networks.resnet_cifar import BasicBlock
from evocompress.training.dead_parts import cut


@torch.no_grad()
def test_channels_of_a_sum_go_together() -> None:
    network: Any = build("resnet20", seed=1)
    network.conv1.weight[:4] = 0
    for start, group in ((0, network.layer1), (8, network.layer2), (24, network.layer3)):
        for block in group:
            block.conv2.weight[start : start + 4] = 0
    live = check(network, images("resnet20"))
    smaller: Any = live.network
    assert smaller.conv1.weight.shape[0] == 12
    assert smaller.layer1[2].conv2.weight.shape[0] == 12
    # Behind the shortcut that pads: 8 channels of zeros on either side stay, and 12 that come through.
    assert smaller.layer2[0].conv2.weight.shape[0] == 28
    assert live.kept["layer2.0.bn2.weight"][0].tolist() == [*range(8), *range(12, 32)]
    assert smaller.linear.weight.shape[1] == 60
    # One term that is not dead is enough.
    network.layer1[1].conv2.weight[:4] = 1
    assert check(network, images("resnet20"), smaller=False).reason == "no part is dead"


@torch.no_grad()
def test_a_stream_that_only_its_own_block_reads_goes() -> None:
    block = BasicBlock(4, 4, 1)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), block, nn.Flatten(), nn.Linear(4 * 36, 3)).double()
    last: Any = network[3]
    last.weight[:, :36] = 0  # channel 0 of the stream, which the block reads and writes
    for other in (1, 2, 3):
        block.conv1.weight[other, 0] = 0
        block.conv2.weight[other, 0] = 0
    block.conv1.weight[0] = 1
    live = check(network, torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double())
    assert live.kept["0.weight"][0].tolist() == [1, 2, 3]


class Odd(nn.Module):
    """Branches, concatenation, depthwise convolution, gating, dropout, average pooling and a reshaping of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 6, 3, padding="same")
        self.norm = nn.BatchNorm2d(10)
        self.deep = nn.Conv2d(10, 10, 3, groups=10)
        self.squeeze, self.excite = nn.Linear(10, 3), nn.Linear(3, 10)
        self.dropout = nn.Dropout(0.0)
        self.first, self.second = nn.Linear(10 * 9, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.left(x), self.right(x)], dim=1)
        y = functional.leaky_relu(self.norm(y), inplace=True)
        y = functional.relu6(self.deep(y))
        gate = self.excite(self.squeeze(functional.adaptive_avg_pool2d(y, 1).flatten(1)).relu()).sigmoid()
        y = self.dropout(functional.avg_pool2d(y * gate[:, :, None, None], 2))
        z: Tensor = self.first(torch.flatten(y, 1)).unsqueeze(1).tanh()
        return self.second(z).squeeze(1)  # type: ignore[no-any-return]


@torch.no_grad()
def test_branches_depthwise_layers_and_gates() -> None:
    network = Odd().double()
    network.norm.bias.zero_()
    network.left.weight[1] = 0
    network.left.bias[1] = 0  # type: ignore[index]
    network.norm.weight[7] = 0
    network.deep.bias.fill_(-3)  # type: ignore[union-attr]
    network.deep.weight[2] = 0
    network.second.weight[:, 5] = 0
    x = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    live = check(network, x)
    assert live.kept["deep.weight"][0].tolist() == [0, 3, 4, 5, 6, 8, 9]
    assert live.kept["left.weight"][0].tolist() == [0, 3]
    assert live.kept["first.weight"][0].tolist() == [0, 1, 2, 3, 4, *range(6, 12)]
    smaller: Any = live.network
    assert smaller.deep.groups == smaller.norm.num_features == 7
    with torch.enable_grad():
        trained(live.network, x)
    assert close(live.network(x), scattered(network, live).eval()(x))


class Drawn(nn.Module):
    """A random network: at each step a layer, an elementwise function, a pooling, a sum or a concatenation."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.plan: list[tuple[str, int, int]] = []  # a kind, and which tensors it takes
        self.layers = nn.ModuleList()
        tensors = [3]  # the channels of each
        for _ in range(12):
            kind = self.random.choice(
                ["conv", "conv", "norm", "relu", "relu", "depthwise", "add", "cat", "pad", "leaky"]
            )
            one, other = self.random.randrange(len(tensors)), self.random.randrange(len(tensors))
            same = [place for place, channels in enumerate(tensors) if channels == tensors[one]]
            other = self.random.choice(same) if kind == "add" else other
            channels = tensors[one]
            outputs = {"cat": channels + tensors[other], "pad": channels + 2, "conv": self.random.choice([4, 6])}
            size = self.random.choice([1, 3])
            layer: nn.Module = nn.Identity()
            if kind == "conv":
                layer = nn.Conv2d(channels, outputs["conv"], size, padding=size // 2, bias=self.random.random() < 0.7)
            elif kind == "depthwise":
                layer = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)
            elif kind == "norm":
                layer = nn.BatchNorm2d(channels)
            self.layers.append(layer)
            self.plan.append((kind, one, other))
            tensors.append(outputs.get(kind, channels))
        self.hidden, self.last = nn.Linear(tensors[-1] * 4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        tensors = [x]
        for (kind, one, other), layer in zip(self.plan, self.layers, strict=True):
            y = layer(tensors[one])
            if kind in ("add", "cat"):
                y = y + tensors[other] if kind == "add" else torch.cat([y, tensors[other]], 1)
            elif kind in ("relu", "leaky"):
                y = y.relu() if kind == "relu" else functional.leaky_relu(y)
            elif kind == "pad":
                y = functional.pad(y, (0, 0, 0, 0, 1, 1))
            tensors.append(y)
        y = functional.max_pool2d(tensors[-1], 2).flatten(1)
        result: Tensor = self.last(self.hidden(y).relu())
        return result


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_stay_the_same(seed: int) -> None:
    network = Drawn(seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if tensor.ndim:
                    tensor[torch.rand(len(tensor), generator=generator) < 0.4] = float(name == "running_var")
                    if tensor.ndim > 1:
                        tensor[:, torch.rand(tensor.shape[1], generator=generator) < 0.2] = 0
    x = torch.randn(5, 3, 4, 4, generator=generator).double()
    live = cut(network, x)
    assert live.reason in (None, "no part is dead")
    check(network, x, smaller=live.reason is None)


class Doubled(nn.Module):
    """Not a layer of torch's."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linspace(1, 2, x.shape[1])


class Split(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, dim=1)
        return one * other


class Spelled(nn.Module):
    """A reshaping with the number of features in it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 8 * 4)


class ByWidth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.shape[1]


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Rebuilt(nn.Linear):
    """A layer with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) + self.weight.shape[0]


def two_layers(*between: nn.Module, outputs: int = 8) -> nn.Sequential:
    """Filters 0 to 3 of the second layer have zero weights and biases, as has the first layer's neuron 0."""
    network = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 8), *between, nn.Linear(outputs, 2))
    with torch.no_grad():
        for place, count in ((0, 1), (2, 4)):
            layer: Any = network[place]
            layer.weight[:count] = 0
            layer.bias[:count] = 0
    return network


X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("module", "outputs"), [(Doubled(), 8), (Split(), 4), (nn.LayerNorm(8), 8), (nn.Softmax(1), 8), (Rebuilt(8, 8), 8)]
)
def test_what_is_not_known_is_a_barrier(module: nn.Module, outputs: int) -> None:
    live = check(two_layers(module, outputs=outputs), X)
    assert live.kept["0.weight"][0].tolist() == [1, 2, 3, 4, 5]  # in front of the barrier there is none
    assert len(live.kept["2.weight"][0]) == 8
    assert check(two_layers(nn.ReLU()), X).kept["2.weight"][0].tolist() == [4, 5, 6, 7]


def test_attention_is_a_barrier() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    network = nn.Sequential(two_layers(nn.Linear(8, 8)), nn.Unflatten(0, (2, 2)), nn.Linear(2, 8), layer).double()
    with torch.no_grad():
        layer.linear1.weight[:10] = 0
        layer.linear1.bias[:10] = -1
        layer.self_attn.out_proj.weight.zero_()
    live = check(network, X.double())
    assert live.kept["0.2.weight"][0].tolist() == [4, 5, 6, 7]
    assert live.kept["3.linear1.weight"][0].tolist() == list(range(10, 16))
    assert all(
        len(live.kept[f"3.{name}"][0]) == len(tensor)
        for name, tensor in layer.state_dict().items()
        if name.startswith(("self_attn", "norm"))
    )


def test_a_size_in_the_code_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), Spelled(), nn.Linear(32, 2))
    with torch.no_grad():
        for place in (0, 2):
            layer: Any = network[place]
            layer.weight[:3] = 0
            layer.bias[:3] = 0
    live = check(network, torch.randn(4, 1, 6, 6))
    assert live.kept["0.weight"][0].tolist() == [3, 4, 5]
    assert len(live.kept["2.weight"][0]) == 8
    assert "depends on the sizes" in str(check(two_layers(ByWidth()), X, smaller=False).reason)


def test_what_cannot_be_traced_says_why() -> None:
    assert "cannot be traced" in str(check(two_layers(Decides()), X, smaller=False).reason)
    assert "cannot be traced" in str(cut(two_layers(), torch.ones(2, 5)).reason)
    network = two_layers()
    network[1].register_forward_hook(lambda *_: None)
    assert cut(network, X).reason == "module '1' has hooks, which may depend on its size"
    with torch.no_grad():
        network = two_layers()
        layer: Any = network[2]
        layer.weight[7, 0] = torch.nan
    assert "'2.weight' has values that are not finite" in str(cut(network, X).reason)


def test_frozen_tied_and_computed_parameters_stay() -> None:
    frozen = two_layers(nn.Linear(8, 8))
    frozen[2].bias.requires_grad_(False)
    assert check(frozen, X, smaller=False).reason == "no part is dead"
    tied = two_layers(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    tied[3].weight = tied[4].weight
    assert len(check(tied, X).kept["2.weight"][0]) == 8
    computed = two_layers(parametrizations.orthogonal(nn.Linear(8, 8)))
    assert len(check(computed, X).kept["2.weight"][0]) == 8


def test_a_layer_that_is_used_twice_is_cut_for_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(self.layer(self.layer(x).relu()).relu())
            return result

    network = Twice().double()
    with torch.no_grad():
        network.layer.weight[2] = 0
        network.layer.bias[2] = -1
    # Its columns read the network's input, which nobody cuts, and its own output.
    check(network, torch.randn(4, 6).double(), smaller=False)
    chained = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), network).double()
    with torch.no_grad():
        first: Any = chained[0]
        first.weight[2] = 0
        first.bias[2] = -1
    assert check(chained, X.double()).kept["2.layer.weight"][1].tolist() == [0, 1, 3, 4, 5]


@torch.no_grad()
def test_views_changed_in_place_are_refused() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x.view(-1, 2).add_(1)
            return x

    assert "changes a tensor in place" in str(cut(two_layers(InPlace()), X).reason)


def test_what_is_changed_in_place_without_other_views_is_followed() -> None:
    network = two_layers(nn.ReLU(inplace=True))
    network[1] = nn.ReLU(inplace=True)
    live = check(network, torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)))
    assert live.kept["2.weight"][0].tolist() == [4, 5, 6, 7]


class Shared(nn.Module):
    """Two layers with one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(self.one(x), self.two.weight, self.one.bias)
        result: Tensor = self.last(y)
        return result


@torch.no_grad()
def test_a_constant_is_not_folded_into_a_bias_of_two_layers() -> None:
    network = Shared().double()
    network.one.weight[0] = 0
    check(network, X.double(), smaller=False)


class Pair(nn.Module):
    def __init__(self, *, shown: bool) -> None:
        super().__init__()
        self.one, self.other, self.last = nn.Linear(3, 6), nn.Linear(3, 6), nn.Linear(6, 2)
        self.shown = shown

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        z = self.one(x).relu() - self.other(y).relu()
        return {"logits": self.last(z), "all": [z if self.shown else None, 3]}


@torch.no_grad()
@pytest.mark.parametrize("shown", [False, True])
def test_several_inputs_and_outputs(shown: bool) -> None:
    network = Pair(shown=shown)
    network.last.weight[:, 3:] = 0
    live = cut(network, [X, X + 1])
    assert len(live.kept["other.weight"][0]) == (6 if shown else 3)  # an output stays whole
    assert close(network(X, X + 1)["logits"], live.network(X, X + 1)["logits"])
