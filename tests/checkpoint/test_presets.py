"""Every preset takes any checkpoint, or says what is wrong with it."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from evocompress import Recipe, Rule, load, pack, unpack
from evocompress.checkpoint.presets import PRESETS, preset
from evocompress.checkpoint.tied_tensors import tied_tensors
from evocompress.codecs import inspect
from evocompress.codecs.coders import CoderName
from evocompress.codecs.container import parse
from evocompress.errors import CodecError

pytestmark = pytest.mark.slow

Array = npt.NDArray[Any]
presets = pytest.mark.parametrize("name", sorted(PRESETS))
ways = pytest.mark.parametrize("calibrated", [False, True])


def laplace(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).laplace(0, 0.05, shape).astype(np.float32)


def back(state: dict[str, Any], recipe: Recipe) -> dict[str, Array]:
    data = pack(state, recipe)
    found = unpack(data, "numpy")
    assert list(found) == list(state)
    for key, x in found.items():
        assert x.shape == tuple(state[key].shape) and (x.dtype.kind != "f" or np.isfinite(x).all())
    assert pack(state, recipe) == data
    return found


@ways
@presets
def test_odd_tensors_come_back(name: str, calibrated: bool) -> None:
    base = laplace(12, 6, 3, 3)
    state: dict[str, Any] = {
        "scalar": np.float32(0.7).reshape(()),
        "one": np.array([[[[-1.5]]]], np.float32),
        "ones": np.ones((1, 1), np.float64),
        "none": np.zeros((0, 3, 3, 3), np.float32),
        "zeros": np.zeros((16, 3, 3, 3), np.float32),
        "constant": np.full((20, 30), 0.3, np.float16),
        "constants": np.full(700, -2.5, np.float32),
        "denormal": (laplace(9, 18) * 1e-38).astype(np.float32) * np.float32(1e-3),
        "denormal64": laplace(9, 18).astype(np.float64) * 1e-310,
        "wide": laplace(10, 12).astype(np.float64) * np.logspace(-20, 20, 12),
        "Fortran": np.asfortranarray(laplace(24, 54)),
        "strided": base[::2, ::-1, :, ::2],
        "int64": np.array([[2**31, -(2**31) - 1], [2**63 - 1, -(2**63)]], np.int64),
        "uint64": np.array([2**64 - 1, 0], np.uint64),
        "uint32": np.array([2**32 - 1], np.uint32),
        "mask": np.array([True, False]),
    }
    found = back(state, preset(name, 1e-5, calibrated=calibrated))
    for key in ("int64", "uint64", "uint32", "mask", "zeros", "none"):
        assert np.array_equal(found[key], state[key])
    assert not found["denormal"].any() and not found["denormal64"].any()
    for key in ("scalar", "one", "constant", "constants", "Fortran", "strided"):
        assert np.abs(found[key].astype(np.float64) - state[key]).max() < 0.05
    contiguous = {key: np.ascontiguousarray(x).reshape(x.shape) for key, x in state.items()}
    assert pack(contiguous, preset(name, 1e-5)) == pack(state, preset(name, 1e-5))


@presets
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused_by_name(name: str, value: float) -> None:
    bad = laplace(4, 3, 3, 3)
    bad[2, 1, 0, 1] = value
    with pytest.raises(CodecError, match=r"'layer\.weight' holds"):
        pack({"fine": laplace(3, 3), "layer.weight": bad}, preset(name, 1e-5))
    kept = preset(name, 1e-5, (Rule("layer.weight", ("lossless",)),))
    assert unpack(pack({"layer.weight": bad}, kept), "numpy")["layer.weight"].tobytes() == bad.tobytes()


@presets
def test_no_tensors_and_a_thousand(name: str) -> None:
    assert back({}, preset(name, 1e-5)) == {}
    state = {f"layers.{i}.weight": laplace(2, 1, 3, 3, seed=i) for i in range(500)}
    state |= {f"layers.{i}.bias": laplace(2, seed=i) for i in range(500)}
    begin = time.process_time()
    back(state, preset(name, 1e-3))
    assert time.process_time() - begin < 30


@presets
@pytest.mark.parametrize("names", [True, False])
def test_shared_tensors_are_stored_once(name: str, names: bool) -> None:
    model = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(90, 24), "head": torch.nn.Linear(24, 90, bias=False)})
    alone = {"embedding.weight": model["embedding"].weight}
    model["head"].weight = model["embedding"].weight
    recipe = Recipe(1e-4, coder=PRESETS[name].coder, defaults=PRESETS[name].defaults, names=names)
    data, once = pack(model.state_dict(), recipe), pack(alone, recipe)
    assert len(data) < len(once) + 16
    found = unpack(data, names=model.state_dict())
    assert list(found) == ["embedding.weight", "head.weight"]
    assert torch.equal(found["embedding.weight"], found["head.weight"])
    found["head.weight"].zero_()
    assert found["embedding.weight"].any()
    assert [info.tied_to for info in inspect(data)[0]] == [None, "embedding.weight" if names else "0"]


def test_tensors_that_are_coded_differently_are_not_tied() -> None:
    x = laplace(20, 30)
    rules = (Rule("c", ("lossless",)), Rule("d", ("deadzone", "dct", "lowrank")), Rule("e", rate_factor=0.5))
    data = pack(dict.fromkeys("abcde", x), Recipe(1e-4, rules))
    assert [entry.source for entry in parse(data).tensors] == [None, 0, None, 0, None]
    assert np.array_equal(unpack(data, "numpy")["c"], x)


def test_only_equal_tensors_of_some_size_are_tied() -> None:
    x = laplace(20, 30)
    other = x.copy()
    other[-1, -1] += 1
    state = {"a": x, "other": other, "flat": x.ravel(), "wide": x.astype(np.float64), "b": x.copy(), "c": x}
    assert tied_tensors(state) == {"b": "a", "c": "a"}
    assert tied_tensors({"a": np.ones(64), "b": np.ones(64), "c": np.ones(65), "d": np.ones((65, 1))}) == {}
    assert tied_tensors({"a": x.T, "b": np.ascontiguousarray(x.T)}) == {"b": "a"}


def test_a_tied_tensor_has_the_sensitivity_of_the_first_name() -> None:
    x = laplace(40, 30)
    for names in (True, False):
        recipe = Recipe(1e-4, names=names)
        data = pack({"z": x, "a": x}, recipe, sensitivities={"z": 1000.0})
        found = unpack(data, "numpy", names=["a", "z"])
        assert np.array_equal(found["a"], unpack(pack({"z": x}, Recipe(1e-7)), "numpy")["z"])


@presets
def test_a_file_without_names_is_smaller_and_loads(name: str, tmp_path: Any) -> None:
    torch.manual_seed(0)
    model, other = (
        torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.Linear(6, 11)) for _ in range(2)
    )
    recipe = preset(name, 1e-8)
    state = dict(reversed(model.state_dict().items()))  # in whatever order
    named, nameless = pack(state, recipe), pack(state, Recipe(1e-8, (), recipe.coder, recipe.defaults, names=False))
    assert len(nameless) < len(named) - 10
    (tmp_path / "w.evc").write_bytes(nameless)
    load(tmp_path / "w.evc", other)
    for key, value in model.state_dict().items():
        assert torch.allclose(other.state_dict()[key].double(), value.double(), atol=1e-3)


@pytest.mark.parametrize("coder", ["classes", "mixing"])
def test_packing_does_not_keep_the_symbols_of_all_tensors(coder: CoderName) -> None:
    recipe = Recipe(1e-3, coder=coder, defaults=(Rule(codecs=("deadzone",)),))
    arrays = {str(i): laplace(100, 400, seed=i) for i in range(16)}
    peaks = []
    for count in (1, 4, 16):
        state = dict(list(arrays.items())[:count])
        tracemalloc.start()
        try:
            data = pack(state, recipe)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] - peaks[1] < 100 * 400 * 4 * 2 + 8 * len(data)  # the symbols of twelve more take six times as much
