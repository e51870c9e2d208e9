"""Files with LinearConv factors: loaded into plain networks, packed, calibrated and unpacked."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from commands import invoke
from torch import nn

import evocompress
from evocompress.checkpoint.forms import changed, loaded
from evocompress.data import Splits
from evocompress.errors import ModelError
from evocompress.networks import build
from evocompress.training.trainer import TrainingGenes, train

ON_NOISE = ("--model", "digits_cnn", "--noise", "1x8x8")


def loss(path: Path, digits: Splits) -> float:
    model = evocompress.load(path, build("digits_cnn")).eval()
    images, labels = digits.audit.batch(slice(0, len(digits.audit)))
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(images), labels))


def test_factors_become_the_plain_weights_that_they_make(tmp_path: Path) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    factored = changed(plain, plain, {"alpha": 0.5, "rank": 0.5})
    (tmp_path / "w.evc").write_bytes(evocompress.pack(factored.state_dict(), 1e-9))
    x = torch.randn(2, 3, 9, 9)
    target = evocompress.load(tmp_path / "w.evc", plain)
    exact = loaded(plain, evocompress.unpack((tmp_path / "w.evc").read_bytes()), "w.evc")
    assert target is plain and list(target.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(target.eval()(x), exact.eval()(x))
    with pytest.raises(ModelError, match="does not fit"):
        evocompress.load(tmp_path / "w.evc", nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3)))


def test_factors_are_calibrated_and_unpacked_with_the_plain_network(digits: Splits, tmp_path: Path) -> None:
    plain = build("digits_cnn", seed=0)
    train(plain, digits.train, TrainingGenes(learning_rate=3e-3), epochs=6, seed=0)
    state = changed(plain, plain, {"alpha": 0.75, "rank": 0.5}).state_dict()
    path, output, back = (tmp_path / name for name in ("factors.safetensors", "w.evc", "back.safetensors"))
    safetensors.torch.save_file(state, path)
    words = ("--rate-weight", "1e-6", "--samples", 100)
    invoke("pack", path, "-o", output, "--model", "digits_cnn", "--data", "digits", *words, "--preset", "balanced")
    assert evocompress.unpack(output.read_bytes()).keys() == state.keys()
    assert loss(output, digits) == pytest.approx(loss(path, digits), abs=0.02)
    invoke("pack", output, "-o", tmp_path / "again.evc", *ON_NOISE, *words, "--preset", "fast")
    invoke("unpack", output, "-o", back, "--model", "digits_cnn")
    assert safetensors.torch.load_file(back).keys() == state.keys()
