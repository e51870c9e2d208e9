"""Networks in half precision are calibrated and packed as they are: inputs are cast, what is measured is float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from evocompress import unpack
from evocompress.calibration.fisher import sensitivities
from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.checkpoint.presets import preset
from evocompress.cli import app
from evocompress.codecs import Sensitivity
from evocompress.data.examples import Examples
from evocompress.packer.calibrated import calibrate, pack_calibrated
from evocompress.support.inputs import call, call_with

HALVES = [torch.bfloat16, torch.float16]


class Network(nn.Module):
    """A convolution, batch normalisation, a recurrent-free head; notes the dtype of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8 * 36, 5)
        self.given: set[torch.dtype] = set()

    def forward(self, images: Tensor, tokens: Tensor | None = None) -> Tensor:
        self.given |= {images.dtype} if tokens is None else {images.dtype, tokens.dtype}
        logits: Tensor = self.head(self.norm(self.conv(images)).relu().flatten(1))
        return logits


def network(dtype: torch.dtype) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = Network()
        made.norm.running_mean.copy_(torch.randn(8) / 4)  # type: ignore[union-attr]
        return made.to(dtype).eval()


def examples(n: int, seed: int) -> Examples:
    images = torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return Examples(images, network(torch.float32)(images).argmax(1))


@pytest.mark.parametrize("dtype", HALVES)
def test_floats_are_cast_and_other_inputs_are_not(dtype: torch.dtype) -> None:
    model, images, tokens = network(dtype), torch.randn(3, 2, 6, 6), torch.ones(3, dtype=torch.int64)
    assert call(model, images).dtype == dtype and model.given == {dtype}
    call(model, {"images": images, "tokens": tokens})
    assert call_with(model, dict(model.named_parameters()), (images, tokens)).dtype == dtype
    assert model.given == {dtype, torch.int64} and images.dtype == torch.float32
    whole = network(torch.float32)
    call(whole, images)
    assert whole.given == {torch.float32}
    with pytest.raises(RuntimeError, match="dtype|type"):
        call(network(torch.float64), images)  # no half precision: its inputs are its own affair


@pytest.mark.parametrize("dtype", HALVES)
def test_sensitivities_are_nearly_those_of_float32(dtype: torch.dtype) -> None:
    known = examples(128, 2)
    half, whole = (second_order_sensitivities(network(kind), known, seed=0) for kind in (dtype, torch.float32))
    for name, expected in whole.items():
        found = half[name]
        assert isinstance(found, Sensitivity) == isinstance(expected, Sensitivity)
        scales = [s.scale if isinstance(s, Sensitivity) else s for s in (found, expected)]
        assert scales[0] == pytest.approx(scales[1], rel=0.1), name
    first, plain = (sensitivities(network(kind), known, seed=0) for kind in (dtype, torch.float32))
    assert first["head.weight"] == pytest.approx(plain["head.weight"], rel=0.2)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_file_layer_by_layer_keeps_the_dtype_and_the_outputs(dtype: torch.dtype) -> None:
    model = network(dtype)
    calibration = calibrate(model, examples(128, 2), examples(64, 3), samples=128, seed=0)
    file = pack_calibrated(model.state_dict(), preset("balanced", 1e-4, layerwise=True), calibration)
    decoded = unpack(file.data)
    assert {tensor.dtype for name, tensor in decoded.items() if "num_batches" not in name} == {dtype}
    assert calibration.held_out_quality(file.data).quality_after is not None
    assert calibration.loss(file.data) < calibration.loss() + 0.1 and len(file.data) < 2500


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bfloat16", "half"])
def test_the_command_takes_a_factory_of_a_half_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (tmp_path / f"{kind}_networks.py").write_text(
        f"from evocompress.networks import build\ndef make():\n    return build('digits_cnn').{kind}()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        from evocompress.networks import build

        state = {name: getattr(tensor, kind)() for name, tensor in build("digits_cnn").state_dict().items()}
    safetensors.torch.save_file(state, "w.safetensors")
    words = ["pack", "w.safetensors", "-o", "w.evc", "--model", f"{kind}_networks:make", "--data", "digits"]
    result = CliRunner().invoke(app, [*words, "--samples", "64"])
    assert result.exit_code == 0, result.output
    assert "held-out: loss" in result.stdout
    assert {tensor.dtype for tensor in unpack(Path("w.evc").read_bytes()).values()} == {state["fc2.bias"].dtype}
