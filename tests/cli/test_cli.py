"""The commands as a user types them: what they print, what they write, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from commands import invoke
from synthetic_run import synthetic_run, write_synthetic_run

import evocompress
from evocompress.cli import main
from evocompress.codecs import CODECS, STAGES
from evocompress.errors import CodecError, ConfigError
from evocompress.support.atomic_files import replacing


def fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str]:
    """Exit status and standard error of a command that goes wrong, through the real entry point."""
    monkeypatch.setattr("sys.argv", ["evocompress", *(str(word) for word in words)])
    with pytest.raises(SystemExit) as caught:
        main()
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return int(caught.value.code or 0), error


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    state = {
        "conv.weight": torch.randn(8, 4, 3, 3, generator=generator),
        "conv.bias": torch.randn(8, generator=generator).to(torch.bfloat16),
        "fc.weight": torch.randn(10, 32, generator=generator).half(),
        "steps": torch.tensor(12345),
    }
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def test_pack_inspect_unpack(weights: Path, tmp_path: Path) -> None:
    packed = tmp_path / "w.evc"
    said = invoke(
        "pack", weights, "-o", packed, "--rate-weight", "1e-3", "--rule", "conv.weight=dct|deadzone@0.5"
    ).output
    size, own, plain = packed.stat().st_size, 4 * 288 + 2 * 8 + 2 * 320 + 8, 4 * (288 + 8 + 320) + 8
    own_part = f"{own / size:.1f}x smaller than its tensors are ({own} bytes)"
    assert f"{size} bytes" in said and f"{own_part}, {plain / size:.1f}x smaller than they would be in float32" in said
    shown = json.loads(invoke("inspect", packed, "--json").output)
    assert shown["bytes"] == packed.stat().st_size
    rows = {row["name"]: row for row in shown["tensors"]}
    assert rows["conv.weight"]["shape"] == [8, 4, 3, 3] and rows["steps"]["codec"] == "lossless"
    taken = sum(row["payload_bytes"] + row["side_bytes"] for row in shown["tensors"]) + shown["header_bytes"]
    assert taken == pytest.approx(shown["bytes"])
    table = invoke("inspect", packed).output
    assert "8×4×3×3" in table and "bits per weight" in table
    invoke("unpack", packed, "-o", tmp_path / "back.safetensors")
    before, after = (safetensors.torch.load_file(tmp_path / name) for name in ("w.safetensors", "back.safetensors"))
    assert {name: (t.dtype, t.shape) for name, t in before.items()} == {n: (t.dtype, t.shape) for n, t in after.items()}
    assert after["steps"] == 12345
    assert (before["conv.weight"] - after["conv.weight"]).abs().max() < 0.5
    assert {name: t.tolist() for name, t in evocompress.unpack(packed.read_bytes()).items()} == {
        name: t.tolist() for name, t in after.items()
    }


def test_tables_stay_whole_in_a_pipe(tmp_path: Path) -> None:
    name = "encoder.layers." * 20 + "weight"
    (tmp_path / "w.evc").write_bytes(evocompress.pack({name: torch.ones(2, 3)}))
    lines = invoke("inspect", tmp_path / "w.evc").output.splitlines()
    assert len(lines) == 3 and lines[1].split()[:3] == [name, "2×3", "float32"]


@pytest.mark.parametrize(
    ("state", "packed", "inspected"),
    [
        ({}, "bytes, no tensors", "bytes, no tensors; "),
        ({"w": torch.zeros(0, 4)}, "bytes, 1 tensor without weights", "bytes, 1 tensor without weights; "),
        ({"w": torch.tensor(1.5)}, "1 weight in 1 tensor, ", "1 weight in 1 tensor, "),
        # Integers are not compared with float32.
        (
            {"w": torch.arange(4096, dtype=torch.int16) % 5},
            "smaller than its tensors are (8192 bytes)\n",
            "4096 weights in 1 tensor, ",
        ),
    ],
)
def test_figures_of_next_to_nothing(
    tmp_path: Path, state: dict[str, torch.Tensor], packed: str, inspected: str
) -> None:
    path, output = tmp_path / "w.safetensors", tmp_path / "w.evc"
    safetensors.torch.save_file(state, path)
    said = invoke("pack", path, "-o", output).output
    assert packed in said and "smaller than float32" not in said
    assert ("larger than float32" in said) == ("1 w" in said)
    assert inspected in invoke("inspect", output).output
    weights, tensors = sum(tensor.numel() for tensor in state.values()), len(state)
    counts = f"{tensors} tensor{'s' * (tensors != 1)}, {weights} weight{'s' * (weights != 1)}"
    assert counts in invoke("unpack", output, "-o", tmp_path / "back.safetensors").output


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (CodecError("two\n  lines"), 2, "error: two lines\n"),
        (ConfigError("c.toml:\n  a: wrong\n  b: wrong"), 2, "error: c.toml:\n  a: wrong\n  b: wrong\n"),
        (OSError(28, "No space left on device", "x.evc"), 1, "error: x.evc: No space left on device\n"),
        (MemoryError(), 1, "error: There is not enough memory.\n"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), 1, "Tried to allocate 2 GiB\n"),
    ],
)
def test_every_error_is_told_and_has_its_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, message: str
) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr("evocompress.cli.app", fails)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == status and capsys.readouterr().err.endswith(message)


def test_a_mistake_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("evocompress.cli.app", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        main()


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, replacing(tmp_path / "x.evc"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "x.evc") and list(tmp_path.iterdir()) == []


def test_a_smaller_rate_weight_keeps_more(weights: Path, tmp_path: Path) -> None:
    sizes = []
    for weight in ("1e-5", "1e-3", "1e-1"):
        invoke("pack", weights, "-o", tmp_path / "x.evc", "--rate-weight", weight)
        sizes.append((tmp_path / "x.evc").stat().st_size)
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 2 * sizes[-1]


def test_codecs_lists_everything() -> None:
    text, data = invoke("codecs").output, json.loads(invoke("codecs", "--json").output)
    assert set(data["codecs"]) == set(CODECS) and {stage["id"] for stage in data["stages"]} == set(STAGES)
    assert all(name in text for name in [*CODECS, *STAGES, "step_scale"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write_synthetic_run(folder, synthetic_run(segments=40, seed=1))
    return folder


def test_front_and_report(run: Path, tmp_path: Path) -> None:
    whole = json.loads(invoke("front", run, "--json").output)[str(run)]["front"]
    assert len(whole) > 2
    middle = whole[len(whole) // 2]
    under = json.loads(invoke("front", run, "--under", f"{middle['bytes']}", "--json").output)[str(run)]["front"]
    assert under == [row for row in whole if row["bytes"] <= middle["bytes"]]
    above = json.loads(invoke("front", run, "--above", str(middle["quality"]), "--json").output)[str(run)]["front"]
    assert above == [row for row in whole if row["quality"] >= middle["quality"]]
    assert f"smallest: {middle['file'].rpartition('/')[2]}" in invoke("front", run, "--above", middle["quality"]).output
    none = invoke("front", run, "--under", "1")
    assert "no file of the front meets this" in none.output and none.exit_code == 3
    invoke("front", run, "--png", tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_runs_are_compared(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_synthetic_run(other, synthetic_run(segments=30, seed=2))
    text = invoke("front", run, other, "--png", tmp_path / "both.png").output
    assert "Compared" in text and "BD-rate" in text and (tmp_path / "both.png").exists()


def test_mistakes_get_one_line(
    tmp_path: Path, weights: Path, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.evc").write_bytes(b"junk")
    (tmp_path / "pickle.safetensors").write_bytes(b"PK\x03\x04 zip")
    np.save(tmp_path / "array.npy", np.zeros(3))
    safetensors.numpy.save_file({"bad.weight": np.array([1.0, np.nan], np.float32)}, tmp_path / "nan.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:500])
    cases = [
        (("inspect", "none.evc"), "none.evc: No such file"),
        (("inspect", "junk.evc"), "Not an .evc file"),
        (("unpack", "junk.evc", "-o", "x"), "Not an .evc file"),
        (("inspect", run), "is a folder, which must hold model.evc"),
        (("pack", tmp_path, "-o", "x.evc"), "is a folder, which must hold model.safetensors"),
        (("inspect", weights), "is a checkpoint; evocompress pack makes an .evc file of it"),
        (("unpack", "cut.safetensors", "-o", "x"), "is truncated"),
        (("pack", "pickle.safetensors", "-o", "x.evc"), "no checkpoint of torch.save"),
        (("pack", "array.npy", "-o", "x.evc"), "is a NumPy array"),
        (("pack", "cut.safetensors", "-o", "x.evc"), "bytes, the file has 500"),
        (("pack", "nan.safetensors", "-o", "x.evc"), "'bad.weight' holds NaN"),
        (("pack", weights, "-o", weights), "is the input itself"),
        (("unpack", "junk.evc", "-o", "junk.evc"), "is the input itself"),
        (("pack", weights, "-o", weights / "x/"), "folder does not exist"),
        (("pack", weights, "-o", tmp_path / "none" / "x.evc"), "folder does not exist"),
        (("pack", weights, "-o", "x.evc", "--rate-weight", "0"), "--rate-weight 0: must be"),
        (("pack", weights, "-o", "x.evc", "--rule", "cnov*=dct"), "'cnov*'"),
        (("pack", weights, "-o", "x.evc", "--rule", "conv*=dtc"), "Did you mean 'dct'"),
        (("pack", weights, "-o", "x.evc", "--rule", "conv*"), "GLOB=CODEC"),
        (("pack", weights, "-o", "x.evc", "--rule", "conv*="), "GLOB=CODEC"),
        (("pack", weights, "-o", "x.evc", "--rule", "conv*=dct@"), "'' is not a number"),
        (("curve", weights, "-o", tmp_path / "none" / "x"), "folder does not exist"),
        (("pack", weights, "-o", tmp_path / "none" / "x" / ".." / "\0"), "null byte"),
        (("pack", weights, "-o", ""), "is no path: it is empty"),
        (("unpack", "junk.evc", "-o", "x\0"), "null byte"),
        (("run", "none.toml"), "there is no such file"),
        (("run",), "--resume with --out"),
        (("run", "--resume", "--out", "none"), "no run"),
        (("front", "none"), "no run"),
        (("front", run, "--under", "lots"), "--under: size='lots'"),
        (("front", run, "--above", "7"), "--above: accuracy='7'"),
        (("front", run, "--below", "0.5"), "accuracy is better where it is larger; use --above"),
        (("front", "none", "--png", "none/x.png"), "--png none/x.png: its folder does not exist"),
        (("front", "none", "--bogus"), "--bogus"),
        (("report", "none"), "no run"),
        (("data", "imagenet"), "imagenet"),
    ]
    for words, expected in cases:
        named = [word.name if word == weights else word for word in words]
        code, error = fail(capsys, monkeypatch, *named)
        assert code == 2 and expected in error, (words, code, error)
    assert not (tmp_path / "x.evc").exists()


def test_a_configuration_error_names_the_nearest_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.toml").write_text('model = "digits_cnn"\ndata = "digits"\n[search]\nsegmets = 3\n')
    code, error = fail(capsys, monkeypatch, "run", tmp_path / "c.toml")
    assert code == 2 and "Did you mean 'search.segments'" in error
    with_setting = ("--set", "search.segmets=3")
    code, error = fail(capsys, monkeypatch, "run", tmp_path / "c.toml", *with_setting)
    assert code == 2 and f"error: {tmp_path / 'c.toml'}:" in error  # the file is wrong by itself
    (tmp_path / "c.toml").write_text('model = "digits_cnn"\ndata = "digits"\n')
    code, error = fail(capsys, monkeypatch, "run", tmp_path / "c.toml", *with_setting)
    assert code == 2 and f"error: search.segmets=3, given beside {tmp_path / 'c.toml'}:" in error
    (tmp_path / "d.toml").write_text('model = "digits_cn"\ndata = "digits"\n')
    code, error = fail(capsys, monkeypatch, "run", tmp_path / "d.toml", "--out", tmp_path / "r")
    assert code == 2 and "digits_cnn" in error and not (tmp_path / "r").exists()


def test_a_missing_data_set_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOCOMPRESS_DATA", str(tmp_path))
    (tmp_path / "c.toml").write_text('model = "lenet5_caffe"\ndata = "mnist"\nseed = 77\n')
    code, error = fail(capsys, monkeypatch, "run", tmp_path / "c.toml", "--out", tmp_path / "r")
    assert code == 2 and "evocompress data mnist" in error


def test_a_foreign_folder_or_storage_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.toml").write_text('model = "digits_cnn"\ndata = "digits"\nresources.executor = "inline"\n')
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    code, error = fail(capsys, monkeypatch, "run", tmp_path / "c.toml", "--out", tmp_path / "mine")
    assert code == 2 and "is no run, and not empty" in error
    code, error = fail(
        capsys, monkeypatch, "run", tmp_path / "c.toml", "--out", tmp_path / "r", "--set", "storage=nosuch://b"
    )
    assert code == 2 and "nosuch" in error and not (tmp_path / "r").exists()
    code, error = fail(capsys, monkeypatch, "run", tmp_path / "c.toml", "--out", tmp_path / "r", "--address", "auto")
    assert code == 2 and "auto is the address of a Ray cluster, but resources.executor = inline uses none" in error
    code, error = fail(
        capsys, monkeypatch, "run", tmp_path / "c.toml", "--out", tmp_path / "r", "--set", "resources.executor=ray",
        "--address", "127.0.0.1:9",
    )  # fmt: skip
    assert code == 2 and "no Ray cluster answers" in error


def test_a_run_that_only_diverges_says_so(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'model = "digits_cnn"\ndata = "digits"\nreference_epochs = 0\n[search]\nsegments = 2\n'
        "[genes]\nlearning_rate = 1e30\nepochs = 1\n[resources]\nexecutor = 'inline'\n"
    )
    done = invoke("run", tmp_path / "c.toml", "--out", tmp_path / "r")
    assert done.exit_code == 1 and "of 2 segments all ended diverged" in done.output and "NaN" in done.output


def test_version() -> None:
    assert invoke("--version").output.strip() == evocompress.__version__
