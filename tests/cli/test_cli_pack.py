"""`pack` as a user types it, with a network: calibrated on data or noise, searched for a size or a loss."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch
from commands import invoke
from torch import nn

import evocompress
from evocompress.checkpoint.fold_statistics import fold_statistics
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.size_prior import size_prior
from evocompress.cli import main
from evocompress.cli.pack_report import missed_warning
from evocompress.networks import build
from evocompress.packer.events import TargetMissed
from evocompress.packer.targets import LossLimit, Try

if TYPE_CHECKING:
    from evocompress.data import Splits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(digits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digits network after a few epochs."""
    return after_training(digits, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def narrow(digits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a quarter of the weights, for searches with the slowest codecs."""
    return after_training(digits, tmp_path_factory.mktemp("narrow"), width=8)


NARROW = ("--model", "digits_cnn", "--set", "width=8")


def after_training(digits: Splits, folder: Path, width: int = 16) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build("digits_cnn", {"width": width})
    images, labels = digits.train.batch(slice(0, len(digits.train)))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(120):
        batch = slice(64 * step % 960, 64 * step % 960 + 64)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    path = folder / "w.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return path


def loss(path: Path, digits: Splits, width: int = 16) -> float:
    model = evocompress.load(path, build("digits_cnn", {"width": width})).eval()
    images, labels = digits.audit.batch(slice(0, len(digits.audit)))
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(images), labels))


def test_calibration_pays_on_the_disk(narrow: Path, digits: Splits, tmp_path: Path) -> None:
    on_digits = (*NARROW, "--data", "digits", "--samples", 300)
    plain = invoke("pack", narrow, "-o", tmp_path / "plain.evc", "--preset", "best", "--max-bytes", 1000).stderr
    assert "at most 1000 bytes" in plain and "layer by layer" not in plain
    found = invoke("pack", narrow, "-o", tmp_path / "fitted.evc", "--preset", "best", "--max-bytes", 1000, *on_digits)
    assert "at most 1000 bytes, layer by layer" in found.stderr and "meets it" in found.stderr
    assert all((tmp_path / name).stat().st_size <= 1000 for name in ("plain.evc", "fitted.evc"))
    assert loss(tmp_path / "fitted.evc", digits, 8) < loss(tmp_path / "plain.evc", digits, 8)


def test_the_loss_limit_is_met_on_held_out_examples(trained: Path, digits: Splits, tmp_path: Path) -> None:
    output = tmp_path / "w.evc"
    words = ("--model", "digits_cnn", "--data", "digits", "--samples", 300, "--max-loss-increase", "0.02")
    said = invoke("pack", trained, "-o", output, "--preset", "balanced", *words).stderr
    limits = re.findall(r"held-out loss of at most (\d+\.\d+)", said)
    assert len(limits) == 2  # all at once, and layer by layer
    model = evocompress.load(output, build("digits_cnn")).eval()
    images, labels = digits.validation.batch(slice(0, len(digits.validation)))
    with torch.no_grad():
        assert float(nn.functional.cross_entropy(model(images), labels)) <= float(limits[0]) + 1e-3


def test_noise_and_no_names(trained: Path, digits: Splits, tmp_path: Path) -> None:
    output, back = tmp_path / "w.evc", tmp_path / "back.safetensors"
    words = ("--model", "digits_cnn", "--noise", "1x8x8", "--samples", 200, "--rate-weight", "1e-5")
    invoke("pack", trained, "-o", output, *words, "--no-names", "--inference")
    assert b"conv1" not in output.read_bytes()
    assert loss(output, digits) == pytest.approx(loss(trained, digits), abs=0.05)
    invoke("unpack", output, "-o", back, "--model", "digits_cnn")
    assert safetensors.torch.load_file(back).keys() == safetensors.torch.load_file(trained).keys()


def test_confidence_and_allocation_are_fitted_and_told(narrow: Path, digits: Splits, tmp_path: Path) -> None:
    output = tmp_path / "w.evc"
    words = (*NARROW, "--data", "digits", "--samples", 200, "--preset", "balanced", "--max-bytes", 1000)
    said = invoke("pack", narrow, "-o", output, *words, "--fit-confidence", "--allocation-rounds", 1).stderr
    fitted = re.search(r"logits are scaled by (\d\.\d+) \('(.+)'\)", " ".join(said.split()))
    assert fitted is not None
    assert 0.05 < float(fitted[1]) <= 1 and f"{fitted[2]}.weight" in safetensors.torch.load_file(narrow)
    assert output.stat().st_size <= 1000
    assert loss(output, digits, 8) < loss(narrow, digits, 8) + 0.5
    on_noise = (*NARROW, "--noise", "1x8x8", "--samples", 50, "--preset", "fast")
    invoke("pack", narrow, "-o", output, *on_noise, "--allocation-rounds", 1, "--max-bytes", 1000)
    assert output.stat().st_size <= 1000


_ON_NOISE = ("--model", "digits_cnn", "--noise", "1x8x8")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--device", "cpu"), "--device needs --model and --data (or --noise)"),
        (("--samples", "9"), "--samples needs --model and --data (or --noise)"),
        (("--seed", "0"), "--seed needs --model and --data (or --noise)"),
        ((*_ON_NOISE, "--device", "blah"), "--device: 'blah' is no device; torch can use cpu"),
        ((*_ON_NOISE, "--device", "meta"), "--device: 'meta' cannot be used"),
        ((*_ON_NOISE, "--device", "cuda:99"), "--device: 'cuda:99' cannot be used"),
        (("--preset", "bset"), "--preset: There is no preset 'bset'; there are fast, balanced, best. Did you mean"),
        (("--rule", "no_such*=dct"), "--rule: No tensor matches 'no_such*'; tensors are"),
        (("--max-loss-increase", "nan"), "needs --model and --data"),
        (("--max-bytes", "lots"), "--max-bytes: size='lots'"),
        (("--rate-weight", "nan"), "--rate-weight nan: must be a positive"),
        (("--rate-weight", "-1"), "--rate-weight -1: must be a positive"),
        (("--rate-weight", "inf"), "--rate-weight inf: must be a positive"),
        (("--model", "digits_cnn", "--data", "digits", "--max-loss-increase", "nan"), "at least 0"),
        (("--model", "digits_cnn", "--data", "digits", "--max-loss-increase", "-1"), "at least 0"),
        (("--model", "digits_cnn", "--data", "digits", "--max-loss-increase", "inf"), "at least 0"),
        (("--model", "digits_cn", "--data", "digits"), "--model: network 'digits_cn' is unknown. Did you mean"),
        (("--allocation-rounds", "2"), "--allocation-rounds needs --model and --data (or --noise)"),
        (
            ("--model", "digits_cnn", "--noise", "1x8x8", "--fit-confidence"),
            "--fit-confidence needs --model and --data",
        ),
        (("--model", "digits_cnn"), "belong together"),
        (("--set", "width=8"), "--set width=8: gives options to a network; name it with --model."),
        ((*_ON_NOISE, "--set", "widht=8"), "--model: network 'digits_cnn': unknown option 'widht'"),
        (("--data", "digits"), "belong together"),
        (("--model", "digits_cnn", "--data", "digits", "--noise", "1x8x8"), "exclude each other"),
        (("--model", "digits_cnn", "--noise", "1x8x8", "--max-loss-increase", "0.1"), "needs --model and --data"),
        (("--model", "digits_cnn", "--noise", "8x8x8x8"), "channels x height x width"),
        (("--model", "digits_cnn", "--noise", "3x32x32"), "fails on images of shape (2, 3, 32, 32)"),
        (("--model", "lenet5_caffe", "--noise", "1x28x28"), "--model lenet5_caffe: "),
        (("--rate-weight", "1e-4", "--max-bytes", "1kB"), "exclude each other"),
        (("--preset", "bset"), "Did you mean 'best'"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["evocompress", "pack", str(trained), "-o", str(tmp_path / "x.evc"), *words])
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert caught.value.code == 2 and expected in error and "Traceback" not in error
    assert "strict=" not in error
    assert list(tmp_path.iterdir()) == []


def bytes_of(state: dict[str, torch.Tensor], recipe: evocompress.Recipe) -> bytes:
    return evocompress.pack(state, recipe, sensitivities=size_prior(state))


def test_the_command_and_pack_give_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    state, output = safetensors.torch.load_file(trained), tmp_path / "w.evc"
    assert len(state) > 6
    rules = (evocompress.Rule("*.bias", ("lossless",)), evocompress.Rule("conv*", ("dct", "deadzone"), 0.5))
    as_options = ("--rule", "*.bias=lossless", "--rule", "conv*=dct|deadzone@0.5")
    for words, expected in (
        ((), evocompress.pack(state)),
        (("--rate-weight", "3e-4"), evocompress.pack(state, 3e-4)),
        (("--no-names", "--rate-weight", "1e-4"), bytes_of(state, dataclasses.replace(preset(), names=False))),
        (("--preset", "best", "--rate-weight", "1e-3"), bytes_of(state, preset("best", 1e-3))),
        ((*as_options, "--rate-weight", "1e-3"), bytes_of(state, preset(rate_weight=1e-3, rules=rules))),
        (("--inference",), evocompress.pack(fold_statistics(state))),
    ):
        assert invoke("pack", trained, "-o", output, *words).exit_code == 0
        assert output.read_bytes() == expected, words


def test_where_no_file_meets_the_target_the_nearest_is_written(trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "w.evc"
    done = invoke("pack", trained, "-o", output, "--max-bytes", 5)
    assert done.exit_code == 3
    warning = re.search(
        r"^warning: No file meets the target, at most 5 bytes: the smallest of the \d+ that were tried has (\d+) "
        r"bytes, (\d+) more, at λ = \S+\. This nearest file is written all the same\. --max-bytes (\d+) can be met\.$",
        done.stderr,
        re.MULTILINE,
    )
    assert warning is not None and int(warning[1]) == int(warning[2]) + 5 == int(warning[3]) == output.stat().st_size
    assert f"{output}: {output.stat().st_size} bytes" in done.stdout
    assert invoke("pack", trained, "-o", output, "--max-bytes", warning[3]).exit_code == 0


def test_a_loss_limit_that_is_missed_names_its_option() -> None:
    target = LossLimit(lambda _: 0.75, "held-out loss", 0.5, 0.125)
    missed = missed_warning(TargetMissed(target, target.judged(Try(1e-4, b"12", False)), 3))
    assert "an increase of 0.25 where 0.125 is allowed, at λ = 0.0001. This nearest file is written all" in missed
    assert missed.endswith(" --max-loss-increase 0.25 can be met.")


def test_a_tensor_that_cannot_be_coded_names_the_option_that_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = tmp_path / "w.safetensors", tmp_path / "w.evc"
    safetensors.torch.save_file({"mask": torch.tensor([float("inf"), 0.0, 1.0, 2.0])}, path)
    monkeypatch.setattr("sys.argv", ["evocompress", "pack", str(path), "-o", str(output)])
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert caught.value.code == 2 and "'mask' holds Inf" in error and "--rule 'mask=lossless'" in error
    invoke("pack", path, "-o", output, "--rule", "mask=lossless")
    assert evocompress.unpack(output.read_bytes())["mask"][0] == float("inf")


@pytest.mark.parametrize("kind", ["device", "link", "dangling link"])
def test_what_is_no_file_is_not_replaced(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    target, output = tmp_path / "target.evc", tmp_path / "link.evc"
    if kind == "link":
        target.write_bytes(b"mine")
    if kind == "device":
        output = Path("/dev/null")
    else:
        output.symlink_to(target)
    before = output.lstat()
    monkeypatch.setattr("sys.argv", ["evocompress", "pack", str(trained), "-o", str(output)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code and "is a link or a device" in capsys.readouterr().err
    after = output.lstat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert kind != "link" or target.read_bytes() == b"mine"


def test_a_network_for_unpack_must_be_the_one(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, output = safetensors.torch.load_file(trained), tmp_path / "back.safetensors"
    for name, names in (("named.evc", True), ("nameless.evc", False)):
        (tmp_path / name).write_bytes(evocompress.pack(state, evocompress.Recipe(names=names)))
        words = ["evocompress", "unpack", str(tmp_path / name), "-o", str(output), "--model"]
        monkeypatch.setattr("sys.argv", [*words, "lenet5_caffe"])
        with pytest.raises(SystemExit) as caught:
            main()
        error = capsys.readouterr().err
        assert caught.value.code == 2 and "16×1×3×3 in the file, 20×1×5×5 in the model" in error
        assert "--model lenet5_caffe" in error and not output.exists()
        invoke(*words[1:], "digits_cnn")
        assert safetensors.torch.load_file(output).keys() == state.keys()
        output.unlink()


def test_a_file_without_names_is_packed_anew(trained: Path, digits: Splits, tmp_path: Path) -> None:
    nameless, output = tmp_path / "nameless.evc", tmp_path / "w.evc"
    nameless.write_bytes(evocompress.pack(safetensors.torch.load_file(trained), evocompress.Recipe(1e-9, names=False)))
    invoke("pack", nameless, "-o", output, *_ON_NOISE, "--samples", 50, "--rate-weight", "1e-5", "--preset", "fast")
    assert evocompress.unpack(output.read_bytes()).keys() == safetensors.torch.load_file(trained).keys()
    assert loss(output, digits) == pytest.approx(loss(trained, digits), abs=0.1)


def test_a_network_is_given_its_options(tmp_path: Path) -> None:
    state = build("lenet5_caffe", {"classes": 4, "image_size": 20}).state_dict()
    path, output, back = (tmp_path / name for name in ("w.safetensors", "w.evc", "back.safetensors"))
    safetensors.torch.save_file(state, path)
    network = ("--model", "lenet5_caffe", "--set", "classes=4", "--set", "image_size=20")
    noise = ("--noise", "1x20x20", "--samples", 20, "--preset", "fast")
    assert invoke("pack", path, "-o", output, *network, *noise, "--no-names").exit_code == 0
    assert invoke("unpack", output, "-o", back, *network).exit_code == 0
    assert safetensors.torch.load_file(back).keys() == state.keys()
