"""Networks of the library transformers as they are: small ones, made from a configuration, without a download."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import evocompress as library
from evocompress.cli import app

transformers = pytest.importorskip("transformers", reason="needs transformers (of the dev extra)")
pytestmark = pytest.mark.slow

_MODULE = '''
import torch, transformers
from torch.utils.data import DataLoader

def bert():
    return transformers.BertForSequenceClassification(transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, num_labels=2))

def gpt2():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=20, n_positions=12, n_embd=16, n_layer=1, n_head=2))

def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=12))

def sentences(seed, causal=False):
    """Of several lengths, padded by a collate function, with an attention mask."""
    def part(number):
        g = torch.Generator().manual_seed(10 * seed + number)
        items = []
        for _ in range(150):
            length, first = int(torch.randint(6, 11, (), generator=g)), int(torch.randint(1, 20, (), generator=g))
            ids = (first + torch.arange(length)) % 19 + 1
            items.append({"input_ids": ids, "labels": ids if causal else first % 2})
        return items
    def collate(items):
        pad = lambda rows, value: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
        ids = pad([item["input_ids"] for item in items], 0)
        labels = [item["labels"] for item in items]
        return {"input_ids": ids, "attention_mask": (ids > 0).long(),
                "labels": pad(labels, -100) if causal else torch.tensor(labels)}
    return [DataLoader(part(number), collate_fn=collate) for number in range(3)]

def texts(seed):
    return sentences(seed, causal=True)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    (folder / "tiny_models.py").write_text(_MODULE)
    return folder


def evocompress(*arguments: str) -> Result:
    """The command, in this process: each of its own would import transformers again."""
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def configuration(model: str, data: str, task: str) -> str:
    return f"""
model = "tiny_models:{model}"
data = "tiny_models:{data}"
task = "{task}"
reference_epochs = 1
reference_packs = false
[search]
segments = 3
initial = 2
ratio_range = [1, 200]
{"error_range = [0.0, 6.0]" if "causal" in task else ""}
[genes]
rate_weight = [0.02, 0.2]
epochs = 4
learning_rate = 5e-3
batch_size = 16
warm_up = 0.1
[resources]
executor = "inline"
"""


@pytest.mark.parametrize(
    ("model", "data", "task"),
    [
        ("bert", "sentences", "classification"),
        ("gpt2", "texts", "causal_language_model"),
        ("llama", "texts", "causal_language_model"),
    ],
)
def test_run_and_pack(
    folder: Path, model: str, data: str, task: str, monkeypatch: pytest.MonkeyPatch, seeded: None
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    config = folder / f"{model}.toml"
    config.write_text(configuration(model, data, task))
    out = folder / f"run-{model}"
    done = evocompress("run", str(config), "--out", str(out))
    quality = "accuracy" if task == "classification" else "bits per token"
    assert "the one that counts is logits" in done.stdout + done.stderr or model == "bert"
    files = sorted((out / "export" / "front").glob("*.evc")) or sorted((out / "export").rglob("*.evc"))
    assert files and quality in done.stdout

    # The same network as a checkpoint: calibrated, judged, and back in transformers' own hands.
    network = getattr(importlib.import_module("tiny_models"), model)()
    network.save_pretrained(folder / f"{model}-checkpoint")
    weights = folder / f"{model}-checkpoint" / "model.safetensors"
    packed = folder / f"{model}.evc"
    named = ["--model", f"tiny_models:{model}", "--data", f"tiny_models:{data}"]
    evocompress("pack", str(weights), "-o", str(packed), *named, "--task", task, "--samples", "32")
    assert packed.stat().st_size < weights.stat().st_size / 3
    judged = evocompress("evaluate", str(packed), *named, "--task", task, "--json")
    rows: list[dict[str, Any]] = json.loads(judged.stdout)
    assert rows[0]["quality"] == quality
    library.load(packed, network)
    ids = torch.tensor([[1, 2, 3]])
    assert network.eval()(input_ids=ids).logits.isfinite().all()
