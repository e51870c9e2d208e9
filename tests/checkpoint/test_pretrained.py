"""Networks of transformers from folders that `pack` has written: tiny ones, without a download."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import evocompress
from evocompress.cli import app
from evocompress.errors import ModelError

transformers: Any = pytest.importorskip("transformers", reason="needs transformers (of the dev extra)")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever would download something fails; a folder's code is copied to a folder that goes away."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)


def bert() -> Any:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=12,
            num_labels=3,
        )
    ).eval()


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=40, n_positions=12, n_embd=16, n_layer=1, n_head=2)
    ).eval()


@pytest.fixture(scope="module", params=[bert, gpt2], ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path, Path]]:
    """A network, the folder that transformers has saved it to, and the one that pack has made of that."""
    torch.manual_seed(0)
    model, place = request.param(), tmp_path_factory.mktemp(request.param.__name__)
    model.save_pretrained(place / "full")
    words = ["pack", str(place / "full"), "-o", f"{place}/small/", "--rate-weight", "1e-9", "--preset", "fast"]
    CliRunner().invoke(app, words, catch_exceptions=False)
    yield model, place / "full", place / "small"


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(1, 9).reshape(1, 8)).logits
    return found


def test_the_same_network_comes_out(made: tuple[Any, Path, Path]) -> None:
    model, _, small = made
    assert {"config.json", "model.evc"} <= {path.name for path in small.iterdir()}
    auto = "AutoModelForCausalLM" if "GPT2" in type(model).__name__ else "AutoModelForSequenceClassification"
    for kind in (type(model), getattr(transformers, auto)):
        found = evocompress.from_pretrained(small, kind)
        assert type(found) is type(model) and not found.training
        assert torch.allclose(logits(found), logits(model), atol=1e-2)
        assert {p.dtype for p in found.parameters()} == {torch.float32}


def test_transformers_reads_what_unpack_writes(made: tuple[Any, Path, Path], tmp_path: Path) -> None:
    model, full, small = made
    CliRunner().invoke(app, ["unpack", str(small), "-o", f"{tmp_path}/back/"], catch_exceptions=False)
    found = type(model).from_pretrained(tmp_path / "back", local_files_only=True).eval()
    ours = evocompress.from_pretrained(small, type(model)).state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in found.state_dict().items()) and ours
    assert torch.allclose(logits(found), logits(model), atol=1e-2)
    others = {path.name for path in full.iterdir()} - {"model.safetensors"}
    assert {path.name for path in (tmp_path / "back").iterdir()} == others | {"model.safetensors"}


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model = gpt2()
    model.save_pretrained(tmp_path)
    for state in (model.state_dict(), evocompress.checkpoint.weight_files.read_weights(tmp_path)):
        (tmp_path / "model.evc").write_bytes(evocompress.pack(state, 1e-9))
        found: Any = evocompress.from_pretrained(tmp_path, transformers.GPT2LMHeadModel)
        assert found.lm_head.weight is found.transformer.wte.weight
        assert torch.allclose(logits(found), logits(model), atol=1e-2)


def test_options_are_those_of_the_configuration(made: tuple[Any, Path, Path]) -> None:
    model, _, small = made
    found: Any = evocompress.from_pretrained(small, type(model), attn_implementation="eager")
    assert found.config._attn_implementation == "eager"
    with pytest.raises(ModelError, match="does not fit the model"):
        evocompress.from_pretrained(small, type(model), vocab_size=41)


def test_a_network_inside_of_another(tmp_path: Path) -> None:
    model = bert()
    model.config.save_pretrained(tmp_path)
    (tmp_path / "model.evc").write_bytes(evocompress.pack(model.state_dict(), 1e-9))
    with pytest.raises(ModelError, match="strip_prefix='bert.'"):
        evocompress.from_pretrained(tmp_path, transformers.BertModel)
    found: Any = evocompress.from_pretrained(tmp_path, transformers.BertModel, strict=False, strip_prefix="bert.")
    inner = found.embeddings.word_embeddings.weight
    assert torch.allclose(inner, model.bert.embeddings.word_embeddings.weight, atol=1e-2)


def test_the_dtype_is_that_of_the_configuration(tmp_path: Path) -> None:
    model = gpt2().bfloat16()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.evc").write_bytes(evocompress.pack(model.state_dict(), 1e-9))
    for kind in (transformers.GPT2LMHeadModel, transformers.AutoModelForCausalLM):
        found = evocompress.from_pretrained(tmp_path, kind)
        assert {parameter.dtype for parameter in found.parameters()} == {torch.bfloat16}


def test_code_in_a_folder_is_run_only_on_request(tmp_path: Path) -> None:
    names = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": names}))
    (tmp_path / "own.py").write_text(_OWN_CODE.format(touched=str(tmp_path / "touched")))
    (tmp_path / "model.evc").write_bytes(evocompress.pack({"layer.weight": torch.ones(2, 3)}, 1e-9))
    with pytest.raises(ModelError, match="AutoModel cannot be built from its config.json"):
        evocompress.from_pretrained(tmp_path, transformers.AutoModel)
    assert not (tmp_path / "touched").exists()
    found: Any = evocompress.from_pretrained(tmp_path, transformers.AutoModel, trust_remote_code=True)
    assert (tmp_path / "touched").exists() and torch.allclose(found.layer.weight, torch.ones(2, 3), atol=1e-2)


_OWN_CODE = """
import pathlib
import torch
from transformers import PretrainedConfig, PreTrainedModel

pathlib.Path({touched!r}).touch()

class OwnConfig(PretrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(3, 2, bias=False)
        self.post_init()
"""


def test_mistakes_get_one_line(made: tuple[Any, Path, Path], tmp_path: Path) -> None:
    model, full, small = made
    other = transformers.BertModel if "GPT2" in type(model).__name__ else transformers.GPT2Model
    cases: list[tuple[Any, Any, str]] = [
        ("someone/model", other, "is no folder; .* Nothing is downloaded"),
        (3, other, "folder is an int; it must be the path of a folder"),
        (full, type(model), "has no model.evc; evocompress pack FOLDER -o OUT/ makes"),
        (small, other, "is that of a network of type '(bert|gpt2)', and .* is of '(bert|gpt2)'"),
        (small, nn.Linear, "model_class is Linear; it must be a class of transformers"),
        (small, "AutoModel", "model_class is a str; it must be a class of transformers"),
        (
            small,
            transformers.AutoModelForSpeechSeq2Seq,
            "AutoModelForSpeechSeq2Seq cannot be built from its config.json",
        ),
    ]
    for folder, kind, message in cases:
        with pytest.raises(ModelError, match=message) as caught:
            evocompress.from_pretrained(folder, kind)
        assert "\n" not in str(caught.value)
    (tmp_path / "model.evc").write_bytes((small / "model.evc").read_bytes())
    for content, kind, message in (
        (None, type(model), "has no config.json"),
        ("{", type(model), "is no configuration of transformers"),
        ("[]", type(model), "is no configuration of transformers"),
        ("{}", transformers.AutoModel, "AutoModel cannot be built from its config.json"),
        (json.dumps({"model_type": "no such"}), transformers.AutoModel, "AutoModel cannot be built"),
    ):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(ModelError, match=message) as caught:
            evocompress.from_pretrained(tmp_path, kind)
        assert "\n" not in str(caught.value)
