"""The command `pack`: one checkpoint, as small as it can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evocompress.cli.files import check_output
from evocompress.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from evocompress.codecs import Sensitivity
    from evocompress.data.examples import Examples
    from evocompress.recipe import Recipe, Rule
    from evocompress.targets import Try

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pack")(pack)


def pack(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS.safetensors", help="A checkpoint (safetensors, or .evc).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    preset: Annotated[str, typer.Option(help="fast or balanced.")] = "balanced",
    rate_weight: Annotated[
        float | None, typer.Option(help="λ: error that one bit is worth. Larger: smaller and rougher. 1e-4 by default.")
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="Instead of λ: the largest size of the file, such as 64kB; λ is searched.")
    ] = None,
    max_loss_increase: Annotated[
        float | None,
        typer.Option(help="Instead of λ: how much the loss on held-out data may rise; λ is searched. Needs --data."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Calibrate: a network's name, or module:factory that returns a torch module.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Calibrate: a data set's name, or module:loader, as in a configuration.")
    ] = None,
    samples: Annotated[int, typer.Option(help="How many training examples to calibrate on.", min=1)] = 1024,
    seed: Annotated[int, typer.Option(help="Of the data's split and of the calibration's draws.")] = 0,
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            help="GLOB=CODEC[|CODEC…][@FACTOR]: candidates, and a factor on λ, for tensors whose name matches; "
            "the first rule that matches counts. Repeatable.",
        ),
    ] = None,
) -> None:
    """Compress one checkpoint without training: from its weights alone, or calibrated on data."""
    from evocompress.presets import preset as named
    from evocompress.replacing import write_bytes
    from evocompress.weights import read_weights

    if sum(option is not None for option in (rate_weight, max_bytes, max_loss_increase)) > 1:
        raise ConfigError("--rate-weight, --max-bytes and --max-loss-increase exclude each other; give one.")
    if (model is None) != (data is None):
        raise ConfigError("--model and --data belong together: give both, or neither.")
    if max_loss_increase is not None and model is None:
        raise ConfigError("--max-loss-increase needs --model and --data, to measure the loss on.")
    check_output(weights, output)
    own = tuple(_rule(text) for text in rules or ())
    recipe = named(preset, 1e-4 if rate_weight is None else rate_weight, own, calibrated=model is not None)
    limit = _bytes(max_bytes)
    state = read_weights(weights)
    job = _Job(state, recipe)
    if model is not None and data is not None:
        job.calibrate(weights, model, data, samples, seed)
    if limit is not None:
        found = job.under(limit)
    elif max_loss_increase is not None:
        found = job.within(max_loss_increase)
    else:
        found = job.attempt(recipe.rate_weight)
    write_bytes(output, found.data)
    _summary(output, state, len(found.data))


def _bytes(text: str | None) -> int | None:
    from evocompress.analysis import parse_bytes

    if text is None:
        return None
    limit = parse_bytes(text)
    if limit <= 0:
        raise ConfigError(f"--max-bytes {text}: must be more than nothing.")
    return limit


def _rule(text: str) -> Rule:
    from evocompress.recipe import Rule

    glob, equals, rest = text.rpartition("=") if "(" not in text else text.partition("=")
    specs, _, factor = rest.partition("@")
    try:
        rate_factor = float(factor) if factor else 1.0
    except ValueError:
        raise ConfigError(f"--rule {text!r}: {factor!r} is not a number.") from None
    if not equals or not glob:
        raise ConfigError(f"--rule {text!r}: write it as GLOB=CODEC, such as 'conv*=dct' or '*.bias=lossless'.")
    return Rule(glob, tuple(spec.strip() for spec in specs.split("|")), rate_factor)


class _Job:
    """One checkpoint and all that is known of it; packs it at any λ, and measures what was packed."""

    def __init__(self, state: Mapping[str, torch.Tensor], recipe: Recipe) -> None:
        self._state, self._recipe = state, recipe
        self._sensitivities: Mapping[str, float | Sensitivity] | None = None
        self._model: torch.nn.Module | None = None
        self._held_out: Examples | None = None

    def calibrate(self, weights: Path, model: str, data: str, samples: int, seed: int) -> None:
        """Measure second-order sensitivities, with a progress bar."""
        from rich.console import Console
        from rich.progress import Progress

        import evocompress
        from evocompress.data import load
        from evocompress.evaluation import check_fit
        from evocompress.networks import build
        from evocompress.second_order import second_order_sensitivities

        splits = load(data, seed=seed)
        network = evocompress.load(weights, build(model))
        check_fit(network, splits.train, splits.classes)
        self._model, self._held_out = network, splits.validation
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("calibrating", total=1.0)
            self._sensitivities = second_order_sensitivities(
                network,
                splits.train,
                samples=samples,
                seed=seed,
                progress=lambda share: progress.update(task, completed=share),
            )

    def attempt(self, rate_weight: float) -> Try:
        """Pack at a λ."""
        from evocompress.packing import pack as pack_state
        from evocompress.targets import Try

        recipe = dataclasses.replace(self._recipe, rate_weight=rate_weight)
        return Try(rate_weight, pack_state(self._state, recipe, sensitivities=self._sensitivities), meets=True)

    def under(self, limit: int) -> Try:
        """The least λ whose file takes at most `limit` bytes."""

        def attempt(rate_weight: float) -> Try:
            found = self.attempt(rate_weight)
            return found._replace(meets=len(found.data) <= limit)

        return self._search(attempt, small_is_good=True, goal=f"at most {limit} bytes")

    def within(self, increase: float) -> Try:
        """The greatest λ whose decoded network loses at most so much more on held-out data than the checkpoint."""
        from evocompress.packing import unpack

        assert self._model is not None
        before = self._loss()

        def attempt(rate_weight: float) -> Try:
            found = self.attempt(rate_weight)
            assert self._model is not None
            self._model.load_state_dict(unpack(found.data), strict=False)
            loss = self._loss()
            return found._replace(meets=loss <= before + increase, loss=loss)

        return self._search(attempt, small_is_good=False, goal=f"a held-out loss of at most {before + increase:.4f}")

    def _loss(self) -> float:
        from evocompress.evaluation import evaluate

        assert self._model is not None and self._held_out is not None
        return evaluate(self._model, self._held_out).loss

    def _search(self, attempt: Any, *, small_is_good: bool, goal: str) -> Try:
        """Search with a progress bar, then show what was tried."""
        from rich.console import Console
        from rich.progress import Progress

        from evocompress.targets import TRIES, find_rate_weight

        tried: list[Try] = []
        console = Console(stderr=True)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(f"searching λ for {goal}", total=TRIES)

            def shown(rate_weight: float) -> Try:
                tried.append(attempt(rate_weight))
                progress.advance(task)
                return tried[-1]

            try:
                return find_rate_weight(shown, start=self._recipe.rate_weight, small_is_good=small_is_good)
            finally:
                progress.stop()
                _print_tries(console, tried, goal)


def _print_tries(console: Any, tried: list[Try], goal: str) -> None:
    from rich.table import Table

    measured = any(found.loss is not None for found in tried)
    table = Table(
        "λ", "bytes", *(["held-out loss"] if measured else []), "", title=goal, box=None, title_justify="left"
    )
    for found in sorted(tried, key=lambda found: found.rate_weight):
        loss = [] if found.loss is None else [f"{found.loss:.4f}"]
        table.add_row(
            f"{found.rate_weight:.3g}", str(len(found.data)), *loss, "meets it" if found.meets else "does not"
        )
    console.print(table)


def _summary(output: Path, state: Mapping[str, torch.Tensor], nbytes: int) -> None:
    count = sum(tensor.numel() for tensor in state.values())
    plain = sum(
        tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size()) for tensor in state.values()
    )
    typer.echo(
        f"{output}: {nbytes} bytes, {count} weights in {len(state)} tensors, "
        f"{8 * nbytes / max(count, 1):.3f} bits per weight, {plain / nbytes:.1f}x smaller than float32"
    )
