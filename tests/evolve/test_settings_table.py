"""The table of settings and the pages made of it.

`PYTHONPATH=tests/support python tests/evolve/test_settings_table.py` writes them anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ideas_present import with_all_ideas
from typer.testing import CliRunner

from evocompress.cli import app
from evocompress.errors import ConfigError
from evocompress.evolve.config import Config, parse_config
from evocompress.evolve.layer_groups import DEFAULT_CODECS, GROUPS
from evocompress.evolve.settings_table import keys_table, setting_rows, tables
from evocompress.search.settings import USER_SETTINGS
from evocompress.training.genes import gene_specs

ROOT = Path(__file__).parents[2]
PAGES = {"docs/configuration.md": tables, "docs/run.md": keys_table}
MARKED = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)


def made(page: str) -> str:
    return PAGES[page](setting_rows()) + "\n"


@with_all_ideas
@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="not run from a source tree")
@pytest.mark.parametrize("page", PAGES)
def test_pages_are_what_the_code_says(page: str) -> None:
    (written,) = MARKED.findall((ROOT / page).read_text(encoding="utf-8"))
    assert written == made(page), "run PYTHONPATH=tests/support python tests/evolve/test_settings_table.py"


def test_every_key_has_its_row() -> None:
    rows = {(row.section, row.key): row for row in setting_rows()}
    genes = {key for section, key in rows if section == "genes"}
    assert genes == {*(f"codecs.{group}" for group in GROUPS), "model_options", *gene_specs()}
    searched = {key for section, key in rows if section == "search"}
    assert searched == set(USER_SETTINGS)
    assert {key for section, key in rows if not section} == {*Config.model_fields} - {
        "search",
        "genes",
        "teacher",
        "resources",
    }
    assert all(row.sentence.endswith(".") and row.takes for row in rows.values())
    assert rows["genes", "l1"].of == "training, term `l1`"
    assert rows["genes", "label_smoothing"].of == "training, task `classification`"


def test_defaults_are_those_of_a_configuration() -> None:
    least = parse_config({"model": "digits_cnn", "data": "digits"}).model_dump(mode="json")
    for row in setting_rows():
        if row.key.startswith("codecs."):
            assert tuple(json.loads(row.default)) == DEFAULT_CODECS[row.key.removeprefix("codecs.")]
            continue
        value = (least[row.section] if row.section else least)[row.key]
        if row.default:
            assert json.loads(row.default) == value, row
        else:
            assert value in (None, "", {}) or row.key in ("model", "data"), row


def test_the_command_prints_lines_tables_and_json() -> None:
    lines = CliRunner().invoke(app, ["settings", "search.segments"]).output.splitlines()
    assert lines == [
        "search.segments = 200  (whole number at least 1)",
        "    How many segments end the run; left out: no bound.",
    ]
    assert CliRunner().invoke(app, ["settings", "--markdown"]).output == tables(setting_rows()) + "\n"
    rows = json.loads(CliRunner().invoke(app, ["settings", "genes", "--json"]).output)
    assert [row["key"] for row in rows] == [*(f"codecs.{group}" for group in GROUPS), "model_options", *gene_specs()]
    error = CliRunner().invoke(app, ["settings", "search.segmnts"]).exception
    assert isinstance(error, ConfigError) and "Did you mean 'search.segments'?" in str(error)


def test_a_task_of_ones_own_has_its_own_genes() -> None:
    keys = {row.key for row in setting_rows("toy_task:DigitError")}
    assert "label_smoothing" not in keys and "l1" in keys


if __name__ == "__main__":
    for name in PAGES:
        before, rest = (ROOT / name).read_text(encoding="utf-8").split("<!-- settings -->\n")
        after = rest.partition("<!-- end of settings -->")[2]
        text = f"{before}<!-- settings -->\n{made(name)}<!-- end of settings -->{after}"
        (ROOT / name).write_text(text, encoding="utf-8")
