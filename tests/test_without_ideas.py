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
#: Where an idea could be missed.
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

#: Of those, tests that take long and have nothing to do with ideas.
SLOW = (
    *("published_accuracy", "gauss_newton and not rnn", "training_learns", "digits_reach_97", "bfloat16", "attainment"),
    *("import_brings_neither", "decoding_needs_neither", "two_coders_and_most", "the_command_imports", "crop_and_flip"),
    *("cosine_falls", "l1_makes", "second_export"),
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (ROOT / "codecs").is_dir(), reason="not run from a source tree")]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree without its ideas."""
    folder = tmp_path_factory.mktemp("core") / "tree"
    kept = shutil.ignore_patterns("*.pyc")  # what numba has compiled is copied, too: it takes half a minute to make
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


EACH_IN_TURN = """
import os, sys, traceback
import matplotlib, numpy, pydantic, scipy, sklearn.datasets, torch, typer  # once, for all that are forked
for idea in sys.argv[1:]:
    folder = f"evocompress/ideas/{idea}"
    os.rename(folder, f"../{idea}")
    if not (child := os.fork()):
        try:
            import evocompress.extensions as e
            kinds = [value for value in vars(e).values() if isinstance(value, e.Extensions)]
            failed = [name for kind in kinds for name in kind if not kind[name]]
            places = [place for kind in kinds for place in kind._builtin.values()]
            assert any(f".{idea}." in place for place in places) and not failed
            assert all(e._is_there(place) is (f".ideas.{idea}." not in place) for place in places)
            from evocompress.evolve.config import load_config
            from evocompress.evolve.driver import prepare
            prepare(load_config("configs/digits.toml"))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.rename(f"../{idea}", folder)
    if not status:
        print(idea)
"""


@pytest.fixture(scope="module")
def one_away(copy: Path) -> subprocess.CompletedProcess[str]:
    """Each idea's folder away in turn, in a process forked for it; prints those without which all is well."""
    return run(copy, "-c", EACH_IN_TURN, *IDEAS)


@pytest.mark.parametrize("idea", IDEAS)
def test_a_core_without_one_idea_lists_the_others(idea: str, one_away: subprocess.CompletedProcess[str]) -> None:
    assert idea in one_away.stdout.split(), one_away.stderr


def test_the_core_is_green_without_any_idea(copy: Path) -> None:
    for idea in IDEAS:
        shutil.rmtree(copy / "evocompress" / "ideas" / idea)
    quick = " and ".join(f"not ({names})" for names in SLOW)
    done = run(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", quick, *TOUCHED)
    assert done.returncode == 0, done.stdout[-3000:]
