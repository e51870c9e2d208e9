"""The command `pack`: one checkpoint, as small as it can be."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.cli.files import check_output
from evocompress.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from evocompress.recipe import Recipe, Rule

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pack")(pack)


def pack(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS.safetensors", help="A checkpoint (safetensors, or .evc).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    preset: Annotated[str, typer.Option(help="fast, balanced or best.")] = "balanced",
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
    noise: Annotated[
        str | None,
        typer.Option(help="Calibrate without data: on random images of this shape, such as 3x32x32."),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many training examples to calibrate on.", min=1)] = 1024,
    seed: Annotated[int, typer.Option(help="Of the data's split and of the calibration's draws.")] = 0,
    device: Annotated[str, typer.Option(help="Where to calibrate: cpu, cuda, cuda:1 …")] = "cpu",
    fit_confidence: Annotated[
        bool,
        typer.Option(
            "--fit-confidence",
            help="Scale the logits so that the loss on held-out data is least: no decision changes, and no byte.",
        ),
    ] = False,
    allocation_rounds: Annotated[
        int,
        typer.Option(
            help="So often measure on held-out data what errors in each tensor cost, and correct the allocation of "
            "bytes. 2 make files smaller by a percent or two, and take four times as long.",
            min=0,
        ),
    ] = 0,
    inference: Annotated[
        bool,
        typer.Option(help="Fold batch normalisation's statistics: smaller, but not to be trained on."),
    ] = False,
    names: Annotated[
        bool, typer.Option(help="Store the tensors' names; without, a reader must know the network.")
    ] = True,
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
    from evocompress.cli.pack_job import PackJob, on_data, on_noise
    from evocompress.inference import fold_statistics
    from evocompress.presets import LAYERWISE
    from evocompress.replacing import write_bytes
    from evocompress.weights import read_weights

    if sum(option is not None for option in (rate_weight, max_bytes, max_loss_increase)) > 1:
        raise ConfigError("--rate-weight, --max-bytes and --max-loss-increase exclude each other; give one.")
    if data is not None and noise is not None:
        raise ConfigError("--data and --noise exclude each other; give one.")
    if (model is None) != (data is None and noise is None):
        raise ConfigError("--model and --data (or --noise) belong together: give both, or neither.")
    if max_loss_increase is not None and data is None:
        raise ConfigError("--max-loss-increase needs --model and --data, to measure the loss on.")
    if model is None and allocation_rounds:
        raise ConfigError("--allocation-rounds needs --model and --data (or --noise), to measure on.")
    if data is None and fit_confidence:
        raise ConfigError("--fit-confidence needs --model and --data, to measure the loss on.")
    check_output(weights, output)
    own = tuple(_rule(text) for text in rules or ())
    limit, rate = _bytes(max_bytes), 1e-4 if rate_weight is None else rate_weight
    recipe = functools.partial(_recipe, preset, own, names=names, noise=noise is not None)
    recipe(rate)  # says what is wrong with it before any work
    state = read_weights(weights)
    job = PackJob(fold_statistics(state) if inference else state, recipe)
    if model is not None:
        known = (
            on_noise(weights, model, noise or "", samples, seed)
            if data is None
            else on_data(weights, model, data, seed)
        )
        if fit_confidence:
            job.fit_confidence(known, device=device)
        layerwise = preset in LAYERWISE
        job.calibrate(
            known, samples=samples, seed=seed, device=device, layerwise=layerwise, allocation_rounds=allocation_rounds
        )
    if limit is not None:
        found = job.under(limit, start=rate)
    elif max_loss_increase is not None:
        found = job.within(max_loss_increase, start=rate)
    else:
        found = job.at(rate)
    write_bytes(output, found.data)
    _summary(output, state, len(found.data))


def _recipe(
    preset: str,
    rules: tuple[Rule, ...],
    rate_weight: float,
    *,
    names: bool,
    noise: bool,
    calibrated: bool = False,
    layerwise: bool = False,
) -> Recipe:
    from evocompress.presets import preset as named

    recipe = named(preset, rate_weight, rules, calibrated=calibrated, layerwise=layerwise, noise=noise)
    return dataclasses.replace(recipe, names=names)


def _bytes(text: str | None) -> int | None:
    from evocompress.quantities import parse_bytes

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


def _summary(output: Path, state: Mapping[str, torch.Tensor], nbytes: int) -> None:
    count = sum(tensor.numel() for tensor in state.values())
    plain = sum(
        tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size()) for tensor in state.values()
    )
    typer.echo(
        f"{output}: {nbytes} bytes, {count} weights in {len(state)} tensors, "
        f"{8 * nbytes / max(count, 1):.3f} bits per weight, {plain / nbytes:.1f}x smaller than float32"
    )
