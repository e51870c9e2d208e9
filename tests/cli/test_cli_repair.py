"""`repair` as a user types it: a damaged journal is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from evocompress.cli import app, main
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.run_folder import open_run
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space


def test_a_flipped_bit_is_one_line_and_repair_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = toy_settings(segments=8, deterministic=True, lag=2)
    with open_run(tmp_path / "run", header={"config": {}}, space=toy_space(), settings=settings) as run:
        run.drive(InlineExecutor(ToySegment(), run.storage))
        front = run.search.front()
    journal = tmp_path / "run" / "journal" / "000001.jsonl"
    data = bytearray(journal.read_bytes())
    data[data.index(b'"type":"finished"', 3000) + 400] ^= 4
    journal.write_bytes(data)
    monkeypatch.setattr("sys.argv", ["evocompress", "front", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1
    assert "000001.jsonl line" in error and f"`evocompress repair {tmp_path / 'run'}`" in error

    dry = CliRunner().invoke(app, ["repair", str(tmp_path / "run"), "--dry-run"])
    assert dry.exit_code == 0 and dry.output.endswith("Nothing was changed.\n")
    assert "put back from COMMIT files: 1 outcome and 0 tasks" in dry.output
    done = CliRunner().invoke(app, ["repair", str(tmp_path / "run")])
    assert done.exit_code == 0 and "journal.damaged-1" in done.output and "run --resume --out" in done.output
    assert [leaf.leaf_id for leaf in read_history(tmp_path / "run").archive] == [leaf.leaf_id for leaf in front]
    again = CliRunner().invoke(app, ["repair", str(tmp_path / "run")])
    assert again.exit_code == 0 and "nothing to repair in its journal" in again.output and "note:" not in again.output
