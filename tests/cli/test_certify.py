"""`certify` as a user types it: of a file alone, of a run's files, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import threshold_problem
import torch
from typer.testing import CliRunner

import evocompress
from evocompress.cli import app, main
from evocompress.data import Examples
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import run_experiment
from evocompress.networks import build
from evocompress.search.history import History, read_history
from evocompress.support.occam_bound import occam_bound

if TYPE_CHECKING:
    from evocompress.data import Splits

THRESHOLD = ("--model", "threshold_problem:network", "--data", "threshold_problem:splits")


def invoke(*words: object) -> str:
    result = CliRunner().invoke(app, ["certify", *(str(word) for word in words)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def as_json(*words: object) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(invoke(*words, "--json"))
    return said


def fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """The one line of a command that goes wrong, through the real entry point."""
    monkeypatch.setattr("sys.argv", ["evocompress", "certify", *(str(word) for word in words)])
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error


def wrong_of(file: Path, examples: Examples) -> int:
    """Counted without anything of ours but the decoder."""
    network = build("digits_cnn")
    network.load_state_dict(evocompress.unpack(file.read_bytes(), names=network.state_dict()))
    images, labels = examples.batch(slice(0, len(examples)))
    with torch.no_grad():
        return int((network.eval()(images).argmax(1) != labels).sum())


@pytest.fixture
def threshold(tmp_path: Path) -> Path:
    path = tmp_path / "threshold.evc"
    path.write_bytes(threshold_problem.packed())
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three segments with two probes each, on its own split of the digits."""
    folder = tmp_path_factory.mktemp("run") / "small"
    table = {
        "model": "digits_cnn",
        "data": "digits",
        "seed": 3,
        "reference_epochs": 0,
        "search": {"segments": 3, "initial": 2, "probes": 2, "deterministic": True, "lag": 1},
        "genes": {"epochs": 1, "rate_weight": [0.03, 3.0]},
        "resources": {"executor": "inline"},
        "model_options": {"width": 4},
    }
    run_experiment(parse_config(table), folder)
    return folder


def test_a_small_file_is_certified(threshold: Path) -> None:
    said = as_json(threshold, *THRESHOLD)
    made = threshold_problem.splits(0)
    each = [int(((p.inputs[:, 0] > 0).long() != p.labels).sum()) for p in (made.train, made.validation, made.audit)]
    wrong = each[0] + each[1], each[2]
    assert said["bytes"] == threshold.stat().st_size and said["bits"] == 8 * said["bytes"]
    assert (said["wrong"], said["examples"], said["measured_test"]["wrong"]) == (wrong[0], 20_050, wrong[1])
    expected = occam_bound(said["bytes"], wrong[0], 20_050)
    assert said["bound"] == expected.value and said["lambda"] == expected.lam
    assert 0.05 < said["bound"] < 0.12 and not said["vacuous"] and said["largest_nonvacuous_bytes"] > said["bytes"]
    assert (said["run"], said["leaf_id"], said["candidates"], said["candidate_bits"]) == (None, None, 1, 0)
    text = invoke(threshold, *THRESHOLD)
    shown = math.ceil(1e4 * said["bound"]) / 100
    assert f"{threshold}: test error of at most {shown:.2f} %, with probability 95 %" in text
    assert f"{wrong[0]} of 20050 examples wrong" in text and f"{wrong[1]} of 4000 examples wrong; measured" in text
    assert "Assumed:" in text and "before the data were seen" in text
    assert text == invoke(threshold, *THRESHOLD)  # nothing is drawn, and dropout is off


def test_delta_and_candidates_are_charged(threshold: Path) -> None:
    plain, sure, chosen = (
        as_json(threshold, *THRESHOLD, *words) for words in ((), ("--delta", 1e-9), ("--candidates", 1024))
    )
    assert plain["bound"] < min(sure["bound"], chosen["bound"])
    assert chosen["candidate_bits"] == 10 and chosen["kl_nats"] == pytest.approx(plain["kl_nats"] + 10 * math.log(2))
    assert sure["delta"] == 1e-9


def test_a_file_without_names_has_the_same_error(threshold: Path, tmp_path: Path) -> None:
    nameless = tmp_path / "nameless.evc"
    nameless.write_bytes(threshold_problem.packed(names=False))
    named, without = as_json(threshold, *THRESHOLD), as_json(nameless, *THRESHOLD)
    assert without["wrong"] == named["wrong"] and without["bytes"] == nameless.stat().st_size
    assert without["bound"] == occam_bound(without["bytes"], named["wrong"], 20_050).value


def test_examples_that_are_there_twice_count_once(threshold: Path) -> None:
    said = as_json(threshold, "--model", "threshold_problem:network", "--data", "threshold_problem:twice")
    assert said["examples"] == 20_000 and said["unlabelled_examples"] == 0


def test_labels_that_are_not_there_do_not_count(threshold: Path) -> None:
    words = (threshold, "--model", "threshold_problem:network", "--data", "threshold_problem:unlabelled_test")
    said = as_json(*words)
    assert (said["examples"], said["unlabelled_examples"], said["measured_test"]) == (10_050, 10_000, None)
    assert "not measured" in invoke(*words) and "10000 more have no label" in invoke(*words)


def test_a_digits_file_is_too_large(digits: Splits, tmp_path: Path) -> None:
    file = tmp_path / "w.evc"
    file.write_bytes(evocompress.pack(build("digits_cnn").state_dict(), 1e-4))
    words = (file, "--model", "digits_cnn", "--data", "digits")
    said = as_json(*words)
    assert (said["wrong"], said["examples"]) == (
        wrong_of(file, digits.train) + wrong_of(file, digits.validation),
        len(digits.train) + len(digits.validation),
    )
    assert said["measured_test"]["wrong"] == wrong_of(file, digits.audit)
    assert said["bound"] == 1 and said["vacuous"] and said["guess_error"] == pytest.approx(0.9, abs=0.01)
    assert "vacuous: the bound 100.00 % is not below" in invoke(*words)


def test_of_a_vacuous_bound_the_size_that_would_do_is_said(threshold: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.evc"
    weights = evocompress.unpack(threshold.read_bytes())
    generator = torch.Generator().manual_seed(0)
    weights["1.weight"] = torch.cat([weights["1.weight"][:, :1], torch.rand(2, 3, generator=generator) / 1e3], 1)
    weights = {name: weight.double() for name, weight in weights.items()}
    rule = evocompress.Rule(codecs=("lossless",))
    large.write_bytes(evocompress.pack(weights, evocompress.Recipe(rules=(rule,))))
    words = ("--model", "threshold_problem:network", "--data", "threshold_problem:few")
    said = as_json(large, *words)
    assert said["vacuous"] and 10 < said["largest_nonvacuous_bytes"] < said["bytes"]
    needed = f"At this error a file must have at most {said['largest_nonvacuous_bytes']} bytes"
    assert needed in invoke(large, *words)
    hopeless = ("--model", "threshold_problem:network", "--data", "threshold_problem:guesses")
    assert as_json(large, *hopeless)["largest_nonvacuous_bytes"] is None
    assert "no file is small enough" in invoke(large, *hopeless)


def leaf_file(run: Path) -> tuple[Path, History]:
    history = read_history(run)
    return Path(history.storage.url(history.archive[0].path)), history


def test_a_file_of_a_run_needs_no_options(run: Path, tmp_path: Path) -> None:
    from evocompress.data import load

    file, history = leaf_file(run)
    said = as_json(file)
    evaluated = sum(1 + len(task.probes) for task in history.tasks.values())
    assert said["candidates"] == evaluated >= len(history.leaves) and evaluated > 3
    assert (said["run"], said["leaf_id"]) == (str(run), history.archive[0].leaf_id)
    assert said["candidate_bits"] == pytest.approx(math.log2(evaluated))
    splits = load("digits", seed=3)
    network = build("digits_cnn", {"width": 4})
    network.load_state_dict(evocompress.unpack(file.read_bytes(), names=network.state_dict()))
    wrong, total = 0, 0
    for part in (splits.train, splits.validation):
        images, labels = part.batch(slice(0, len(part)))
        with torch.no_grad():
            wrong, total = wrong + int((network.eval()(images).argmax(1) != labels).sum()), total + len(labels)
    assert (said["wrong"], said["examples"]) == (wrong, total)
    assert f"{evaluated} files (the run {run} evaluated as many on its data)" in invoke(file)
    exported = {path: as_json(path) for path in (run / "export" / "front").glob("*.evc")}
    assert exported and all(part["candidates"] == evaluated for part in exported.values())
    elsewhere = Path(shutil.copy(file, tmp_path / "copy.evc"))
    assert as_json(elsewhere, "--run", run) == said | {"file": str(elsewhere)}
    assert as_json(file, "--candidates", 10 * evaluated)["candidates"] == 10 * evaluated


def test_what_a_run_says_is_not_said_again(
    run: Path, threshold: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = leaf_file(run)
    assert "--model, --seed: what the run" in fail(capsys, monkeypatch, file, "--model", "digits_cnn", "--seed", 3)
    assert "candidates 2: the run evaluated" in fail(capsys, monkeypatch, file, "--candidates", 2)
    assert "none of the files that the run" in fail(capsys, monkeypatch, threshold, "--run", run)
    assert "is no run: it has no run.json" in fail(capsys, monkeypatch, file, "--run", threshold.parent)


def test_data_that_changed_since_the_run_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "run"
    shutil.copytree(run, changed)
    stored = json.loads((changed / "run.json").read_text())
    stored["data"]["sha256"] = "0" * 64
    (changed / "run.json").write_text(json.dumps(stored))
    file, _ = leaf_file(changed)
    assert "is not the one of the run" in fail(capsys, monkeypatch, file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --model and --data"),
        (("--model", "digits_cnn"), "give --model and --data"),
        ((*THRESHOLD, "--delta", 0), "--delta: delta 0.0: must be above 0 and below 1"),
        ((*THRESHOLD, "--delta", 1.5), "--delta: delta 1.5"),
        ((*THRESHOLD, "--candidates", 0), "--candidates: candidates 0: must be at least 1"),
        ((*THRESHOLD, "--task", "nothing"), "--task: task 'nothing' is unknown"),
        ((*THRESHOLD, "--task", "toy_task:DigitError"), "measures RMSE, which is not counted"),
        (("--model", "digits_cnn", "--data", "digits"), "does not fit the model"),
        (("--model", "nothing", "--data", "digits"), "--model"),
        ((*THRESHOLD[:2], "--data", "nothing"), "--data"),
        ((*THRESHOLD[:2], "--data", "threshold_problem:sequences"), "labels (8, 5) of places in sequences"),
        ((*THRESHOLD[:2], "--data", "threshold_problem:regression"), "the labels are numbers to predict"),
    ],
)
def test_what_cannot_be_certified_is_one_line(
    threshold: Path,
    words: tuple[object, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert message in fail(capsys, monkeypatch, threshold, *words)


def test_another_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.evc").write_bytes(b"nothing of the kind")
    assert "Not an .evc file" in fail(capsys, monkeypatch, tmp_path / "x.evc", *THRESHOLD)
    assert "No such file" in fail(capsys, monkeypatch, tmp_path / "y.evc", *THRESHOLD)
