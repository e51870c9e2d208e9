"""Which files of a user's are sent to the workers of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evocompress.errors import ConfigError
from evocompress.evolve.config import parse_config
from evocompress.evolve.user_modules import modules_of, user_modules

LEAST = {"model": "digits_cnn", "data": "digits"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    files = {
        "mine_model.py": "import json\nimport mine_helper\nimport numpy\n",
        "mine_helper.py": "def late():\n    from mine_package.deep import net\n    import mine_data\n",
        "mine_unused.py": "",
        "mine_package/__init__.py": "from . import deep\n",
        "mine_package/deep/__init__.py": "",
        "mine_package/deep/net.py": "import mine_model\n",
        "mine_package/table.csv": "1,2\n",
        "mine_package/runs/run.json": "{}",
        "mine_package/runs/left.py": "",
        "mine_data/many.npy": "",
        "mine_data/script.py": "",
        "mine_plain/part.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("mine_")]:
        del sys.modules[name]


def test_the_named_modules_and_what_they_import_from_beside_them(project: Path) -> None:
    sent = user_modules(
        modules_of(["mine_model:network", "mine_model:data", "numpy.linalg:norm", "math:hypot"])
    ).modules
    packages = {"mine_package", "mine_package.deep"}
    assert set(sent) == {"mine_model", "mine_helper", *packages, "mine_package.deep.net"}
    assert {name for name, module in sent.items() if module.is_package} == packages
    assert sent["mine_model"].file == str(project / "mine_model.py")
    assert sent["mine_model"].source == (project / "mine_model.py").read_bytes()


def test_a_folder_without_init_is_a_package_where_it_is_named(project: Path) -> None:
    assert set(user_modules(["mine_plain.part"]).modules) == {"mine_plain", "mine_plain.part"}


def test_what_is_installed_is_not_sent() -> None:
    assert not user_modules(["evocompress.networks", "torch.nn", "json"]).modules


def test_sources_that_are_too_large(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evocompress.evolve.user_modules._LARGEST", 10)
    with pytest.raises(ConfigError, match="install it there"):
        user_modules(["mine_model"])


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"working_dir": 3}, "resources.working_dir: must be text"),
        ({"py_modules": "src"}, "resources.py_modules: must be a list"),
        ({"pip": ["einops", " "]}, "resources.pip: has an empty entry"),
        ({"env_vars": {"A=B": "1"}}, "resources.env_vars: 'A=B' cannot be the name of a variable"),
        ({"env_vars": {"A": 1}}, "resources.env_vars.A: must be text"),
        ({"image_uri": "an/image", "pip": ["einops"]}, "image_uri cannot be given together with pip"),
        ({"image": "an/image"}, "Did you mean 'resources.image_uri'?"),
    ],
)
def test_wrong_keys(resources: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**LEAST, "resources": resources})
    assert expected in str(caught.value)
