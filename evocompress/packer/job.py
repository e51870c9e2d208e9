"""The pack job: one checkpoint to one file, at a λ or for a target of size or loss.

job = PackJob.of_file("weights.safetensors", "best", model="resnet20", data="cifar10", observer=print)
result = job.under(64_000)
result.write("weights.evc")
print(result.met, result.nbytes, job.measure(result).held_out)

`PackJob(state)` is a job on a state dict, and `calibrate` gives it a network and examples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt
import torch
from torch import nn

from evocompress.checkpoint import presets
from evocompress.checkpoint.defaults import CALIBRATION_SAMPLES, DEFAULT_PRESET, RELATIVE_RATE_WEIGHT
from evocompress.checkpoint.fold_statistics import fold_statistics
from evocompress.checkpoint.loading import names_for, without_prefix
from evocompress.checkpoint.packing import pack, to_numpy
from evocompress.checkpoint.presets import LAYERWISE
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.checkpoint.relative_rate_weight import rate_weight_for, with_small_raised
from evocompress.checkpoint.size_prior import size_prior
from evocompress.checkpoint.weight_errors import WeightErrors, weight_errors
from evocompress.checkpoint.weight_files import read_weights
from evocompress.codecs.container import iterate
from evocompress.errors import CodecError, ConfigError, DataError, ModelError, about_argument
from evocompress.networks import build as build_network
from evocompress.packer.allocation import allocate
from evocompress.packer.calibrated import Calibration, HeldOut, calibrate, pack_calibrated
from evocompress.packer.events import (
    ConfidenceFitted,
    HeldOutMeasured,
    PhaseBegan,
    Searched,
    StoppedEarly,
    TargetMissed,
    TensorsZeroed,
    Tried,
)
from evocompress.packer.expected_time import expected_seconds, shown_seconds
from evocompress.packer.held_steps import with_steps_held
from evocompress.packer.lost_tensors import Sensitivities, lost_tensors, with_lost_raised
from evocompress.packer.network_and_examples import NetworkAndExamples, of_state
from evocompress.packer.targets import TRIES, LossLimit, SizeLimit, Target, Try, best, fill, find_rate_weight
from evocompress.packer.temperature_scaling import Confidence, fit_confidence
from evocompress.protocols import Observer, Said, reporting
from evocompress.search.interrupts import Interrupts
from evocompress.support.atomic_files import write_bytes

__all__ = ["PackJob", "PackResult", "RecipeFactory"]

_FAR = (TRIES, 8.0)  # tries, and growth of the bracket, of a search that knows nothing yet
_FILLED, _FILLING_TRIES = 0.98, 6  # share of a limit that is enough, and tries that shall use more of it
_LONG = 10.0  # seconds for one file, which are said before
_FINER = 10.0  # how much smaller λ is in a rule that keeps a tensor which was lost

Share = Callable[[float], None]


class _How(NamedTuple):
    """What a file is made with: its recipe, that for all layers at once (perhaps the same), and sensitivities."""

    recipe: Recipe
    one_shot: Recipe
    sensitivities: Sensitivities


class RecipeFactory(Protocol):
    """Recipes by λ; how they will be used may count: with calibrated sensitivities, and layer by layer."""

    def __call__(self, rate_weight: float, *, calibrated: bool = False, layerwise: bool = False) -> Recipe:
        """The recipe at this λ."""
        ...


@dataclasses.dataclass(frozen=True)
class PackResult:
    """A file, and what is known of it.

    `met` says whether it meets the target; where no file does it is the nearest. `stopped`: the search was interrupted,
    and this is the best file by then. `refined`: it was quantised layer by layer, or with corrected sensitivities.
    `zeroed` names the tensors that are not zero and decode to zeros. `loss_before` and `loss_after` are of the network
    on held-out examples, in nats (or how far its outputs moved, where there are no labels), `held_out` has more; they
    are None until `within` or `PackJob.measure` has measured them.
    """

    data: bytes = dataclasses.field(repr=False)
    rate_weight: float
    met: bool = True
    stopped: bool = False
    refined: bool = False
    zeroed: tuple[str, ...] = ()
    loss_before: float | None = None
    loss_after: float | None = None
    held_out: HeldOut | None = None

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(self.data)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all, with its folder."""
        write_bytes(Path(path), self.data)


class PackJob:
    """One checkpoint and all that is known of it; packs it at any λ or for a target, and measures what was packed.

    Args:
        state: The checkpoint; it stays as it is, in the attribute `checkpoint`. Its bytes at a λ are those of
            `pack(state, λ)` where nothing else is given.
        preset: A preset's name, or a function that gives recipes by λ.
        rules: Come before the preset's own; not beside a function.
        names: Whether the file stores the tensors' names.
        shapes: Whether it stores their shapes and dtypes; without, it is bare, and `names` must be False.
        inference: Fold batch normalisation's statistics: smaller, but not to be trained on.
        observer: Hears `packer.events`, and what takes long, as `protocols.reporting` says it.

    Raises:
        CodecError: There is no such preset, or names come without shapes.
        ConfigError: Rules beside a function.

    >>> state = {"weight": torch.linspace(-1, 1, 4096).reshape(64, 64).sin()}
    >>> result = PackJob(state).under(1200)
    >>> result.met, result.nbytes <= 1200
    (True, True)
    """

    def __init__(
        self,
        state: Mapping[str, torch.Tensor],
        preset: str | RecipeFactory = DEFAULT_PRESET,
        *,
        rules: tuple[Rule, ...] = (),
        names: bool = True,
        shapes: bool = True,
        inference: bool = False,
        observer: Observer | None = None,
    ) -> None:
        if isinstance(preset, str):
            presets.preset(preset)  # says what is wrong with it before any work
        elif rules:
            raise ConfigError("rules are for presets; a function of recipes gives its own.")
        self.checkpoint = state
        self._state = fold_statistics(state) if inference else state
        self._preset, self._rules = preset, rules
        self._names, self._shapes = names, shapes
        Recipe(names=names, shapes=shapes)  # says what is wrong with them before any work
        if observer is not None and not callable(observer):
            raise ConfigError(f"observer is {observer!r}; give a function that takes an event, such as print, or None")
        self._tell: Observer = observer or _ignore
        self._calibration: Calibration | None = None
        self._layerwise, self._rounds, self._noise, self._calibration_seconds = False, 0, False, 0.0

    @classmethod
    def of_file(
        cls,
        weights: str | os.PathLike[str],
        preset: str | RecipeFactory = DEFAULT_PRESET,
        *,
        model: str | nn.Module | None = None,
        data: str | None = None,
        noise: str | None = None,
        task: str | None = None,
        needs_labels: bool = False,
        samples: int = CALIBRATION_SAMPLES,
        seed: int = 0,
        device: str = "cpu",
        fit_confidence: bool = False,
        allocation_rounds: int = 0,
        strip_prefix: str = "",
        max_output_bytes: int | None = None,
        observer: Observer | None = None,
        **options: Any,
    ) -> PackJob:
        """The job of a file, calibrated where a network and data or noise are given, as `evocompress pack` does it.

        Args:
            weights: The file or folder: what `read_weights` takes.
            preset: As above, like `observer`.
            model: A network's name, `package.module:factory`, or a module; its values do not matter, and stay.
            data: A data set's name, or `package.module:loader`, to calibrate on and to judge by.
            noise: Instead of data, the shape of noise, such as 3x32x32.
            task: What the network is for, as a name or `package.module:Class`, for data; see `on_data`.
            needs_labels: Refuse a network that does not fit the data's labels; `fit_confidence` does so, too.
            samples: How many examples to calibrate on, like `seed`, `device` and `allocation_rounds`: see `calibrate`.
            seed: Of the data's split and of the draws.
            device: Where to calibrate.
            fit_confidence: Scale the logits first: see the method of this name.
            allocation_rounds: How often sensitivities are corrected.
            strip_prefix: What to take away from tensors' names that begin with it.
            max_output_bytes: As for `read_weights`.
            observer: Hears what is worth knowing of the file and of the network's outputs, too (`Said`).
            options: `rules`, `names`, `shapes`, `inference` of the job.

        Raises:
            EvocompressError: The file cannot be read, or network, data, task and file do not fit each other; the
                error's `argument` says what it is about.
            ConfigError: A network without data or noise, both of these, or either without a network; or
                something that would have no effect without them.

        >>> import pathlib, tempfile, evocompress
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "linear.evc"
        >>> _ = evocompress.save(path, torch.nn.Linear(64, 64), 1e-6)
        >>> PackJob.of_file(path).under(2000).met
        True
        """
        if (model is None) != (data is None and noise is None) or (data is not None and noise is not None):
            raise ConfigError("model and one of data and noise belong together; give none of the three, or these two.")
        if model is None and (task is not None or fit_confidence or allocation_rounds):
            raise ConfigError(
                "task, fit_confidence and allocation_rounds are for a network with data; give model, too."
            )
        if task is not None and data is None:
            raise ConfigError("task is for data; noise has no labels.")
        tell = observer or _ignore
        with about_argument("model", ModelError):
            plain = build_network(model) if isinstance(model, str) else model
            naming = None if plain is None else functools.partial(names_for, plain)
            state = read_weights(weights, naming, lambda note: tell(Said(note)), max_output_bytes=max_output_bytes)
        with about_argument("strip_prefix", ModelError):
            state = without_prefix(state, strip_prefix)
        job = cls(state, preset, observer=observer, **options)
        if plain is None:
            return job
        with about_argument("model", ModelError):
            examples = of_state(
                state, plain, os.fspath(weights), data=data, noise=noise, task=task,
                needs_labels=needs_labels or fit_confidence, samples=samples, seed=seed,
            )  # fmt: skip
        if examples.note is not None:
            tell(Said(examples.note))
        if fit_confidence:
            with about_argument("fit_confidence", DataError):
                job.fit_confidence(examples, device=device)
        job.calibrate(examples, samples=samples, seed=seed, device=device, allocation_rounds=allocation_rounds)
        return job

    def fit_confidence(self, examples: NetworkAndExamples, *, device: str = "cpu") -> Confidence:
        """Scale the logits of the checkpoint and of the network, in place, so that held-out loss is least.

        Raises:
            DataError: The held-out examples have no labels.
            ModelError: No single layer makes the logits.
        """
        confidence = fit_confidence(examples.model, examples.held_out, device)
        self._state = confidence.scaled(self._state)
        examples.model.load_state_dict(confidence.scaled(examples.model.state_dict()))
        self._tell(ConfidenceFitted(confidence))
        return confidence

    def calibrate(
        self,
        examples: NetworkAndExamples,
        *,
        samples: int = CALIBRATION_SAMPLES,
        seed: int = 0,
        device: str = "cpu",
        layerwise: bool | None = None,
        allocation_rounds: int = 0,
    ) -> None:
        """Measure second-order sensitivities; from then on they are used.

        Args:
            examples: The network, and what it is measured on.
            samples: How many of the training examples to calibrate on.
            seed: Of the draws.
            device: Where to compute.
            layerwise: Quantise layer by layer; by default where the preset does.
            allocation_rounds: How often sensitivities are corrected at the λ that is wanted, once that is known.

        Raises:
            ModelError: The network fails on the examples, or its outputs are not finite.
        """
        began = time.perf_counter()
        with reporting(self._tell, "calibrating") as progress:
            self._calibration = calibrate(
                examples.model, examples.train, examples.held_out,
                samples=samples, seed=seed, device=device, progress=progress, task=examples.task,
            )  # fmt: skip
        self._calibration_seconds = time.perf_counter() - began
        self._layerwise = self._preset in LAYERWISE if layerwise is None else layerwise
        self._rounds, self._noise = allocation_rounds, examples.noise

    def at(self, rate_weight: float | None = None, *, relative: float = RELATIVE_RATE_WEIGHT) -> PackResult:
        """The file at a λ; by default at one that is so large relative to the weights (`relative_rate_weight`).

        In that case tensors whose weights are far smaller than others' keep their share of the bytes.
        """
        by_default = rate_weight is None
        rate_weight = self._rate_weight(relative) if rate_weight is None else rate_weight
        self._say_expected_time(rate_weight, self._layerwise)
        if self._rounds:
            self._allocate(rate_weight, 1, 2)
            self._tell(PhaseBegan(f"quantising {self._how}", 2, 2))
        how = self._how_at(rate_weight, self._layerwise)
        if by_default:
            how = how._replace(sensitivities=with_small_raised(self._arrays(), how.sensitivities))
        with reporting(self._tell, "quantising") if self._layerwise else contextlib.nullcontext() as progress:
            attempt = self._attempt(rate_weight, self._layerwise, progress, how)
        return self._result(attempt, met=True, stopped=False)

    def under(self, nbytes: int, start: float | None = None) -> PackResult:
        """The largest file of at most so many bytes that was found, by a search for λ from `start` (the default λ).

        Tensors of which little would be left get more of the bytes than λ gives them (`packer.lost_tensors`). Where the
        size jumps as λ grows, and more than a fiftieth of the limit is left, bits are made dearer at the steps of the
        last file that was too large (`packer.held_steps`); `rate_weight` is then what a bit was worth.

        Where none is as small, the smallest (`met` is False). Interrupted by SIGINT or SIGTERM, the best until then
        (`stopped`).

        Raises:
            KeyboardInterrupt: Interrupted before any file met the limit.
        """
        return self._find(SizeLimit(nbytes), start or self._rate_weight())

    def within(self, increase: float, start: float | None = None) -> PackResult:
        """The smallest file whose network loses at most so much more on held-out examples than the checkpoint.

        The loss is in nats; without labels it is the change of outputs. Where no file loses as little, the one that
        loses least (`met` is False). Interrupted as `under`.

        Raises:
            ConfigError: There are no examples (`calibrate`), or the increase is negative or not finite.
            ModelError: The network's loss is not finite before anything is packed.
            KeyboardInterrupt: Interrupted before any file met the limit.
        """
        calibration = self._calibration
        if calibration is None:
            raise ConfigError("within() needs a network, and examples to measure a loss on: call calibrate() first.")
        if not 0 <= increase < math.inf:
            raise ConfigError(f"increase is {increase!r}; it must be a finite number of at least 0, such as 0.01.")
        before = calibration.loss()
        if not math.isfinite(before):
            raise ModelError(f"the network's {calibration.loss_name} is {before} before anything is packed; mend that")
        return self._find(
            LossLimit(calibration.loss, calibration.loss_name, before, increase), start or self._rate_weight()
        )

    def weight_errors(self, result: PackResult) -> WeightErrors | None:
        """How far a file's weights are from the checkpoint's; None of a bare file that lacks folded tensors."""
        with contextlib.suppress(CodecError):
            return weight_errors(self.checkpoint, iterate(result.data, self.checkpoint))
        return None

    def measure(self, result: PackResult) -> PackResult:
        """The result with what it loses on all held-out examples; as it is where the job was not calibrated."""
        if self._calibration is None:
            return result
        held_out = self._calibration.held_out_quality(result.data)
        self._tell(HeldOutMeasured(held_out))
        return dataclasses.replace(
            result, held_out=held_out, loss_before=held_out.loss_before, loss_after=held_out.loss_after
        )

    @property
    def is_calibrated(self) -> bool:
        """Whether sensitivities were measured, so that `measure` can judge files."""
        return self._calibration is not None

    @property
    def _how(self) -> str:
        return "layer by layer" if self._layerwise else "all layers at once"

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: to_numpy(name, tensor) for name, tensor in self._state.items()}

    def _rate_weight(self, relative: float = RELATIVE_RATE_WEIGHT) -> float:
        """λ, relative to the weights."""
        return rate_weight_for(self._arrays(), relative)

    def _recipe(self, rate_weight: float, *, calibrated: bool = False, layerwise: bool = False) -> Recipe:
        factory: RecipeFactory
        if isinstance(self._preset, str):
            factory = functools.partial(presets.preset, self._preset, rules=self._rules, noise=self._noise)
        else:
            factory = self._preset
        recipe = factory(rate_weight, calibrated=calibrated, layerwise=layerwise)
        if self._names and self._shapes:
            return recipe
        return dataclasses.replace(recipe, names=self._names, shapes=self._shapes)

    def _say_expected_time(self, rate_weight: float, layerwise: bool) -> None:
        """Say how long a file will take, where it is long."""
        if self._calibration is None:
            return
        how, shapes = self._how_at(rate_weight, layerwise), {name: (*t.shape,) for name, t in self._state.items()}
        seconds = expected_seconds(how.sensitivities, shapes, how.one_shot)
        if layerwise:  # beside it, all layers at once are tried
            seconds += expected_seconds(how.sensitivities, shapes, how.recipe, self._calibration_seconds)
        if seconds > _LONG:
            kind = "layer by layer" if layerwise else "all layers at once"
            self._tell(Said(f"quantising {kind} takes {shown_seconds(seconds)} for each file"))

    def _allocate(self, rate_weight: float, number: int, phases: int) -> None:
        """Correct the sensitivities at a λ."""
        assert self._calibration is not None
        self._tell(PhaseBegan(f"allocating bytes at λ = {rate_weight:.3g}, {self._how}", number, phases))
        recipe = self._recipe(rate_weight, calibrated=True, layerwise=self._layerwise)
        with reporting(self._tell, "allocating") as progress:
            self._calibration = allocate(
                self._calibration,
                self._state,
                recipe,
                layerwise=self._layerwise,
                rounds=self._rounds,
                progress=progress,
            )

    def _attempt(
        self, rate_weight: float, layerwise: bool, progress: Share | None = None, how: _How | None = None
    ) -> Try:
        how = how or self._how_at(rate_weight, layerwise)
        calibration = self._calibration
        if calibration is not None and layerwise:
            calibration = dataclasses.replace(calibration, sensitivities=how.sensitivities)
            recipe, one_shot = how.recipe, how.one_shot
            file = pack_calibrated(self._state, recipe, calibration, one_shot=one_shot, progress=progress)
            return Try(rate_weight, file.data, meets=True, loss=file.loss, zeroed=file.zeroed)
        zeroed: list[str] = []
        data = pack(self._state, how.one_shot, sensitivities=how.sensitivities, zeroed=zeroed)
        return Try(rate_weight, data, meets=True, zeroed=tuple(zeroed))

    def _how_at(self, rate_weight: float, layerwise: bool) -> _How:
        calibrated = self._calibration is not None
        one_shot = self._recipe(rate_weight, calibrated=calibrated)
        recipe = self._recipe(rate_weight, layerwise=True) if calibrated and layerwise else one_shot
        return _How(recipe, one_shot, self._calibration.sensitivities if self._calibration else size_prior(self._state))

    def _attempt_whole(self, rate_weight: float, layerwise: bool, progress: Share | None) -> tuple[Try, _How]:
        """A file in which tensors that λ alone would give up get more bytes."""
        how = self._how_at(rate_weight, layerwise)
        file = self._attempt(rate_weight, layerwise, progress, how)
        # Sensitivities that were measured know what layers are worth; there, only what is lost whole gets more.
        calibrated = self._calibration is not None
        lost = [] if calibrated and not file.zeroed else lost_tensors(self._state, file.data, how.sensitivities)
        lost = [name for name in lost if name in file.zeroed or not calibrated]
        if not lost:
            return file, how
        how = how._replace(sensitivities=with_lost_raised(self._state, how.one_shot, how.sensitivities, lost))
        file = self._attempt(rate_weight, layerwise, progress, how)
        return file._replace(in_vain=not set(lost).isdisjoint(file.zeroed)), how

    def _find(self, target: Target, start: float) -> PackResult:
        """The best of all files of a search that meet a target, also where it was interrupted; else the nearest."""
        tried: list[Try] = []
        interrupts = Interrupts()
        with interrupts.installed():
            interrupts.during(lambda: self._phases(target, start, tried), None)
        chosen = best(tried, small_is_good=target.small_is_good)
        if chosen is None:
            if interrupts.pending:
                raise KeyboardInterrupt
            chosen = target.nearest(tried)
            self._tell(TargetMissed(target, chosen, len(tried)))
        elif interrupts.pending:
            self._tell(StoppedEarly(chosen, len(tried)))
        result = self._result(chosen, met=chosen.meets, stopped=interrupts.pending, target=target)
        if isinstance(target, LossLimit):
            return dataclasses.replace(result, loss_before=target.before, loss_after=chosen.loss)
        return result

    def _result(self, attempt: Try, *, met: bool, stopped: bool, target: Target | None = None) -> PackResult:
        if attempt.zeroed:
            name = attempt.zeroed[0]
            rule = self._recipe(attempt.rate_weight).rule(name, self._state[name].ndim)
            keep = Rule(name, rule.codecs[:1], rule.rate_factor / _FINER)
            self._tell(TensorsZeroed(attempt.zeroed, keep, target))
        return PackResult(attempt.data, attempt.rate_weight, met, stopped, attempt.refined, attempt.zeroed)

    def _phases(self, target: Target, start: float, tried: list[Try]) -> None:
        """Search with plain sensitivities, all layers at once; then nearby as the file shall be, where that differs."""
        if not (self._layerwise or self._rounds):
            self._search(target, start, tried, PhaseBegan(f"searching λ for {target}"))
            return
        phases = 3 if self._rounds else 2
        self._search(target, start, tried, PhaseBegan(f"searching λ for {target}, all layers at once", 1, phases))
        first = best(tried, small_is_good=target.small_is_good)
        if first is None and target.small_is_good:  # nor will a file that is as large
            return
        near = (first or tried[-1]).rate_weight * (target.headroom if self._layerwise else 1.0)
        if self._rounds:
            self._allocate(near, 2, phases)
        phase = PhaseBegan(f"searching λ for {target}, {self._how}", phases, phases)
        self._search(target, near, tried, phase, refined=True)

    def _search(
        self, target: Target, start: float, tried: list[Try], phase: PhaseBegan, *, refined: bool = False
    ) -> None:
        """One phase; what was tried joins `tried`."""
        self._tell(phase)
        self._say_expected_time(start, refined and self._layerwise)
        tries, growth = target.near if refined else _FAR
        first, layerwise = len(tried), refined and self._layerwise
        try:
            with reporting(self._tell, "searching") as progress:

                def share(of_try: float) -> None:
                    progress(min((len(tried) - first + of_try) / tries, 1.0))

                def judged(file: Try) -> Try:
                    tried.append(target.judged(file)._replace(refined=refined))
                    share(0.0)
                    self._tell(Tried(tried[-1]))
                    return tried[-1]

                find = functools.partial(
                    find_rate_weight, start=start, small_is_good=target.small_is_good, tries=tries, growth=growth
                )
                if isinstance(target, SizeLimit):
                    self._find_and_fill(target, find, judged, layerwise, share)
                else:
                    find(lambda rate_weight: judged(self._attempt(rate_weight, layerwise, share)))
        finally:
            name = self._calibration.loss_name if self._calibration is not None else ""
            self._tell(Searched(tuple(tried[first:]), name))

    def _find_and_fill(
        self, target: SizeLimit, find: Callable[..., Try | None], judged: Callable[[Try], Try], layerwise: bool,
        progress: Share,
    ) -> None:  # fmt: skip
        """Search with no tensor lost, or, if the limit is too small for that, by λ alone; then use up what is left."""
        for whole in (True, False):
            tried: list[tuple[Try, _How]] = []

            def attempt(rate_weight: float, whole: bool = whole, tried: list[tuple[Try, _How]] = tried) -> Try:
                if whole:
                    file, how = self._attempt_whole(rate_weight, layerwise, progress)
                else:
                    how = self._how_at(rate_weight, layerwise)
                    file = self._attempt(rate_weight, layerwise, progress, how)
                tried.append((judged(file), how))
                return tried[-1][0]

            meeting = find(attempt)
            if meeting is not None and not meeting.in_vain:
                self._fill(target, meeting, tried, judged, layerwise, progress)
                return

    def _fill(
        self, target: SizeLimit, meeting: Try, tried: list[tuple[Try, _How]], judged: Callable[[Try], Try],
        layerwise: bool, progress: Share,
    ) -> None:  # fmt: skip
        """Use more of a limit that the size has jumped over: from the last file that was too large, bit by bit."""
        larger = [pair for pair in tried if not pair[0].meets and pair[0].rate_weight < meeting.rate_weight]
        if not larger or len(meeting.data) >= _FILLED * target.limit:
            return
        finer, how = max(larger, key=lambda pair: pair[0].rate_weight)

        def attempt(factor: float) -> Try:
            recipe, one_shot = (
                with_steps_held(recipe, factor, finer.data, self._state) for recipe in (how.recipe, how.one_shot)
            )
            held = how._replace(recipe=recipe, one_shot=one_shot)
            file = self._attempt(finer.rate_weight * factor, layerwise, progress, held)
            return judged(file._replace(in_vain=not set(file.zeroed) <= set(finer.zeroed)))

        fill(attempt, len(finer.data), target.limit, tries=_FILLING_TRIES)


def _ignore(event: object) -> None:
    """An observer that hears nothing."""
