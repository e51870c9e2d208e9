"""Calibration of networks with several outputs: all count, however large their numbers, unless one is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from evocompress.checkpoint.packing import unpack
from evocompress.cli import app
from evocompress.packer.job import PackJob
from evocompress.packer.network_and_examples import on_noise
from evocompress.support.modules import AllOutputs, count_all_outputs, several_outputs


class Detector(nn.Module):
    """Boxes in pixels, and scores of a thousandth."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.box, self.score = nn.Linear(16, 64), nn.Linear(64, 8), nn.Linear(64, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x).relu()
        return 1e3 * self.box(h), 1e-3 * self.score(h)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(Detector().state_dict(), tmp_path / "detector.safetensors")
    return tmp_path / "detector.safetensors"


def changes(network: Detector, data: bytes) -> list[float]:
    """Squared error of each output over its variance."""
    other, x = Detector(), torch.randn(500, 16, generator=torch.Generator().manual_seed(1))
    other.load_state_dict(unpack(data))
    with torch.no_grad():
        pairs = zip(network(x), other(x), strict=True)
        return [float((after - before).square().sum() / before.var(0).sum() / 500) for before, after in pairs]


def test_all_outputs_keep_as_much(weights: Path) -> None:
    examples = on_noise(weights, Detector(), "16", 512, 0)
    assert examples.note == "all 2 outputs of the network count, each by its variance; the network option output " \
        "chooses one"  # fmt: skip
    plain = Detector()
    state = {name: tensor.clone() for name, tensor in examples.model.state_dict().items()}
    plain.load_state_dict(state)
    job = PackJob(state, "best")
    job.calibrate(examples, samples=512)
    box, score = changes(plain, job.under(900).data)
    assert (
        max(box, score) < 0.1 and 0.2 < box / score < 5
    )  # as they are, boxes would weigh a million million times more


def test_the_command_says_so_and_one_may_be_chosen(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    words = ["pack", str(weights), "-o", str(weights.with_suffix(".evc")), "--noise", "16", "--model"]
    words.append("test_several_outputs:Detector")
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0 and "all 2 outputs of the network count" in said.output
    chosen = CliRunner().invoke(app, [*words, "--set", "output=1"])
    assert chosen.exit_code == 0 and "outputs of the network" not in chosen.output


def test_what_counts_is_not_guessed_at() -> None:
    x = torch.randn(6, 3)
    named = {"logits": x, "hidden": x}
    layered = (x, torch.ones(2, 4))  # as states of a recurrent layer, whose first axis is not that of the examples
    for result in (x, (x,), named, layered, (x, torch.ones(6, dtype=torch.int64)), (x, None)):
        assert several_outputs(result) == []
        network = nn.Identity()
        assert count_all_outputs(network, [result]) == 0 and not network._forward_hooks
    assert count_all_outputs(nn.Identity(), []) == 0
    assert count_all_outputs(nn.Identity(), [(x, x), (x, x[:, :2])]) == 0  # of sequences whose lengths differ


def test_each_output_has_the_same_variance_and_a_constant_one_counts_by_its_size() -> None:
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    network = nn.Identity()
    assert count_all_outputs(network, [(100 * x, torch.full((400,), 7.0), torch.zeros(400, 2))]) == 3
    (hook,) = network._forward_hooks.values()
    assert isinstance(hook, AllOutputs)
    together = hook(network, (), (100 * x, torch.full((400,), 7.0), torch.zeros(400, 2)))
    assert together.shape == (400, 6)
    assert float(together[:, :3].var(0, correction=0).sum()) == pytest.approx(1.0, rel=1e-4)
    assert together[0, 3] == 1.0 and together[0, 4:].tolist() == [0.0, 0.0]
