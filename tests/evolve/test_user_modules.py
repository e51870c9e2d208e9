"""User modules: the files of a user's that are sent to the workers of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evocompress.errors import ConfigError
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import _look_at_nodes, _shipment, _with_absolute_paths
from evocompress.evolve.user_modules import modules_of, user_modules
from evocompress.protocols import Said
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.node_probe import NodeProbe
from evocompress.search.shipped_modules import ShippedModules
from evocompress.search.storage import open_storage
from evocompress.search.toy_segment import ToySegment

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


class _Nodes:
    """An executor that has nodes to look at."""

    def __init__(self) -> None:
        self.probes: list[NodeProbe] = []

    def look_at_nodes(self, probe: NodeProbe) -> None:
        self.probes.append(probe)


def test_before_a_run_nodes_are_looked_at_and_inline_says_what_has_no_effect(tmp_path: Path) -> None:
    config = parse_config(
        {"model": "mine_model:network", "data": "digits", "resources": {"executor": "inline", "pip": ["einops"]}}
    )
    prepared: Any = SimpleNamespace(config=config, segment=SimpleNamespace(experiment=SimpleNamespace(path=("a",))))
    storage, nodes, said = open_storage(tmp_path), _Nodes(), list[object]()
    executors: list[Any] = [nodes, InlineExecutor(ToySegment(), storage)]
    for executor in executors:
        _look_at_nodes(prepared, storage, executor, ShippedModules(), said.append)
    (probe,) = nodes.probes
    assert (probe.storage, probe.imports, probe.path) == (storage, ("mine_model",), ("a",))
    (event,) = said
    assert isinstance(event, Said) and event.text.startswith("resources.pip has no effect here: the executor inline")


def test_modules_are_sent_to_a_cluster_only(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(project)
    given = {"working_dir": ".", "py_modules": ["mine_package", "s3://bucket/code.zip"]}
    config = _with_absolute_paths(parse_config({"model": "mine_model:net", "data": "digits", "resources": given}))
    assert not _shipment(config, None).modules.modules
    shipment = _shipment(config, "192.0.2.2:6379")
    assert "mine_helper" in shipment.modules.modules
    assert shipment.working_dir == str(project)
    assert shipment.py_modules == (str(project / "mine_package"), "s3://bucket/code.zip")
