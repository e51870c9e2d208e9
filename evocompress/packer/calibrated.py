"""Calibrated packing: sensitivities measured once on examples, then a file for any recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from evocompress.calibration.output_change import OutputChange
from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.checkpoint.defaults import CALIBRATION_SAMPLES
from evocompress.checkpoint.loading import names_for
from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.recipe import Recipe
from evocompress.codecs import Sensitivity
from evocompress.codecs.container import parse
from evocompress.data.examples import Examples
from evocompress.packer.layerwise import layerwise_records
from evocompress.protocols import Task
from evocompress.search.quality import Quality
from evocompress.support.devices import check_device
from evocompress.support.modules import check_not_scripted, copied
from evocompress.tasks.classification import Classification
from evocompress.tasks.measure import measure

__all__ = ["Calibration", "HeldOut", "PackedFile", "calibrate", "pack_calibrated"]

#: So many held-out examples decide whether a layer-by-layer file is kept.
_HELD_OUT = 2048
_LAYERS_SHARE = 0.7  # of the time is the layers'; the rest goes into coding, and decoding and comparing two files


class HeldOut(NamedTuple):
    """A network on held-out examples, before it was packed and after: its task's loss and quality.

    Where they have no labels, `quality` and its values are None, and the losses are 0 and how far the outputs moved.
    `loss_name` says which it is, `total` how many examples (or labels, `counted`) it was measured on.
    """

    loss_name: str
    loss_before: float
    loss_after: float
    quality: Quality | None
    quality_before: float | None
    quality_after: float | None
    total: int
    counted: Literal["examples", "labels"] = "examples"


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """A network as it was trained, what its weights' errors cost, and the examples that say so.

    `examples` are those to calibrate on, all of them; `held_out` are others, which only judge.
    """

    model: nn.Module
    examples: Examples
    held_out: Examples
    sensitivities: Mapping[str, float | Sensitivity]
    device: str = "cpu"
    task: Task = Classification()

    @property
    def labelled(self) -> bool:
        """Whether the held-out examples have labels to judge by (not all are -100)."""
        return self.held_out.is_labelled

    @property
    def loss_name(self) -> str:
        """What `loss` is, for people."""
        return "held-out loss" if self.labelled else "change of outputs"

    def loss(self, data: bytes | None = None, limit: int | None = None) -> float:
        """The task's mean loss on held-out examples (at most `limit`) of the network, or of what a file holds of it.

        Where they have no labels (all are -100): how far the file's network is from the network (`OutputChange`).
        """
        held_out = self.first_held_out(limit)
        model = self.model if data is None else self.decoded(data)
        if not self.labelled:
            return OutputChange(self.model, held_out, self.device)(model)
        return measure(self.task, model, held_out, self.device).loss

    def held_out_quality(self, data: bytes) -> HeldOut:
        """What a file loses on all held-out examples."""
        if not self.labelled:
            return HeldOut(self.loss_name, 0.0, self.loss(data), None, None, None, len(self.held_out))
        networks = self.model, self.decoded(data)
        before, after = (measure(self.task, network, self.held_out, self.device) for network in networks)
        return HeldOut(
            self.loss_name, before.loss, after.loss, self.task.quality, before.value, after.value, after.total,
            "labels" if self.held_out.labels.ndim > 1 and not self.held_out.has_numbers else "examples",
        )  # fmt: skip

    def first_held_out(self, limit: int | None = None) -> Examples:
        """The first of the held-out examples, at most `limit`."""
        return self.held_out.take(torch.arange(min(limit or len(self.held_out), len(self.held_out))))

    def decoded(self, data: bytes) -> nn.Module:
        """A copy of the network with a file's weights."""
        model = copied(self.model)
        contents = parse(data)
        names = None if contents.lost_names is None else names_for(model, contents)
        model.load_state_dict(unpack(data, names=names), strict=False)
        return model


class PackedFile(NamedTuple):
    """A file, its held-out loss where that was measured, and whether it was quantised layer by layer.

    `zeroed` names the tensors that are not zero and decode to zeros.
    """

    data: bytes
    loss: float | None
    layerwise: bool
    zeroed: tuple[str, ...] = ()


def calibrate(
    model: nn.Module,
    train: Examples,
    held_out: Examples,
    *,
    samples: int = CALIBRATION_SAMPLES,
    seed: int,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
    task: Task | None = None,
) -> Calibration:
    """Draw calibration examples from `train`, without replacement, and measure the model's sensitivities on them.

    Raises:
        ModelError: The network fails on the examples, or its outputs are not finite, or it is a scripted one.
        ConfigError: There is no such device.
    """
    check_not_scripted(model)
    check_device(device)
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:samples]
    examples = train.take(chosen)
    sensitivities = second_order_sensitivities(
        model, examples, samples=samples, seed=seed, device=device, progress=progress
    )
    return Calibration(model, examples, held_out, sensitivities, device, task or Classification())


def pack_calibrated(
    state: Mapping[str, Tensor],
    recipe: Recipe,
    calibration: Calibration,
    *,
    one_shot: Recipe | None = None,
    progress: Callable[[float], None] | None = None,
) -> PackedFile:
    """Quantise a checkpoint layer by layer; where that changes held-out outputs more, all layers at once.

    The change of outputs decides and not the loss, which has ten times its noise.

    Args:
        state: The checkpoint, as `layerwise_records` takes it.
        recipe: For layer by layer, where later layers make good the errors of earlier ones.
        calibration: Of the same network.
        one_shot: For all layers at once; default `recipe`.
        progress: Called with the share that is done, from 0 to 1.

    Raises:
        ModelError: The network has no fixed order of layers.
        CodecError: A tensor cannot be coded.
    """
    sensitivities = calibration.sensitivities
    records = layerwise_records(
        calibration.model,
        state,
        recipe,
        calibration.examples,
        sensitivities,
        device=calibration.device,
        progress=None if progress is None else lambda share: progress(_LAYERS_SHARE * share),
    )
    zeroed: tuple[list[str], list[str]] = ([], [])
    in_order = pack(state, recipe, sensitivities=sensitivities, records=records, zeroed=zeroed[0])
    at_once = pack(state, one_shot or recipe, sensitivities=sensitivities, zeroed=zeroed[1])
    held_out = calibration.first_held_out(_HELD_OUT)
    change = OutputChange(calibration.model, held_out, calibration.device)
    changes = [change(calibration.decoded(data)) for data in (in_order, at_once)]
    layerwise = changes[0] <= changes[1]
    data = in_order if layerwise else at_once
    loss = calibration.loss(data, _HELD_OUT) if calibration.labelled else min(changes)
    if progress is not None:
        progress(1.0)
    return PackedFile(data, loss, layerwise, tuple(zeroed[not layerwise]))
