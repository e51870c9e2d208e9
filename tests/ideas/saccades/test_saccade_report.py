"""The report's maps of where a network looks."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path

import pytest
from PIL import Image
from saccade_gates import decided, undecided
from synthetic_run import synthetic_run

from evocompress.checkpoint.packing import pack
from evocompress.evolve.config import parse_config
from evocompress.ideas.saccades.maps import Deletion
from evocompress.ideas.saccades.networks import SaccadeCNN
from evocompress.ideas.saccades.report_section import verdict
from evocompress.ideas.saccades.saccade import SaccadeConv2d
from evocompress.runs.front import front
from evocompress.runs.report import render_report
from evocompress.search.history import History

CONFIG = {"model": "saccade_cnn", "model_options": {"width": 4, "block": 2}, "data": "digits"}
pytestmark = pytest.mark.usefixtures("seeded")


def saccade_run(folder: Path, decision: int | None, **config: object) -> History:
    """A made-up run whose best file holds a network with saccades, which all decide the same or look here and there."""
    history = dataclasses.replace(synthetic_run(5), folder=folder)
    history.run["config"] = parse_config({**CONFIG, **config}).model_dump(mode="json")
    network = SaccadeCNN(width=4, block=2)
    for layer in network.saccades:
        assert isinstance(layer, SaccadeConv2d)
        undecided(layer) if decision is None else decided(layer, decision)
    leaf = history.leaves[front(history)[-1].leaf_id]
    leaf.measurements["layers"] = [{**leaf.measurements["layers"][0], "name": "saccades.0.gate.look.weight"}]
    (folder / leaf.path).parent.mkdir(parents=True)
    (folder / leaf.path).write_bytes(pack(network.state_dict(), 1e-6))
    return history


def section(history: History) -> str:
    found = re.search(r'<section class="card" id="section-saccades">.*?</section>', render_report(history), re.DOTALL)
    assert found is not None
    return found[0]


def test_the_report_shows_where_the_best_file_looks_and_whether_to_believe_it(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    history = saccade_run(tmp_path, None)
    text = section(history)
    assert front(history)[-1].file in text
    assert re.search(
        r"Accuracy on 3\d\d audit images is [\d.]+ % where blocks that saccades\.\d chose are filled", text
    )
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == 3
    assert all(Image.open(io.BytesIO(base64.b64decode(picture))).width > 1000 for picture in pictures)
    assert section(history) == text


@pytest.mark.parametrize(
    ("missing", "config", "words"),
    [
        ("", {}, "faithful cannot be tested: in every image the gate chose all blocks or none"),
        ("file", {}, "cannot be drawn here: "),
        ("", {"data": "shutil:rmtree"}, "&#39;shutil:rmtree&#39; is code of your own, which a report does not run"),
        ("", {"model": "shutil:rmtree"}, "network &#39;shutil:rmtree&#39; is code of your own"),
        ("", {"model_options": {"width": 4}}, "and this one has block 4"),
    ],
)
def test_what_is_missing_is_said_and_fails_no_report(
    tmp_path: Path, missing: str, config: dict[str, object], words: str
) -> None:
    pytest.importorskip("sklearn")
    history = saccade_run(tmp_path, 1, **config)
    if missing:
        (tmp_path / front(history)[-1].path).unlink()
    text = section(history)
    assert words in text and ("<img" in text) == ("cannot be tested" in words)


def test_a_report_of_other_networks_has_no_such_section() -> None:
    assert 'id="section-saccades"' not in render_report(synthetic_run(5))


@pytest.mark.parametrize(
    ("chosen", "others", "end"),
    [(0.5, 0.9, "is faithful."), (0.9, 0.5, "is not faithful."), (0.69, 0.71, "may be chance: whether .* is open.")],
)
def test_a_map_is_believed_only_where_the_difference_is_no_chance(chosen: float, others: float, end: str) -> None:
    told = verdict(Deletion(chosen, others), 500, "")
    assert re.search(f"{100 * chosen:.1f} % where blocks that the network chose .* {100 * others:.1f} % .*{end}$", told)
