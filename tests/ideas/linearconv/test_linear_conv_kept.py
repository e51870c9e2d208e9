"""LinearConv: the bank that is kept in evaluation mode."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evocompress.ideas.linearconv import LinearConv2d, fold

pytestmark = pytest.mark.usefixtures("seeded")


def counted(layer: LinearConv2d, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with every combination."""
    calls: list[int] = []
    combine = LinearConv2d._combine

    def count(self: LinearConv2d) -> Tensor:
        if self is layer:
            calls.append(1)
        return combine(self)

    monkeypatch.setattr(LinearConv2d, "_combine", count)
    return calls


def _optimiser_step(kind: type[torch.optim.Optimizer], **options: Any) -> Callable[[LinearConv2d], None]:
    def step(layer: LinearConv2d) -> None:
        optimiser = kind(layer.parameters(), lr=0.1, **options)  # type: ignore[call-arg]
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()

    return step


def _in_place(layer: LinearConv2d) -> None:
    with torch.no_grad():
        layer.primary.mul_(2)


def _by_data(layer: LinearConv2d) -> None:
    assert layer.coefficients is not None
    layer.coefficients.data.mul_(2)


def _load(layer: LinearConv2d) -> None:
    other = LinearConv2d(4, 6, 3)
    layer.load_state_dict(other.state_dict())


def _assign(layer: LinearConv2d) -> None:
    layer.load_state_dict(LinearConv2d(4, 6, 3).state_dict(), assign=True)


def _half_and_back(layer: LinearConv2d) -> None:
    layer.half().float()


def _through_numpy(layer: LinearConv2d) -> None:
    layer.primary.detach().numpy()[0] = 7


CHANGES: dict[str, Callable[[LinearConv2d], None]] = {
    "adam": _optimiser_step(torch.optim.Adam),
    "fused adam": _optimiser_step(torch.optim.Adam, fused=True),  # does not count its writes
    "fused sgd": _optimiser_step(torch.optim.SGD, momentum=0.9, fused=True),
    "foreach": _optimiser_step(torch.optim.SGD, foreach=True),
    "in place": _in_place,
    ".data": _by_data,
    "load": _load,
    "assign": _assign,
    "dtype": _half_and_back,
    "numpy": _through_numpy,
}


def _write_to_the_bank(layer: LinearConv2d) -> None:
    with torch.no_grad():
        layer.weight.mul_(2)


def test_a_bank_that_was_written_to_or_has_another_sparsity_is_combined_anew() -> None:
    layer = LinearConv2d(4, 12, 3, sparsity=0.25).eval()
    images = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        first = layer(images)
        _write_to_the_bank(layer)
        assert torch.equal(layer(images), first)
        layer.sparsity = 0.75
        assert not torch.equal(layer(images), first)
        torch.testing.assert_close(layer(images), fold(layer)(images))


def test_another_thread_may_let_the_bank_go() -> None:
    layer = LinearConv2d(4, 6, 3).eval()
    images, errors, done = torch.randn(1, 4, 5, 5), list[Exception](), threading.Event()

    def infer() -> None:
        try:
            with torch.no_grad():
                for _ in range(2000):
                    layer(images)
        except Exception as error:
            errors.append(error)
        done.set()

    thread = threading.Thread(target=infer)
    thread.start()
    while not done.is_set():
        layer.eval()
    thread.join()
    assert not errors


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_a_trace_holds_the_combination(alpha: float) -> None:
    layer, images = LinearConv2d(4, 6, 3, alpha=alpha).eval(), torch.randn(1, 4, 5, 5)
    trace: Callable[..., Any] = torch.jit.trace
    with torch.no_grad():
        layer(images)
        without = trace(layer, images)
    for traced in (without, trace(layer, images)):
        layer.primary.data.mul_(2)
        with torch.no_grad():
            torch.testing.assert_close(traced(images), layer(images))


@pytest.mark.parametrize("change", CHANGES)
def test_the_bank_is_combined_once_and_never_stale(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LinearConv2d(4, 6, 3).eval()
    calls = counted(layer, monkeypatch)
    images = torch.randn(1, 4, 5, 5)
    with torch.inference_mode():
        first = layer(images)
        assert torch.equal(layer(images), first) and len(calls) == 1
    CHANGES[change](layer)
    calls.clear()
    with torch.no_grad():
        after = layer(images)
        assert torch.equal(layer(images), after) and len(calls) == 1
    assert not torch.equal(after, first)
    torch.testing.assert_close(after, fold(layer)(images))


def test_a_bank_that_was_kept_in_inference_mode_serves_gradients_of_images() -> None:
    layer = LinearConv2d(4, 6, 3).eval().requires_grad_(False)
    with torch.inference_mode():
        layer(torch.zeros(1, 4, 5, 5))
    with torch.no_grad():
        bank = layer.weight
    images = torch.randn(1, 4, 5, 5, requires_grad=True)
    # An inference tensor could not be saved for the backward pass.
    nn.functional.conv2d(images, bank).sum().backward()  # type: ignore[no-untyped-call]
    layer(images).square().sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


def test_a_kept_bank_is_neither_copied_nor_pickled_nor_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LinearConv2d(4, 6, 3).eval()
    images = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        first = layer(images)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert other._kept is None and layer._kept is not None
        _in_place(other)
        with torch.no_grad():
            assert not torch.equal(other(images), first)
            assert torch.equal(layer(images), first)
    layer(images).sum().backward()  # with gradients the bank is combined with its graph
    assert layer.primary.grad is not None
    calls = counted(layer, monkeypatch)
    layer.train()
    with torch.no_grad():
        layer(images)
        layer(images)
    assert len(calls) == 2


def test_weights_of_a_functional_call_are_the_ones_that_count() -> None:
    layer = LinearConv2d(4, 6, 3, bias=False).eval()
    images = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        first = layer(images)
        swapped = {name: 2 * p for name, p in layer.named_parameters()}
        torch.testing.assert_close(torch.func.functional_call(layer, swapped, (images,))[:, :3], 2 * first[:, :3])
        stacked = {name: torch.stack([p, 2 * p]) for name, p in layer.named_parameters()}
        both = torch.func.vmap(lambda p: torch.func.functional_call(layer, p, (images,)))(stacked)
        torch.testing.assert_close(both[1, :, :3], 2 * first[:, :3])
        assert torch.equal(layer(images), first)
        gradients = torch.func.grad(lambda p: torch.func.functional_call(layer, p, (images,)).square().sum())(swapped)
    assert gradients["coefficients"].abs().sum() > 0


def test_frozen_factors_are_combined_once_with_gradients_too(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LinearConv2d(4, 6, 3).eval().requires_grad_(False)
    calls = counted(layer, monkeypatch)
    images = torch.randn(1, 4, 5, 5, requires_grad=True)
    for _ in range(3):
        layer(images).square().sum().backward()
    assert len(calls) == 1 and images.grad is not None


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch itself
@pytest.mark.parametrize("enabled", [True, False])
def test_forward_derivatives_are_those_of_the_combination(enabled: bool) -> None:
    layer = LinearConv2d(4, 6, 3, bias=False).eval().requires_grad_(False)
    images = torch.randn(1, 4, 5, 5)
    factors = {name: p.detach() for name, p in layer.named_parameters()}
    with torch.no_grad():
        before = layer(images)

    def call(p: dict[str, Tensor]) -> Tensor:
        outputs: Tensor = torch.func.functional_call(layer, p, (images,))
        return outputs

    with torch.set_grad_enabled(enabled):
        found = torch.func.jvp(call, (factors,), ({name: p.clone() for name, p in factors.items()},))[1]
    scaled = {name: 1.001 * p for name, p in factors.items()}
    with torch.no_grad():
        assert torch.equal(layer(images), before)
        torch.testing.assert_close(found, (call(scaled) - before) / 0.001, rtol=1e-2, atol=1e-3)


def test_autocast_leaves_no_rounded_bank_behind() -> None:
    layer = LinearConv2d(4, 6, 3).eval()
    images = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(images).dtype == torch.bfloat16
        torch.testing.assert_close(layer(images), fold(layer)(images))
