"""Any folder of ideas/ can be deleted: the core's tests stay green.

The tests of a copy without the folders are run here in part: those that touch what ideas add to. `test_imports.py` sees
to the rest, as nothing outside names an idea.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ideas_present import IDEAS

ROOT = Path(__file__).parents[1]
#: Where an idea could be missed, and quick: all of them take half a minute.
TOUCHED = (
    "tests/test_imports.py",
    "tests/evolve/test_genome.py",
    "tests/evolve/test_config.py",
    "tests/evolve/test_settings_table.py",
    "tests/training/test_trainer.py",
    "tests/checkpoint/test_loading.py",
    "tests/calibration/test_second_order_layers.py",
    "tests/packer/test_layerwise.py",
    "tests/networks/test_networks.py",
    "tests/runs/test_front.py",
    "tests/runs/test_export.py",
    "tests/runs/test_old_runs.py",
)

pytestmark = pytest.mark.skipif(not (ROOT / "codecs").is_dir(), reason="not run from a source tree")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without its ideas."""
    folder = tmp_path_factory.mktemp("core") / "tree"
    kept = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("evocompress", "codecs", "search", "configs", "examples", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=kept)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.rmtree(folder / "tests" / "ideas")
    return folder


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("idea", IDEAS)
def test_a_core_without_one_idea_lists_the_others(idea: str, copy: Path) -> None:
    away = copy.parent / idea
    (copy / "evocompress" / "ideas" / idea).rename(away)
    try:
        code = (
            "import evocompress.extensions as e\n"
            "kinds = [value for value in vars(e).values() if isinstance(value, e.Extensions)]\n"
            "print([name for kind in kinds for name in kind if not kind[name]])\n"
            "from evocompress.evolve.config import load_config\n"
            "from evocompress.evolve.driver import prepare\n"
            "prepare(load_config('configs/digits.toml'))\n"
        )
        done = run(copy, "-c", code)
        assert done.returncode == 0 and done.stdout.strip() == "[]", done.stderr
    finally:
        away.rename(copy / "evocompress" / "ideas" / idea)


def test_the_core_is_green_without_any_idea(copy: Path) -> None:
    for idea in IDEAS:
        shutil.rmtree(copy / "evocompress" / "ideas" / idea)
    slow = "not published_accuracy"  # has a network of its own file, and takes a third of the time
    done = run(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", slow, *TOUCHED)
    assert done.returncode == 0, done.stdout[-3000:]
