"""What `pack` does with a checkpoint: calibrate, try values of λ, and show both."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from evocompress.allocation import allocate
from evocompress.calibrated import Calibration, calibrate, pack_calibrated
from evocompress.confidence import fit_confidence
from evocompress.data import Examples
from evocompress.data import load as load_data
from evocompress.data.noise import noise_images
from evocompress.errors import ConfigError
from evocompress.evaluation import check_fit, evaluation_mode
from evocompress.loading import load
from evocompress.networks import build
from evocompress.packing import pack
from evocompress.prior import size_prior
from evocompress.recipe import Recipe
from evocompress.targets import TRIES, Try, find_rate_weight

__all__ = ["Known", "PackJob", "on_data", "on_noise"]

# Layer by layer takes longer, and a search without tells nearly where to look: (tries, growth of the bracket).
_NEAR_SIZE = (8, 1.25)
_NEAR_LOSS = (7, 1.4)
_JUDGES = 512  # images of noise that are held out
_LOSS_HEADROOM = 1.4  # how much larger λ may about be where layers make good each other's errors


class Known(NamedTuple):
    """A network, and examples: to calibrate on, and to judge by."""

    model: nn.Module
    train: Examples
    held_out: Examples


def on_data(weights: Path, model: str, data: str, seed: int) -> Known:
    """A network with these weights, and a data set's training and validation examples."""
    splits = load_data(data, seed=seed)
    network = load(weights, build(model))
    check_fit(network, splits.train, splits.classes)
    return Known(network, splits.train, splits.validation)


def on_noise(weights: Path, model: str, shape: str, samples: int, seed: int) -> Known:
    """A network with these weights, and noise; where it judges, labels are what the network itself says."""
    network, images = load(weights, build(model)), noise_images(shape, samples + _JUDGES, seed)
    check_fit(network, images, 1)
    judges = images.take(torch.arange(samples, len(images)))
    with evaluation_mode(network), torch.no_grad():
        labels = network(judges.images).argmax(1)
    return Known(network, images.take(torch.arange(samples)), dataclasses.replace(judges, labels=labels))


class _Recipes(Protocol):
    def __call__(self, rate_weight: float, *, calibrated: bool = False, layerwise: bool = False) -> Recipe: ...


class PackJob:
    """One checkpoint and all that is known of it; packs it at any λ, and measures what was packed."""

    def __init__(self, state: Mapping[str, torch.Tensor], recipe: _Recipes) -> None:
        self._state, self._recipe = state, recipe
        self._calibration: Calibration | None = None
        self._layerwise, self._rounds = False, 0
        self._console = Console(stderr=True)

    def fit_confidence(self, known: Known, *, device: str) -> None:
        """Scale the logits of the checkpoint and of the network so that held-out loss is least, and say so."""
        fitted = fit_confidence(known.model, known.held_out, device)
        self._state = fitted.scaled(self._state)
        known.model.load_state_dict(fitted.scaled(known.model.state_dict()))
        self._console.print(
            f"confidence: logits are scaled by {fitted.scale:.3f} ({fitted.layer!r}); "
            f"held-out loss {fitted.before:.4f}, with it {fitted.after:.4f}"
        )

    def calibrate(
        self, known: Known, *, samples: int, seed: int, device: str, layerwise: bool, allocation_rounds: int
    ) -> None:
        """Measure second-order sensitivities, with a progress bar; from then on they are used.

        They are corrected in so many rounds of allocation at the λ that is wanted, once that is known.
        """
        with self._progress("calibrating") as progress:
            self._calibration = calibrate(*known, samples=samples, seed=seed, device=device, progress=progress)
        self._layerwise, self._rounds = layerwise, allocation_rounds

    def at(self, rate_weight: float) -> Try:
        """The file at a λ."""
        self._allocate(rate_weight)
        with self._progress("quantising layer by layer") if self._layerwise else contextlib.nullcontext() as progress:
            return self._attempt(rate_weight, self._layerwise, progress)

    def under(self, limit: int, start: float) -> Try:
        """The least λ whose file takes at most `limit` bytes."""

        def attempt(rate_weight: float, layerwise: bool) -> Try:
            found = self._attempt(rate_weight, layerwise)
            return found._replace(meets=len(found.data) <= limit)

        goal = f"at most {limit} bytes"
        found = self._search(attempt, False, goal, start, small_is_good=True)
        if not self._refines:
            return found
        if not found.meets:  # nor will a file that is as large
            raise ConfigError(f"No file meets the target, {goal}: the last that was tried has {len(found.data)} bytes.")
        self._allocate(found.rate_weight)
        start = found.rate_weight
        fitted = self._search(attempt, self._layerwise, goal, start, small_is_good=True, near=_NEAR_SIZE)
        return fitted if fitted.meets else found

    def within(self, increase: float, start: float) -> Try:
        """The greatest λ whose decoded network loses at most so much more on held-out data than the checkpoint."""
        calibration = self._calibration
        assert calibration is not None
        allowed = calibration.loss() + increase

        def attempt(rate_weight: float, layerwise: bool) -> Try:
            found = self._attempt(rate_weight, layerwise)
            loss = calibration.loss(found.data)
            return found._replace(meets=loss <= allowed, loss=loss)

        goal = f"a held-out loss of at most {allowed:.4f}"
        found = self._search(attempt, False, goal, start, small_is_good=False)
        if not self._refines:
            return found
        near = found.rate_weight * (_LOSS_HEADROOM if self._layerwise else 1.0)
        self._allocate(near)
        fitted = self._search(attempt, self._layerwise, goal, near, small_is_good=False, near=_NEAR_LOSS)
        meeting = [file for file in (found, fitted) if file.meets]
        if not meeting:
            raise ConfigError(f"No file meets the target, {goal}; --max-loss-increase must be larger.")
        return min(meeting, key=lambda file: len(file.data))

    @property
    def _refines(self) -> bool:
        """Whether a search with plain sensitivities, all layers at once, is only the first."""
        return self._layerwise or self._rounds > 0

    def _allocate(self, rate_weight: float) -> None:
        """Correct the sensitivities at a λ, where that was asked for."""
        if self._calibration is None or not self._rounds:
            return
        recipe = self._recipe(rate_weight, calibrated=True, layerwise=self._layerwise)
        with self._progress("allocating") as progress:
            self._calibration = allocate(
                self._calibration,
                self._state,
                recipe,
                layerwise=self._layerwise,
                rounds=self._rounds,
                progress=progress,
            )

    def _attempt(self, rate_weight: float, layerwise: bool, progress: Callable[[float], None] | None = None) -> Try:
        calibration = self._calibration
        if calibration is None:
            data = pack(self._state, self._recipe(rate_weight), sensitivities=size_prior(self._state))
            return Try(rate_weight, data, meets=True)
        one_shot = self._recipe(rate_weight, calibrated=True)
        if not layerwise:
            return Try(rate_weight, pack(self._state, one_shot, sensitivities=calibration.sensitivities), meets=True)
        recipe = self._recipe(rate_weight, layerwise=True)
        file = pack_calibrated(self._state, recipe, calibration, one_shot=one_shot, progress=progress)
        return Try(rate_weight, file.data, meets=True, loss=file.loss, layerwise=file.layerwise)

    def _search(
        self,
        attempt: Callable[[float, bool], Try],
        layerwise: bool,
        goal: str,
        start: float,
        *,
        small_is_good: bool,
        near: tuple[int, float] = (TRIES, 8.0),
    ) -> Try:
        """Search with a progress bar, then show what was tried."""
        tried: list[Try] = []
        tries, growth = near
        how = ", layer by layer" if layerwise else ""
        with self._progress(f"searching λ for {goal}{how}") as progress:

            def shown(rate_weight: float) -> Try:
                tried.append(attempt(rate_weight, layerwise))
                progress(len(tried) / tries)
                return tried[-1]

            try:
                return find_rate_weight(shown, start=start, small_is_good=small_is_good, tries=tries, growth=growth)
            except ConfigError:
                if not self._refines:
                    raise
                return tried[-1]  # the other way of quantising may get there
            finally:
                self._print(tried, f"{goal}{how}")

    @contextlib.contextmanager
    def _progress(self, what: str) -> Iterator[Callable[[float], None]]:
        with Progress(console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=1.0)
            yield lambda share: progress.update(task, completed=share)

    def _print(self, tried: list[Try], goal: str) -> None:
        measured = any(found.loss is not None for found in tried)
        columns = ["λ", "bytes", *(["held-out loss"] if measured else []), ""]
        table = Table(*columns, title=goal, box=None, title_justify="left")
        for found in sorted(tried, key=lambda found: found.rate_weight):
            loss = ["" if found.loss is None else f"{found.loss:.4f}"] if measured else []
            verdict = "meets it" if found.meets else "does not"
            table.add_row(f"{found.rate_weight:.3g}", str(len(found.data)), *loss, verdict)
        self._console.print(table)
