"""The option `kernels` of networks: convolutions that are symmetric by construction, and the files of such networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from configured_genes import configured_genes
from torch import Tensor, nn
from training_problem import problem

from evocompress.checkpoint.loading import load
from evocompress.checkpoint.packing import pack
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.errors import ModelError
from evocompress.evolve.genome import GenomeReader
from evocompress.evolve.layer_groups import DEFAULT_CODECS, layer_groups
from evocompress.ideas.symmetry.layers import constrained, release
from evocompress.networks import build
from evocompress.training.trainer import TrainingGenes, train

FREE = {"radial": (3,), "x": (1, 3), "y": (3, 1), "left-right": (6,), "free": (3, 3)}
CANDIDATES = tuple(part.strip() for spec in (*DEFAULT_CODECS["conv"], "symmetry") for part in spec.split("|"))


def digits(kernels: Any, seed: int = 0) -> nn.Module:
    return build("digits_cnn", {"classes": 2, "width": 4, "kernels": kernels}, seed=seed)


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def symmetric(kernels: str, weight: Tensor) -> bool:
    """Bit for bit."""
    along_x, along_y = (weight == weight[..., :1, :]).all(), (weight == weight[..., :1]).all()
    ring = torch.equal(weight, weight.flip(3)) and torch.equal(weight, weight.transpose(2, 3))
    mirror = torch.equal(weight, weight.flip(3))
    return bool({"radial": ring, "x": along_x, "y": along_y, "left-right": mirror}[kernels])


@pytest.mark.parametrize("kernels", [*FREE, ["x", "free"], ["free", "radial"]], ids=str)
def test_free_numbers_are_in_the_groups_of_the_weights_that_they_make(kernels: Any) -> None:
    network = digits(kernels)
    first, second = [kernels, kernels] if isinstance(kernels, str) else kernels
    groups = layer_groups({name: shape for name, shape in shapes(network).items() if len(shape) > 1})
    assert list(groups.values()) == ["first", "conv", "dense", "last"]
    assert [shapes(network)[name] for name in groups][:2] == [(4, 1, *FREE[first]), (8, 4, *FREE[second])]


@pytest.mark.parametrize(("name", "parameters"), [("base_cnn", 140_522), ("vgg11", 3_083_210)])
def test_radial_networks_of_larger_images(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in build(name, {"kernels": "radial"}).parameters()) == parameters
    build(name, {"kernels": "free", "alpha": 0.5})


@pytest.mark.parametrize("options", [{"alpha": 0.5, "kernels": "radial"}, {"alpha": 1.0, "kernels": "x"}], ids=str)
def test_combined_filters_are_not_constrained(options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"kernels is '\w+', but the network has no plain convolution.*\(alpha\)"):
        build("base_cnn", options)


@pytest.mark.parametrize("kernels", ["radial", "x", "y", "left-right"])
def test_a_file_of_a_constrained_network_keeps_the_symmetry(kernels: str, tmp_path: Path) -> None:
    network, path = digits(kernels), tmp_path / "network.evc"
    genes = TrainingGenes(l1=0.01, weight_decay=0.01, noise=0.1, entropy=0.01, projection="keep-zeros")
    assert not train(network, problem(), genes, epochs=1, seed=0).diverged
    path.write_bytes(pack(network.state_dict(), Recipe(1e-3, (Rule(codecs=CANDIDATES),))))
    decoded = load(path, digits(kernels, seed=1))
    for refusing in {"free", "radial", "x", "y"} - {kernels}:
        with pytest.raises(ModelError, match=r"does not fit the model: .*conv1\.parametrizations\.weight\.original"):
            load(path, digits(refusing))
    images = problem().inputs
    outputs = decoded(images)
    assert release(decoded) == 2
    for name in ("conv1.weight", "conv2.weight"):
        weight = decoded.state_dict()[name]
        assert symmetric(kernels, weight) and weight.any()
    plain = digits("free")
    plain.load_state_dict(decoded.state_dict(), strict=True)
    assert torch.equal(plain(images), outputs)


@pytest.mark.parametrize("genes", [{"alpha": 0.5}, {"symmetry": 0.1}, {"distinct": 0.1}, {"snap": 0.5}], ids=str)
def test_genes_of_kernels_want_one_that_is_free(genes: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"{next(iter(genes))}.* the network"):
        GenomeReader(configured_genes(**genes), {}).check(digits("radial"))
    GenomeReader(configured_genes(**genes), {}).check(digits(["radial", "free"]))


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        ("raidal", "kernels is 'raidal', .*Did you mean 'radial'"),
        (["free", "z"], "'z' is no kind of kernel. Known: .*radial"),
        (["x"], "one for each convolution: the network has 2 convolutions, conv1, conv2"),
        (3, "kernels is 3; give one word"),
        ("zero", "'zero' is no kind of kernel"),
    ],
)
def test_kernels_that_there_are_not(kernels: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        digits(kernels)


def test_kernels_that_a_layer_cannot_have() -> None:
    with pytest.raises(ModelError, match="layer '0' cannot be 'transpose': .*square"):
        constrained(nn.Sequential(nn.Conv2d(1, 2, (3, 5))), "transpose")
