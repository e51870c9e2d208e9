"""The command `pack`: one checkpoint, as small as it can be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evocompress.checkpoint.companions import write_folder
from evocompress.checkpoint.defaults import CALIBRATION_SAMPLES, DEFAULT_PRESET, RELATIVE_RATE_WEIGHT
from evocompress.checkpoint.folders import EVC, shards
from evocompress.cli.exit_codes import ExitCode
from evocompress.cli.inspect import size_line
from evocompress.cli.network_options import check_settings, network_of
from evocompress.cli.output import AsJson, Output, Quiet
from evocompress.cli.pack_options import (
    check_combinations,
    check_loss_increase,
    check_rate_weight,
    errors_name_options,
    given_options,
    parse_limit,
    parse_rule,
)
from evocompress.cli.unpack import say_companions
from evocompress.errors import CodecError, ConfigError
from evocompress.support.command_line import (
    MaxOutputBytes,
    NetworkOptions,
    about,
    check_output,
    check_output_folder,
    folder_named,
    output_limit,
)
from evocompress.support.quantities import OUTPUT_LIMIT

if TYPE_CHECKING:
    import torch

    from evocompress.checkpoint.weight_errors import WeightErrors
    from evocompress.packer.job import PackJob, PackResult

__all__ = ["register"]

_LARGEST_SEED = 2**63 - 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pack")(pack)


def _presets() -> list[str]:
    from evocompress.checkpoint.presets import PRESETS

    return [*PRESETS]


def pack(
    context: typer.Context,
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="A checkpoint: safetensors, .evc, what torch.save wrote (.pt, .pth, .bin, .ckpt; only its tensors are "
            "read), .onnx, .gguf, or a folder of Hugging Face's.",
        ),
    ],
    output_name: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="The file to write; or a folder, which is there or whose name ends with /: model.evc goes into it, "
            "and the small other files of a folder WEIGHTS along with it.",
        ),
    ],
    preset: Annotated[str, typer.Option(help="fast, balanced or best.", autocompletion=_presets)] = DEFAULT_PRESET,
    rate_weight: Annotated[
        float | None,
        typer.Option(
            help="λ: squared error that one bit is worth. Larger: smaller and rougher. By default the next option."
        ),
    ] = None,
    relative_rate_weight: Annotated[
        float,
        typer.Option(
            help="λ as a share of the weights' mean square, so that it means the same for all networks. Tensors whose "
            "weights are far smaller than the others' are then kept, too."
        ),
    ] = RELATIVE_RATE_WEIGHT,
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
    settings: NetworkOptions = None,
    data: Annotated[
        str | None, typer.Option(help="Calibrate: a data set's name, or module:loader, as in a configuration.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What the network is for: a name, or module:Class; by default classification, or regression where the "
            "data's labels are numbers.",
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Calibrate without data: on noise of this shape, as 3x32x32 (images), 100x40 (sequences), 784."
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="How many training examples to calibrate on.", min=1)
    ] = CALIBRATION_SAMPLES,
    seed: Annotated[
        int, typer.Option(help="Of the data's split and of the calibration's draws.", min=0, max=_LARGEST_SEED)
    ] = 0,
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
    bare: Annotated[
        bool,
        typer.Option(
            "--bare",
            help="Store neither names nor shapes nor dtypes: some 30 bytes less; a reader must have the network.",
        ),
    ] = False,
    strip_prefix: Annotated[
        str, typer.Option(help="Take this away from names that begin with it, such as module. or _orig_mod.")
    ] = "",
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            help="GLOB=CODEC[|CODEC…][@FACTOR]: candidates, and a factor on λ, for tensors whose name matches; "
            "the first rule that matches counts. Repeatable.",
        ),
    ] = None,
    max_output_bytes: MaxOutputBytes = OUTPUT_LIMIT,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compress one checkpoint without training: from its weights alone, or calibrated on data.

    Ctrl-C in a search for λ ends it early: the best file that met the target by then is written, and the exit status is
    130. Where none did, nothing is written. Where the search finds that the target cannot be met, the nearest file is
    written (the smallest, or the one that loses least), and the exit status is 3.
    """
    say = Output(as_json, quiet)
    check_combinations(given_options(context))
    if bare and names and "names" in given_options(context):
        raise ConfigError("--names and --bare exclude each other; give one.")
    check_settings(model, settings)
    check_rate_weight(rate_weight)
    check_rate_weight(relative_rate_weight, "--relative-rate-weight")
    check_loss_increase(max_loss_increase)
    # Codecs import numba, which takes longer than a command that needs none of them.
    from evocompress.checkpoint.presets import preset as preset_recipe

    output, as_folder = Path(output_name), folder_named(output_name)
    output_bytes = output_limit(max_output_bytes)
    if as_folder:
        check_output_folder(output, weights)
    else:
        check_output(output, [weights, *(shards(weights) or ())])
    user_rules, limit = tuple(map(parse_rule, rules or ())), parse_limit(max_bytes)
    with errors_name_options(context):
        preset_recipe(preset)  # says what is wrong with it before any work
    if model is not None:
        from evocompress.support.devices import check_device

        with about("--device"):
            check_device(device)

    from evocompress.cli.pack_report import PackReport
    from evocompress.packer.job import PackJob  # imports torch, which takes seconds

    network = None if model is None else network_of(model, settings)
    with errors_name_options(context), _rules_as_options():
        job = PackJob.of_file(
            weights, preset, model=network, data=data, noise=noise, task=task,
            needs_labels=max_loss_increase is not None, samples=samples, seed=seed, device=device,
            fit_confidence=fit_confidence, allocation_rounds=allocation_rounds, strip_prefix=strip_prefix,
            max_output_bytes=output_bytes, observer=PackReport(say), rules=user_rules, names=names and not bare,
            shapes=not bare, inference=inference,
        )  # fmt: skip
        try:
            result = _result(job, rate_weight, relative_rate_weight, limit, max_loss_increase)
        except KeyboardInterrupt:
            say.warning(f"Stopped: there is no file yet that meets the target, so {output} was not written.")
            raise typer.Exit(ExitCode.STOPPED) from None
    if limit is None and max_loss_increase is None and rate_weight is None:
        share = f"{relative_rate_weight:g} of the weights' mean square"
        say.result(f"λ = {result.rate_weight:.3g}, which is {share}")
    if as_folder:
        _, companions = write_folder(output, weights if weights.is_dir() else None, EVC, result.write)
        say_companions(output, companions, say)
        output /= EVC
    else:
        result.write(output)
    _tell(job, output, result, say)
    if result.stopped:
        raise typer.Exit(ExitCode.STOPPED)
    if not result.met:
        raise typer.Exit(ExitCode.MISSED)


def _tell(job: PackJob, output: Path, result: PackResult, say: Output) -> None:
    """Say what was written, and how far it is from the checkpoint."""
    say.result(_summary(output, job.checkpoint, result.nbytes))
    errors = job.weight_errors(result)
    if errors is not None and errors.tensors:
        say.result(errors.sentence)
    if errors is not None and errors.warning and not job.is_calibrated:  # where no network has been measured
        say.warning(f"warning: {errors.warning}.")
    say.document(_document(output, job.checkpoint, job.measure(result), errors))


def _result(
    job: PackJob, rate_weight: float | None, relative: float, limit: int | None, increase: float | None
) -> PackResult:
    if limit is not None:
        return job.under(limit)
    if increase is not None:
        return job.within(increase)
    return job.at(rate_weight, relative=relative)


@contextlib.contextmanager
def _rules_as_options() -> Iterator[None]:
    """Where a rule would keep a tensor that cannot be coded, say how the rule is written as an option."""
    from evocompress.checkpoint.packing import TensorError

    try:
        yield
    except TensorError as error:
        raise CodecError(f"{error} As an option: --rule '{error.match}=lossless'.") from error


def _document(
    output: Path, state: Mapping[str, torch.Tensor], result: PackResult, errors: WeightErrors | None
) -> dict[str, Any]:
    """The result for programs."""
    from evocompress.checkpoint.float32_size import float32_bytes

    held_out = None if result.held_out is None else result.held_out._asdict()
    if held_out is not None and result.held_out is not None and result.held_out.quality is not None:
        held_out["quality"] = result.held_out.quality.to_json()
    return {
        "file": str(output),
        "bytes": result.nbytes,
        "weights": sum(tensor.numel() for tensor in state.values()),
        "tensors": len(state),
        "float32_bytes": float32_bytes(state),
        "rate_weight": result.rate_weight,
        "met": result.met,
        "stopped": result.stopped,
        "zeroed": list(result.zeroed),
        "weights_changed": None if errors is None else errors.relative,
        "held_out": held_out,
    }


def _summary(output: Path, state: Mapping[str, torch.Tensor], nbytes: int) -> str:
    from evocompress.checkpoint.float32_size import float32_bytes, own_bytes

    line = size_line(nbytes, sum(tensor.numel() for tensor in state.values()), len(state))
    plain, as_stored = float32_bytes(state), own_bytes(state)
    if as_stored == plain > 0 and any(tensor.is_floating_point() for tensor in state.values()):
        line += f", {_times(as_stored, nbytes)} than float32"
    elif as_stored:
        line += f", {_times(as_stored, nbytes)} than its tensors are ({as_stored} bytes)"
        line += "" if as_stored == plain else f", {_times(plain, nbytes)} than they would be in float32"
    return f"{output}: {line}"


def _times(before: int, after: int) -> str:
    """By how much a size has changed.

    >>> _times(120, 40), _times(40, 120)
    ('3.0x smaller', '3.0x larger')
    """
    return f"{before / after:.1f}x smaller" if before >= after else f"{after / before:.1f}x larger"
