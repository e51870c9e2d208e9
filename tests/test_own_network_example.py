"""The documented examples of a network and data of one's own, as their users run them; one of them on Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_process import evocompress_in

from evocompress.search.history import read_history

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_network"
OWN_DATA = EXAMPLE.parent / "own_data"


@pytest.mark.ray
def test_own_network_and_data_on_ray(tmp_path: Path) -> None:
    settings = ["search.segments=3", "search.initial=2", "reference_epochs=1", "genes.epochs=1", "resources.workers=1"]
    command = [sys.executable, "-c", "from evocompress.cli import main; main()", "run", "spirals.toml"]
    command += ["--out", str(tmp_path / "run"), *(word for text in settings for word in ("--set", text))]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    history = read_history(tmp_path / "run")
    assert [outcome.status for outcome in history.outcomes] == ["ok"] * 3
    assert (tmp_path / "run" / "export" / "front.csv").exists()
    assert all(name in done.stdout for name in ("front.csv", "segments.parquet", "front.png", "report.html"))


@pytest.mark.parametrize("name", ["readings", "pairs", "words"])
def test_own_data(name: str, tmp_path: Path) -> None:
    if name == "pairs":
        pytest.importorskip("sklearn", reason="its pictures are scikit-learn's digits")
    settings = ["search.segments=3", "search.initial=2", "reference_epochs=1", "resources.executor=inline"]
    words = [word for text in settings for word in ("--set", text)]
    done = evocompress_in(OWN_DATA, "run", f"{name}.toml", "--out", tmp_path / "run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    history = read_history(tmp_path / "run")
    assert [outcome.status for outcome in history.outcomes] == ["ok"] * 3
    quality = "R²" if name == "readings" else "accuracy"
    assert quality in done.stdout and (tmp_path / "run" / "export" / "front.csv").exists()
    # Better than a guess: of two classes, or of the mean.
    assert max(leaf.quality for outcome in history.outcomes for leaf in outcome.leaves) > 0.65
