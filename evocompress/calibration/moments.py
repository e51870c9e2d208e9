"""Second moments of what goes into a layer and of the gradients that come back out, layer by layer.

With them the Gauss-Newton matrix of a layer's weights is about a Kronecker product (Martens and Grosse, 2015). A layer
whose weights are used in several places, or that shares them with another, gets the sum over all of them. Of a wide
layer only blocks along the diagonal are kept, as in `Sensitivity`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.calibration.layer_views import view_of
from evocompress.codecs import Sensitivity
from evocompress.protocols import Call
from evocompress.support.modules import first_tensor

__all__ = ["BLOCK", "WIDE", "Moments", "blocked_columns", "second_moment"]

_UNSEEN = 0.5  # occurrences that a token counts as in addition, so that unseen ones cost something
_TINY = 1e-300
_IN_FLOAT32 = 640  # columns; a larger H is kept in float32, as it takes more memory than the weights

#: Columns beyond which a layer is wide. Time grows with the cube of K, memory with its square: 8192 columns would take
#: minutes and gigabytes, for feedback between columns that lie far apart.
WIDE = 4096
BLOCK = 1024  # columns of a block; a multiple of the 64 that are searched at a time


def blocked_columns(groups: int, columns: int) -> int:
    """K of a layer that is wide, as `Sensitivity.columns` has it; 0 of one that is not."""
    return columns if groups == 1 and columns > WIDE else 0


def second_moment(left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ·right (groups, K, K) of rows (groups, n, K); of a wide layer its blocks (K/1024 rounded up, 1024, 1024).

    >>> import torch
    >>> second_moment(torch.ones(2, 5, 3), torch.ones(2, 5, 3)).shape
    torch.Size([2, 3, 3])
    >>> rows = torch.ones(1, 5, 4200)
    >>> second_moment(rows, rows).shape
    torch.Size([5, 1024, 1024])
    """
    groups, _, columns = left.shape
    if not blocked_columns(groups, columns):
        return left.mT @ right
    moments = left.new_zeros(-(-columns // BLOCK), BLOCK, BLOCK)
    for block, first in zip(moments, range(0, columns, BLOCK), strict=True):
        size = min(BLOCK, columns - first)
        part = slice(first, first + size)
        block[:size, :size] = left[0, :, part].mT @ right[0, :, part]
    return moments


@dataclasses.dataclass
class _Use:
    """Sums over one module's use of one parameter: H (groups, K, K); g (O,), None where the parameter's gradient is it.

    `count` is how many rows went into H; `seen` counts the tokens of an embedding, 0 for everything else. H may be
    the blocks of a wide layer; `columns` says so (`second_moment`).
    """

    H: Tensor
    count: int
    g: Tensor | None
    seen: int
    columns: int


class Moments:
    """Adds up H and g of every layer that has them, while it is entered.

    A layer is watched by hooks; what they see is in layer_views/.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._modules = [(path, module) for path, module in model.named_modules() if view_of(module) is not None]
        self._uses: dict[str, dict[str, _Use]] = {}
        self._rows: dict[str, Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._busy = False
        #: A parameter whose moments are not finite, once there is one.
        self.overflown: str | None = None

    def __enter__(self) -> Moments:
        for path, module in self._modules:
            self._handles.append(module.register_forward_hook(self._hook(path), with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
        def forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            view = view_of(module)
            if self._busy or view is None or not first_tensor(output).requires_grad:
                return
            self._busy = True  # some views call the module again
            try:
                view.observe(module, Call(args, kwargs, output), functools.partial(self._add, path))
            finally:
                self._busy = False

        return forward

    def _add(self, path: str, parameter: Tensor, rows: Tensor, squares: Tensor | None = None, seen: int = 0) -> None:
        name = self._names.get(id(parameter))
        if name is None:
            return
        H = second_moment(rows, rows).cpu()
        H = H if H.shape[1] > _IN_FLOAT32 else H.double()
        g = None if squares is None else squares.double().cpu()
        if not H.diagonal(dim1=1, dim2=2).isfinite().all() or (g is not None and not g.isfinite().all()):
            self.overflown = name
        use = self._uses.setdefault(name, {}).get(path)
        if use is None:
            self._uses[name][path] = _Use(H, rows.shape[1], g, seen, blocked_columns(len(rows), rows.shape[2]))
            return
        use.H += H
        use.count += rows.shape[1]
        use.seen += seen
        use.g = g if use.g is None else use.g + g if g is not None else use.g

    def gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Take in the parameters' gradients of a batch: their squared rows are g where no layer gives a better one."""
        for name, gradient in gradients.items():
            if any(use.g is None for use in self._uses.get(name, {}).values()):
                squares = gradient.double().square().flatten(1).sum(dim=1).cpu()
                self._rows[name] = self._rows[name] + squares if name in self._rows else squares

    def sensitivity(self, name: str, scale: float) -> Sensitivity | None:
        """Kronecker factors of a parameter, of mean `scale` over what was seen.

        None where it has none, or they are zero (it never ran, or its input is dead).
        """
        uses = list(self._uses_with_gradient(name))
        if not uses or any(use.H.shape != uses[0][0].H.shape for use, _ in uses):
            return None
        H, g = torch.zeros_like(uses[0][0].H), torch.zeros_like(uses[0][1])
        for use, use_g in uses:  # each with its share of the trace, on both sides of the product
            inputs, outputs = max(float(use.H.diagonal(dim1=1, dim2=2).sum()), _TINY), max(float(use_g.sum()), _TINY)
            share = outputs if use.seen else inputs * outputs / use.count
            H += share / inputs * use.H
            g += share / outputs * (_smoothed(use_g, use.seen) if use.seen else use_g)
        uneven = any(use.seen for use, _ in uses)
        combined = Sensitivity(H.numpy(), g.numpy(), uses[0][0].columns, uneven)
        return combined.scaled(scale / combined.scale) if combined.scale > 0 else None

    def _uses_with_gradient(self, name: str) -> Iterator[tuple[_Use, Tensor]]:
        for use in self._uses.get(name, {}).values():
            g = self._rows.get(name) if use.g is None else use.g
            if g is not None:
                yield use, g


def _smoothed(g: Tensor, seen: int) -> Tensor:
    """g of an embedding of `seen` tokens: rows that were not seen are given something too; the sum stays."""
    smoothed = g + _UNSEEN * g.sum() / seen
    return smoothed * (g.sum() / smoothed.sum().clamp(min=_TINY))
