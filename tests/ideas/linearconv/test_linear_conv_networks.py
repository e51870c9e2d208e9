"""LinearConv: the networks of its paper, and training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from network_shapes import parameters
from torch import nn

from evocompress.errors import ModelError
from evocompress.ideas.linearconv import LinearConv2d, convert, correlation_loss
from evocompress.networks import build

pytestmark = pytest.mark.usefixtures("seeded")


def test_a_network_without_convolutions_has_no_filters_to_combine() -> None:
    with pytest.raises(ModelError, match=r"alpha is 0\.5, but the network has no plain convolution"):
        build("torch.nn:Linear", {"in_features": 3, "out_features": 2, "alpha": 0.5})


@pytest.mark.parametrize(
    ("name", "options", "expected", "published"),
    [
        ("base_cnn", {}, 399_146, "0.40"),
        ("base_cnn", {"alpha": 0.5}, 226_938, "0.23"),
        ("base_cnn", {"alpha": 0.5, "rank": 0.05}, 207_642, "0.21"),
        ("vgg11", {}, 9_228_362, "9.23"),
        ("vgg11", {"alpha": 0.5}, 4_919_530, "4.92"),
        ("vgg11", {"alpha": 0.5, "rank": 0.05}, 4_650_346, "4.65"),
    ],
)
def test_the_papers_numbers_of_parameters(name: str, options: dict[str, Any], expected: int, published: str) -> None:
    count = parameters(build(name, options))
    assert count == expected and f"{count / 1e6:.2f}" == published


def test_the_papers_networks_take_images_up_to_32_pixels() -> None:
    network = build("base_cnn", {"alpha": 0.5, "in_channels": 1, "classes": 7}).eval()
    images = torch.randn(2, 1, 28, 28)
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    assert network(images).shape == (2, 7)
    assert torch.equal(network(images), network(padded))
    assert network(torch.zeros(1, 1, 5, 31)).shape == (1, 7)
    with pytest.raises(ModelError, match="images are 33×32"):
        network(torch.zeros(1, 1, 33, 32))
    with pytest.raises(ModelError, match="alpha is not given"):
        build("base_cnn", {"rank": 0.5})
    with pytest.raises(ModelError, match="alpha is 2"):
        build("vgg11", {"alpha": 2})


def test_a_plain_base_converts_to_the_shapes_of_a_fresh_linear_one() -> None:
    converted = convert(build("base_cnn"), 0.5, rank=0.05, skip_first=False)
    fresh = build("base_cnn", {"alpha": 0.5, "rank": 0.05})
    fresh.load_state_dict(converted.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(fresh.eval()(images), converted.eval()(images))


def test_training_lowers_the_loss_of_every_variant() -> None:
    images, labels = torch.randn(32, 3, 8, 8), torch.arange(32) % 4
    variants: list[dict[str, Any]] = [{}, {"rank": 0.25}, {"sparsity": 0.5}]
    for options in variants:
        network = nn.Sequential(LinearConv2d(3, 16, 3, **options), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4))
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-3, fused=True)
        losses = []
        for _ in range(25):
            loss = nn.functional.cross_entropy(network(images), labels) + correlation_loss(network)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
