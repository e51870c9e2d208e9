"""Report section on saccades: where the gates of a run's best file look, and whether the maps can be believed."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING

from evocompress.errors import ConfigError, ModelError
from evocompress.runs.front import FrontPoint, front
from evocompress.runs.report import ReportSection
from evocompress.search.interrupts import asked_to_end
from evocompress.support.user_objects import is_reference

if TYPE_CHECKING:
    from torch import nn

    from evocompress.data import Examples
    from evocompress.ideas.saccades.maps import Deletion
    from evocompress.search.history import History

__all__ = ["saccade_section", "verdict"]

#: Ends of the names of tensors that only the gates of saccade layers have. Without one there is no need to load torch.
_GATES = ("gate.look.weight", "scorer.look.weight")
_SHOWN = 3  # images
_TESTED = 1000
_DPI = 100
_SURE = 1.96  # standard errors


def saccade_section(history: History) -> ReportSection | None:
    """Maps of the front's most accurate file; None where its network has no saccade layers.

    What is missing here (the data, the file) is said in the section and raises nothing. A network or data set of the
    user's own is not made: a report is read from a folder, and nothing that a file names is to be run for it.
    """
    points = front(history)
    if not points or not _has_gates(history, points[-1]):
        return None
    try:
        return _section(history, points[-1])
    except Exception as failure:  # a report is of use without maps, and files may lack anything
        if asked_to_end(failure):
            raise
        return _titled(points[-1], f"The maps cannot be drawn here: {failure}")


def _titled(point: FrontPoint, words: str, pictures: tuple[str, ...] = ()) -> ReportSection:
    note = f"What the gates of {point.file}, the front's most accurate file, choose in each image."
    return ReportSection("Where it looks", note, words, pictures)


def verdict(deletion: Deletion, count: int, layer: str) -> str:
    """What a deletion test on so many images says of the map of a layer, in words.

    Differences below 1.96 standard errors, as if both accuracies were of different images, leave the question open.

    >>> from evocompress.ideas.saccades.maps import Deletion
    >>> print(verdict(Deletion(chosen=0.5, others=0.9), 1000, "look").rpartition(": ")[2])
    the map is faithful.
    """
    both = (deletion.chosen, deletion.others)
    error = math.sqrt(sum(accuracy * (1 - accuracy) for accuracy in both) / count)
    if abs(deletion.others - deletion.chosen) <= _SURE * error:
        end = "The difference may be chance: whether the map is faithful is open."
    elif deletion.chosen < deletion.others:
        end = "What was chosen matters more: the map is faithful."
    else:
        end = "What was left out matters more: the map is not faithful."
    chosen, others = (f"{100 * accuracy:.1f} %" for accuracy in both)
    return (
        f"Accuracy on {count} audit images is {chosen} where blocks that {layer or 'the network'} chose are filled "
        f"with the mean colour, and {others} where as many others are. {end}"
    )


def _has_gates(history: History, point: FrontPoint) -> bool:
    rows = history.leaves[point.leaf_id].measurements.get("layers") or ()
    return any(str(row.get("name", "")).endswith(_GATES) for row in rows)


def _section(history: History, point: FrontPoint) -> ReportSection:
    import torch

    from evocompress.checkpoint.forms import loaded
    from evocompress.checkpoint.packing import unpack
    from evocompress.data import load
    from evocompress.evolve.config import parse_config
    from evocompress.evolve.genome import network_options
    from evocompress.networks import build

    configured = history.run["config"]  # not parsed before it is known to name no code
    for key, noun in (("model", "network"), ("data", "data set"), ("task", "task")):
        name = str(configured.get(key, ""))
        if is_reference(name):
            raise ConfigError(
                f"{noun} {name!r} is code of your own, which a report does not run; the command saccades does, if told "
                f"the run {history.folder}"
            )
    config = parse_config(configured)
    examples = load(config.data, seed=config.seed, options=config.data_options).audit
    plain = build(config.model, network_options(config, point.genome), seed=config.seed)
    network = loaded(plain, unpack(history.storage.read(point.path), names=plain.state_dict()), point.path)
    tested = examples.take(torch.arange(min(len(examples), _TESTED)))
    return _titled(point, _words(network, tested, config.seed), _pictures(network, tested))


def _pictures(network: nn.Module, examples: Examples) -> tuple[str, ...]:
    import torch

    from evocompress.ideas.saccades.figure import saccade_png
    from evocompress.ideas.saccades.maps import saccade_maps
    from evocompress.support.modules import evaluation_mode

    pictures = []
    for number in range(min(len(examples), _SHOWN)):
        images, labels = examples.batch(slice(number, number + 1))
        with evaluation_mode(network), torch.no_grad():
            answer = int(network(images).argmax(1))
        title = f"audit image {number}, of class {int(labels[0])}: answer {answer}"
        pictures.append(_data_uri(saccade_png(images[0], saccade_maps(network, images), title, dpi=_DPI)))
    return tuple(pictures)


def _words(network: nn.Module, examples: Examples, seed: int) -> str:
    from evocompress.ideas.saccades.maps import deletion_test, saccade_maps

    why = ""
    for layer in saccade_maps(network, examples.batch(slice(0, 1))[0]):
        try:
            return verdict(deletion_test(network, examples, seed, layer=layer), len(examples), layer)
        except ModelError as failure:  # all blocks or none; the next layer may be choosier
            why = why or str(failure)
    return f"Whether the maps are faithful cannot be tested: {why}."


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
