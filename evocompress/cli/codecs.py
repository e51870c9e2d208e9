"""The command `codecs`: the codecs there are, and the stages that they are made of."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from evocompress.support.command_line import echo

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("codecs")(codecs)


def codecs(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """List the codecs, and the stages that codecs are made of, with their parameters."""
    from evocompress.codecs import CODECS, STAGES

    stages = [
        {
            "id": name,
            "quantiser": stage.terminal,
            "parameters": {field.name: field.default for field in dataclasses.fields(stage)},
            "about": (stage.__doc__ or "").splitlines()[0],
        }
        for name, stage in STAGES.items()
    ]
    if as_json:
        echo(json.dumps({"codecs": CODECS, "stages": stages}, indent=1))
        return
    echo("Codecs (chains of stages; write your own in the same way):")
    for name, chain in CODECS.items():
        echo(f"  {name:<20} {chain}")
    echo("\nStages (a codec is any number of transforms and one quantiser):")
    for stage in stages:
        parameters = ", ".join(f"{key}={value}" for key, value in dict(stage["parameters"]).items())
        kind = "quantiser" if stage["quantiser"] else "transform"
        echo(f"  {stage['id']:<12} {kind:<10} {parameters or '(no parameters)'}\n{'':15}{stage['about']}")
