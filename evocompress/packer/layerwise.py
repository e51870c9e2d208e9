"""Layer after layer: each is quantised for the inputs that it will really get, and makes good what went wrong before.

The network and its quantised copy are run side by side, stopping before each layer. There the weights W become those
that, on the copy's inputs x', come closest to what the network computes from its own, x (ridge regression towards W),
and are then quantised with H = E[x' x'ᵀ]. After that the layer's biases, and the scales and biases of normalisations,
are fitted so that each channel of the copy's output has the network's mean and follows it best. In post-training
quantisation the idea is known from AdaQuant (Hubara et al., 2021) and GPTAQ (Li et al., 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from evocompress.calibration.layer_views import view_of
from evocompress.calibration.moments import blocked_columns, second_moment
from evocompress.checkpoint.packing import encode_tensor, to_numpy, to_torch
from evocompress.checkpoint.recipe import Recipe
from evocompress.codecs import Record, Sensitivity
from evocompress.codecs.dtypes import to_dtype
from evocompress.data.examples import Examples
from evocompress.packer.layerwise_forward import forward_in_steps
from evocompress.protocols import LayerView
from evocompress.support.modules import copied, evaluation_mode

__all__ = ["Target", "layerwise_records"]

_BATCH = 128
_RIDGE = 0.01  # of the mean of H's diagonal
_RIDGE_PER_COLUMN = 0.1  # times columns over rows: few examples cannot say much of many weights
_ROWS_PER_COLUMN = 256  # are enough for second moments
_SHRINK = 1e-3  # of the channels' mean variance: dead channels keep their scale


class Target(NamedTuple):
    """What a matrix's codes were made from: its values, already fitted to its inputs, and what their errors cost."""

    values: npt.NDArray[np.float64]
    sensitivity: Sensitivity


def layerwise_records(
    model: nn.Module,
    state: Mapping[str, Tensor],
    recipe: Recipe,
    examples: Examples,
    sensitivities: Mapping[str, float | Sensitivity],
    *,
    device: torch.device | str = "cpu",
    targets: dict[str, Target] | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Record]:
    """The coded form of every tensor of a checkpoint, for `pack(state, recipe, records=…)`.

    Args:
        model: The network as it was trained; its mode, weights and device are left as they were.
        state: The checkpoint: names, values and dtypes of what will be in the file. The values may be written in
            another way than the model's (checkpoint/fold_statistics.py).
        recipe: Which codecs, at which λ.
        examples: All calibration examples that shall be used; their activations are held in memory.
        sensitivities: second_order.py's, of the same model.
        device: Where to compute.
        targets: Is filled with those of the matrices, by name.
        progress: Called with the share of layers that are done, from 0 to 1.

    Raises:
        ModelError: The network fails on the examples, or has no fixed order of layers.
        CodecError: A tensor cannot be coded under the recipe.
    """
    original = copied(model).to(device)
    quantised = copied(original)
    quantised.load_state_dict(dict(state), strict=False)
    job = _Job(original, quantised, state, recipe, sensitivities, targets)
    examples = examples.to(device)
    batches = [examples.batch(slice(at, at + _BATCH))[0] for at in range(0, len(examples), _BATCH)]
    with evaluation_mode(original), evaluation_mode(quantised), torch.no_grad():
        called = [stop.path for stop in forward_in_steps(original, [examples.batch(slice(0, 2))[0]], job.paths)]
        for path in job.paths:
            if path not in called:
                job.encode_as_is(path)
        stops = zip(
            forward_in_steps(original, batches, called), forward_in_steps(quantised, batches, called), strict=True
        )
        for done, (before, after) in enumerate(stops):
            job.visit(before.path, before.inputs, after.inputs)
            if progress is not None:
                progress((done + 1) / len(called))
    return job.records


class _Job:
    """Both networks, and what has been coded so far."""

    def __init__(
        self,
        original: nn.Module,
        quantised: nn.Module,
        state: Mapping[str, Tensor],
        recipe: Recipe,
        sensitivities: Mapping[str, float | Sensitivity],
        targets: dict[str, Target] | None,
    ) -> None:
        self._targets = targets
        self._original, self._quantised = dict(original.named_modules()), dict(quantised.named_modules())
        self._state, self._recipe, self._sensitivities = state, recipe, sensitivities
        self.records: dict[str, Record] = {}
        self._done: set[int] = set()  # tensors of the copy that are quantised, so that tied ones are but once
        self.paths = [path for path in self._quantised if any(self._held_tensors(path))]

    def _held_tensors(self, path: str) -> Iterator[tuple[str, str, Tensor]]:
        """Name in the module, name in the checkpoint, and tensor of what a module of the copy holds itself."""
        module = self._quantised[path]
        for leaf, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            name = f"{path}.{leaf}" if path else leaf
            if name in self._state:
                yield leaf, name, tensor

    def encode_as_is(self, path: str) -> None:
        """Code what a module holds, without knowledge of its inputs."""
        for _, name, tensor in self._held_tensors(path):
            self._encode(name, tensor)

    def visit(self, path: str, before: Sequence[Any], after: Sequence[Any]) -> None:
        """Code what a module holds, given the inputs of both networks."""
        original, quantised = self._original[path], self._quantised[path]
        view, late = view_of(quantised), []
        for leaf, name, tensor in self._held_tensors(path):
            if tensor.ndim >= 2 and view is not None and leaf == "weight":
                self._matrix(name, view, original, quantised, before, after)
            elif leaf in ("weight", "bias") and tensor.ndim == 1:
                late.append((name, tensor))
            else:
                self._encode(name, tensor)
        if late and view is not None and all(isinstance(x, Tensor) for x in (*before, *after)):
            self._fit(view, original, quantised, before, after)
        for name, tensor in late:
            self._encode(name, tensor)

    def _matrix(
        self,
        name: str,
        view: LayerView,
        original: nn.Module,
        quantised: nn.Module,
        before: Sequence[Tensor],
        after: Sequence[Tensor],
    ) -> None:
        weight = quantised.weight
        assert isinstance(weight, Tensor)
        sensitivity = self._sensitivities.get(name, 1.0)
        moments = None
        if isinstance(sensitivity, Sensitivity) and id(weight) not in self._done and isinstance(after[0], Tensor):
            moments = _moments(view, original, quantised, before, after)
        if moments is None or not isinstance(sensitivity, Sensitivity):
            self._encode(name, weight)
            return
        target = _target(weight, moments)
        H = moments.H.cpu().numpy()
        fitted = Sensitivity(H, sensitivity.g, moments.columns, sensitivity.uneven_rows)
        if fitted.scale > 0:  # the measured trace holds; only the directions are those of the copy's inputs
            sensitivity = fitted.scaled(sensitivity.scale / fitted.scale)
        self._encode(name, weight, target, sensitivity)

    def _fit(
        self,
        view: LayerView,
        original: nn.Module,
        quantised: nn.Module,
        before: Sequence[Tensor],
        after: Sequence[Tensor],
    ) -> None:
        """Fit scale and bias of a normalisation, or a layer's bias, to the network's own outputs."""
        bias, weight = getattr(quantised, "bias", None), getattr(quantised, "weight", None)
        has_bias = isinstance(bias, Tensor)
        last = bias if has_bias else weight
        if not isinstance(weight, Tensor) or id(last) in self._done or not (has_bias or view.scales):
            return
        fitted = _regression(view, original, quantised, before, after, has_bias)
        if fitted is None:
            return
        slope, offset = fitted
        if view.scales:
            weight.mul_(slope.to(weight))
        if isinstance(bias, Tensor):
            bias.mul_(slope.to(bias)).add_(offset.to(bias)) if view.scales else bias.add_(offset.to(bias))

    def _encode(
        self,
        name: str,
        tensor: Tensor,
        target: Tensor | None = None,
        sensitivity: float | Sensitivity | None = None,
    ) -> None:
        """Code one tensor, and put its decoded form into the copy."""
        if id(tensor) in self._done:
            return
        self._done.add(id(tensor))
        stored = to_numpy(name, self._state[name])
        values = tensor if target is None else target
        if sensitivity is None:
            sensitivity = self._sensitivities.get(name, 1.0)
        exact = values.detach().double().cpu().numpy()
        record = encode_tensor(name, stored, self._recipe, sensitivity, values=exact)
        if self._targets is not None and isinstance(sensitivity, Sensitivity):
            self._targets[name] = Target(exact.copy(), sensitivity)
        decoded = record.codec.decode(record.coded, record.shape)
        self.records[name] = record
        tensor.copy_(to_torch(to_dtype(decoded, record.dtype, record.shape)).to(tensor))


class _Moments(NamedTuple):
    """Means over rows: H = x'ᵀx' and C = xᵀx' (groups, K, K), and how many rows there were.

    Of a wide layer they are blocks, and `columns` is K (calibration/moments.py).
    """

    H: Tensor
    C: Tensor
    rows: int
    columns: int


def _moments(
    view: LayerView, original: nn.Module, quantised: nn.Module, before: Sequence[Tensor], after: Sequence[Tensor]
) -> _Moments | None:
    """None for a layer that is not fitted to its inputs."""
    H: Any = 0.0
    C: Any = 0.0
    first = view.rows(quantised, after[0])
    if first is None:
        return None
    count, columns = 0, first.shape[2]
    every = len(after) * first.shape[1] // (_ROWS_PER_COLUMN * columns) | 1  # odd, so as not to keep to a few columns
    for x, quantised_x in zip(before, after, strict=True):
        rows, quantised_rows = view.rows(original, x, every), view.rows(quantised, quantised_x, every)
        assert rows is not None and quantised_rows is not None
        H = H + second_moment(quantised_rows, quantised_rows).double()
        C = C + second_moment(rows, quantised_rows).double()
        count += rows.shape[1]
    return _Moments(H / count, C / count, count, blocked_columns(len(first), columns))


def _target(weight: Tensor, moments: _Moments) -> Tensor:
    """The weights W + W(C - H)(H + d·I)⁻¹ of least squared error in the layer's outputs, pulled towards W by d."""
    H, C, rows, wide = moments
    if wide:
        return _target_in_blocks(weight, moments)
    groups, columns = H.shape[:2]
    W = weight.detach().double().reshape(groups, -1, columns)
    mean = H.diagonal(dim1=1, dim2=2).mean(dim=1)
    ridge = (_RIDGE + _RIDGE_PER_COLUMN * columns / rows) * mean + 1e-30
    eye = torch.eye(columns, dtype=H.dtype, device=H.device)
    moved: Tensor = torch.linalg.solve(H + ridge[:, None, None] * eye, (W @ (C - H)).mT).mT
    return (W + moved).reshape(weight.shape)


def _target_in_blocks(weight: Tensor, moments: _Moments) -> Tensor:
    """The same of a wide layer, each block of columns on its own; it makes good what went wrong in its own inputs."""
    H, C, rows, columns = moments
    W = weight.detach().double().reshape(-1, columns)
    mean = H.diagonal(dim1=1, dim2=2).sum() / columns
    ridge = (_RIDGE + _RIDGE_PER_COLUMN * H.shape[1] / rows) * mean + 1e-30
    for H_block, C_block, first in zip(H, C, range(0, columns, H.shape[1]), strict=True):
        W_block = W[:, first : first + H.shape[1]]
        size = W_block.shape[1]
        H_block, C_block = H_block[:size, :size], C_block[:size, :size]
        eye = torch.eye(size, dtype=H.dtype, device=H.device)
        W_block += torch.linalg.solve(H_block + ridge * eye, (W_block @ (C_block - H_block)).mT).mT
    return W.reshape(weight.shape)


def _regression(
    view: LayerView,
    original: nn.Module,
    quantised: nn.Module,
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    has_bias: bool,
) -> tuple[Tensor, Tensor] | None:
    """Slope (1 but for a layer that scales) and offset (channels,) that take the copy's outputs best to the network's.

    Without a bias there is no offset, as in a root-mean-square norm. None for a layer that is not fitted.
    """
    sums: Any = 0.0
    count = 0
    for x, quantised_x in zip(before, after, strict=True):
        y, quantised_y = (view.channels(m, m.forward(z)) for m, z in ((original, x), (quantised, quantised_x)))
        if y is None or quantised_y is None:
            return None
        sums = (
            sums
            + torch.stack(
                [quantised_y.sum(1), y.sum(1), (quantised_y * quantised_y).sum(1), (quantised_y * y).sum(1)]
            ).double()
        )
        count += y.shape[1]
    quantised_mean, mean, square, product = sums / count
    if not has_bias:
        quantised_mean, mean = torch.zeros_like(quantised_mean), torch.zeros_like(mean)
    variance, covariance = square - quantised_mean**2, product - quantised_mean * mean
    shrink = _SHRINK * variance.mean() + 1e-30
    slope = (covariance + shrink) / (variance + shrink) if view.scales else torch.ones_like(mean)
    return slope, mean - slope * quantised_mean
