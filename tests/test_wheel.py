"""The built wheel, used from another folder: the linked folders and the templates are in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
USE = """
import evocompress, numpy as np, sys
from evocompress import codecs, search
from evocompress.runs.report.page import render_report
from importlib import resources
assert evocompress.__file__.startswith(sys.argv[1]), evocompress.__file__
data = evocompress.pack({"w": np.eye(9, dtype=np.float32)}, 1e-4)
assert np.abs(evocompress.unpack(data, "numpy")["w"] - np.eye(9)).max() < 0.1
assert resources.files("evocompress.runs.report").joinpath("page.html.j2").is_file()
for name in ("page.html", "watch.js", "watch.css"):
    assert resources.files("evocompress.runs.watch").joinpath(name).is_file()
assert resources.files("evocompress.codecs").joinpath("FORMAT.md").is_file()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools packs what an earlier build has left there, too
    # The build backend that is here, as pip calls it: pip itself would make an environment and fetch another into that.
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(folder)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is in the wheel, and what numba has compiled of the same modules here: that takes long."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    for module in (ROOT / "codecs").glob("*.py"):
        copy = folder / "evocompress" / "codecs" / module.name
        if copy.is_file() and copy.read_bytes() == module.read_bytes():
            os.utime(copy, ns=(module.stat().st_atime_ns, module.stat().st_mtime_ns))  # numba asks for that
    caches = folder / "evocompress" / "codecs" / "__pycache__"
    caches.mkdir()
    for path in (ROOT / "codecs" / "__pycache__").glob("*.nb?"):
        shutil.copy2(path, caches)
    return folder


def test_the_wheel_works_from_another_folder(site: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(site)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_its_commands_work_alone(site: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the template's data are scikit-learn's digits")
    work = tmp_path / "work"
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def evocompress(*words: str) -> str:
        command = [sys.executable, "-m", "evocompress", *words]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    evocompress("init")
    settings = ["search.segments=2", "search.initial=2", "reference_epochs=0", "genes.epochs=2", "named_files=true"]
    settings += ["resources.executor=inline", "search.probes=0"]
    evocompress("run", "experiment.toml", "--out", "run", *(word for text in settings for word in ("--set", text)))
    assert "report.html" in evocompress("report", "run")
    file = next((work / "run" / "export" / "front").glob("*.evc"))
    evocompress("pack", str(file), "-o", "smaller.evc", "--preset", "fast")
    evocompress("unpack", "smaller.evc", "-o", "decoded.safetensors")
    assert (work / "smaller.evc").stat().st_size and (work / "decoded.safetensors").stat().st_size


def test_the_configurations_are_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.endswith(".toml")}
    assert inside == {f"evocompress/configs/{path.name}" for path in (ROOT / "configs").glob("*.toml")}


def test_every_module_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.endswith(".py")}
    folders = ("evocompress", "codecs", "search")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *folders], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout, so there is no list of modules to compare with")
    ours = {name for name in listed.stdout.split() if name.endswith(".py")}
    expected = {name if name.startswith("evocompress/") else f"evocompress/{name}" for name in ours}
    assert inside == expected
