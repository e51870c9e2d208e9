"""Driver, the main job: a configuration, a run folder, a population searched on an executor, audited and exported."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evocompress.checkpoint.float32_size import float32_bytes
from evocompress.checkpoint.forms import changed
from evocompress.checkpoint.packing import pack_without_loss
from evocompress.data.examples import SPLITS
from evocompress.errors import ConfigError, DataError, EvocompressError, ModelError, RunError
from evocompress.evolve.audit import AuditJob, ReferenceJob
from evocompress.evolve.config import Config, parse_config, with_overrides
from evocompress.evolve.experiment import Experiment, load_checkpoint
from evocompress.evolve.genome import GenomeReader
from evocompress.evolve.layer_groups import layer_groups
from evocompress.evolve.seeding import read_seeds, sow
from evocompress.evolve.segment import Segment
from evocompress.evolve.teacher import check_teacher, provide_teacher, teacher_file
from evocompress.evolve.trust import check_trust, imports_of, made_by
from evocompress.evolve.user_modules import modules_of, user_modules
from evocompress.extensions import EXECUTORS
from evocompress.protocols import Observer, Said, reporting
from evocompress.runs.export import Export, check_libraries, export_run
from evocompress.search.events import Opened
from evocompress.search.executors import Executor, ExecutorResources, HasNodeNews, LooksAtNodes, MakeExecutor
from evocompress.search.history import read_history, read_run_json
from evocompress.search.interrupts import sigterm_interrupts
from evocompress.search.node_probe import NodeProbe
from evocompress.search.records import Leaf
from evocompress.search.run_folder import Run, made_with, open_run, rare_events
from evocompress.search.run_header import storage_of_run
from evocompress.search.settings import SearchSettings
from evocompress.search.shipment import Shipment
from evocompress.search.shipped_modules import ShippedModules
from evocompress.search.space import Space
from evocompress.search.stop_request import forget_request, is_asked_to_stop
from evocompress.search.storage import Storage, open_storage
from evocompress.support.modules import shapes_of, tensors_of
from evocompress.support.wording import counted, listed
from evocompress.tasks.trial_run import note_on_outputs

if TYPE_CHECKING:
    import torch

__all__ = [
    "Prepared",
    "RunSummary",
    "config_of_run",
    "counted_as_before",
    "prepare",
    "run_experiment",
    "with_more",
]

# Deterministic mode's lag where none is given: the same for any number of workers, and enough for eight of them.
_LAG = 16
_ROUNDS = 10  # of an audit, after each of which it reports how far it is
_FREE = (
    "config.name",
    "config.curve_examples",
    "config.resources.workers",
    "config.resources.cpus",
    "config.resources.executor",
    "config.resources.segment_timeout",
    *(f"config.resources.{key}" for key in ("working_dir", "py_modules", "pip", "env_vars", "image_uri")),
)
_VERSIONED = ("evocompress", "torch", "numpy", "scipy", "constriction", "PyWavelets", "ray")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An experiment that was checked: its segment, its space, and what `run.json` says of it."""

    config: Config
    segment: Segment
    settings: SearchSettings
    header: dict[str, Any]
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """How a run ended: whether its budget is used up, what was exported; `ended` segments came to an end just now."""

    folder: Path
    finished: bool
    segments: int
    export: Export | None
    ended: int


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name.lower()] = importlib.metadata.version(name)
    return versions


def _git_revision() -> str:
    """The commit of this source tree, with a + where it was changed; empty outside a checkout."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _initial_state(config: Config, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    load_checkpoint(model, config.initial_weights)
    return tensors_of(model)


def prepare(config: Config, config_text: str = "") -> Prepared:
    """Load task, data and network, check that they fit, and lay out the space of genomes.

    Raises:
        ConfigError: There is no such task.
        DataError, ModelError: The data set is missing or has nothing to learn from; the network does not take it.
    """
    gpu = config.resources.gpus != 0
    # A driver started as a script or by -c has its folder first in sys.path; the workers need the same one.
    path = tuple(dict.fromkeys([os.getcwd(), *(folder for folder in sys.path if folder and os.path.isdir(folder))]))
    experiment = Experiment(
        config.model,
        config.model_options,
        config.data,
        config.data_options,
        config.seed,
        config.resources.threads,
        gpu,
        path,
        config.resources.precision,
        config.task,
        config.named_files,
    )
    experiment.prepare()
    task, splits, model = experiment.task(), experiment.splits(), experiment.network()
    for name in SPLITS:
        with _about_split(config.data, name):
            task.check(model, getattr(splits, name), splits.classes)
    state = _initial_state(config, model)
    reader = GenomeReader(config.genes, layer_groups(shapes_of(model)), config.task, config.parsed_rules)
    others = [*_of_other_options(experiment, reader)]
    further = sorted({group for other in others for group in layer_groups(shapes_of(other)).values()})
    reader = dataclasses.replace(reader, further_groups=tuple(further))
    for plain in (model, *others):
        reader.check(plain)
        task.check(changed(plain, plain, reader.architecture(reader.ends[0])), splits.train, splits.classes)
    parameters = sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())
    network = {"name": config.model, "parameters": parameters, "float32_bytes": float32_bytes(state)}
    settings = _settings(config, float32_bytes(state))
    initial = pack_without_loss(state)
    if config.teacher.given:
        check_teacher(config, experiment, splits)
    header = {
        "config": config.model_dump(mode="json"),
        "config_text": config_text,
        "versions": _versions(),
        "git_revision": _git_revision(),
        "network": network | {"groups": reader.groups, "initial_sha256": hashlib.sha256(initial).hexdigest()},
        "data": splits.describe(),
        "quality": task.quality.to_json(),
        "made_by": made_by(),
    }
    trained = bool(config.initial_weights)
    segment = Segment(experiment, reader, initial, trained, curve_examples=config.curve_examples)
    return Prepared(config, segment, settings, header, note_on_outputs(model, splits.train))


def _of_other_options(experiment: Experiment, reader: GenomeReader) -> Iterator[torch.nn.Module]:
    """The networks at the ends of the ranges of options that evolve.

    Raises:
        ModelError: The factory does not take such options.
    """
    for options in reader.option_ends if reader.genes.get("model_options") else ():
        try:
            yield experiment.network(options=options)
        except EvocompressError as error:
            raise ModelError(f"genes.model_options: {error}") from error


def counted_as_before(prepared: Prepared, stored: dict[str, Any]) -> Prepared:
    """The same for a run whose `run.json` counts no integers, such as batch norms' counters, in its float32 bytes.

    The range of sizes, which a run must not change, comes from that number.
    """
    network = prepared.header["network"]
    floats = 4 * network["parameters"]
    if stored.get("network", {}).get("float32_bytes") != floats or network["float32_bytes"] == floats:
        return prepared
    header = prepared.header | {"network": network | {"float32_bytes": floats}}
    return dataclasses.replace(prepared, header=header, settings=_settings(prepared.config, floats))


def _settings(config: Config, float32_size: int) -> SearchSettings:
    settings = config.search.settings(seed=config.seed, float32_bytes=float32_size)
    return dataclasses.replace(settings, lag=_LAG) if settings.deterministic and settings.lag is None else settings


@contextlib.contextmanager
def _about_split(data: str, split: str) -> Iterator[None]:
    """Begin the message of a DataError with the data set and the split."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{data}, {split}: {error}") from error


def _executor(
    prepared: Prepared, storage: Storage, address: str | None, shipment: Shipment, tell: Observer
) -> Executor:
    resources = prepared.config.resources
    threads = str(resources.threads)
    threads_variables = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    make: MakeExecutor = EXECUTORS.find(resources.executor)
    return make(
        prepared.segment,
        storage,
        ExecutorResources(
            workers=resources.workers or None,
            cpus=resources.cpus,
            gpus=None if resources.gpus == "auto" else resources.gpus,
            address=address,
            # Read by the libraries when a worker starts; without them two workers on two cores fight over both.
            env_vars=threads_variables | resources.env_vars,
            shipment=shipment,
            observer=tell,
        ),
    )


def _shipment(config: Config, address: str | None) -> Shipment:
    """What workers get beside the segment; the user's modules only where there may be workers on other machines."""
    resources = config.resources
    is_elsewhere = bool(address or os.environ.get("RAY_ADDRESS"))
    return Shipment(
        user_modules(modules_of(imports_of(config.model_dump()))) if is_elsewhere else ShippedModules(),
        resources.working_dir,
        resources.py_modules,
        resources.pip,
        resources.image_uri,
    )


def _with_absolute_paths(config: Config) -> Config:
    """The same with folders that a resume from another folder finds, too."""
    resources = config.resources
    changes = {
        "working_dir": resources.working_dir and _absolute(resources.working_dir),
        "py_modules": tuple(map(_absolute, resources.py_modules)),
    }
    storage = config.storage and _absolute(config.storage)
    return config.model_copy(update={"storage": storage, "resources": resources.model_copy(update=changes)})


def _absolute(place: str) -> str:
    return place if "://" in place else os.path.abspath(place)


def _look_at_nodes(
    prepared: Prepared, storage: Storage, executor: Executor, modules: ShippedModules, tell: Observer
) -> None:
    """Refuse a cluster of which no node has what the run needs, before anything is written."""
    resources = prepared.config.resources
    if isinstance(executor, LooksAtNodes):
        experiment = prepared.segment.experiment
        imports = modules_of(imports_of(prepared.config.model_dump()))
        executor.look_at_nodes(NodeProbe(storage, imports, modules, experiment.path))
        for news in executor.node_news() if isinstance(executor, HasNodeNews) else ():
            tell(news)
    elif resources.executor == "inline" and resources.for_workers:
        keys = listed([f"resources.{key}" for key in resources.for_workers])
        tell(Said(f"{keys} has no effect here: the executor inline runs segments in this process"))


def _rounds(leaves: Sequence[Leaf], reader: GenomeReader, workers: int) -> list[list[list[Any]]]:
    """Files to judge, in at most `_ROUNDS` rounds, so that there is progress to report; in each a part for a worker."""
    files = [(leaf.leaf_id, leaf.path, leaf.sha256, reader.model_options(leaf.genome)) for leaf in leaves]
    size = max(workers, math.ceil(len(files) / _ROUNDS))
    rounds = [files[start : start + size] for start in range(0, len(files), size)]
    return [[files[start::workers] for start in range(min(workers, len(files)))] for files in rounds]


def _audit(run: Run, prepared: Prepared, executor: Executor, observer: Observer) -> None:
    """Judge the front on the audit split, and the uncompressed network once; both are journalled."""
    if prepared.config.reference_epochs and not run.events("reference"):
        job = ReferenceJob(prepared.segment.experiment, prepared.segment.initial, prepared.config.reference_packs)
        # Trained weights that the run began with are themselves what the front is compared with.
        epochs = 0 if prepared.config.initial_weights else prepared.config.reference_epochs
        trained = f"after {counted(epochs, 'epoch')} of training"
        observer(Said(f"measuring the uncompressed network to compare with, {trained}"))
        what = "measuring the uncompressed network"
        with reporting(observer, what):
            run.record("reference", **executor.map(job, [epochs], what=what, observer=observer)[0])
    audited = {leaf_id for event in run.events("audited") for leaf_id in event["leaves"]}
    waiting = [leaf for leaf in run.search.front() if leaf.leaf_id not in audited]
    if waiting:
        what = f"auditing {counted(len(waiting), 'file')} of the front"
        observer(Said(f"{what} on data that selection never saw"))
        job_audit = AuditJob(prepared.segment.experiment, run.storage)
        judged: dict[str, Any] = {}
        with reporting(observer, what) as done:
            for parts in _rounds(waiting, prepared.segment.reader, executor.workers):
                for judged_here in executor.map(job_audit, parts, what=what, observer=observer):
                    judged |= judged_here
                done(len(judged) / len(waiting))
        run.record("audited", leaves=judged)


def run_experiment(
    config: Config,
    folder: str | os.PathLike[str],
    *,
    config_text: str = "",
    resume: bool = False,
    override: bool = False,
    address: str | None = None,
    observer: Observer | None = None,
    seeds: Path | None = None,
) -> RunSummary:
    """Run (or go on with) an experiment in a folder, until its budget is used up or somebody stops it.

    Args:
        config: What to run.
        folder: The run folder; new, or with `resume` one that exists.
        config_text: The configuration as the user wrote it, kept in `run.json`.
        resume: Go on with what is there.
        override: Accept a configuration that differs from the run's; the change is journalled.
        address: An existing Ray cluster; None starts a local one.
        observer: Hears `search.events`, `Said`, and how far the audit is, and what is trained beside segments
            (`protocols.reporting`); see `runs.display.RunDisplay`.
        seeds: The folder of another run, with files of whose front a new run begins.

    Raises:
        ConfigError: That run's files are of no use in this one, or an address is given to an executor without one.
        RunError: The folder is in use, damaged, or of another configuration.
        EvocompressError: A library is missing that the export at the end needs.
    """
    tell: Observer = observer or _ignore
    check_libraries()
    if address is not None and config.resources.executor == "inline":
        raise ConfigError(f"{address} is the address of a Ray cluster, but resources.executor = inline uses none.")
    config = _with_absolute_paths(config)
    prepared = prepare(config, config_text)
    if resume:
        prepared = counted_as_before(prepared, read_run_json(folder))
        prepared = _following(prepared, folder)
    sown = None
    if seeds is not None and not resume:
        sown = read_seeds(seeds, config, prepared.segment.reader, prepared.settings, prepared.header)
    storage = storage_of_run(folder, config.storage)
    if config.teacher.given:
        segment = dataclasses.replace(prepared.segment, teacher=teacher_file(config, storage))
        prepared = dataclasses.replace(prepared, segment=segment)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sigterm_interrupts())  # first, so that a cluster is left, and asked for no more nodes
        shipment = _shipment(prepared.config, address)
        executor = _executor(prepared, storage, address, shipment, tell)
        stack.callback(executor.close)
        # A new run has no mark yet.
        place = storage if resume else open_storage(config.storage or folder)
        _look_at_nodes(prepared, place, executor, shipment.modules, tell)
        settings = prepared.settings
        run = stack.enter_context(
            open_run(
                Path(folder),
                header=prepared.header,
                space=prepared.segment.reader.space(),
                settings=settings,
                storage_uri=config.storage,
                resume=resume,
                override=override,
                workers=executor.workers,
                free=(*_FREE, *(_added_since(folder, prepared.header["config"]) if resume else ())),
                observer=tell,
            )
        )
        forget_request(folder)  # one that an earlier driver did not hear; those from now on are for this one
        quality = prepared.segment.experiment.task().quality
        if prepared.note is not None:
            tell(Said(prepared.note))
        if sown is not None:
            tell(Said(f"beginning with {counted(len(sown.files), 'file')} of {sown.source}"))
            sow(run, sown)
        if (teacher := prepared.segment.teacher) is not None:
            provide_teacher(run, config, teacher, prepared.segment.experiment, executor, tell)
        seconds = None if settings.minutes is None else max(0.0, 60.0 * settings.minutes - run.elapsed)
        tell(Opened(config.name, settings.segments, executor.workers, tuple(run.search.front()), quality, seconds))
        before = run.completions
        reason = run.drive(
            executor,
            observer=tell,
            should_stop=functools.partial(is_asked_to_stop, folder),
            time_limit=config.resources.time_limit,
        )
        forget_request(folder)
        segments, ended = run.completions, run.completions - before
        if reason != "finished":
            return RunSummary(run.folder, False, segments, None, ended)
        _audit(run, prepared, executor, tell)
        tell(Said("writing export/"))
        history = run.history()
        export = export_run(history, run.folder, lambda leaf: run.storage.read(leaf.path))
        return RunSummary(run.folder, True, segments, export, ended)


def _following(prepared: Prepared, folder: str | os.PathLike[str]) -> Prepared:
    """The same for a run whose genes evolve otherwise from now on: genomes of before are read as they were meant."""
    made = made_with(read_run_json(folder), rare_events(folder))
    with contextlib.suppress(ConfigError, KeyError):  # of another version; then it may go on as it is, or not
        space, config = Space.from_json(made["space"]), parse_config(made["config"])
        reader = prepared.segment.reader
        before = dataclasses.replace(reader, genes=config.genes, defaults=space.defaults)
        segment = dataclasses.replace(prepared.segment, reader=reader.following(before, space))
        return dataclasses.replace(prepared, segment=segment)
    return prepared


def _ignore(event: object) -> None:
    """Where nobody listens."""


def _added_since(folder: str | os.PathLike[str], config: dict[str, Any]) -> list[str]:
    """Keys that an older run's configuration lacks, and which now have what stands for their absence: the default."""
    stored = read_run_json(folder).get("config", {})
    with contextlib.suppress(ConfigError):
        return _absent_keys(stored, parse_config(stored).model_dump(mode="json"), config, "config")
    return []


def _absent_keys(old: dict[str, Any], filled: dict[str, Any], new: dict[str, Any], prefix: str) -> list[str]:
    absent = []
    for key, value in filled.items():
        if key not in old and new.get(key) == value:
            absent.append(f"{prefix}.{key}")
        elif isinstance(value, dict) and isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            absent += _absent_keys(old[key], value, new[key], f"{prefix}.{key}")
    return absent


def config_of_run(folder: str | os.PathLike[str], overrides: Iterable[str] = (), *, trusted: bool = False) -> Config:
    """The configuration that a run is made with, to go on with it: its own, or that of its last accepted override.

    Args:
        folder: The run folder.
        overrides: Settings to change, each "section.key=value".
        trusted: Whether code that the configuration names may be imported although the folder was made elsewhere.

    Raises:
        RunError: There is no run in the folder, or it names code and was made elsewhere.
    """
    try:
        run = read_run_json(folder)
        stored = made_with(run, rare_events(folder))["config"]
    except (KeyError, FileNotFoundError):
        raise RunError(f"{folder}: there is no run here (no run.json).") from None
    if not trusted:
        check_trust(folder, run, stored)
    return with_overrides(stored, overrides, f"{folder}/run.json")


def with_more(
    config: Config, folder: str | os.PathLike[str], *, segments: int | None = None, seconds: float | None = None
) -> Config:
    """The configuration with another budget: segments beyond those that were begun, seconds beyond what was used.

    The budget of before no longer counts; where only one of the two is given, the other has no bound.

    Raises:
        ConfigError: Neither is given, or one is not above 0.
        RunError: There is no run in the folder.
    """
    if segments is None and seconds is None:
        raise ConfigError("give segments or seconds.")
    if (segments is not None and segments < 1) or (seconds is not None and not seconds > 0):
        raise ConfigError("a run goes on for at least one segment, or for some time.")
    history = read_history(Path(folder))
    budget = {
        "segments": None if segments is None else len(history.tasks) + segments,
        "minutes": None if seconds is None else round((history.elapsed + seconds) / 60, 3),
    }
    return config.model_copy(update={"search": config.search.model_copy(update=budget)})
