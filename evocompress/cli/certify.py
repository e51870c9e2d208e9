"""The command `certify`: a bound on the test error of a file's network, from the file's size."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.cli.network_options import network_of
from evocompress.cli.pack_options import given_options
from evocompress.errors import ConfigError, DataError
from evocompress.support.command_line import MaxOutputBytes, NetworkOptions, about, echo, output_limit
from evocompress.support.occam_bound import DEFAULT_DELTA, check_candidates, check_delta
from evocompress.support.quantities import OUTPUT_LIMIT
from evocompress.tasks import DEFAULT_TASK

if TYPE_CHECKING:
    from evocompress.evolve.certificate import Certificate, Counts, Source

__all__ = ["register"]

_OF_RUN = {"model": "--model", "settings": "--set", "data": "--data", "task": "--task", "seed": "--seed"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("certify")(certify)


def certify(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE.evc", help="A compressed file.")],
    model: Annotated[
        str | None, typer.Option(help="The network that the file is of, or module:factory that returns a torch module.")
    ] = None,
    settings: NetworkOptions = None,
    data: Annotated[
        str | None, typer.Option(help="What it was trained on: a data set's name, or module:loader.")
    ] = None,
    task: Annotated[str, typer.Option(help="What the network is for: a name, or module:Class.")] = DEFAULT_TASK,
    seed: Annotated[int, typer.Option(help="Of the data's split.", min=0, max=2**63 - 1)] = 0,
    run: Annotated[
        Path | None,
        typer.Option(help="The run that the file came from; found by itself for a file inside a run's folder."),
    ] = None,
    delta: Annotated[
        float, typer.Option(help="δ: the chance that the examples mislead, above 0 and below 1.")
    ] = DEFAULT_DELTA,
    candidates: Annotated[
        int | None,
        typer.Option(help="How many files this one was chosen among; default 1, of a run all that it evaluated."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to measure: cpu, cuda, cuda:1 …")] = "cpu",
    trust: Annotated[
        bool, typer.Option("--trust", help="For a run that was made elsewhere: import the code that it names.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    max_output_bytes: MaxOutputBytes = OUTPUT_LIMIT,
) -> None:
    """Bound a file's test error by its bytes and its error on training and validation data, without test data.

    A file of a run needs no --model and --data. docs/certificates.md says what the bound assumes.
    """
    with about("--delta"):
        check_delta(delta)
    if candidates is not None:
        with about("--candidates"):
            check_candidates(candidates)
    limit = output_limit(max_output_bytes)

    from evocompress.evolve.certificate import certify as certify_file
    from evocompress.runs.origin import run_of
    from evocompress.support.devices import check_device  # imports torch, which takes seconds

    with about("--device"):
        check_device(device)

    folder = run_of(file) if run is None else run
    if folder is None:
        source = _given(model, settings, data, task, seed, candidates)
    else:
        source = _of_run(file, folder, given_options(context), candidates, trust)
    certificate = certify_file(file, source, delta=delta, device=device, max_output_bytes=limit)
    origin = {"run": None if folder is None else str(folder), "leaf_id": source.leaf_id}
    if as_json:
        echo(json.dumps({"file": str(file), **origin, **certificate.to_json()}, indent=1))
        return
    _print(file, folder, certificate)


def _given(
    model: str | None, settings: list[str] | None, data: str | None, task: str, seed: int, candidates: int | None
) -> Source:
    """What the options name.

    Raises:
        ConfigError: They do not name network and data, or there is no such task.
    """
    from evocompress.data import load
    from evocompress.evolve.certificate import Source
    from evocompress.tasks import build

    if model is None or data is None:
        raise ConfigError(
            "give --model and --data, the file's network and what it was trained on; or --run, the run it came from."
        )
    network = network_of(model, settings)
    with about("--data", data, DataError):
        splits = load(data, seed=seed)
    with about("--task", task, ConfigError):
        return Source(network, splits, build(task), 1 if candidates is None else candidates)


def _of_run(file: Path, folder: Path, given: list[str], candidates: int | None, trust: bool) -> Source:
    """What the run's run.json names.

    Raises:
        ConfigError: Options say it too.
    """
    from evocompress.evolve.certificate import source_of_run

    if twice := [flag for name, flag in _OF_RUN.items() if name in given]:
        raise ConfigError(
            f"{', '.join(twice)}: what the run {folder} was trained with is in its run.json; leave out what says it "
            "again. (A file that is not one of the run's must lie outside its folder.)"
        )
    return source_of_run(file, folder, candidates=candidates, trusted=trust)


def _print(file: Path, folder: Path | None, certificate: Certificate) -> None:
    bound = certificate.bound
    echo(f"{file}: {_verdict(certificate)}")
    chosen = f"{bound.candidates} files" if bound.candidates > 1 else "this file alone"
    if folder is not None:
        chosen += f" (the run {folder} evaluated as many on its data)"
    without = f"; {certificate.unlabelled} more have no label" if certificate.unlabelled else ""
    altered = "" if certificate.augmentation == "none" else f", measured without {certificate.augmentation}"
    rows = {
        "file": f"L = {bound.bits} bits ({bound.nbytes} bytes); L' = L + 2·log2 L = {bound.message_bits:.1f} bits",
        "chosen among": f"{chosen}: {bound.candidate_bits:.1f} bits",
        "error on what made it": f"{_counted(bound.wrong, bound.examples)}{altered}{without}",
        "δ": f"{bound.delta:g}",
        "λ": f"{bound.lam:.6g} (λ/n = {bound.lam / bound.examples:.3g}); its choice costs {bound.union_nats:.1f} nats",
        "bound": _percent_above(bound.value),
        "constant guess": f"{100 * certificate.guess_error:.2f} % wrong",
        "test error": _measured(certificate.test),
    }
    width = max(map(len, rows))
    for title, text in rows.items():
        echo(f"  {title:<{width}}  {text}")
    echo("Assumed:")
    for sentence in certificate.assumptions:
        echo(f"  - {sentence}")


def _verdict(certificate: Certificate) -> str:
    bound = certificate.bound
    sure = f"with probability {100 * (1 - bound.delta):.6g} %"
    if not certificate.is_vacuous:
        return f"test error of at most {_percent_above(bound.value)}, {sure}"
    guess = f"{100 * certificate.guess_error:.2f} %, what always naming one class gives"
    vacuous = f"vacuous: the bound {_percent_above(bound.value)} is not below {guess}"
    if certificate.largest_nbytes is None:
        return f"{vacuous}. At this error, with {bound.examples} examples, no file is small enough"
    return f"{vacuous}. At this error a file must have at most {certificate.largest_nbytes} bytes"


def _percent_above(share: float) -> str:
    """Rounded up, so that what is printed is a bound too."""
    return f"{math.ceil(1e4 * share) / 100:.2f} %"


def _counted(wrong: int, total: int) -> str:
    return f"{100 * wrong / total:.2f} %, {wrong} of {total} examples wrong"


def _measured(test: Counts | None) -> str:
    if test is None:
        return "not measured, as the test examples have no labels"
    low, high = test.interval
    return f"{_counted(*test)}; measured (95 % interval {100 * low:.2f} to {100 * high:.2f} %), no part of the bound"
