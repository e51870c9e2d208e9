"""LinearConv: some filters of a convolution are learned, the others are learned combinations of them.

Kahatapitiya and Rodrigo, "Exploiting the Redundancy in Convolutional Filters for Parameter Reduction" (WACV 2021,
https://arxiv.org/abs/1907.11432). `codecs/linearconv.py` is the same idea as a codec, for weights that are trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.linearconv.geometry import Convolution, Geometry, PaddingMode, Pair, share
from evocompress.ideas.linearconv.kept_bank import KeptBank, are_differentiated

__all__ = ["LinearConv2d"]

_ROUNDING = 1e-9  # 0.1 · 30 is a little more than 3 in floating point, and its ceiling must not be 4


class LinearConv2d(Convolution, nn.Module):
    """A convolution whose bank of filters is [W_p; A·W_p], with `alpha`·out_channels primary filters W_p.

    In each of the `groups` there are p = ⌈alpha·out_channels/groups⌉ primary filters of K weights, and the n others
    are combinations of them with coefficients A (n, p). One convolution takes the whole bank. The parameters are

    - `primary` (groups·p, in_channels/groups, *kernel_size), all primary filters, group after group;
    - `coefficients` (groups·n, p), A; or, with `rank`, `coefficients_left` (groups·n, r) and `coefficients_right`
      (groups·r, p), whose products are A, r = ⌈rank·min(n, p)⌉; none of these where n is 0;
    - `bias` (out_channels,), as torch has it.

    A group holds fewer parameters than in torch's layer where p < K, with `rank` where r·(n + p) < n·K. Without
    gradients and in evaluation mode the bank is combined once and kept until a parameter has other values. Attributes
    such as `stride` are those of torch's layer.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As for `torch.nn.Conv2d`.
        alpha: Share of primary filters, in (0, 1].
        rank: Rank of A as a share of its full rank, in (0, 1]; None or 1: A is held as it is.
        sparsity: Share of A that is zero, in [0, 1): those of least magnitude, chosen anew at every update. Gradients
            pass to them as if they were there, so they may come back; a state dict has zeros in their places.

    Raises:
        ModelError: A share that is out of range, `rank` and `sparsity` together, or what no convolution can have.

    >>> layer = LinearConv2d(64, 128, 3, padding=1, bias=False, alpha=0.5)
    >>> {name: tuple(p.shape) for name, p in layer.named_parameters()}
    {'primary': (64, 64, 3, 3), 'coefficients': (64, 64)}
    >>> layer(torch.zeros(1, 64, 8, 8)).shape
    torch.Size([1, 128, 8, 8])
    """

    #: Its primary filters are kernels, as a convolution has.
    has_kernels = True

    coefficients: nn.Parameter | None
    coefficients_left: nn.Parameter | None
    coefficients_right: nn.Parameter | None
    bias: nn.Parameter | None
    is_primary: Tensor | None
    """Which of the outputs are those of primary filters, (out_channels,) bool; None: the first p of each group."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        alpha: float = 0.5,
        rank: float | None = None,
        sparsity: float | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.geometry = Geometry.of(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            padding_mode=padding_mode,
        )
        self.alpha = share("alpha", alpha)
        self.rank = 1.0 if rank is None else share("rank", rank)
        self.sparsity = 0.0 if sparsity is None else share("sparsity", sparsity, zero=True)
        if self.rank < 1 and self.sparsity:
            raise ModelError(
                f"rank is {rank} and sparsity is {sparsity}; give one of them, coefficients cannot be both"
            )
        self._register(bias, lambda *shape: nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.register_buffer("is_primary", None)
        self._kept: KeptBank | None = None
        self.reset_parameters()

    def _register(self, bias: bool, new: Callable[..., nn.Parameter]) -> None:
        groups, in_group = self.geometry.groups, self.geometry.out_channels // self.geometry.groups
        self.primaries = _part(self.alpha, in_group)
        others = in_group - self.primaries
        self.components = _part(self.rank, min(others, self.primaries))
        low, whole = others > 0 and self.rank < 1, others > 0 and self.rank == 1
        self.primary = new(groups * self.primaries, *self.geometry.filter_shape)
        # Registered, None too: a plain attribute would pass for one that a network has put into the layer.
        register = self.register_parameter
        register("coefficients", new(groups * others, self.primaries) if whole else None)
        register("coefficients_left", new(groups * others, self.components) if low else None)
        register("coefficients_right", new(groups * self.components, self.primaries) if low else None)
        register("bias", new(self.geometry.out_channels) if bias else None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters anew, so that all filters have the variance that torch's own layer starts with.

        That is 1 / (3·K), a uniform distribution up to 1/√K (He et al., 2015, with torch's choice of gain). The entries
        of A·W_p have p·Var(A) times the variance of W_p, so Var(A) = 1/p; the factors of a low-rank A have 1/r and 1/p.
        Where only the largest of A are kept, A is drawn wider by what the others would have added.
        """
        bound = 1 / math.sqrt(self.geometry.fan_in)
        self.primary.uniform_(-bound, bound)
        if self.bias is not None:
            self.bias.uniform_(-bound, bound)
        wide = math.sqrt(3 / self.primaries)
        if self.coefficients is not None:
            # Of a uniform variable's second moment the smallest share s in magnitude makes s³.
            wide /= math.sqrt(1 - self.sparsity**3)
            self.coefficients.uniform_(-wide, wide)
        if self.coefficients_left is not None and self.coefficients_right is not None:
            self.coefficients_right.uniform_(-wide, wide)
            narrow = math.sqrt(3 / self.components)
            self.coefficients_left.uniform_(-narrow, narrow)

    @property
    def weight(self) -> Tensor:
        """The whole bank (out_channels, in_channels/groups, *kernel_size), combined; not to be written to."""
        if self.training or self.primary.is_meta or not self._combines:
            return self._combine()
        # A trace must hold the combination, and not a bank of today.
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return self._combine()
        if are_differentiated(self._factors()):
            return self._combine()
        # Even where the caller is in inference mode the bank must be a plain tensor: it outlives that mode.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.primary.device.type, enabled=False):
            factors, kept = self._factors(), self._kept  # another thread may let it go meanwhile
            if kept is None or not kept.holds(factors, self.sparsity):
                self._kept = kept = KeptBank.of(self._combine(), factors, self.sparsity)
            return kept.bank

    def forward(self, images: Tensor) -> Tensor:
        """(n, in_channels, h, w) to (n, out_channels, h', w'), as `torch.nn.Conv2d` with the weights `weight`."""
        return self.geometry.apply(images, self.weight, self.bias)

    def folded(self) -> nn.Conv2d:
        """A plain convolution that computes the same, with weights of its own."""
        parameter = self.primary
        plain = self.geometry.module(bias=self.bias is not None, device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad():
            plain.weight.copy_(self._combine())
            if self.bias is not None and plain.bias is not None:
                plain.bias.copy_(self.bias)
                plain.bias.requires_grad_(self.bias.requires_grad)
        plain.weight.requires_grad_(parameter.requires_grad)
        return plain.train(self.training)

    def extra_repr(self) -> str:
        """What was asked for, and how many primary filters that makes."""
        shape, suffix = self.geometry, f", primaries={self.primaries * self.geometry.groups}"
        parts = [f"{shape.in_channels}, {shape.out_channels}, kernel_size={shape.kernel}, stride={shape.stride}"]
        parts += [f"padding={shape.padding}"] if shape.padding != (0, 0) else []
        parts += [f"dilation={shape.dilation}"] if shape.dilation != (1, 1) else []
        parts += [f"groups={shape.groups}"] if shape.groups > 1 else []
        parts += ["bias=False"] if self.bias is None else []
        parts += [f"padding_mode={shape.padding_mode!r}"] if shape.padding_mode != "zeros" else []
        parts += [f"alpha={self.alpha:g}"]
        parts += [f"rank={self.rank:g}"] if self.rank < 1 else []
        parts += [f"sparsity={self.sparsity:g}"] if self.sparsity else []
        return ", ".join(parts) + suffix

    @property
    def entries(self) -> int:
        """How many coefficients count: all of A but the share `sparsity`, and at least one; 0 where A is not held."""
        total = 0 if self.coefficients is None else self.coefficients.numel()
        return min(max(round((1 - self.sparsity) * total), 1), total)

    @property
    def _combines(self) -> bool:
        return self.primaries * self.geometry.groups < self.geometry.out_channels

    def _factors(self) -> list[Tensor]:
        """Everything that the bank is made of."""
        factors = self.primary, self.coefficients, self.coefficients_left, self.coefficients_right, self.is_primary
        return [factor for factor in factors if factor is not None]

    def _combine(self) -> Tensor:
        shape, primary = self.geometry, self.primary
        filters = primary.reshape(shape.groups, self.primaries, -1)
        if self.coefficients_left is not None and self.coefficients_right is not None:
            right = self.coefficients_right.reshape(shape.groups, self.components, -1) @ filters
            others = self.coefficients_left.reshape(shape.groups, -1, self.components) @ right
        elif self.coefficients is not None:
            others = self._sparse(self.coefficients).reshape(shape.groups, -1, self.primaries) @ filters
        else:
            return primary
        bank = torch.cat([filters, others], dim=1)
        if self.is_primary is not None:
            # Sorting puts the places of the primaries first; where a filter came from is the inverse of that.
            places = (~self.is_primary).reshape(shape.groups, -1).byte().argsort(dim=1, stable=True)
            first = torch.arange(shape.groups, device=bank.device)[:, None] * bank.shape[1]
            bank = bank.flatten(0, 1).index_select(0, (places.argsort(dim=1) + first).flatten())
        return bank.reshape(shape.out_channels, *shape.filter_shape)

    def _sparse(self, coefficients: Tensor) -> Tensor:
        """Zeros for the smallest; gradients pass straight through (Bengio et al., 2013)."""
        if not self.sparsity:
            return coefficients
        values = coefficients.detach()
        largest = values.abs().flatten().topk(self.entries).indices
        dropped = values.flatten().index_fill(0, largest, 0).reshape(values.shape)
        return coefficients - dropped

    def train(self, mode: bool = True) -> LinearConv2d:
        """Set the mode; what was kept of the bank is let go."""
        self._kept = None
        super().train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LinearConv2d:
        self._kept = None  # it would stay on the old device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}  # copies and pickles combine anew

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.sparsity and self.coefficients is not None and not keep_vars:
            # What is saved is what is computed with: a codec then sees the zeros.
            destination[prefix + "coefficients"] = self._sparse(self.coefficients.detach())

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        mask = state_dict.get(prefix + "is_primary")
        if mask is not None:
            if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
                error_msgs.append(f"{prefix}is_primary holds numbers other than 0 and 1; it must be a mask, of bool")
                return
            # A file may hold the mask as numbers, and `assign` would put those into the layer.
            state_dict[prefix + "is_primary"] = mask = mask.bool()
            groups, outputs = self.geometry.groups, self.geometry.out_channels
            marked = mask.reshape(groups, -1).sum(dim=1).tolist() if mask.shape == (outputs,) else []
            if marked != [self.primaries] * groups:
                rule = f"must be ({outputs},), with {self.primaries} filters marked in each of {groups} groups"
                error_msgs.append(
                    f"{prefix}is_primary is {tuple(mask.shape)} and marks {sum(marked)} filters; it {rule}"
                )
                return
            if self.is_primary is None:  # a fresh layer takes the order of a converted one
                self.is_primary = torch.zeros_like(mask, device=self.primary.device)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _part(share_of: float, whole: int) -> int:
    """⌈share_of·whole⌉, at least 1, but 0 of nothing."""
    return min(max(math.ceil(share_of * whole - _ROUNDING), 1), whole)
