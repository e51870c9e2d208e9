"""Searches for a target: what they say, and what is left of them when they are interrupted."""

from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from evocompress import unpack
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.data import Examples, Splits
from evocompress.errors import ConfigError, ModelError
from evocompress.networks import build
from evocompress.packer import job as pack_job
from evocompress.packer.calibrated import PackedFile
from evocompress.packer.job import Known, PackJob


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(144, 5),
        ).eval()  # fmt: skip


def examples(n: int, seed: int, *, labelled: bool) -> Examples:
    images = torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return Examples(images, network()(images).argmax(1)) if labelled else Examples.unlabelled(images)


def recipe(rate_weight: float, *, calibrated: bool = False, layerwise: bool = False) -> Recipe:
    return preset("balanced", rate_weight, calibrated=calibrated, layerwise=layerwise)


def job(*, layerwise: bool = True, labelled: bool = True, allocation_rounds: int = 0) -> PackJob:
    made = PackJob(network().state_dict(), recipe)
    known = Known(network(), examples(60, 2, labelled=labelled), examples(50, 3, labelled=labelled))
    made.calibrate(
        known, samples=60, seed=0, device="cpu", layerwise=layerwise, allocation_rounds=allocation_rounds
    )  # fmt: skip
    return made


class Interrupted:
    """In the place of a function that packs: files of 100/λ bytes, and a signal in the nth call."""

    def __init__(self, nth: int, how: signal.Signals = signal.SIGINT, *, calibrated: bool = False) -> None:
        self.calls, self._nth, self._how, self._calibrated = 0, nth, how, calibrated

    def __call__(self, _state: object, wanted: Recipe, *_args: Any, **_words: Any) -> Any:
        self.calls += 1
        if self.calls == self._nth:
            signal.raise_signal(self._how)
        data = bytes(max(int(0.1 / wanted.rate_weight), 1))
        return PackedFile(data, 0.0, True) if self._calibrated else data


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_an_interrupted_search_gives_the_best_file_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: signal.Signals
) -> None:
    monkeypatch.setattr(pack_job, "pack", Interrupted(4, how))
    before = signal.getsignal(how)
    search = PackJob(network().state_dict(), recipe)
    found = search.under(500, start=1e-4)  # 1000, 125, 353 bytes
    assert (len(found.data), found.meets, search.stopped) == (353, True, True)
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("Stopped early: of 3 files that were tried, the best that meets the target")
    assert signal.getsignal(how) is before


def test_an_interrupt_before_any_file_meets_the_target_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_job, "pack", Interrupted(2))
    with pytest.raises(KeyboardInterrupt):
        PackJob(network().state_dict(), recipe).under(500, start=1e-4)


@pytest.mark.parametrize("nth", [1, 2])
def test_an_interrupt_layer_by_layer_keeps_what_all_layers_at_once_gave(
    monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """In the first phase 500 bytes are met within half a percent; refined files are better with fewer bytes."""
    search = job()
    monkeypatch.setattr(pack_job, "pack", Interrupted(0))
    monkeypatch.setattr(pack_job, "pack_calibrated", Interrupted(nth, calibrated=True))
    found = search.under(500, start=1e-4)
    assert search.stopped and found.meets and found.refined is (nth > 1)
    assert 490 < len(found.data) <= 500


def test_phases_are_announced_and_a_pipe_gets_no_blank_lines(capsys: pytest.CaptureFixture[str]) -> None:
    search = job(allocation_rounds=1)
    found = search.within(0.05, start=1e-3)
    search.report(found)
    out, said = capsys.readouterr()
    announced = [line for line in said.splitlines() if " of 3: " in line]
    assert [line.partition(":")[0] for line in announced] == ["1 of 3", "2 of 3", "3 of 3"]
    assert announced[0].startswith("1 of 3: searching λ for a held-out loss of at most ")
    assert announced[0].endswith(", all layers at once") and announced[2].endswith(", layer by layer")
    assert "allocating" in announced[1]
    assert all(line.strip() for line in said.splitlines()) and "\x1b" not in said and "\r" not in said
    before, after = (float(number) for number in re.findall(r"\d\.\d{4}", out))
    assert out.startswith(f"held-out: loss {before:.4f} → {after:.4f}, accuracy 100.00 % → ")
    assert after <= before + 0.0501 and out.endswith(" (50 examples)\n")


def test_without_labels_the_change_of_outputs_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    search = job(layerwise=False, labelled=False)
    search.report(search.within(1e-3, start=1e-3))
    out, said = capsys.readouterr()
    assert "a change of outputs of at most 0.001" in said and "change of outputs\n" not in said
    assert "loss" not in said + out
    assert out.startswith("held-out: change of outputs 0.000")


@pytest.mark.parametrize("layerwise", [True, False])
def test_tensors_that_are_lost_are_told_with_a_rule_that_keeps_them(
    capsys: pytest.CaptureFixture[str], layerwise: bool
) -> None:
    search = job(layerwise=layerwise)
    found = search.at(0.02)
    search.report(found)
    said = capsys.readouterr().err
    lost = {name for name, tensor in unpack(found.data).items() if not tensor.any()}
    assert set(found.zeroed) == lost and len(lost) > 1 and found.zeroed[0] in said
    assert said.startswith(f"warning: {len(lost)} tensors that are not zero decode to zeros: ")
    assert said.count("\n") == 1
    advice = re.search(r"--rule '(.+)=(.+)@(.+)'$", said)
    assert advice is not None
    rule = Rule(advice[1], (advice[2],), float(advice[3]))
    search._recipe = lambda *words, **how: dataclasses.replace(recipe(*words, **how), rules=(rule,))
    assert found.zeroed[0] not in search.at(0.02).zeroed


@pytest.mark.parametrize("layerwise", [True, False])
def test_a_target_out_of_reach_says_what_is_in_reach(layerwise: bool) -> None:
    search = job(layerwise=layerwise, labelled=False)
    with pytest.raises(ConfigError, match=r"at most 1 byte: the smallest .* reached has \d+ bytes") as small:
        search.under(1, start=1e-2)
    least = int(str(small.value).split("reached has ")[1].split()[0])
    assert len(search.under(least, start=1e-2).data) <= least
    with pytest.raises(ConfigError, match=r"the least increase .* reached is \d\S*e-\d+\."):
        search.within(0.0, start=1e-2)


def test_labels_that_do_not_fit_are_left_out_where_no_loss_on_them_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = examples(20, 4, labelled=True)
    monkeypatch.setattr(pack_job, "load_data", lambda *_, **__: Splits("own", 9, split, split, split))
    monkeypatch.setattr(pack_job, "load_formed", lambda _, model: model)  # it has 5 outputs, and not 9
    assert not pack_job.on_data(Path("w"), network(), "d", 0, needs_labels=False).held_out.is_labelled
    with pytest.raises(ModelError, match="gives 5 logits; the data set has 9 classes"):
        pack_job.on_data(Path("w"), network(), "d", 0)


def test_a_network_that_is_broken_already_is_refused() -> None:
    model = network()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 3e38)
    search = PackJob(model.state_dict(), recipe)
    fine = job()._calibration
    assert fine is not None
    search._calibration = type(fine)(model, fine.examples, fine.held_out, fine.sensitivities)
    with pytest.raises(ModelError, match="held-out loss is (nan|inf) before anything is packed"):
        search.within(0.1, start=1e-4)


@pytest.mark.parametrize(
    ("words", "phase", "written"),
    [(("--max-loss-increase", "0.05"), "2 of 2", True), (("--max-bytes", "1"), "1 of 2", False)],
)
def test_a_process_that_is_interrupted_leaves_the_best_file_or_none(
    tmp_path: Path, words: tuple[str, ...], phase: str, written: bool
) -> None:
    weights, output = tmp_path / "w.safetensors", tmp_path / "w.evc"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = build("digits_cnn").state_dict()
    safetensors.torch.save_file(state, weights)
    command = [
        sys.executable,
        "-c",
        "from evocompress.cli import main; main()",
        "pack",
        str(weights),
        "-o",
        str(output),
    ]
    command += ["--model", "digits_cnn", "--data", "digits", "--preset", "best", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said: list[str] = []
    while not said or not said[-1].startswith(phase):
        said.append(process.stderr.readline())
        assert said[-1], f"it ended before: {said}"
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "Traceback" not in rest
    assert ("Stopped early" in rest) is written
    if written:
        assert unpack(output.read_bytes()).keys() == state.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == (["w.evc"] if written else []) + ["w.safetensors"]
