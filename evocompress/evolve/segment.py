"""Segment: parent file → decode → train → compress under 1 + K recipes → decode each → evaluate → keep the best."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import math
import platform
import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from evocompress.calibration.fisher import sensitivities
from evocompress.checkpoint.float32_size import float32_bytes
from evocompress.checkpoint.forms import changed, loaded
from evocompress.checkpoint.grid import grid_of
from evocompress.checkpoint.loading import load_state
from evocompress.checkpoint.packing import pack, unpack
from evocompress.codecs import inspect
from evocompress.data import Splits
from evocompress.data.examples import Examples
from evocompress.data.shared import as_arrays
from evocompress.evolve.experiment import Experiment, finite
from evocompress.evolve.genome import GenomeReader
from evocompress.evolve.layer_groups import layer_groups
from evocompress.evolve.teacher import TeacherFile
from evocompress.protocols import Version
from evocompress.search.pareto import is_nondominated
from evocompress.search.records import Genome, Leaf, Outcome, SegmentTask, genome_hash
from evocompress.support.inputs import mapped
from evocompress.support.modules import shapes_of, tensors_of
from evocompress.tasks.measure import measure
from evocompress.training.dead_parts import LiveNetwork, cut, narrow, put_live_first
from evocompress.training.teacher import Teacher
from evocompress.training.trainer import Curves, train

__all__ = ["Segment", "state_hash"]

_CALIBRATION_SAMPLES = 128
_WORTH_CUTTING = 0.8  # of the parameters: where fewer are alive, the others are cut out for training


def signature(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Names, shapes and dtypes of a state dict: what a file without them takes from the network."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _copied(network: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all tensors, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors_of(network).items()}


@torch.no_grad()
def _put(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Values into parameters, by name."""
    for name, parameter in network.named_parameters():
        if name in weights:
            parameter.copy_(weights[name])


def state_hash(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a state dict: equal weights, equal hash."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


#: The last teacher, by where it lies.
_TEACHERS: dict[str, Teacher] = {}


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """One compression of the trained weights, decoded and evaluated."""

    genome: Genome
    data: bytes
    quality: float
    error: float
    weights_sha256: str
    measurements: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Segment:
    """A segment as executors call it. It depends on nothing but its arguments and its fields, and may run twice.

    `initial` is a file of the run's initial weights; `trained` says whether these know something. If so, segments
    without a parent begin with them; if not, each begins with random weights of its own: lineages of one beginning
    are too much alike. `teacher` is what networks learn from where their genes say so. On `curve_examples` examples of
    the validation split networks are measured after each epoch.
    """

    experiment: Experiment
    reader: GenomeReader
    initial: bytes
    trained: bool = False
    teacher: TeacherFile | None = None
    curve_examples: int = 0

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        """Run a task; its files go below `folder`."""
        started = time.time()
        self.experiment.prepare()
        device = self.experiment.device()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        plain = self._plain(task.genome)
        model = self._start(plain, task, parent_files).to(device)
        grid = grid_of(parent_files[0], tensors_of(plain)) if parent_files else {}
        splits = self.experiment.splits()
        few = mapped(splits.train.batch(slice(0, 2))[0], lambda tensor: tensor.to(device))
        clock = time.perf_counter()
        width = self.reader.start_width(task.genome)
        if width < 1 and self._from_random(task):
            narrow(model, width, few, seed=task.seed)
        live = cut(model, few)
        smaller = live.parameters_after < _WORTH_CUTTING * live.parameters_before
        curves = self._train(live.network if smaller else model, splits, task, grid, device)
        versions = self._versions(model, live if smaller else None, curves, few)
        trained = time.perf_counter() - clock
        metrics = _describe(started, device) | {
            "curves": curves.to_json(),
            "train_seconds": trained,
            "trained_parameters": live.parameters_after if smaller else live.parameters_before,
        }
        if curves.diverged:
            reached = len(curves.train_loss) + 1
            text = f"the loss or a weight became NaN or infinite in epoch {reached}; lower learning_rate"
            return self._finish(task, "diverged", (), metrics, started, text)
        purpose = self.experiment.task()
        metrics["float_quality"] = finite(measure(purpose, model, splits.validation, device).value)
        clock = time.perf_counter()
        scales = self._scales(model, splits, task, device)
        metrics["calibrate_seconds"] = time.perf_counter() - clock
        clock = time.perf_counter()
        candidates = self._compress(model, plain, versions, splits, task, scales, device)
        metrics["encode_seconds"] = time.perf_counter() - clock
        if not candidates:
            text = f"no file has a finite {purpose.quality.name}; lower rate_weight or learning_rate"
            return self._finish(task, "diverged", (), metrics, started, text)
        # What a file is compared with is the run's network as its factory makes it, whatever the file holds.
        of_run = self.experiment.network() if self.reader.model_options(task.genome) else plain
        common = {"float32_bytes": float32_bytes(tensors_of(of_run))}
        history = _depth(task), self._epochs(task), _seconds(task, started)
        leaves = _write(candidates, task, Path(folder), history, common)
        return self._finish(task, "ok", leaves, metrics, started)

    def _versions(self, model: nn.Module, live: LiveNetwork | None, curves: Curves, few: Any) -> list[Version]:
        """All tensors of the weights that training left, in `model` and here, and then of the further versions.

        Args:
            model: The network of full size; it holds the first version in the end.
            live: What was trained in its place, if anything was.
            curves: What training gave.
            few: Inputs that tell how channels hang together.
        """
        trained = live.network if live else model
        left = _copied(trained) if curves.versions else {}
        versions: list[Version] = []
        for version in (*curves.versions, Version({}, curves.grid)):
            if left:
                load_state(trained, left, "trained weights")
                _put(trained, version.weights)
            if live:
                load_state(model, live.scatter(tensors_of(trained)), "the network without its dead parts")
            if version.grid and not self.experiment.named_files:
                put_live_first(model, few)
            versions.insert(0, Version(_copied(model), version.grid))
        return versions

    def shared(self) -> Any:
        """The data, for executors whose workers are on one machine; None where there is little."""
        return as_arrays(self.experiment.splits())

    def receive(self, data: Any) -> None:
        """Take them."""
        self.experiment.share(data)

    def free(self) -> None:
        """Give the GPU's memory back that torch keeps: who shares the GPU needs it, also while this process is idle."""
        if self.experiment.device().type == "cuda":
            gc.collect()  # what an error held is freed by then, but for cycles
            torch.cuda.empty_cache()

    def check_machine(self) -> None:
        """Load the data, which the process keeps for its segments."""
        self.experiment.prepare()
        self.experiment.splits()

    def _plain(self, genome: Genome) -> nn.Module:
        """The network as its factory makes it, with the options that the genome says."""
        return self.experiment.network(options=self.reader.model_options(genome))

    def _start(self, plain: nn.Module, task: SegmentTask, parent_files: Sequence[bytes]) -> nn.Module:
        """The parent's network, the trained initial one or a random one, in the form that the genome asks for."""
        if parent_files or self.trained:
            state = unpack(parent_files[0] if parent_files else self.initial, names=tensors_of(plain))
            network = loaded(plain, state, "the parent's file")
        else:
            network = self.experiment.network(task.seed, self.reader.model_options(task.genome))
        return changed(network, plain, self.reader.architecture(task.genome))

    def _train(
        self, model: nn.Module, splits: Splits, task: SegmentTask, grid: Mapping[str, float], device: torch.device
    ) -> Curves:
        return train(
            model,
            splits.train,
            self.reader.training(task.genome),
            epochs=self.reader.epochs(task.genome, from_random=self._from_random(task)),
            seed=task.seed,
            device=device,
            precision=self.experiment.precision,
            task=self.experiment.task(),
            rate_weight=self.reader.rate_weight(task.genome),
            grid=grid,
            teacher=self._teacher(splits, device),
            validation=self._of_curve(splits.validation),
        )

    def _of_curve(self, validation: Examples) -> Examples | None:
        """What learning curves are measured on, if they are: examples from all over the split, which may be sorted."""
        count = min(self.curve_examples, len(validation))
        return validation.take(torch.arange(count) * len(validation) // count) if count else None

    def _teacher(self, splits: Splits, device: torch.device) -> Teacher | None:
        """The teacher, with what it says of the training examples; kept in the process for the next segment."""
        if self.teacher is None:
            return None
        key = f"{self.teacher.storage.url(self.teacher.path)} {self.experiment!r} {device}"
        if key not in _TEACHERS:
            _TEACHERS.clear()
            network, task = self.teacher.network(), self.experiment.task()
            _TEACHERS[key] = Teacher(network, splits.train.to(device), task, self.experiment.precision)
        return _TEACHERS[key]

    def _from_random(self, task: SegmentTask) -> bool:
        return not task.parents and not self.trained

    def _epochs(self, task: SegmentTask) -> int:
        epochs = self.reader.epochs(task.genome, from_random=self._from_random(task))
        return epochs + (task.parents[0].epochs if task.parents else 0)

    def _scales(self, model: nn.Module, splits: Splits, task: SegmentTask, device: torch.device) -> dict[str, float]:
        """Sensitivities in nats: once, since they are of the weights and not of a recipe."""
        samples, purpose = _CALIBRATION_SAMPLES, self.experiment.task()
        return sensitivities(
            model, splits.train, samples=samples, seed=task.seed, device=device, task=purpose, in_nats=True
        )

    def _compress(
        self,
        model: nn.Module,
        plain: nn.Module,
        versions: Sequence[Version],
        splits: Splits,
        task: SegmentTask,
        scales: Mapping[str, float],
        device: torch.device,
    ) -> list[_Candidate]:
        """Every recipe on the same trained weights, each decoded from its bytes and evaluated.

        Weights that training left on a grid go into the first file as they are, whatever its recipe, and so do further
        versions of them into a file each. A file whose quality is not finite is of no use, and left out.
        """
        first, others = versions[0], versions[1:]
        weights, grid = first.weights, first.grid
        reader = self.reader.of_network(layer_groups(shapes_of(plain)))
        template = tensors_of(model)
        bare = not self.experiment.named_files and signature(template) == signature(tensors_of(plain))
        even = dict.fromkeys(scales, statistics.geometric_mean(scales.values())) if scales else {}
        candidates, seen = [], set[str]()
        files = [(task.genome, weights, grid, bool(grid))]
        files += [(task.genome, other.weights, other.grid, True) for other in others]
        probed = len(files)
        for genome in (*((task.genome,) if grid else ()), *task.probes):
            files.append((genome, weights, grid, bool(grid) and reader.keeps_grid(genome)))
        for place, (genome, state, steps, exact) in enumerate(files):
            recipe = reader.recipe(genome, state, examples=splits.train.counted, grid=None if exact else steps)
            recipe = dataclasses.replace(recipe, names=not bare, shapes=not bare)
            used = scales if reader.uses_gradients(genome) else even
            clock = time.perf_counter()
            data = pack(state, recipe, sensitivities=used, grid=steps if exact else None)
            digest = hashlib.sha256(data).hexdigest()
            if digest not in seen:
                seen.add(digest)
                encode = time.perf_counter() - clock
                candidates.append(
                    self._candidate(genome, template, data, encode, model, splits, device, place >= probed)
                )
        return [candidate for candidate in candidates if math.isfinite(candidate.quality)]

    def _candidate(
        self,
        genome: Genome,
        template: Mapping[str, torch.Tensor],
        data: bytes,
        encode: float,
        model: nn.Module,
        splits: Splits,
        device: torch.device,
        probe: bool,
    ) -> _Candidate:
        clock = [time.perf_counter()]
        decoded = unpack(data, names=template)
        clock.append(time.perf_counter())
        load_state(model, decoded, "the decoded file")
        result = measure(self.experiment.task(), model, splits.validation, device)
        clock.append(time.perf_counter())
        decode, judge = (later - earlier for earlier, later in zip(clock, clock[1:], strict=False))
        measurements = {
            "quality_low": finite(result.low),
            "quality_high": finite(result.high),
            "loss": finite(result.loss),
            "total": result.total,
            "details": {name: finite(value) for name, value in result.details.items()},
            "parameters": sum(tensor.numel() for tensor in template.values() if tensor.is_floating_point()),
            "encode_seconds": encode,
            "decode_seconds": decode,
            "evaluate_seconds": judge,
            "probe": probe,
        }
        measurements |= _layers(data, template)
        return _Candidate(genome, data, result.value, result.error, state_hash(decoded), measurements)

    def _finish(
        self,
        task: SegmentTask,
        status: Any,
        leaves: tuple[Leaf, ...],
        metrics: dict[str, Any],
        started: float,
        error: str = "",
    ) -> Outcome:
        now = time.time()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        metrics |= {"finished": now, "process_peak_memory_bytes": memory}
        if metrics["device"] != "cpu":  # it is the GPU's name
            metrics["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
        seconds = now - started
        share = metrics.get("encode_seconds", 0.0) / max(seconds, 1e-9)
        return Outcome(
            task.segment_id, task.index, status, leaves, error, seconds=seconds, encode_fraction=share, metrics=metrics
        )


def _describe(started: float, device: torch.device) -> dict[str, Any]:
    return {
        "started": started,
        "node": platform.node(),
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def _depth(task: SegmentTask) -> int:
    return task.parents[0].depth + 1 if task.parents else 1


def _seconds(task: SegmentTask, started: float) -> float:
    return time.time() - started + (task.parents[0].seconds if task.parents else 0.0)


def _layers(data: bytes, template: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Bytes per layer as they are recorded for a leaf."""
    infos, header = inspect(data, template)
    rows = [
        {
            "name": info.name,
            "shape": list(info.shape),
            "codec": info.codec,
            "payload_bytes": round(info.payload_bytes, 2),
            "side_bytes": info.side_bytes,
            "bits_per_weight": round(info.bits_per_weight, 4),
        }
        for info in infos
    ]
    return {"layers": rows, "header_bytes": header}


def _write(
    candidates: Sequence[_Candidate],
    task: SegmentTask,
    folder: Path,
    history: tuple[int, int, float],
    common: Mapping[str, Any],
) -> tuple[Leaf, ...]:
    """Write the non-dominated candidates and the first one; equal files are written once.

    `history` is the leaves' depth, epochs and seconds, `common` the measurements that all have alike.
    """
    depth, epochs, seconds = history
    points: npt.NDArray[np.float64] = np.array([(len(c.data), c.error) for c in candidates], np.float64)
    keep = is_nondominated(points)
    leaves: list[Leaf] = []
    for place, candidate in enumerate(candidates):
        digest = hashlib.sha256(candidate.data).hexdigest()
        if (place > 0 and not keep[place]) or digest in {leaf.sha256 for leaf in leaves}:
            continue
        name = f"{place}.evc"
        (folder / name).write_bytes(candidate.data)
        leaves.append(
            Leaf(
                leaf_id=f"{task.segment_id}/{place}",
                path=name,
                sha256=digest,
                nbytes=(folder / name).stat().st_size,
                quality=candidate.quality,
                error=candidate.error,
                genome=candidate.genome,
                depth=depth,
                epochs=epochs,
                seconds=seconds,
                weights_sha256=candidate.weights_sha256,
                measurements=candidate.measurements | dict(common) | {"genome_hash": genome_hash(candidate.genome)},
            )
        )
    return tuple(leaves)
