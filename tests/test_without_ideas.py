"""Any folder of ideas/ can be deleted: the core's tests that could notice stay green, in a copy.

With one folder away only what is a list of rows can differ, so the tests of lists, settings, genomes and forms are run,
for each idea in turn. With all folders away all tests are run that touch what ideas add to, but for some that take
long. `test_imports.py` sees to the rest: nothing outside names an idea, and no idea another.
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
#: Where one idea could be missed while the others are there.
LISTED = (
    "tests/test_extension_list.py",
    "tests/evolve/test_genome.py",
    "tests/evolve/test_config.py",
    "tests/evolve/test_settings_table.py",
    "tests/checkpoint/test_every_form.py",
)
#: Where all of them could be missed.
TOUCHED = (
    *LISTED,
    "tests/test_imports.py",
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
    *("cosine_falls", "l1_makes", "second_export", "compare_figure", "pictures_of_a", "front_png", "any_genome"),
    *("bare_names", "public_module", "core_names_no_idea"),
)
QUICK = " and ".join(f"not ({name})" for name in SLOW)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (ROOT / "codecs").is_dir(), reason="not run from a source tree"),
]


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
    # Plugins of pytest take a second to import.
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=560)


EACH_IN_TURN = """
import os, sys, traceback
import matplotlib, numpy, pydantic, pytest, scipy, sklearn.datasets, torch, typer  # once, for all that are forked
import evocompress.extensions as e
import evocompress.cli, evocompress.evolve.driver
ideas, options = sys.argv[1].split(), sys.argv[2:]
assert not any(name.startswith("evocompress.ideas.") for name in sys.modules) and not e._has_idea.cache_info().misses
for idea in ideas:
    folder = f"evocompress/ideas/{idea}"
    os.rename(folder, f"../{idea}")
    if not (child := os.fork()):
        try:
            kinds = [value for value in vars(e).values() if isinstance(value, e.Extensions)]
            failed = [name for kind in kinds for name in kind if not kind[name]]
            places = [place for kind in kinds for place in kind._builtin.values()]
            assert any(f".{idea}." in place for place in places) and not failed
            assert all(e._is_there(place) is (f".ideas.{idea}." not in place) for place in places)
            from evocompress.evolve.config import load_config
            from evocompress.evolve.driver import prepare
            prepare(load_config("configs/digits.toml"))
            status = int(pytest.main(options))
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.rename(f"../{idea}", folder)
    print("all is well without" if not status else "something is missing without", idea, flush=True)
"""


def options(*files: str) -> list[str]:
    """Of pytest, to run the quick tests of these files."""
    return ["-q", "-x", "-p", "no:cacheprovider", "-p", "pytest_timeout", "-k", QUICK, *files]


@pytest.fixture(scope="module")
def one_away(copy: Path) -> subprocess.CompletedProcess[str]:
    """Each idea's folder away in turn, in a process forked for it."""
    return run(copy, "-c", EACH_IN_TURN, " ".join(IDEAS), *options(*LISTED))


@pytest.mark.parametrize("idea", IDEAS)
def test_the_core_is_green_without_one_idea(idea: str, one_away: subprocess.CompletedProcess[str]) -> None:
    assert f"all is well without {idea}\n" in one_away.stdout, (one_away.stdout + one_away.stderr)[-3000:]


def test_the_core_is_green_without_any_idea(copy: Path) -> None:
    for idea in IDEAS:
        shutil.rmtree(copy / "evocompress" / "ideas" / idea)
    done = run(copy, "-m", "pytest", *options(*TOUCHED))
    assert done.returncode == 0, done.stdout[-3000:]
