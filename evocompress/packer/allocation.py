"""Closed-loop bit allocation: what an error in each tensor costs is measured on a decoded network, and corrected.

At the best allocation the last byte buys the same everywhere (Everett, 1963). Sensitivities say what it should buy;
here it is measured. Each tensor in turn is quantised more coarsely, which saves some bytes and changes the outputs on
held-out examples; where a byte saved costs more than on average, the tensor's sensitivity is raised, and the other way
round. That is repeated on the file that comes out, as long as the files get better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from evocompress.calibration.output_change import OutputChange
from evocompress.checkpoint.packing import encode_tensor, pack, to_numpy, to_torch
from evocompress.checkpoint.recipe import Recipe
from evocompress.codecs import Record, Sensitivity
from evocompress.packer.calibrated import Calibration
from evocompress.packer.layerwise import Target, layerwise_records

__all__ = ["allocate"]

_COARSER = 1.6  # times λ: about a quarter more error in a tensor, which can be told from noise
_DAMPING = 0.8  # of the correction: tensors' errors are not independent
_LIMITS = (0.4, 2.5)  # of one round's correction
_HELD_OUT = 1024  # examples that are enough for a change in outputs


def allocate(
    calibration: Calibration,
    state: Mapping[str, Tensor],
    recipe: Recipe,
    *,
    layerwise: bool,
    rounds: int = 2,
    evaluations: int = 32,
    progress: Callable[[float], None] | None = None,
) -> Calibration:
    """The calibration with sensitivities corrected by what errors of each tensor really change.

    Args:
        calibration: Of the network, with held-out examples; labels are not looked at.
        state: The checkpoint that is to be packed.
        recipe: With the λ at which to measure; what comes out serves other values nearby as well.
        layerwise: Whether the file will be quantised layer by layer.
        rounds: How often to measure and correct; a correction that makes the file worse ends it, and is forgotten.
        evaluations: How many evaluations of the network one round may take; where there are more matrices than that,
            successive ones are taken together.
        progress: Called with the share that is done, from 0 to 1.

    Raises:
        ModelError: Layer by layer was asked for, and the network has no fixed order of layers.
        CodecError: A tensor cannot be coded.
    """
    loop = _Loop(calibration, state, recipe, layerwise, evaluations)
    steps = 2 * rounds + 1

    def report(step: int) -> Callable[[float], None]:
        return lambda share: progress((step + share) / steps) if progress is not None else None

    best, factors = loop.quantise({}, report(0)), dict[str, float]()
    for round_ in range(rounds):
        slopes = loop.slopes(best, report(2 * round_ + 1))
        corrected = _corrected(factors, slopes, best.targets)
        if corrected == factors:
            break
        file = loop.quantise(corrected, report(2 * round_ + 2))
        exchange = sum(slope.change for slope in slopes) / max(sum(slope.nbytes for slope in slopes), 1)
        if not file.change - best.change < exchange * (len(best.data) - len(file.data)):
            break
        best, factors = file, corrected
    if progress is not None:
        progress(1.0)
    return dataclasses.replace(calibration, sensitivities=_scaled(calibration.sensitivities, factors))


class _Quantised(NamedTuple):
    """A file, its decoded network, what that changes, and what each matrix's codes were made from."""

    data: bytes
    records: dict[str, Record]
    targets: dict[str, Target]
    model: nn.Module
    change: float


class _Slope(NamedTuple):
    """Tensors, the bytes that are saved by coding them more coarsely, and how much more the outputs change then."""

    names: tuple[str, ...]
    nbytes: int
    change: float


class _Loop:
    """Quantises under corrected sensitivities, and measures slopes."""

    def __init__(
        self, calibration: Calibration, state: Mapping[str, Tensor], recipe: Recipe, layerwise: bool, evaluations: int
    ) -> None:
        self._calibration, self._state, self._recipe = calibration, state, recipe
        self._layerwise, self._evaluations = layerwise, evaluations
        held_out = calibration.first_held_out(_HELD_OUT)
        self._change = OutputChange(calibration.model, held_out, calibration.device)

    def quantise(self, factors: Mapping[str, float], progress: Callable[[float], None]) -> _Quantised:
        """The file under corrected sensitivities."""
        calibration, recipe = self._calibration, self._recipe
        sensitivities = _scaled(calibration.sensitivities, factors)
        targets: dict[str, Target] = {}
        records: dict[str, Record] = {}
        if self._layerwise:
            records = layerwise_records(
                calibration.model, self._state, recipe, calibration.examples, sensitivities,
                device=calibration.device, targets=targets, progress=progress,
            )  # fmt: skip
        else:
            for name, tensor in self._state.items():
                array, sensitivity = to_numpy(name, tensor), sensitivities.get(name, 1.0)
                records[name] = encode_tensor(name, array, recipe, sensitivity)
                if isinstance(sensitivity, Sensitivity):
                    targets[name] = Target(array.astype(np.float64), sensitivity)
        data = pack(self._state, recipe, sensitivities=sensitivities, records=records)
        model = calibration.decoded(data)
        return _Quantised(data, records, targets, model, self._change(model))

    def slopes(self, file: _Quantised, progress: Callable[[float], None]) -> list[_Slope]:
        """What each tensor, or group of successive ones, saves and costs if it is coded more coarsely."""
        coarser = dataclasses.replace(self._recipe, rate_weight=self._recipe.rate_weight * _COARSER)
        groups, slopes = _groups(file.targets, self._evaluations), []
        for done, names in enumerate(groups):
            records = {
                name: encode_tensor(
                    name, to_numpy(name, self._state[name]), coarser, file.targets[name].sensitivity,
                    values=file.targets[name].values,
                )
                for name in names
            }  # fmt: skip
            data = pack(self._state, self._recipe, records={**file.records, **records})
            change = self._change_with(file.model, records)
            slopes.append(_Slope(names, len(file.data) - len(data), change - file.change))
            progress((done + 1) / len(groups))
        return slopes

    def _change_with(self, model: nn.Module, records: Mapping[str, Record]) -> float:
        """What changes if these records take the place of the model's tensors; it is left as it was."""
        tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
        kept = {name: tensors[name].detach().clone() for name in records}
        with torch.no_grad():
            for name, record in records.items():
                decoded = record.codec.decode(record.coded, record.shape)
                tensors[name].copy_(to_torch(decoded).to(tensors[name]))
            try:
                return self._change(model)
            finally:
                for name, values in kept.items():
                    tensors[name].copy_(values)


def _groups(targets: Mapping[str, Target], most: int) -> list[tuple[str, ...]]:
    """The matrices in their order, in at most so many groups of successive ones of about equal numbers of weights."""
    names = list(targets)
    if len(names) <= most:
        return [(name,) for name in names]
    ends = np.cumsum([targets[name].values.size for name in names])
    parts = np.minimum((ends - 1) * most // ends[-1], most - 1)
    return [tuple(np.array(names)[parts == part].tolist()) for part in np.unique(parts)]


def _corrected(
    factors: Mapping[str, float], slopes: Sequence[_Slope], targets: Mapping[str, Target]
) -> dict[str, float]:
    """Factors on sensitivities, moved towards equal slopes; their mean over weights, on a log axis, stays 1.

    So λ means what it meant.
    """
    total, saved = sum(slope.change for slope in slopes), sum(slope.nbytes for slope in slopes)
    if total <= 0 or saved <= 0:
        return dict(factors)
    corrected = dict(factors)
    for slope in slopes:
        ratio = (slope.change / max(slope.nbytes, 1)) / (total / saved)
        factor = float(np.clip(max(ratio, 1e-9) ** _DAMPING, *_LIMITS))
        corrected.update({name: factors.get(name, 1.0) * factor for name in slope.names})
    weights = [targets[name].values.size for name in corrected]
    mean = float(np.exp(np.average(np.log(list(corrected.values())), weights=weights)))
    return {name: factor / mean for name, factor in corrected.items()}


def _scaled(
    sensitivities: Mapping[str, float | Sensitivity], factors: Mapping[str, float]
) -> dict[str, float | Sensitivity]:
    return {
        name: value
        if name not in factors
        else value.scaled(factors[name])
        if isinstance(value, Sensitivity)
        else value * factors[name]
        for name, value in sensitivities.items()
    }
