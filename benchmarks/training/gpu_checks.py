"""Checks that a GPU computes what the CPU computes: each a function that gives what differs and how much it may.

With a second CPU in the GPU's place they check themselves.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias
from unittest import mock

import torch
from torch import Tensor, nn

from evocompress.calibration.fisher import sensitivities
from evocompress.calibration.output_change import OutputChange
from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.codecs import Sensitivity
from evocompress.data import Examples, load
from evocompress.data.synthetic_inputs import noise_images
from evocompress.evolve.experiment import Experiment
from evocompress.evolve.genome import GenomeReader
from evocompress.evolve.layer_groups import layer_groups
from evocompress.evolve.segment import Segment, state_hash
from evocompress.networks import NETWORKS, build
from evocompress.packer.layerwise import layerwise_records
from evocompress.packer.temperature_scaling import fit_confidence
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.records import Leaf, Outcome, Parent, SegmentTask
from evocompress.search.storage import Storage, open_storage
from evocompress.tasks.measure import measure
from evocompress.training.dead_parts import cut, put_live_first
from evocompress.training.genes import gene_specs
from evocompress.training.quantised_training import ROUNDINGS, RateTerm, Rounding
from evocompress.training.trainer import TrainingGenes, train

__all__ = ["CHECKS", "Measures", "Place", "images"]

#: Networks of layers that are not torch's own; an idea's are there where its folder is.
_OF_IDEAS = {"connected_cnn", "saccade_cnn", "saccade_sequence"}
#: What differs, by name: by how much, and by how much it may.
Measures: TypeAlias = dict[str, tuple[float, float]]


class Place(NamedTuple):
    """Where a check runs beside the CPU, and whether with small networks only."""

    device: torch.device
    quick: bool

    @property
    def cpu(self) -> torch.device:
        """What it is compared with."""
        return torch.device("cpu")

    @property
    def resnet(self) -> dict[str, Any]:
        """Options of the ResNet-20 that is checked."""
        return {"width": 4} if self.quick else {}

    @property
    def digits(self) -> dict[str, Any]:
        """Options of the network for digits."""
        return {"width": 4} if self.quick else {}


def difference(one: Tensor, other: Tensor) -> float:
    """Norm of the difference over the larger norm, both on the CPU in float64; infinite where one is not finite."""
    one, other = one.detach().double().cpu().flatten(), other.detach().double().cpu().flatten()
    if not bool(one.isfinite().all() and other.isfinite().all()):
        return math.inf
    largest = max(float(one.norm()), float(other.norm()))
    return float((one - other).norm()) / largest if largest else 0.0


def images(shape: str, count: int, seed: int = 0) -> Examples:
    """Noise of a shape CxHxW with drawn labels of ten classes."""
    labels = torch.randint(10, (count,), generator=torch.Generator().manual_seed(seed))
    return dataclasses.replace(noise_images(shape, count, seed), labels=labels)


def _pair(name: str, options: dict[str, Any], place: Place) -> tuple[nn.Module, nn.Module]:
    """A network on the CPU, and its copy on the device."""
    network = build(name, options, seed=0)
    return network, copy.deepcopy(network).to(place.device)


def _misplaced(module: nn.Module, place: Place) -> float:
    """How many tensors of a module are not on the device."""
    tensors = (*module.parameters(), *module.buffers())
    return float(sum(tensor.device.type != place.device.type for tensor in tensors))


def _outputs(network: nn.Module, inputs: Tensor) -> Tensor:
    """What a network in evaluation mode gives for inputs, on the CPU."""
    device = next(network.parameters()).device
    with torch.no_grad():
        outputs: Tensor = network.eval()(inputs.to(device))
    return outputs.cpu()


def _largest(*measures: Measures) -> Measures:
    """Of several measurements of the same things the largest."""
    return {name: max(one[name] for one in measures if name in one) for one in measures for name in one}


def rate_term(place: Place) -> Measures:
    """Some steps of `RateTerm`, noise first, then rounding; the device's copy gets the CPU's state before each."""
    measures: Measures = {}
    for rounding in ROUNDINGS:
        for dtype, most in ((torch.float64, 1e-3), (torch.float32, 1e-2)):
            name = f"{rounding} {str(dtype).removeprefix('torch.')}"
            measures |= {f"{name}: {what}": value for what, value in _rate_steps(place, rounding, dtype, most).items()}
    return measures


def _rate_steps(place: Place, rounding: Rounding, dtype: torch.dtype, most: float) -> Measures:
    models = [model.to(dtype) for model in _pair("resnet20", place.resnet, place)]
    inputs, labels = images("3x32x32", 8 if place.quick else 32).batch(slice(None))
    cpu, other = (RateTerm(model, 1.0, examples=1000, rounding=rounding, seed=0) for model in models)
    optimiser = torch.optim.Adam(cpu.parameter_groups())
    measures = []
    for turn, progress in enumerate((0.0, 0.6, 0.8) if place.quick else (0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.95)):
        models[1].load_state_dict(models[0].state_dict())
        other.rate_model.load_state_dict(cpu.rate_model.state_dict())
        with torch.no_grad():
            other.log_steps.copy_(cpu.log_steps)
        with _shared_noise(turn):
            one, two = (_gradients(term, progress, inputs.to(dtype), labels) for term in (cpu, other))
        measures.append({what: (difference(one[what], two[what]), most) for what in one})
        optimiser.step()
    models[1].load_state_dict(models[0].state_dict())
    with torch.no_grad():
        other.log_steps.copy_(cpu.log_steps)
    one_file, two_file = cpu.pack(), other.pack()
    return _largest(*measures) | {
        "file": (float(one_file != two_file), 0.0),
        "off the device": (_misplaced(models[1], place) + _misplaced(other.rate_model, place), 0.0),
    }


@contextlib.contextmanager
def _shared_noise(seed: int) -> Iterator[None]:
    """Let `torch.rand` draw the same on all devices."""

    def drawn(*size: int, generator: Any = None, device: Any = None, dtype: Any = None) -> Tensor:
        values = torch.empty(size, dtype=torch.float64).uniform_(generator=torch.Generator().manual_seed(seed))
        return values.to(device, dtype)

    with mock.patch.object(torch, "rand", drawn):
        yield


def _gradients(term: RateTerm, progress: float, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The loss of a step, the weights that the network saw, and all gradients."""
    parameters = [*term.model.parameters()]
    device = parameters[0].device
    term.model.train().zero_grad()
    term.rate_model.zero_grad()
    term.log_steps.grad = None
    with term.quantised(progress):
        seen = torch.cat([parameter.detach().flatten() for parameter in parameters])
        loss = nn.functional.cross_entropy(term.model(inputs.to(device)), labels.to(device)) + term.loss()
        loss.backward()  # type: ignore[no-untyped-call]
    of_rate = {f"gradient of {name}": p.grad for name, p in term.rate_model.named_parameters()}
    given = {
        "loss": loss,
        "quantised weights": seen,
        "gradient of weights": torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]),
        "gradient of steps": term.log_steps.grad,
        **of_rate,
    }
    return {name: tensor.detach().clone() for name, tensor in given.items() if tensor is not None}


def dead_parts(place: Place) -> Measures:
    """`cut`, `scatter`, `gather` and `put_live_first`, of a plain network and of one with shortcuts."""
    measures = []
    for name, options, shape in (("digits_cnn", place.digits, "1x8x8"), ("resnet20", place.resnet, "3x32x32")):
        pair = _pair(name, options, place)
        for network in pair:
            _kill(network)
        measures.append(_cut_both(*pair, images(shape, 4).batch(slice(None))[0], place))
    return _largest(*measures)


@torch.no_grad()
def _kill(network: nn.Module) -> None:
    """Let channels die: half of what convolutions and normalisations give inside, a third of a hidden layer."""
    modules = dict(network.named_modules())
    for name, module in modules.items():
        if name == "fc1" and isinstance(module, nn.Linear):
            module.weight[::3] = 0
            module.bias[::3] = 0.5  # a constant, which goes into the next layer's bias
        elif name == "conv1" and "bn1" not in modules or name.endswith(".bn1"):
            for parameter in module.parameters():
                parameter[::2] = 0


def _cut_both(network: nn.Module, other: nn.Module, inputs: Tensor, place: Place) -> Measures:
    before = _outputs(network, inputs)
    one, two = cut(network, inputs), cut(other, inputs.to(place.device))
    kept = all(
        len(one.kept[name]) == len(two.kept[name]) and all(map(torch.equal, one.kept[name], two.kept[name]))
        for name in one.kept
    )
    state = two.network.state_dict()
    whole = two.scatter(state)
    back = two.gather(whole)
    measures: Measures = {
        "not cut": (float(two.reason is not None or two.parameters_after >= two.parameters_before), 0.0),
        "other channels": (float(not kept), 0.0),
        "off the device": (
            _misplaced(two.network, place) + sum(t.device.type != place.device.type for t in whole.values()),
            0.0,
        ),
        "smaller network": (difference(before, _outputs(two.network, inputs)), 1e-4),
        "scatter, then gather": (max(difference(back[name], tensor) for name, tensor in state.items()), 1e-6),
    }
    for model in (network, other):
        put_live_first(model, inputs.to(next(model.parameters()).device))
    states = network.state_dict(), other.state_dict()
    return measures | {
        "live first: weights": (max(difference(states[0][name], states[1][name]) for name in states[0]), 1e-6),
        "live first: outputs": (difference(before, _outputs(other, inputs)), 1e-4),
        "live first: off the device": (_misplaced(other, place), 0.0),
    }


def calibration(place: Place) -> Measures:
    """Sensitivities of first and second order, and a fitted confidence."""
    network, other = _pair("resnet20", place.resnet, place)
    examples = images("3x32x32", 32 if place.quick else 128)
    one, two = (
        sensitivities(model, examples, seed=0, device=device, in_nats=True)
        for model, device in ((network, place.cpu), (other, place.device))
    )
    measures: Measures = {
        "fisher, ratio of scales as a logarithm": (max(abs(math.log(two[name] / one[name])) for name in one), 0.05)
    }
    first, second = (_second_order(model, examples, d) for model, d in ((network, place.cpu), (other, place.device)))
    for what in ("H", "g", "scale"):
        pairs = [(getattr(first[name], what), getattr(second[name], what)) for name in first]
        worst = max(difference(torch.as_tensor(value), torch.as_tensor(others)) for value, others in pairs)
        measures[f"second order: {what}"] = worst, 1e-2
    scale, other_scale = (
        fit_confidence(copy.deepcopy(model), examples, device).scale
        for model, device in ((network, place.cpu), (other, place.device))
    )
    return measures | {"confidence": (abs(scale - other_scale), 1e-3)}


def _second_order(model: nn.Module, examples: Examples, device: torch.device) -> dict[str, Sensitivity]:
    """Those of the matrices."""
    measured = second_order_sensitivities(model, examples, samples=len(examples), seed=0, device=device)
    return {name: value for name, value in measured.items() if isinstance(value, Sensitivity)}


def layerwise(place: Place) -> Measures:
    """A file that is quantised layer by layer: what it changes in the outputs."""
    examples = images("3x32x32", 32 if place.quick else 64)
    recipe, changes = Recipe(1e-3, (Rule(codecs=("deadzone",)),), "mixing"), []
    for model, device in zip(_pair("resnet20", place.resnet, place), (place.cpu, place.device), strict=True):
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        records = layerwise_records(
            model, state, recipe, examples, _second_order(model, examples, device), device=device
        )
        decoded = copy.deepcopy(model)
        decoded.load_state_dict(unpack(pack(state, recipe, records=records)))
        changes.append(OutputChange(model, examples, device)(decoded))
    # Decisions differ where two are nearly as good, so the files do; what they lose is about the same.
    return {"change of outputs, ratio as a logarithm": (abs(math.log(changes[1] / changes[0])), 0.2)}


def terms(place: Place) -> Measures:
    """An epoch with every term of the loss that this network has something for."""
    strengths: dict[str, Any] = {
        "l1": 1e-4,
        "noise": 0.05,
        "symmetry": 1e-3,
        "entropy": 1e-3,
        "distinct": 1e-3,
        "snap": 0.25,
    }
    strengths |= {"correlation": 1e-3, "weight_decay": 1e-4, "projection": "keep-zeros", "label_smoothing": 0.1}
    # An idea's genes are there where its folder is.
    genes = TrainingGenes(rate_term="on", **{name: value for name, value in strengths.items() if name in gene_specs()})
    options = place.digits | ({"alpha": 0.5} if "alpha" in gene_specs() else {})
    network = build("digits_cnn", options, seed=0)
    curves = train(network, images("1x8x8", 128), genes, epochs=1, seed=0, device=place.device, rate_weight=1.0)
    wrong = float(curves.diverged or not curves.grid)
    return {"failed": (wrong, 0.0), "off the device": (_misplaced(network, place), 0.0)}


def ideas(place: Place) -> Measures:
    """Networks of layers that are not torch's own: an epoch on the device, then sensitivities there."""
    measures = []
    examples = images("1x28x28", 8 if place.quick else 64)
    for name in _OF_IDEAS.intersection(NETWORKS):
        trained, copied = _pair(name, {"width": 4}, place)
        curves = train(
            copied, examples, TrainingGenes(rate_term="on"), epochs=1, seed=0, device=place.device, rate_weight=1.0
        )
        trained.load_state_dict(copied.state_dict())
        first = sensitivities(copied, examples, seed=0, device=place.device)
        second = second_order_sensitivities(copied, examples, samples=len(examples), seed=0, device=place.device)
        inputs = examples.batch(slice(0, 8))[0]
        measured: Measures = {
            "failed": (float(curves.diverged or not first or not second), 0.0),
            "outputs": (difference(_outputs(trained, inputs), _outputs(copied, inputs)), 1e-3),
            "off the device": (_misplaced(copied, place), 0.0),
        }
        measures.append({f"{name}: {what}": value for what, value in measured.items()})
    return _largest(*measures)


def mixed_precision(place: Place) -> Measures:
    """Training in bfloat16 against float32, and a rate that autocast does not touch."""
    losses, kinds = [], set[torch.dtype]()
    examples = load("digits").train
    precisions: tuple[Any, ...] = ("float32", "bfloat16")
    for precision in precisions:
        network = build("digits_cnn", place.digits, seed=0)
        genes = TrainingGenes(rate_term="on", learning_rate=2e-3)
        where: dict[str, Any] = {"device": place.device, "precision": precision}
        curves = train(network, examples, genes, epochs=2, seed=0, rate_weight=0.3, **where)
        losses.append(curves.train_loss[-1] if curves.train_loss else math.inf)
        kinds |= {parameter.dtype for parameter in network.parameters()}
    model = build("digits_cnn", place.digits, seed=0).to(place.device)
    rate = RateTerm(model, 1.0, examples=100, seed=0)
    bits = []
    with rate.quantised(0.9):  # once: the next one would take other parts of the weights
        for enabled in (False, True):
            with torch.autocast(place.device.type, torch.bfloat16, enabled=enabled):
                bits.append(rate.bits())
    return {
        "loss, ratio to float32 as a logarithm": (abs(math.log(losses[1] / losses[0])), 0.25),
        "other dtypes": (float(kinds != {torch.float32}), 0.0),
        "rate under autocast": (difference(*bits), 1e-6),
    }


def random_state(place: Place) -> Measures:
    """Building a network, and training it on the CPU, leave the device's random numbers what they were."""
    if place.device.type != "cuda":
        return {}

    torch.cuda.manual_seed(1)
    before = torch.cuda.get_rng_state()
    network = build("digits_cnn", place.digits, seed=0)
    changed = [float(not torch.equal(before, torch.cuda.get_rng_state()))]
    for device in ("cpu", place.device):
        train(network, images("1x8x8", 16), TrainingGenes(), epochs=1, seed=0, device=device)
        changed.append(float(not torch.equal(before, torch.cuda.get_rng_state())))
    return dict(zip(("build", "training on the CPU", "training"), ((one, 0.0) for one in changed), strict=True))


def segment(place: Place) -> Measures:
    """A lineage of segments under a rising λ, run by the inline executor; the CPU decodes and judges all its files."""
    measures, parents = [], tuple[Parent, ...]()
    with tempfile.TemporaryDirectory() as folder:
        storage, runner = open_storage(folder), _segment(place)
        for index, rate_weight in enumerate((0.1, 3.0) if place.quick else (0.1, 1.0, 3.0)):
            outcome = _run(runner, storage, _task(index, {"rate_weight": rate_weight}, parents))
            measures.append(_judged_on_the_cpu(runner, outcome, storage, place))
            parents = (_parent(outcome.leaves[0]),)
    leaf = outcome.leaves[0]
    alive = outcome.metrics["trained_parameters"] / leaf.measurements["parameters"]
    return _largest(*measures) | {
        "error at the end": (leaf.error, 1.0 if place.quick else 0.2),
        "bytes at the end": (float(leaf.nbytes), 1e4 if place.quick else 1e3),
        "share of the weights that were trained at the end": (alive, 1.0 if place.quick else 0.8),
    }


def _segment(place: Place) -> Segment:
    """A segment on digits; codecs and coder are those that need numba alone, and genes are fixed but for λ."""
    gpu = place.device.type == "cuda"
    experiment = Experiment("digits_cnn", place.digits, "digits", {}, seed=0, threads=1, gpu=gpu)
    state = experiment.network().state_dict()
    groups = layer_groups({name: tuple(tensor.shape) for name, tensor in state.items()})
    genes = {
        "epochs": 1 if place.quick else 20,
        "learning_rate": 3e-3,
        "rate_term": "on",
        "rate_factor": 1.0,
        "vector_rate_factor": 0.1,
        "step_scale": 1.0,
        "sensitivity": "gradient",
        "grid": "rounded",
        "codecs": {group: ["deadzone"] for group in groups.values()},
    }
    initial = pack(state, Recipe(rules=(Rule(codecs=("lossless",)),), coder="mixing"))
    return Segment(experiment, GenomeReader(genes, groups), initial)


def _task(index: int, genome: Mapping[str, Any], parents: tuple[Parent, ...]) -> SegmentTask:
    probe = {**genome, "rate_weight": 3 * genome["rate_weight"]}
    operator: Any = "continue" if parents else "initial"
    return SegmentTask(index, f"s{index}", operator, "none", parents, dict(genome), (probe,), seed=index, seen=index)


def _parent(leaf: Leaf) -> Parent:
    return Parent(leaf.leaf_id, leaf.path, leaf.sha256, leaf.depth, leaf.epochs, leaf.seconds)


def _run(runner: Segment, storage: Storage, task: SegmentTask) -> Outcome:
    executor = InlineExecutor(runner, storage)
    executor.submit(task)
    (outcome,) = executor.wait()
    if outcome.status != "ok":
        raise RuntimeError(f"the segment's status is {outcome.status}: {outcome.error}")
    return outcome


def _judged_on_the_cpu(runner: Segment, outcome: Outcome, storage: Storage, place: Place) -> Measures:
    """What was recorded of the files, against the files."""
    network, validation = runner.experiment.network(), runner.experiment.splits().validation
    files = weights = judged = 0.0
    for leaf in outcome.leaves:
        data = storage.read(leaf.path)
        state = unpack(data, names=network.state_dict())
        files += hashlib.sha256(data).hexdigest() != leaf.sha256
        weights += state_hash(state) != leaf.weights_sha256
        network.load_state_dict(state)
        quality = measure(runner.experiment.task(), network, validation).value
        judged = max(judged, abs(quality - leaf.quality) * len(validation))
    on_gpu = outcome.metrics.get("peak_gpu_memory_bytes", 0) > 0 and outcome.metrics["device"] != "cpu"
    return {
        "other files": (files, 0.0),
        "other weights": (weights, 0.0),
        "examples that are judged otherwise": (judged, 2.0),
        "not on the GPU": (float(on_gpu != (place.device.type == "cuda")), 0.0),
    }


CHECKS: dict[str, Callable[[Place], Measures]] = {
    "rate_term": rate_term,
    "dead_parts": dead_parts,
    "calibration": calibration,
    "layerwise": layerwise,
    "terms": terms,
    "ideas": ideas,
    "mixed_precision": mixed_precision,
    "random_state": random_state,
    "segment": segment,
}
