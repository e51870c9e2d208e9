"""LinearConv: what a file's factors say of a network, what a larger alpha keeps, and layers of other forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from evocompress.checkpoint.forms import changed, loaded
from evocompress.checkpoint.loading import load_formed
from evocompress.errors import ModelError
from evocompress.ideas.linearconv import LinearConv2d, compare, convert, fold

pytestmark = pytest.mark.usefixtures("seeded")


def network(width: int = 16) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, width, 3))


@pytest.mark.parametrize(("rank", "new_rank", "lost"), [(1.0, 1.0, 0.0), (0.5, 1.0, 0.0), (0.5, 0.5, 0.07)])
def test_a_layer_that_grows_is_exact_where_the_new_rank_is_full(rank: float, new_rank: float, lost: float) -> None:
    plain = network(64)
    half = changed(plain, plain, {"alpha": 0.5, "rank": rank})
    grown = changed(half, plain, {"alpha": 0.5625, "rank": new_rank})
    before, after = (found.get_submodule("1").weight for found in (half, grown))
    assert isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor)
    assert ((after - before).norm() / before.norm()).item() == pytest.approx(lost, abs=0.01 if lost else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
def test_a_mask_may_be_held_as_numbers_but_only_0_and_1(dtype: torch.dtype) -> None:
    plain = network()
    state = changed(plain, plain, {"alpha": 0.5}).state_dict()
    mask, images = state["1.is_primary"], torch.randn(1, 3, 9, 9)
    expected = loaded(plain, state, "x.evc")(images)
    layer = loaded(plain, {**state, "1.is_primary": mask.to(dtype)}, "x.evc")
    assert layer.get_buffer("1.is_primary").dtype == torch.bool
    assert torch.equal(layer(images), expected)
    layer.load_state_dict({**state, "1.is_primary": mask.to(dtype)}, assign=True)
    assert torch.equal(layer(images), expected)
    other = 2 * mask.to(dtype) if dtype != torch.float32 else mask.float() - 0.5
    refusal = r"x\.evc does not fit .*1\.is_primary (holds numbers other than|.*cannot hold)"
    with pytest.raises(ModelError, match=refusal):
        loaded(plain, {**state, "1.is_primary": other}, "x.evc")


def test_a_file_is_loaded_in_its_own_form(tmp_path: Path) -> None:
    plain, path = network(), tmp_path / "w.safetensors"
    factored = convert(plain, 0.5, rank=0.5)
    safetensors.torch.save_file(factored.state_dict(), path)
    found = load_formed(path, plain)
    assert isinstance(found.get_submodule("1"), LinearConv2d) and type(plain[1]) is nn.Conv2d
    images = torch.randn(1, 3, 9, 9)
    assert torch.equal(found(images), factored(images))
    with pytest.raises(ModelError, match="does not fit the model: .*1.is_primary .16 in the file, 12 in the model"):
        load_formed(path, network(12))


def test_a_network_may_read_a_layers_arguments() -> None:
    options: dict[str, Any] = {"stride": (1, 2), "padding": (2, 1), "dilation": 2, "groups": 2}
    for more in ({}, {"padding": "same", "stride": 1}, {"padding_mode": "reflect", "bias": False}):
        plain = nn.Conv2d(8, 12, (3, 2), **(options | more))
        layer = convert(plain, 0.5, skip_first=False)
        assert isinstance(layer, LinearConv2d)
        for name in nn.Conv2d.__constants__:
            if name != "output_padding":
                assert getattr(layer, name) == getattr(plain, name), name
        with pytest.raises(AttributeError):
            layer.stride = 3


@pytest.mark.parametrize("groups", [1, 2])
def test_sparse_coefficients_are_chosen_and_solved_for(groups: int) -> None:
    plain = nn.Conv2d(8, 24, 3, groups=groups, bias=False)
    each, half = 24 // groups, 12 // groups
    with torch.no_grad():  # filters that lie in a space of half as many dimensions, most near to a few axes
        exact = torch.cat([torch.randn(each, half) ** 3 @ torch.randn(half, 72 // groups) for _ in range(groups)])
        plain.weight.copy_(exact.reshape(plain.weight.shape))
    sparse: Any = convert(plain, 0.5, sparsity=0.75, skip_first=False)
    naive: Any = convert(plain, 0.5, skip_first=False)
    assert torch.equal(sparse.is_primary, naive.is_primary) and compare(plain, naive)[0].relative_error < 1e-6
    naive.sparsity = 0.75  # the largest of A, as they are
    found = sparse.coefficients.detach()
    assert int((found != 0).sum()) == found.numel() // 4 == sparse.entries
    assert torch.equal(found, sparse.state_dict()["coefficients"])
    errors = [compare(plain, layer)[0].relative_error for layer in (sparse, naive)]
    assert 0 < errors[0] < 0.8 * errors[1]
    torch.testing.assert_close(fold(sparse).get_parameter("weight"), sparse.weight)


def test_a_sparse_coefficient_counts_as_long_as_its_primary_filter() -> None:
    plain = nn.Conv2d(1, 4, 2, bias=False)
    with torch.no_grad():  # a long primary filter, a short one, and sums in which that has the larger coefficients
        rows = torch.tensor([[100.0, 0.0, 0, 0], [0, 1, 0, 0], [10, 0.9, 0, 0], [-10, 0.8, 0, 0]])
        plain.weight.copy_(rows.reshape(4, 1, 2, 2))
    layer: Any = convert(plain, 0.5, sparsity=0.5, skip_first=False)
    assert layer.is_primary.tolist() == [True, True, False, False]
    torch.testing.assert_close(layer.coefficients.detach(), torch.tensor([[0.1, 0.0], [-0.1, 0.0]]))
