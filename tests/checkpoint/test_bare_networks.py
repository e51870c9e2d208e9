"""Bare files of networks: packed with a recipe or a job, and read with the network, also on the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_names import LESS, network
from torch import nn
from typer.testing import CliRunner

from evocompress import Recipe, Rule, load, pack, unpack
from evocompress.checkpoint.loading import fitting_names, load_formed, names_for
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.weight_files import read_weights, unpack_file
from evocompress.cli import app
from evocompress.cli.command_words import as_commands
from evocompress.codecs.container import parse
from evocompress.errors import CodecError, ConfigError, ModelError
from evocompress.networks import build
from evocompress.packer.job import PackJob
from evocompress.packer.network_and_examples import on_noise

BARE = Recipe(1e-8, names=False, shapes=False)
#: With names and shapes, without names, without both.
FORMS = ((True, True), (False, True), (False, False))


def stored(state: dict[str, torch.Tensor], path: Path) -> Path:
    path.write_bytes(pack(state, BARE))
    return path


def test_a_state_dict_reads_every_kind_of_file() -> None:
    state = build("digits_cnn").state_dict()
    rule = Recipe(1e-3, (Rule("*", ("deadzone",)),), "mixing")
    files = [pack(state, dataclasses.replace(rule, names=n, shapes=s)) for n, s in FORMS]
    named, nameless, bare = (unpack(data, names=state) for data in files)
    assert list(nameless) == list(bare) == sorted(named)
    for name, tensor in named.items():
        assert torch.equal(nameless[name], tensor) and torch.equal(bare[name], tensor)
    assert unpack(files[2], "numpy", names=state).keys() == state.keys()
    sizes = [len(data) - len(parse(data, state).stream) for data in files]
    assert sizes == [47, 48, 19]


def test_cropped_files_are_read_everywhere(tmp_path: Path) -> None:
    state = build("digits_cnn", seed=1).state_dict()
    for name, tensor in state.items():
        tensor.copy_((tensor * 64).round() / 64)
        if name != "fc2.bias":
            tensor[3 if "fc2" not in name else 10 :] = 0
    grid = dict.fromkeys(state, 1 / 64)
    file = tmp_path / "cropped.evc"
    file.write_bytes(pack(state, Recipe(coder="mixing", names=False, shapes=False), grid=grid))
    assert file.read_bytes()[3] == 5
    unpacked = CliRunner().invoke(
        app, ["unpack", str(file), "-o", str(tmp_path / "w.safetensors"), "--model", "digits_cnn"]
    )
    assert unpacked.exit_code == 0 and f"{sum(t.numel() for t in state.values())} weights" in unpacked.output
    stored_state = safetensors.torch.load_file(tmp_path / "w.safetensors")
    model = build("digits_cnn")
    load(file, model)
    loaded = (stored_state, model.state_dict(), load_formed(file, build("digits_cnn")).state_dict())
    assert all(torch.equal(found[name], tensor) for found in loaded for name, tensor in state.items())
    inspected = CliRunner().invoke(app, ["inspect", str(file), "--model", "digits_cnn", "--json"])
    shapes = {row["name"]: tuple(row["shape"]) for row in json.loads(inspected.output)["tensors"]}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_errors_say_what_to_give() -> None:
    state = build("digits_cnn").state_dict()
    data = pack(state, BARE)
    with pytest.raises(CodecError, match=r"neither names nor shapes .* give names=model.state_dict\(\), or"):
        unpack(data)
    with pytest.raises(CodecError, match=r"names alone .* give names=model.state_dict\(\)"):
        unpack(data, names=list(state))
    with pytest.raises(CodecError, match="8 tensors: .* not those with which it was packed"):
        unpack(data, names=build("digits_cnn").half().state_dict())
    with pytest.raises(CodecError, match="names of tensors are text"):
        unpack(data, names={3: torch.ones(2)})  # type: ignore[dict-item]
    with pytest.raises(CodecError, match="shapes is False and names is True; .* give names=False"):
        Recipe(shapes=False)
    with pytest.raises(CodecError, match="shapes is False and names is True"):
        PackJob(state, shapes=False)
    assert Recipe.from_json(BARE.to_json()) == BARE
    assert Recipe.from_json({key: x for key, x in BARE.to_json().items() if key != "shapes"}).shapes


@pytest.mark.parametrize("kind", sorted(LESS))
def test_shapes_come_from_the_model_however_the_checkpoint_was_saved(kind: str, tmp_path: Path) -> None:
    source, target = network(0), network(1)
    state = {name: value for name, value in source.state_dict().items() if name not in LESS[kind]}
    path = stored(state, tmp_path / "w.evc")
    contents = parse(path.read_bytes())
    assert contents.unread and list(names_for(target, contents)) == list(fitting_names(target, contents)) == sorted(
        state
    )
    load(path, target)
    for name, value in source.state_dict().items():
        assert torch.allclose(target.state_dict()[name].double(), value.double(), atol=1e-3), name
    formed = load_formed(path, network(2))
    assert torch.equal(formed.state_dict()["tail.weight"], target.state_dict()["tail.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_checkpoint_of_another_dtype_is_loaded(dtype: torch.dtype, tmp_path: Path) -> None:
    source, target = network(0).to(dtype), network(1)
    path = stored(source.state_dict(), tmp_path / "w.evc")
    load(path, target)
    for name, value in source.state_dict().items():
        assert torch.allclose(target.state_dict()[name].double(), value.double(), atol=1e-2), name
    assert target.get_parameter("tail.weight").dtype == torch.float32
    kept = read_weights(path, lambda contents: names_for(target, contents))
    assert kept["tail.weight"].dtype == dtype and kept["norm.num_batches_tracked"].dtype == torch.int64


def test_another_model_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path, target = stored(dict(network().state_dict()), tmp_path / "w.evc"), nn.Linear(9, 9)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ModelError, match="without names, shapes and dtypes, and they were not those .* has 2: weight"):
        load(path, target)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    narrow = stored({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, tmp_path / "narrow.evc")
    with pytest.raises(ModelError, match="they were not those of this model"):
        load(narrow, nn.Linear(5, 3))
    with pytest.raises(ModelError, match="have no shape yet; run the module once"):
        load(narrow, nn.LazyLinear(3))
    for read in (read_weights, lambda path: unpack_file(path, tmp_path / "x.safetensors")):
        with pytest.raises(CodecError, match="w.evc: The file is bare"):
            read(path)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_job_packs_calibrates_and_verifies_bare_files(tmp_path: Path) -> None:
    plain = build("digits_cnn", seed=3)
    state, weights = plain.state_dict(), tmp_path / "w.safetensors"
    safetensors.torch.save_file({name: x.half() for name, x in state.items()}, weights)
    job = PackJob(read_weights(weights), "fast", names=False, shapes=False)
    recipe = dataclasses.replace(preset("fast", 1e-3), names=False, shapes=False)
    assert parse(job.at(1e-3).data).unread and parse(pack(state, recipe)).unread
    job.calibrate(on_noise(weights, plain, "1x8x8", 64, 0), samples=64, layerwise=True)
    result = job.measure(job.at(1e-5))
    assert result.held_out is not None and parse(result.data).unread
    (tmp_path / "w.evc").write_bytes(result.data)
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(load(tmp_path / "w.evc", build("digits_cnn"))(images), plain(images), atol=0.1)


def invoke(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def test_the_commands_take_the_network(tmp_path: Path) -> None:
    state = build("digits_cnn", seed=3).state_dict()
    weights, packed, output, again = (tmp_path / n for n in ("w.safetensors", "w.evc", "back.safetensors", "again.evc"))
    safetensors.torch.save_file(state, weights)
    invoke("pack", weights, "-o", packed, "--bare", "--preset", "fast", "--rate-weight", "1e-6")
    assert parse(packed.read_bytes()).unread
    invoke("unpack", packed, "-o", output, "--model", "digits_cnn")
    found = safetensors.torch.load_file(output)
    assert {n: (x.shape, x.dtype) for n, x in found.items()} == {n: (x.shape, x.dtype) for n, x in state.items()}
    assert all(torch.allclose(x, state[name], atol=0.01) for name, x in found.items())
    noise = ("--model", "digits_cnn", "--noise", "1x8x8", "--samples", 32, "--preset", "fast")
    invoke("pack", packed, "-o", again, *noise, "--bare", "--no-names")
    assert parse(again.read_bytes()).unread
    output.unlink()
    for words in (("unpack", packed, "-o", output), ("pack", packed, "-o", again)):
        error = CliRunner().invoke(app, [str(word) for word in words]).exception
        assert isinstance(error, CodecError) and "w.evc: The file is bare" in str(error)
        assert "take it as --model" in as_commands(str(error))
    wrong = CliRunner().invoke(app, ["unpack", str(packed), "-o", str(output), "--model", "lenet5_caffe"]).exception
    assert isinstance(wrong, ModelError) and str(wrong).startswith(
        "--model lenet5_caffe: The file holds tensors without"
    )
    both = CliRunner().invoke(app, ["pack", str(weights), "-o", str(again), "--bare", "--names"]).exception
    assert isinstance(both, ConfigError) and "--names and --bare exclude each other" in str(both)
    assert not output.exists()


def test_inspect_says_what_it_can_without_the_network(tmp_path: Path) -> None:
    state = build("digits_cnn", seed=3).state_dict()
    (tmp_path / "w.evc").write_bytes(pack(state, dataclasses.replace(BARE, coder="mixing")))
    (tmp_path / "n.evc").write_bytes(pack(state, Recipe(1e-8, names=False)))
    nbytes = (tmp_path / "w.evc").stat().st_size
    said = " ".join(invoke("inspect", tmp_path / "w.evc").split())
    assert f"{nbytes} bytes, a bare file (version 4, entropy coder mixing)" in said and "--model" in said
    known = json.loads(invoke("inspect", tmp_path / "w.evc", "--json"))
    assert (known["bytes"], known["version"], known["coder"], known["tensors"]) == (nbytes, 4, "mixing", None)
    for name in ("w.evc", "n.evc"):
        found = json.loads(invoke("inspect", tmp_path / name, "--json", "--model", "digits_cnn"))
        assert [row["name"] for row in found["tensors"]] == sorted(state)
        assert [tuple(row["shape"]) for row in found["tensors"]] == [tuple(state[name].shape) for name in sorted(state)]
        used = sum(row["payload_bytes"] + row["side_bytes"] for row in found["tensors"]) + found["header_bytes"]
        assert used == pytest.approx(found["bytes"])
    assert "conv1.weight" in invoke("inspect", tmp_path / "w.evc", "--model", "digits_cnn")
