"""Language models of bytes: bits per byte by their definition, text data, the networks, and a run."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from task_conformance import assert_conforms
from torch import nn

from evocompress.data import Examples, load
from evocompress.errors import DataError, ModelError
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import run_experiment
from evocompress.networks import build
from evocompress.runs.front import front
from evocompress.search.history import read_history
from evocompress.tasks.language_model import LanguageModel
from evocompress.tasks.measure import measure


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"{n} bottles of beer on the wall, {n % 7} bottles of beer. " for n in range(300)))
    return path


def test_conformance() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, labels = torch.randn(24, 3, 5, generator=generator), torch.randint(5, (24, 3), generator=generator)
    assert_conforms(LanguageModel(), outputs, labels)


def test_bits_per_byte_are_the_mean_cross_entropy_in_bits() -> None:
    outputs, labels = torch.randn(8, 6, 5), torch.randint(5, (8, 6))
    labels[0, 2:] = -100
    meter = LanguageModel().meter()
    meter.add(outputs, labels)
    found = meter.measured()
    nats = nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), ignore_index=-100).item()
    assert found.value == pytest.approx(nats / math.log(2)) == found.error and found.total == 44
    assert found.low < found.value < found.high and found.details["perplexity"] == pytest.approx(math.exp(nats))

    class Words(LanguageModel):
        bytes_per_token = 4.0

    words = Words().meter()
    words.add(outputs, labels)
    assert words.measured().value == pytest.approx(found.value / 4)


def test_text_is_split_into_windows_with_the_byte_that_follows(tmp_path: Path) -> None:
    text = tmp_path / "random.bin"
    text.write_bytes(random.Random(0).randbytes(60_000))
    splits = load("text", options={"path": str(text), "length": 20})
    content = text.read_bytes()
    for part in (splits.train, splits.validation, splits.audit):
        for row, labels in zip(part.inputs[:9].tolist(), part.labels[:9].tolist(), strict=True):
            assert row[1:] == labels[:-1] and bytes([*row, labels[-1]]) in content
    sizes = [len(part) for part in (splits.train, splits.validation, splits.audit)]
    assert (
        sum(sizes) <= len(content) // 20
        and 0.03 < sizes[1] / sum(sizes) < 0.07
        and sizes[1] == pytest.approx(sizes[2], abs=9)
    )
    windows = [bytes(row) for part in (splits.train, splits.validation, splits.audit) for row in part.inputs.tolist()]
    assert len(set(windows)) == len(windows)  # none is in two splits
    again = load("text", options={"path": str(text), "length": 20})
    assert again.sha256 == splits.sha256 != load("text", seed=1, options={"path": str(text), "length": 20}).sha256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nowhere.txt"}, "nowhere.txt: No such file"),
        ({"path": "short.txt"}, "too short for windows of 128 bytes"),
        ({"path": "short.txt", "length": 0}, "length is 0"),
        ({"path": "short.txt", "held_out": 0.5}, "held_out is 0.5"),
        ({}, "give the option path"),
    ],
)
def test_text_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    (tmp_path / "short.txt").write_text("too short")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        load("text", options=options)


@pytest.mark.parametrize("name", ["byte_gru", "byte_transformer"])
def test_networks_look_at_what_came_before_and_no_further(name: str) -> None:
    network = build(name, {"width": 16}, seed=0).eval()
    tokens = torch.randint(256, (3, 12))
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 256
    with torch.no_grad():
        before, after = network(tokens), network(changed)
    assert before.shape == (3, 12, 256)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-6) and not torch.allclose(before[:, 7:], after[:, 7:])


def test_what_does_not_fit() -> None:
    tokens = torch.zeros(4, 6, dtype=torch.int64)
    network = build("byte_gru", {"width": 8})
    LanguageModel().check(network, Examples(tokens, tokens), 256)
    with pytest.raises(DataError, match="needs the next token at each place"):
        LanguageModel().check(network, Examples(tokens, torch.zeros(4, dtype=torch.int64)), 256)
    with pytest.raises(ModelError, match="256 logits; the data set has 300 classes"):
        LanguageModel().check(network, Examples(tokens, tokens), 300)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["byte_gru", "byte_transformer"])
def test_a_run(text: Path, tmp_path: Path, name: str) -> None:
    config = {
        "model": name, "data": "text", "task": "language_model", "reference_epochs": 1,
        "model_options": {"width": 16}, "data_options": {"path": str(text), "length": 12},
        "search": {"segments": 2, "initial": 1, "deterministic": True, "lag": 1, "error_range": [0.0, 8.0]},
        "genes": {"epochs": 3, "batch_size": 16, "learning_rate": 0.01, "rate_weight": [0.03, 1.0], "symbol_trials": 4},
        "resources": {"executor": "inline"},
    }  # fmt: skip
    run_experiment(parse_config(config), tmp_path / "run")
    points = front(read_history(tmp_path / "run"))
    splits = load("text", options={"path": str(text), "length": 12})
    untrained = measure(LanguageModel(), build(name, {"width": 16}), splits.audit).value
    assert min(point.quality for point in points if point.quality is not None) < 0.6 * untrained
    assert read_history(tmp_path / "run").quality.name == "bits per byte"
