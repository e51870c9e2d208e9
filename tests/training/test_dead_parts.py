from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from evocompress import Recipe, pack, unpack
from evocompress.errors import ConfigError, ModelError
from evocompress.networks import NETWORKS, build
from evocompress.networks.conv_stack import POOL, ConvStack
from evocompress.networks.resnet_cifar import BasicBlock
from evocompress.training.dead_parts import LiveNetwork, cut, narrow

SHAPES = {
    "connected_cnn": (1, 28, 28),
    "digits_cnn": (1, 8, 8),
    "lenet5_caffe": (1, 28, 28),
    "saccade_cnn": (1, 28, 28),
    "saccade_sequence": (1, 28, 28),
    "small_cnn": (1, 28, 28),
}
PLAIN = ("base_cnn", "digits_cnn", "lenet5_caffe", "resnet20", "small_cnn", "vgg11")


def images(name: str, count: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if name.startswith("byte_"):
        return torch.randint(256, (count, 9), generator=generator)
    return torch.randn(count, *SHAPES.get(name, (3, 32, 32)), generator=generator)


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


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_for_every_network(name: str) -> None:
    network, x = damage(build(name, seed=1), share=0.5, seed=2), images(name)
    live = cut(network, x)
    if name in PLAIN or name.startswith("resnet") or name == "byte_transformer":
        assert live.parameters_after < 0.9 * live.parameters_before
    else:
        assert live.reason
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = network(x)
        torch.manual_seed(0)
        assert close(outputs, live.network(x))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("name", ["digits_cnn", "lenet5_caffe"])
def test_outputs_stay_for_any_pattern_of_zeros(name: str, share: float, seed: int) -> None:
    network = damage(build(name, seed=seed).double(), share=share, seed=seed)
    live = check(network, images(name).double())
    assert all(p.numel() for p in live.network.parameters())
    assert cut(live.network, images(name).double()).reason == "no part is dead" or share == 1.0


@pytest.mark.parametrize("name", ["base_cnn", "resnet20"])
def test_normalised_networks_stay_the_same_in_training_too(name: str) -> None:
    check(damage(build(name, seed=3).double(), share=0.6, seed=4), images(name).double())


def narrow_vgg() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return ConvStack((8, POOL, 16, POOL, 32, 32, POOL, 64, 64, POOL, 64, 64, POOL), classes=10, in_channels=3)


@pytest.mark.parametrize("name", ["digits_cnn", "lenet5_caffe", "vgg11", "resnet20"])
def test_live_parts_come_first_and_a_bare_file_holds_nothing_else(name: str) -> None:
    # VGG-11 with an eighth of its channels: nine million weights would be packed for half of this file's time.
    plain = narrow_vgg() if name == "vgg11" else build(name, seed=1)
    network, x = damage(plain, share=0.6, seed=2), images(name)
    live = cut(network, x)
    ordered = live.live_first(live.network.state_dict())
    for tensor, kept in live.kept.items():
        corner = ordered[tensor][tuple(slice(len(indices)) for indices in kept)]
        if name != "resnet20":  # whose shortcuts pad: those channels cannot change places
            assert int((corner != 0).sum()) == int((ordered[tensor] != 0).sum())
    grid = {n: 2.0**-9 for n, t in ordered.items() if t.is_floating_point()}
    on_grid = {n: (t / grid[n]).round() * grid[n] if n in grid else t for n, t in ordered.items()}
    data = pack(on_grid, Recipe(coder="mixing", names=False, shapes=False), grid=grid)
    whole = pack(on_grid, Recipe(coder="mixing", names=False), grid=grid)
    decoded = unpack(data, names=on_grid)
    assert data[3] == 5 and len(data) < len(whole)
    assert all(torch.equal(decoded[n], t) for n, t in on_grid.items())


def test_channels_whose_places_mean_something_stay_where_they_are() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = nn.Linear(3, 4), nn.Linear(3, 6), nn.Linear(10, 2)
            self.other = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            one, two = self.one(x).relu(), self.two(x).relu()
            result: Tensor = self.last(torch.cat([one, two], 1)) + self.other(one)
            return result

    network = Halves()
    with torch.no_grad():
        network.last.weight[:, [0, 2, 5]] = 0  # the first two are read by `other`, too
        network.other.weight[:, 2] = 0
    live = check(network, torch.rand(5, 3))
    places = {name: [indices.tolist() for indices in order] for name, order in live.order.items()}
    assert places["one.weight"][0] == places["one.bias"][0] == places["other.weight"][1] == [0, 1, 3, 2]
    assert places["two.weight"][0] == [0, 2, 3, 4, 5, 1]
    # Behind the concatenation each part keeps its own end.
    assert places["last.weight"][1] == [0, 1, 3, 2, 4, 6, 7, 8, 9, 5]
    assert places["one.weight"][1] == [0, 1, 2] and places["last.weight"][0] == [0, 1]


@pytest.mark.parametrize("name", ["digits_cnn", "lenet5_caffe", "resnet20", "small_cnn"])
def test_a_network_begins_with_a_share_of_its_channels(name: str) -> None:
    x, networks = images(name, 8), [build(name, seed=1) for _ in range(3)]
    for network, seed in zip(networks, (5, 5, 6), strict=True):
        narrow(network, 0.5, x, seed=seed)
    lives = [cut(network.eval(), x) for network in networks]
    assert lives[0].parameters_after < 0.45 * lives[0].parameters_before
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert any(not torch.equal(states[0][n], states[2][n]) for n in states[0])
    # Which channels remain is drawn; how many is not, and outputs keep their scale.
    assert len({live.parameters_after for live in lives}) == 1
    scales = [float(network(x).detach().std()) for network in (build(name, seed=1).eval(), *networks)]
    assert all(0.5 < scale / scales[0] < 2 for scale in scales)


class Normed(nn.Module):
    """Uses a weight of its own in another way: its channels must not go."""

    def __init__(self, use: str) -> None:
        super().__init__()
        self.f, self.g, self.use = nn.Linear(3, 16), nn.Linear(16, 4), use

    def forward(self, x: Tensor) -> Tensor:
        norms = self.f.weight.norm(dim=1)
        y: Tensor = self.g(self.f(x).relu())
        result: Tensor = y / norms.min() if self.use == "least" else y - norms.log().sum()
        return result


@pytest.mark.parametrize("use", ["least", "logarithm"])
def test_a_tensor_with_another_use_keeps_all_of_its_channels(use: str) -> None:
    network = Normed(use)
    before = copy.deepcopy(network.state_dict())
    narrow(network, 0.4, torch.rand(4, 3), seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert bool(network(torch.rand(4, 3)).isfinite().all())


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_cannot_be(share: float) -> None:
    with pytest.raises(ConfigError, match="share is"):
        narrow(nn.Linear(2, 2), share, torch.rand(2, 2), seed=0)


def test_one_channel_remains_and_odd_networks_stay() -> None:
    network = build("digits_cnn", seed=1)
    narrow(network, 1e-6, images("digits_cnn"), seed=0)
    live = cut(network, images("digits_cnn"))
    assert [len(live.network.state_dict()[f"{layer}.bias"]) for layer in ("conv1", "conv2", "fc1", "fc2")] == [
        1,
        1,
        1,
        10,
    ]
    odd = nn.LSTM(3, 4)
    before = copy.deepcopy(odd.state_dict())
    narrow(odd, 0.5, torch.rand(2, 5, 3), seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in odd.state_dict().items())


def test_constants_stay_where_biases_must() -> None:
    first, last = nn.Linear(3, 4), nn.Linear(4, 2)
    with torch.no_grad():
        first.weight[:2] = 0
        first.bias[:2] = torch.tensor([0.5, -0.5])
    network = nn.Sequential(first, nn.ReLU(), last)
    assert cut(network, torch.rand(2, 3)).parameters_after == 14
    live = cut(network, torch.rand(2, 3), fold=False)
    assert live.parameters_after == 20 and torch.equal(live.network.state_dict()["2.bias"], last.bias)


def test_a_file_of_the_plain_network_is_cut_again_to_the_same() -> None:
    network, x = damage(build("vgg11", seed=1), share=0.7, seed=2), images("vgg11", 2)
    live = cut(network, x)
    again = cut(scattered(network, live), x)
    assert {name: list(map(len, kept)) for name, kept in again.kept.items()} == {
        name: list(map(len, kept)) for name, kept in live.kept.items()
    }


@torch.no_grad()
def test_number_of_parameters_of_digits_cnn() -> None:
    network: Any = build("digits_cnn")
    network.conv1.weight[:12] = 0
    network.conv1.bias[:12] = -0.5
    network.conv2.weight[:24] = 0
    network.conv2.bias[:24] = 0.5  # a constant that the linear layer's bias takes
    network.fc2.weight[:, 10:] = 0
    live = check(network, images("digits_cnn"))
    convolutions, linear = 4 * 9 + 4 + 8 * 4 * 9 + 8, 10 * 8 * 16 + 10 + 10 * 10 + 10
    assert live.parameters_after == convolutions + linear
    assert live.kept["conv1.weight"][0].tolist() == [12, 13, 14, 15]
    assert live.kept["fc1.weight"][1].tolist() == list(range(24 * 16, 32 * 16))
    assert [tuple(p.shape) for p in live.network.parameters()][2] == (8, 4, 3, 3)
    smaller: Any = live.network
    assert type(smaller) is type(network)
    assert (smaller.conv2.in_channels, smaller.conv2.out_channels, smaller.fc1.in_features) == (4, 8, 128)
    assert not torch.allclose(smaller.fc1.bias, network.fc1.bias[:10])


@torch.no_grad()
def test_a_constant_stays_in_front_of_a_padded_convolution() -> None:
    network: Any = build("digits_cnn")
    network.conv1.weight[:12] = 0
    network.conv1.bias.copy_(torch.linspace(-0.5, 0.6, 16))
    live = check(network, images("digits_cnn"))
    negative = int((network.conv1.bias[:12] <= 0).sum())
    assert 0 < negative < 12
    assert live.kept["conv1.weight"][0].tolist() == list(range(negative, 16))


@torch.no_grad()
def test_a_dead_layer_keeps_one_channel() -> None:
    network: Any = build("lenet5_caffe").double()
    network.conv2.weight.zero_()
    live = check(network, images("lenet5_caffe").double())
    smaller: Any = live.network
    # All the network is a constant now, and each layer keeps one channel.
    assert [tuple(p.shape) for p in smaller.parameters() if p.ndim > 1] == [
        (1, 1, 5, 5),
        (1, 1, 5, 5),
        (1, 16),
        (10, 1),
    ]


def test_nothing_dead_gives_the_network_itself() -> None:
    network = build("resnet20", seed=1)
    live = cut(network, images("resnet20"))
    assert live.network is network and live.reason == "no part is dead"
    assert live.parameters_before == live.parameters_after == 269_722
    state = network.state_dict()
    assert all(map(torch.equal, live.gather(state).values(), state.values()))
    assert all(map(torch.equal, live.scatter(state).values(), state.values()))


def test_gather_takes_back_what_scatter_gives() -> None:
    network = damage(build("lenet5_caffe", seed=1), share=0.6, seed=5)
    live = cut(network, images("lenet5_caffe"))
    state = live.network.state_dict()
    plain = live.scatter(state)
    assert {name: tensor.shape for name, tensor in plain.items()} == {
        name: tensor.shape for name, tensor in network.state_dict().items()
    }
    assert all(torch.equal(tensor, state[name]) for name, tensor in live.gather(plain).items())
    assert all(torch.equal(tensor, state[name]) for name, tensor in live.gather(network.state_dict()).items())


def test_states_of_other_networks_are_refused() -> None:
    network = damage(build("digits_cnn", seed=1), share=0.6, seed=5)
    live = cut(network, images("digits_cnn"))
    with pytest.raises(ModelError, match="give a state dict of the smaller network"):
        live.scatter(network.state_dict())
    with pytest.raises(ModelError, match="give a state dict of the plain network"):
        live.gather(live.network.state_dict())
    with pytest.raises(ModelError, match=r"'fc2.bias' is missing"):
        live.gather({name: t for name, t in network.state_dict().items() if name != "fc2.bias"})


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


@pytest.mark.parametrize("name", ["digits_cnn", "lenet5_caffe", "resnet20", "base_cnn"])
def test_what_was_trained_comes_back(name: str) -> None:
    network, x = damage(build(name, seed=1).double(), share=0.6, seed=5), images(name, 6).double()
    live = cut(network, x)
    before = live.network(x).detach()
    trained(live.network, x)
    assert not close(before, live.network(x))
    assert close(live.network(x), scattered(network, live)(x))


@torch.no_grad()
def test_a_filter_that_cannot_learn_goes_without_a_trace() -> None:
    """Training the plain network and the smaller one is the same where the gradient of what was cut is zero."""
    network: Any = build("digits_cnn", seed=1).double()
    network.conv1.weight[:8] = 0
    network.conv1.bias[:8] = -1
    network.fc1.weight[30:] = 0
    network.fc1.bias[30:] = -1
    x = images("digits_cnn", 8).double()
    live = check(network, x)
    with torch.enable_grad():
        assert close(trained(network, x)(x), trained(live.network, x)(x))


def test_the_model_and_the_random_state_are_left_alone() -> None:
    network = damage(build("resnet20"), share=0.6, seed=1)
    modes = [module.training for module in network.train().modules()]
    network.get_submodule("bn1").eval()
    state = torch.get_rng_state()
    live = cut(network, images("resnet20"))
    assert live.reason is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(modes) and network.training and live.network.training
    assert not live.network.get_submodule("bn1").training and not network.get_submodule("bn1").training
    assert all(p.requires_grad for p in live.network.parameters())


# Residual sums, branches, other layers.


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
