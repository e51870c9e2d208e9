"""Networks without their dead parts: equal outputs, states that come back, channels in order, fresh narrow ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from damaged_networks import check, close, damage, images, scattered, trained
from torch import Tensor, nn

from evocompress import Recipe, pack, unpack
from evocompress.errors import ConfigError, ModelError
from evocompress.networks import NETWORKS, build
from evocompress.networks.conv_stack import POOL, ConvStack
from evocompress.training import traced_graphs
from evocompress.training.dead_parts import cut, narrow

pytestmark = pytest.mark.slow

#: Networks in which dead parts can be cut.
PLAIN = ("base_cnn", "digits_cnn", "lenet5_caffe", "resnet20", "small_cnn", "vgg11")


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_for_every_network(name: str) -> None:
    network, x = damage(build(name, seed=1), share=0.5, seed=2), images(name)
    live = cut(network, x)
    if name in PLAIN or name.startswith("resnet") or name == "byte_transformer":
        assert live.reason is None
    assert live.reason or live.parameters_after < 0.9 * live.parameters_before
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


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each trace of a network from now on, whether it was in training mode."""
    seen: list[bool] = []
    traced = traced_graphs._traced

    def counted(*arguments: Any, training: bool) -> Any:
        seen.append(training)
        return traced(*arguments, training=training)

    monkeypatch.setattr(traced_graphs, "_traced", counted)
    monkeypatch.setattr(traced_graphs, "_KNOWN_GRAPHS", {})
    return seen


def test_networks_that_are_built_alike_are_traced_once(traces: list[bool]) -> None:
    x = images("digits_cnn")
    network = build("digits_cnn")
    for seed in range(3):
        network = damage(build("digits_cnn", seed=seed), share=0.5, seed=seed)
        live = cut(network, x)
        assert live.reason is None and close(network.eval()(x), live.network.eval()(x))
        assert traces == [False, True]
    for other, given in ((build("digits_cnn", {"width": 8}), x), (build("digits_cnn"), x[:2]), (network.double(), x)):
        before = len(traces)
        cut(other, given.to(next(other.parameters()).dtype))
        assert len(traces) == before + 2


class TwoEnds(nn.Module):
    """Reads one of two last layers: by an attribute of its own."""

    def __init__(self, end: object) -> None:
        super().__init__()
        self.end = end
        self.first, self.one, self.other = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 2)
        with torch.no_grad():
            self.one.weight[:, 2:] = 0

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        read: Tensor = self.one(hidden) if self.end in ("one", len) else self.other(hidden)
        return read


def test_an_attribute_tells_networks_apart_and_an_object_says_nothing(traces: list[bool]) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    lived = [cut(TwoEnds(end), x).kept["first.weight"][0] for end in ("one", "other", len, max, len)]
    assert [len(rows) for rows in lived] == [2, 8, 2, 8, 2]
    assert len(traces) == 10
