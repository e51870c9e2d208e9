"""What `pack` does with a checkpoint: calibrate, try values of λ, and show both."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import typer
from rich.console import Console
from torch import nn

from evocompress.checkpoint.loading import load_formed
from evocompress.checkpoint.packing import pack
from evocompress.checkpoint.recipe import Recipe
from evocompress.checkpoint.size_prior import size_prior
from evocompress.cli.pack_report import held_out_line, progress_bar, say, table_of, zeroed_warning
from evocompress.data import Examples
from evocompress.data import load as load_data
from evocompress.data.noise import noise_images
from evocompress.errors import ModelError
from evocompress.packer.allocation import allocate
from evocompress.packer.calibrated import Calibration, calibrate, pack_calibrated
from evocompress.packer.confidence import fit_confidence
from evocompress.packer.targets import TRIES, LossLimit, SizeLimit, Target, TargetMissed, Try, best, find_rate_weight
from evocompress.search.interrupts import Interrupts
from evocompress.tasks.classification import calibration_examples, check_fit

__all__ = ["Known", "PackJob", "on_data", "on_noise"]

_FAR = (TRIES, 8.0)  # tries, and growth of the bracket, of a search that knows nothing yet
_JUDGES = 512  # images of noise that are held out

Share = Callable[[float], None]


class Known(NamedTuple):
    """A network, and examples: to calibrate on, and to judge by."""

    model: nn.Module
    train: Examples
    held_out: Examples


def on_data(weights: Path, plain: torch.nn.Module, data: str, seed: int, *, needs_labels: bool = True) -> Known:
    """The network with these weights, in the form of their file, and a data set's training and validation examples.

    Unless a loss on labels is asked for, labels that the network's outputs do not fit are left out.
    """
    splits = load_data(data, seed=seed)
    network = load_formed(weights, plain)
    if needs_labels:
        check_fit(network, splits.train, splits.classes)
        return Known(network, splits.train, splits.validation)
    return Known(network, splits.train, calibration_examples(network, splits.validation, splits.classes))


def on_noise(weights: Path, plain: torch.nn.Module, shape: str, samples: int, seed: int) -> Known:
    """The network with these weights, in the form of their file, and noise, which has no labels."""
    network, noise = load_formed(weights, plain), noise_images(shape, samples + _JUDGES, seed)
    check_fit(network, noise, 1)
    return Known(network, noise.take(torch.arange(samples)), noise.take(torch.arange(samples, len(noise))))


class _Recipes(Protocol):
    def __call__(self, rate_weight: float, *, calibrated: bool = False, layerwise: bool = False) -> Recipe: ...


class PackJob:
    """One checkpoint and all that is known of it; packs it at any λ, and measures what was packed.

    `stopped` says that a search was interrupted, and that what it gave is the best until then.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], recipe: _Recipes) -> None:
        self._state, self._recipe = state, recipe
        self._calibration: Calibration | None = None
        self._layerwise, self._rounds = False, 0
        self._console = Console(stderr=True)
        self.stopped = False

    def fit_confidence(self, known: Known, *, device: str) -> None:
        """Scale the logits of the checkpoint and of the network so that held-out loss is least, and say so."""
        fitted = fit_confidence(known.model, known.held_out, device)
        self._state = fitted.scaled(self._state)
        known.model.load_state_dict(fitted.scaled(known.model.state_dict()))
        say(
            self._console,
            f"confidence: logits are scaled by {fitted.scale:.3f} ({fitted.layer!r}); "
            f"held-out loss {fitted.before:.4f}, with it {fitted.after:.4f}",
        )

    def calibrate(
        self, known: Known, *, samples: int, seed: int, device: str, layerwise: bool, allocation_rounds: int
    ) -> None:
        """Measure second-order sensitivities, with a progress bar; from then on they are used.

        They are corrected in so many rounds of allocation at the λ that is wanted, once that is known.
        """
        with progress_bar(self._console, "calibrating") as progress:
            self._calibration = calibrate(*known, samples=samples, seed=seed, device=device, progress=progress)
        self._layerwise, self._rounds = layerwise, allocation_rounds

    def at(self, rate_weight: float) -> Try:
        """The file at a λ."""
        if self._rounds:
            self._allocate(rate_weight, "1 of 2")
            say(self._console, f"2 of 2: quantising {self._how}")
        with progress_bar(self._console, "quantising") if self._layerwise else contextlib.nullcontext() as progress:
            return self._attempt(rate_weight, self._layerwise, progress)

    def under(self, limit: int, start: float) -> Try:
        """The least λ whose file takes at most `limit` bytes; interrupted, the best until then (`stopped`).

        Raises:
            ConfigError: No file is as small.
            KeyboardInterrupt: Interrupted before any file met the limit.
        """
        return self._find(SizeLimit(limit), start)

    def within(self, increase: float, start: float) -> Try:
        """The greatest λ whose decoded network loses at most so much more on held-out data than the checkpoint.

        Raises and is interrupted as `under`.
        """
        calibration = self._calibration
        assert calibration is not None
        before = calibration.loss()
        if not math.isfinite(before):
            raise ModelError(f"the network's {calibration.loss_name} is {before} before anything is packed; mend that")
        return self._find(LossLimit(calibration.loss, calibration.loss_name, before, increase), start)

    def report(self, found: Try) -> None:
        """Say what the file lost, once it is written: how good its network is, and tensors that are zero now."""
        if self._calibration is not None:
            typer.echo(held_out_line(self._calibration, found.data))
        if found.zeroed:
            say(self._console, zeroed_warning(found.zeroed, self._state, self._recipe(found.rate_weight)))

    @property
    def _how(self) -> str:
        return "layer by layer" if self._layerwise else "all layers at once"

    def _allocate(self, rate_weight: float, phase: str) -> None:
        """Correct the sensitivities at a λ."""
        assert self._calibration is not None
        say(self._console, f"{phase}: allocating bytes at λ = {rate_weight:.3g}, {self._how}")
        recipe = self._recipe(rate_weight, calibrated=True, layerwise=self._layerwise)
        with progress_bar(self._console, "allocating") as progress:
            self._calibration = allocate(
                self._calibration,
                self._state,
                recipe,
                layerwise=self._layerwise,
                rounds=self._rounds,
                progress=progress,
            )

    def _attempt(self, rate_weight: float, layerwise: bool, progress: Share | None = None) -> Try:
        calibration = self._calibration
        one_shot = self._recipe(rate_weight, calibrated=calibration is not None)
        if calibration is not None and layerwise:
            recipe = self._recipe(rate_weight, layerwise=True)
            file = pack_calibrated(self._state, recipe, calibration, one_shot=one_shot, progress=progress)
            return Try(rate_weight, file.data, meets=True, loss=file.loss, zeroed=file.zeroed)
        sensitivities = size_prior(self._state) if calibration is None else calibration.sensitivities
        zeroed: list[str] = []
        data = pack(self._state, one_shot, sensitivities=sensitivities, zeroed=zeroed)
        return Try(rate_weight, data, meets=True, zeroed=tuple(zeroed))

    def _find(self, target: Target, start: float) -> Try:
        """The best of all files of a search that meet a target, also where it was interrupted."""
        tried: list[Try] = []
        interrupts = Interrupts()
        with interrupts.installed():
            interrupts.during(lambda: self._phases(target, start, tried), None)
        found = best(tried, small_is_good=target.small_is_good)
        self.stopped = interrupts.pending
        if found is None:
            if self.stopped:
                raise KeyboardInterrupt
            raise target.missed(tried)
        if self.stopped:
            say(
                self._console,
                f"Stopped early: of {len(tried)} files that were tried, the best that meets the target "
                f"has {len(found.data)} bytes (λ = {found.rate_weight:.3g}).",
            )
        return found

    def _phases(self, target: Target, start: float, tried: list[Try]) -> None:
        """Search with plain sensitivities, all layers at once; then nearby as the file shall be, where that differs."""
        if not (self._layerwise or self._rounds):
            self._search(target, start, tried, f"searching λ for {target}")
            return
        phases = 3 if self._rounds else 2
        self._search(target, start, tried, f"1 of {phases}: searching λ for {target}, all layers at once")
        first = best(tried, small_is_good=target.small_is_good)
        if first is None and target.small_is_good:  # nor will a file that is as large
            return
        near = (first or tried[-1]).rate_weight * (target.headroom if self._layerwise else 1.0)
        if self._rounds:
            self._allocate(near, f"2 of {phases}")
        what = f"{phases} of {phases}: searching λ for {target}, {self._how}"
        self._search(target, near, tried, what, refined=True)

    def _search(self, target: Target, start: float, tried: list[Try], what: str, *, refined: bool = False) -> None:
        """One phase: announced, with a progress bar, and a table of what was tried, which joins `tried`."""
        say(self._console, what)
        tries, growth = target.near if refined else _FAR
        first = len(tried)
        with progress_bar(self._console, "searching") as progress:

            def share(of_try: float) -> None:
                progress((len(tried) - first + of_try) / tries)

            def attempt(rate_weight: float) -> Try:
                found = self._attempt(rate_weight, refined and self._layerwise, share)
                tried.append(target.judged(found)._replace(refined=refined))
                share(0.0)
                return tried[-1]

            try:
                with contextlib.suppress(TargetMissed):  # the other way of quantising may get there
                    small = target.small_is_good
                    find_rate_weight(attempt, start=start, small_is_good=small, tries=tries, growth=growth)
            finally:
                self._show(tried[first:])

    def _show(self, tried: Sequence[Try]) -> None:
        """A table of what was tried in one phase; interrupted, that may be nothing."""
        if tried:
            name = self._calibration.loss_name if self._calibration is not None else ""
            self._console.print(table_of(tried, name), highlight=False)
