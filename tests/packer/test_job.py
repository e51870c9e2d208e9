"""The pack job: what its searches tell, what is left of them when they are interrupted, where no target is met."""

from __future__ import annotations

import dataclasses
import math
import signal
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from command_process import CommandProcess
from torch import nn

from evocompress import pack, unpack
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.checkpoint.size_prior import size_prior
from evocompress.checkpoint.weight_files import read_weights
from evocompress.data import Examples, Splits
from evocompress.errors import CodecError, ConfigError, EvocompressError, ModelError
from evocompress.networks import build
from evocompress.packer import job as pack_job
from evocompress.packer import network_and_examples
from evocompress.packer.calibrated import PackedFile
from evocompress.packer.events import (
    HeldOutMeasured,
    PhaseBegan,
    Searched,
    StoppedEarly,
    TargetMissed,
    TensorsZeroed,
    Tried,
)
from evocompress.packer.job import PackJob
from evocompress.packer.network_and_examples import NetworkAndExamples, on_data
from evocompress.protocols import Began, Progressed
from evocompress.tasks.regression import Regression
from evocompress.training.trainer import TrainingGenes, train

pytestmark = pytest.mark.slow


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


class Heard:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def job(
    *, layerwise: bool = True, labelled: bool = True, allocation_rounds: int = 0, observer: Heard | None = None
) -> PackJob:
    made = PackJob(network().state_dict(), recipe, observer=observer)
    known = NetworkAndExamples(network(), examples(60, 2, labelled=labelled), examples(50, 3, labelled=labelled))
    made.calibrate(known, samples=60, layerwise=layerwise, allocation_rounds=allocation_rounds)
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
def test_an_interrupted_search_gives_the_best_file_so_far(monkeypatch: pytest.MonkeyPatch, how: signal.Signals) -> None:
    monkeypatch.setattr(pack_job, "pack", Interrupted(4, how))
    monkeypatch.setattr(pack_job, "lost_tensors", lambda *_: [])
    before, heard = signal.getsignal(how), Heard()
    result = PackJob(network().state_dict(), recipe, observer=heard).under(500, 1e-4)  # 1000, 125, 353 bytes
    assert (result.nbytes, result.met, result.stopped) == (353, True, True)
    stopped = heard.events[-1]
    assert isinstance(stopped, StoppedEarly) and (len(stopped.best.data), stopped.tries) == (353, 3)
    assert signal.getsignal(how) is before


def test_an_interrupt_before_any_file_meets_the_target_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_job, "pack", Interrupted(2))
    monkeypatch.setattr(pack_job, "lost_tensors", lambda *_: [])
    with pytest.raises(KeyboardInterrupt):
        PackJob(network().state_dict(), recipe).under(500, start=1e-4)


@pytest.mark.parametrize("nth", [1, 2])
def test_an_interrupt_layer_by_layer_keeps_what_all_layers_at_once_gave(
    monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """In the first phase 500 bytes are met within half a percent; refined files are better with fewer bytes."""
    search = job()
    monkeypatch.setattr(pack_job, "pack", Interrupted(0))
    monkeypatch.setattr(pack_job, "lost_tensors", lambda *_: [])
    monkeypatch.setattr(pack_job, "pack_calibrated", Interrupted(nth, calibrated=True))
    result = search.under(500, start=1e-4)
    assert result.stopped and result.met and result.refined is (nth > 1)
    assert 490 < result.nbytes <= 500


def test_phases_and_progress_are_told() -> None:
    heard = Heard()
    search = job(allocation_rounds=1, observer=heard)
    result = search.measure(search.within(0.05, start=1e-3))
    phases = heard.of(PhaseBegan)
    assert [(phase.number, phase.phases) for phase in phases] == [(1, 3), (2, 3), (3, 3)]
    assert phases[0].what.startswith("searching λ for a held-out loss of at most ")
    assert phases[0].what.endswith(", all layers at once") and phases[2].what.endswith(", layer by layer")
    assert "allocating" in phases[1].what
    searched = heard.of(Searched)
    assert [len(event.tried) for event in searched] == [sum(not t.attempt.refined for t in heard.of(Tried)), 7]
    assert all(event.loss_name == "held-out loss" for event in searched)
    began = [event.what for event in heard.of(Began)]
    assert began == ["calibrating", "searching", "allocating", "searching"]
    assert [event.what for event in heard.of(Progressed) if event.share == 1.0][0] == "calibrating"
    assert all(0 <= event.share <= 1 for event in heard.of(Progressed))
    held_out = result.held_out
    assert held_out is not None and heard.events[-1] == HeldOutMeasured(held_out)
    assert held_out.quality_before == 1.0 and (held_out.total, held_out.counted) == (50, "examples")
    assert result.loss_before == held_out.loss_before and result.loss_after == held_out.loss_after
    assert held_out.loss_after <= held_out.loss_before + 0.0501


def test_without_labels_the_loss_is_the_change_of_outputs() -> None:
    heard = Heard()
    search = job(layerwise=False, labelled=False, observer=heard)
    result = search.within(1e-3, start=1e-3)
    assert heard.of(PhaseBegan)[0].what == "searching λ for a change of outputs of at most 0.001"
    assert result.loss_before == 0.0 and result.loss_after is not None and 0 < result.loss_after <= 1e-3
    held_out = search.measure(result).held_out
    assert held_out is not None and held_out.loss_name == "change of outputs" and held_out.quality_after is None
    assert held_out.loss_after == pytest.approx(result.loss_after)


@pytest.mark.parametrize("layerwise", [True, False])
def test_tensors_that_are_lost_are_told_with_a_rule_that_keeps_them(layerwise: bool) -> None:
    heard = Heard()
    search = job(layerwise=layerwise, observer=heard)
    result = search.at(0.02)
    lost = {name for name, tensor in unpack(result.data).items() if not tensor.any()}
    (zeroed,) = heard.of(TensorsZeroed)
    assert set(result.zeroed) == lost and len(lost) > 1 and zeroed.names == result.zeroed
    assert zeroed.keep.match == result.zeroed[0]
    search._preset = lambda *words, **how: dataclasses.replace(recipe(*words, **how), rules=(zeroed.keep,))
    assert result.zeroed[0] not in search.at(0.02).zeroed


@pytest.mark.parametrize("layerwise", [True, False])
def test_a_target_out_of_reach_gives_the_nearest_file(tmp_path: Path, layerwise: bool) -> None:
    heard = Heard()
    search = job(layerwise=layerwise, labelled=False, observer=heard)
    small = search.under(1, start=1e-2)
    assert not small.met and not small.stopped
    assert small.nbytes == min(len(event.attempt.data) for event in heard.of(Tried))
    (missed,) = heard.of(TargetMissed)
    assert f"at most 1 byte: the smallest of the {missed.tries} that were tried has {small.nbytes} bytes" in str(missed)
    assert search.under(small.nbytes, start=1e-2).met
    fine = search.within(0.0, start=1e-2)
    assert not fine.met and fine.loss_after is not None
    assert fine.loss_after == min(event.attempt.loss for event in heard.of(Tried) if event.attempt.loss is not None)
    missed = heard.of(TargetMissed)[-1]
    assert search.within(float(missed.target.within_reach(missed.nearest)), start=1e-2).met
    small.write(tmp_path / "new" / "w.evc")
    assert (tmp_path / "new" / "w.evc").read_bytes() == small.data


def test_at_a_rate_weight_the_job_gives_the_bytes_of_pack() -> None:
    state = network().state_dict()
    assert PackJob(state).at(1e-3).data == pack(state, 1e-3)
    assert PackJob(state).at().data == pack(state)
    result = PackJob(state, "best", names=False).at(1e-3)
    nameless = dataclasses.replace(preset("best", 1e-3), names=False)
    assert result.data == pack(state, nameless, sensitivities=size_prior(state))
    assert result.met and result.held_out is None and PackJob(state).measure(result) is result


@pytest.mark.parametrize("increase", [-1.0, math.inf, math.nan])
def test_arguments_that_cannot_be_used_are_refused(increase: float) -> None:
    state = network().state_dict()
    with pytest.raises(ConfigError, match="call calibrate"):
        PackJob(state).within(0.1)
    with pytest.raises(ConfigError, match="increase is"):
        job(labelled=False, layerwise=False).within(increase)
    with pytest.raises(CodecError, match="Did you mean 'best'"):
        PackJob(state, "bset")
    with pytest.raises(ConfigError, match="observer is 3; give a function"):
        PackJob(state, observer=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rules are for presets"):
        PackJob(state, recipe, rules=(Rule(),))


def test_labels_that_do_not_fit_are_left_out_where_no_loss_on_them_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = examples(20, 4, labelled=True)
    monkeypatch.setattr(network_and_examples, "load_data", lambda *_, **__: Splits("own", 9, split, split, split))
    monkeypatch.setattr(
        network_and_examples, "load_formed", lambda _, model, **__: model
    )  # it has 5 outputs, and not 9
    assert not on_data(Path("w"), network(), "d", 0, needs_labels=False).held_out.is_labelled
    with pytest.raises(ModelError, match="gives 5 logits; the data set has 9 classes"):
        on_data(Path("w"), network(), "d", 0)


def test_a_job_of_a_file_reads_it_once_and_names_the_argument_of_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "w.safetensors"
    state = build("digits_cnn", {"width": 4}).state_dict()
    safetensors.torch.save_file({f"module.{name}": tensor for name, tensor in state.items()}, weights)
    read: list[object] = []

    def counted(path: str, *arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        read.append(path)
        return read_weights(path, *arguments, **options)

    monkeypatch.setattr("evocompress.packer.job.read_weights", counted)
    plain = build("digits_cnn", {"width": 4})
    one = PackJob.of_file(
        weights=weights, preset="fast", model=plain, noise="1x8x8", samples=16, strip_prefix="module."
    )
    with pytest.raises(TypeError, match="positional"):  # a network and data are mixed up too easily
        PackJob.of_file(weights, "fast", plain)  # type: ignore[call-arg]
    assert read == [weights] and one.is_calibrated and one.checkpoint.keys() == state.keys()
    assert unpack(one.at(1e-5).data).keys() == state.keys()
    mistakes = (
        ("model", {"model": "digits_cn", "noise": "1x8x8"}),
        ("noise", {"model": plain, "noise": "1xx8", "strip_prefix": "module."}),
        ("task", {"model": plain, "data": "digits", "task": "regresion", "strip_prefix": "module."}),
        ("data", {"model": plain, "data": "digitz", "strip_prefix": "module."}),
        ("strip_prefix", {"strip_prefix": "modul."}),
    )
    for argument, options in mistakes:
        with pytest.raises(EvocompressError) as caught:
            PackJob.of_file(weights, **cast(Any, options))
        assert caught.value.argument == argument
    with pytest.raises(ConfigError, match="belong together"):
        PackJob.of_file(weights, model=plain)
    for useless in ({"fit_confidence": True}, {"allocation_rounds": 2}, {"task": "regression"}):
        with pytest.raises(ConfigError, match="are for a network with data"):
            PackJob.of_file(weights, **cast(Any, useless))
    with pytest.raises(ConfigError, match="task is for data"):
        PackJob.of_file(weights, model=plain, noise="1x8x8", task="regression")


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
    options = ("--model", "digits_cnn", "--data", "digits", "--preset", "best", *words)
    process = CommandProcess("pack", weights, "-o", output, *options, output=tmp_path / "said.txt")
    process.wait_until_it_says(phase)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130 and "Traceback" not in process.said
    assert ("Stopped early" in process.said) is written
    assert ("was not written" in process.said) is not written
    if written:
        assert unpack(output.read_bytes()).keys() == state.keys()
    left = {path.name for path in tmp_path.iterdir()} - {"said.txt"}
    assert left == {"w.safetensors", *(["w.evc"] if written else [])}


def test_a_regressor_is_judged_by_its_own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers as labels: the loss is a regression's, and a limit on it keeps R², whatever the units of the numbers."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(600, 6, generator=generator)
    numbers = torch.stack([inputs[:, 0] + inputs[:, 1], 20 * inputs[:, 2].tanh()], 1)
    numbers += torch.tensor([0.1, 2.0]) * torch.randn(600, 2, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    train(model, Examples(inputs[:400], numbers[:400]), TrainingGenes("regression", learning_rate=0.05, batch_size=50),
          epochs=60, seed=0, task=Regression())  # fmt: skip
    parts = [Examples(inputs[a:b], numbers[a:b]) for a, b in ((0, 400), (400, 600), (400, 600))]
    monkeypatch.setattr(network_and_examples, "load_data", lambda *_, **__: Splits("own", 2, *parts))
    monkeypatch.setattr(network_and_examples, "load_formed", lambda _, network, **__: network)
    known = on_data(Path("w"), model, "d", 0)
    assert isinstance(known.task, Regression)
    search = PackJob(model.state_dict(), "fast")
    search.calibrate(known, samples=200)
    held_out = search.measure(search.within(0.05)).held_out
    assert held_out is not None and held_out.quality is not None and held_out.quality.name == "R²"
    assert held_out.quality_before is not None and held_out.quality_after is not None
    assert held_out.quality_before > 0.95 and held_out.quality_after > held_out.quality_before - 0.01
    assert held_out.counted == "examples" and held_out.loss_after <= held_out.loss_before + 0.05
    # Outputs that are no such numbers: their change counts, and labels are left out.
    other = on_data(Path("w"), nn.Linear(6, 5), "d", 0, needs_labels=False)
    assert other.task is None and not other.held_out.is_labelled and not other.train.is_labelled
    with pytest.raises(ModelError, match="for numbers"):
        on_data(Path("w"), nn.Linear(6, 5), "d", 0)
