"""The command `settings`: every key of a configuration, with its default and a sentence."""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import Annotated

import typer

from evocompress.errors import ConfigError
from evocompress.tasks import DEFAULT_TASK

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("settings")(settings)


def settings(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Only keys or sections of this name: genes, search.segments.")
    ] = None,
    task: Annotated[str, typer.Option(help="The task whose genes are listed.")] = DEFAULT_TASK,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables instead of text.")] = False,
) -> None:
    """List every key that a configuration may have: settings of the search, genes, resources."""
    from rich.text import Text

    from evocompress.evolve.settings_table import setting_rows, tables
    from evocompress.support.command_line import echo, output_console

    words = {row: (row.section, row.key, _path(row.section, row.key)) for row in setting_rows(task)}
    rows = [row for row, names in words.items() if key is None or key in names]
    if not rows:
        keys = [name for names in words.values() for name in names]
        near = difflib.get_close_matches(str(key), keys, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "`evocompress settings` lists all."
        raise ConfigError(f"There is no key or section {key!r}. {hint}")
    if as_json:
        echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return
    if markdown:
        echo(tables(rows))
        return
    console = output_console()
    for row in rows:
        default = f" = {row.default}" if row.default else ""
        of = f"; {row.of.replace('`', '')}" if row.of else ""
        line = Text.assemble((_path(row.section, row.key), "bold"), default, (f"  ({row.takes}{of})", "dim"))
        console.print(line, soft_wrap=True, highlight=False)
        console.print(Text(f"    {row.sentence.replace('`', '')}"), soft_wrap=True, highlight=False)


def _path(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key
