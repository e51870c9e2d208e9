"""The one list of names: what is built in, what packages add, and what is said where something is wrong."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ideas_present import with_all_ideas
from small_package import every_list, installed, write_package
from typer.testing import CliRunner

from evocompress import extensions
from evocompress.cli import app
from evocompress.errors import ConfigError, ModelError
from evocompress.extensions import COMMANDS, NETWORKS, SELECTION, Extensions

GROUP = "evocompress.fruits"


def fruits(**builtin: str) -> Extensions:
    return Extensions("fruit", GROUP, builtin or {"pear": "math:pi", "apple": "math:tau"})


@pytest.fixture
def basket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with a good and a broken fruit."""
    sources = {"basket": "plum = 7\n", "rotten": "import nowhere_at_all\n"}
    write_package(tmp_path, "basket", sources, {GROUP: {"plum": "basket:plum", "fig": "rotten:fig"}})
    with installed(tmp_path, monkeypatch):
        yield


def test_built_in_things_come_first_in_their_order(basket: None) -> None:
    assert list(fruits()) == ["pear", "apple", "fig", "plum"] or list(fruits()) == ["pear", "apple", "plum", "fig"]
    assert fruits()["plum"] == 7 and fruits()["pear"] == pytest.approx(3.14159, abs=1e-5)
    assert fruits().builtin == ("pear", "apple") and len(fruits()) == 4
    assert "plum" in fruits() and "pear" in fruits() and "kiwi" not in fruits()
    with pytest.raises(KeyError):
        fruits()["kiwi"]


def test_nothing_is_imported_and_no_package_looked_at_before_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(**_: object) -> Any:
        raise AssertionError("packages were looked at")

    monkeypatch.setattr("importlib.metadata.entry_points", never)
    some = fruits(pear="math:pi", nut="no_module_of_this_name:nut")
    assert "pear" in some and some["pear"] > 3 and "nut" in some and some.builtin == ("pear", "nut")
    assert some.find("pear") == some["pear"]


def test_an_unknown_name_gives_the_nearest_and_all(basket: None) -> None:
    with pytest.raises(ModelError) as caught:
        fruits().find("plumb", error=ModelError, hint="Grow one.")
    assert (
        str(caught.value) == "fruit 'plumb' is unknown. Did you mean 'plum'? Known: apple, fig, pear, plum. Grow one."
    )


def test_a_package_that_cannot_be_imported_is_named(basket: None) -> None:
    with pytest.raises(ConfigError, match=r"fruit 'fig' of the package basket cannot be imported .rotten:fig.*nowhere"):
        fruits().find("fig")
    things, problems = fruits().load_all()
    assert set(things) == {"pear", "apple", "plum"} and set(problems) == {"fig"}


@pytest.mark.parametrize("taken", ["pear", "plum"])
def test_a_name_that_is_taken_is_refused(
    basket: None, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path / "b", "thief", {"thief": "plum = 1\n"}, {GROUP: {taken: "thief:plum"}})
    with installed(tmp_path / "b", monkeypatch):
        with pytest.raises(ConfigError, match=f"adds the fruit '{taken}' .*there is one of this name already"):
            list(fruits())
        assert fruits()["apple"] > 6  # what is built in is there all the same
        things, problems = fruits().load_all()
        assert set(things) == {"pear", "apple"} and "one of this name already" in problems["fruit"]


def test_an_idea_whose_folder_is_gone_is_passed_over() -> None:
    some = fruits(pear="math:pi", gone="evocompress.ideas.no_such_idea.part:thing", apple="math:tau")
    assert list(some) == ["pear", "apple"] and some.builtin == ("pear", "apple") and "gone" not in some
    with pytest.raises(ConfigError, match="fruit 'gone' is unknown"):
        some.find("gone")
    with pytest.raises(KeyError):
        some["gone"]


@with_all_ideas
def test_every_row_of_an_idea_is_in_a_folder_that_is_there() -> None:
    for kind in every_list():
        for place in kind._builtin.values():
            module = place.partition(":")[0]
            folder = ".".join(module.split(".")[:3])
            assert not module.startswith("evocompress.ideas.") or importlib.util.find_spec(folder), place


def test_every_list_has_a_group_of_its_own() -> None:
    groups = [kind.group for kind in every_list()]
    assert len(set(groups)) == len(groups) == len([name for name in extensions.__all__ if name.isupper()])
    assert all(group.startswith("evocompress.") for group in groups)


# ---- commands ------------------------------------------------------------------------------------------------------

WAVE = """
def register(app):
    @app.command("wave")
    def wave(often: int = 1) -> None:
        '''Say hello.'''
        print("hello " * often)
"""


def test_commands_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"waving": WAVE, "sunk": "1 / 0\n", "mute": "def register(app):\n    pass\n"}
    points = {"wave": "waving:register", "sink": "sunk:register", "mute": "mute:register", "run": "waving:register"}
    write_package(tmp_path, "waves", sources, {"evocompress.commands": points})
    runner = CliRunner()
    with installed(tmp_path, monkeypatch):
        shown = runner.invoke(app, ["--help"])
        assert shown.exit_code == 0
        for words in ("Say hello", "Cannot be used: The command 'sink'", "Train, compress and evolve"):
            assert words in shown.output
        assert runner.invoke(app, ["wave", "--often", "2"]).output == "hello hello \n"
        for name, message in (("sink", "package waves cannot be imported"), ("mute", "adds nothing and no command")):
            done = runner.invoke(app, [name, "x", "--y"])
            assert isinstance(done.exception, ConfigError) and message in str(done.exception)
        assert runner.invoke(app, ["codecs"]).exit_code == 0
    assert runner.invoke(app, ["wave"]).exit_code == 2


def test_two_packages_with_one_command_harm_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path, "thief", {"thief": WAVE}, {"evocompress.commands": {"kernels": "thief:register"}})
    with installed(tmp_path, monkeypatch):
        shown = CliRunner().invoke(app, ["--help"])
        assert shown.exit_code == 0 and "there is one of this name already" in shown.output
        assert CliRunner().invoke(app, ["codecs"]).exit_code == 0


def test_the_lists_hold_what_the_core_has() -> None:
    assert {"dominance", "random", "scalar"} <= set(SELECTION.builtin)
    assert "resnet20" in NETWORKS


@with_all_ideas
def test_the_lists_hold_what_ideas_have() -> None:
    assert {"kernels", "saccades"} <= set(COMMANDS.builtin)
