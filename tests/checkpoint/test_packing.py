"""State dict to bytes and back."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

import evocompress
from evocompress import Recipe, Rule, pack, unpack
from evocompress.checkpoint.float32_size import float32_bytes
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.size_prior import size_prior
from evocompress.codecs import Sensitivity, inspect
from evocompress.errors import CodecError, FormatError


def network(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "fc.weight": (10, 72), "fc.bias": (10,), "scale": ()}
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def squared_error(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], name: str) -> float:
    return float((a[name].double() - b[name].double()).square().sum())


def test_names_order_shapes_and_dtypes_are_kept() -> None:
    state = network() | {
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(3, 4).bfloat16(),
        "double": torch.randn(3, 4).double(),
        "steps": torch.tensor(12345),
        "mask": torch.tensor([True, False, True]),
        "bytes": torch.arange(256, dtype=torch.uint8),
        "äöü/日本": torch.randn(2, 2),
        "": torch.randn(1),
    }
    decoded = unpack(pack(state, 1e-5))
    assert list(decoded) == list(state)
    for name, tensor in state.items():
        assert decoded[name].dtype == tensor.dtype and decoded[name].shape == tensor.shape
        if tensor.is_floating_point():
            assert torch.allclose(decoded[name].double(), tensor.double(), atol=0.02)
        else:
            assert torch.equal(decoded[name], tensor)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
def test_integers_are_exact_whatever_the_rate_weight(dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    tensor = torch.tensor([[limits.min, limits.max, 0, 1]], dtype=dtype)
    assert torch.equal(unpack(pack({"n": tensor}, 1e6))["n"], tensor)


def test_the_bytes_are_the_same_for_torch_and_numpy_and_every_time() -> None:
    state = network() | {"half": torch.randn(3, 4).half(), "brain": torch.ones(3, 4).bfloat16(), "n": torch.tensor(3)}
    arrays: dict[str, Any] = {k: v.numpy() for k, v in state.items() if v.dtype != torch.bfloat16}
    arrays = {k: arrays[k] if k in arrays else np.ones((3, 4), ml_dtypes.bfloat16) for k in state}
    assert pack(state, 1e-4) == pack(arrays, 1e-4) != pack(dict(state)) == pack(arrays)
    assert pack(state, Recipe(1e-4)) == pack(arrays, Recipe(1e-4))
    decoded, again = unpack(pack(state, 1e-4)), unpack(pack(arrays, 1e-4), framework="numpy")
    for name, tensor in decoded.items():
        array = again[name]
        assert tensor.dtype == torch.bfloat16 or np.array_equal(tensor.numpy(), array)
        assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")


def test_non_contiguous_tensors_are_coded_as_they_read() -> None:
    base = network()["fc.weight"]
    views = {"t": base.t(), "s": base[::2, ::3], "e": base[:1].expand(4, 72)}
    plain = {name: view.contiguous() for name, view in views.items()}
    assert pack(views, 1e-5) == pack(plain, 1e-5)


def test_tied_and_trainable_tensors() -> None:
    layer = torch.nn.Linear(6, 6)
    state = {"a.weight": layer.weight, "b.weight": layer.weight}
    decoded = unpack(pack(state, 1e-5))
    assert torch.allclose(decoded["a.weight"], decoded["b.weight"], atol=0.02)
    assert not decoded["a.weight"].requires_grad
    decoded["a.weight"].zero_()
    assert decoded["b.weight"].any(), "decoded tensors share no memory"


def test_an_empty_state_dict_and_empty_tensors() -> None:
    assert unpack(pack({})) == {}
    assert len(pack({})) < 16
    decoded = unpack(pack({"none": torch.zeros(0, 5), "nothing": torch.zeros(0, dtype=torch.int64)}))
    assert decoded["none"].shape == (0, 5) and decoded["nothing"].dtype == torch.int64


def test_five_thousand_tensors() -> None:
    rng = np.random.default_rng(0)
    state = {f"layers.{i}.bias": rng.laplace(0, 0.1, 4).astype(np.float32) for i in range(5000)}
    data = pack(state, Recipe(1e-3, (Rule(codecs=("deadzone(passes=0)",)),)))
    assert list(unpack(data, framework="numpy")) == list(state)
    assert len(data) < 5000 * 8


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "Inf"), (-float("inf"), "Inf")])
def test_what_is_not_finite_is_refused_by_name(value: float, word: str) -> None:
    state = network()
    state["fc.weight"][3, 4] = value
    with pytest.raises(CodecError, match=rf"'fc\.weight' holds {word}"):
        pack(state, 1e-4)
    kept = unpack(pack(state, Recipe(1e-4, (Rule("fc.weight", ("lossless",)),))))["fc.weight"]
    assert torch.equal(kept.nan_to_num(7.0), state["fc.weight"].nan_to_num(7.0))


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(3).to_sparse(),
        torch.zeros(3, device="meta"),
        nn.LazyLinear(2).weight,
        {"w": torch.zeros(3)},
        torch.zeros(3, dtype=torch.uint8).view(torch.bits8),
        np.zeros(3, np.longdouble),
        np.array(["a"]),
        np.array([None]),
        [1.0, 2.0],
        None,
        1.5,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_file_can_hold_is_refused_by_name(value: object) -> None:
    with pytest.raises(CodecError, match="'odd'"):
        pack({"fine": torch.zeros(3), "odd": value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Linear(2, 2),), "state_dict is a Linear; it must map names to tensors: model.state_dict"),
        (([1],), "state_dict is a list"),
        (({1: torch.ones(2)},), "state_dict has the name 1, an int"),
        (({"w": torch.ones(2)}, "best"), "recipe is 'best'; it must be a Recipe, or its rate weight"),
        (({"w": torch.ones(2)}, [1e-4]), "recipe is"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        pack(*arguments)


@pytest.mark.parametrize(
    ("sensitivities", "message"),
    [
        (3, "sensitivities is an int"),
        ({"fc.weight": None}, "'fc.weight': its sensitivity is None"),
        ({"fc.weight": "a"}, "'fc.weight': its sensitivity is a str"),
        ({"fc.weight": Sensitivity(np.eye(3)[None], np.ones(4))}, r"'fc.weight': .*matrix \(4, 3\).*\(10, 72\)"),
    ],
)
def test_sensitivities_of_another_kind_are_refused(sensitivities: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        pack(network(), 1e-4, sensitivities=sensitivities)


@pytest.mark.parametrize("data", ["w.evc", 3, None, [1, 2]])
def test_what_is_no_bytes_is_refused(data: Any) -> None:
    with pytest.raises(FormatError, match=r"data is .*give the bytes"):
        unpack(data)


def test_names_and_frameworks_of_another_kind_are_refused() -> None:
    data: Any = pack(network(), Recipe(names=False))
    framework: Any = "jax"
    with pytest.raises(CodecError, match="framework is 'jax'"):
        unpack(data, framework)
    for names in (3, [1, 2], nn.Linear(2, 2)):
        with pytest.raises(CodecError, match="names holds"):
            unpack(data, names=names)  # type: ignore[arg-type]


def test_messages_name_what_a_file_can_hold_and_cut_long_names() -> None:
    with pytest.raises(CodecError, match="bits8; convert it to one of float32, float16, bfloat16"):
        pack({"w": torch.zeros(3, dtype=torch.uint8).view(torch.bits8)})
    with pytest.raises(CodecError, match=r"'a+…a+b' holds NaN.*Rule\('a+\*a+b', \('lossless',\)\)") as caught:
        pack({"a" * 500 + "b": torch.tensor([float("nan")])})
    assert len(str(caught.value)) < 500
    with pytest.raises(CodecError, match=r"'w'.*add the rule Rule\('w', \('lossless',\)\)\.$"):
        pack({"w": torch.tensor([1e200], dtype=torch.float64)})


def test_a_subclass_of_a_tensor_is_one() -> None:
    class Mine(torch.Tensor):
        pass

    assert unpack(pack({"w": torch.ones(3).as_subclass(Mine)}, 1e-6))["w"].shape == (3,)


def test_a_smaller_rate_weight_is_larger_and_more_exact() -> None:
    state = network()
    files = [pack(state, weight) for weight in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)]
    assert [len(data) for data in files] == sorted(len(data) for data in files)
    errors = [sum(squared_error(unpack(data), state, name) for name in state) for data in files]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3 * errors[0]


def test_sensitivities_move_the_error_to_where_it_costs_less() -> None:
    state = network()
    plain = unpack(pack(state, 1e-4))
    uneven = unpack(pack(state, 1e-4, sensitivities={"fc.weight": 100.0, "conv.weight": 0.01}))
    assert squared_error(uneven, state, "fc.weight") < 0.1 * squared_error(plain, state, "fc.weight")
    assert squared_error(uneven, state, "conv.weight") > squared_error(plain, state, "conv.weight")
    assert torch.equal(uneven["fc.bias"], plain["fc.bias"])
    assert pack(state, 1e-4, sensitivities={}) == pack(state, 1e-4, sensitivities={"elsewhere": 3.0})


def test_the_prior_counts_beside_a_rate_weight_and_not_beside_a_recipe() -> None:
    state = network()
    prior, recipe = size_prior(state), preset(rate_weight=1e-3)
    assert prior == size_prior({name: tensor.numpy() for name, tensor in state.items()}) and len(prior) == 2
    assert pack(state, 1e-3) == pack(state, recipe, sensitivities=prior) != pack(state, recipe)
    assert pack(state, recipe) == pack(state, recipe, sensitivities={}) == pack(state, 1e-3, sensitivities={})


def test_float32_bytes_count_shapes_and_kinds() -> None:
    state = {"half": torch.zeros(3, 4, dtype=torch.bfloat16), "wide": torch.zeros(2).double(), "n": torch.tensor(3)}
    assert float32_bytes(state) == 4 * 12 + 4 * 2 + 8
    assert float32_bytes({"mask": np.ones(5, bool), "w": torch.zeros(7, device="meta")}) == 5 + 28


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sensitivity_must_be_positive(scale: float) -> None:
    with pytest.raises(CodecError, match=r"'fc\.weight'.*positive"):
        pack(network(), 1e-4, sensitivities={"fc.weight": scale})


def test_a_pattern_that_matches_nothing_is_refused_with_the_names() -> None:
    with pytest.raises(CodecError, match=r"'cnov\.\*'.*conv\.weight"):
        pack(network(), Recipe(1e-4, (Rule("cnov.*"),)))
    with pytest.raises(CodecError, match=r"\(none\)"):
        pack({}, Recipe(1e-4, (Rule("*"),)))


def test_rules_choose_the_codec() -> None:
    recipe = Recipe(1e-4, (Rule("fc.*", ("wavelet",), dims="matrix"), Rule("conv.weight", ("linearconv", "codebook"))))
    codecs = {info.name: info.codec for info in inspect(pack(network(), recipe))[0]}
    assert codecs["fc.weight"] == "wavelet+threshold+deadzone" and codecs["fc.bias"] == "deadzone"
    assert codecs["conv.weight"] in ("linearconv+deadzone", "codebook")


def test_more_candidates_never_score_worse() -> None:
    state = {"w": network()["fc.weight"]}
    weight = 1e-4

    def score(*codecs: str) -> float:
        data = pack(state, Recipe(weight, (Rule("w", codecs),)))
        return squared_error(unpack(data), state, "w") + weight * 8 * len(data)

    every = ("deadzone", "dct-matrix", "wavelet", "lowrank", "linearconv", "codebook")
    assert score(*every) <= min(score(codec) for codec in every) + 8 * 4 * weight  # up to the table's few bytes


@pytest.mark.parametrize(
    "garbage", [b"", b"EVC", b"EVC\x01" + bytes(60), bytes(1000), b"\x80\x04\x95garbage", b"PK\x03\x04"]
)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(FormatError):
        unpack(garbage)


def test_unpack_takes_any_bytes_and_torch_can_write_to_the_result() -> None:
    data = pack(network(), 1e-4)
    first, second = unpack(memoryview(data)), unpack(bytearray(data))  # type: ignore[call-overload]
    for name in first:
        assert torch.equal(first[name], second[name])
        first[name].add_(1)


def test_the_package_says_what_it_has() -> None:
    assert {"pack", "unpack", "Recipe", "Rule", "Cycle"} <= set(dir(evocompress))
    with pytest.raises(AttributeError, match="nothing"):
        _ = evocompress.nothing
