"""A llama of a GGUF file as a network of transformers: the weights by its names, and a judge in bits per byte."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evocompress.checkpoint.gguf_file import read_gguf

__all__ = ["judge_of_text", "read_llama"]

_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_WINDOW, _WINDOWS = 512, 12  # tokens of a window of text, each read by itself


def read_llama(path: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network with random weights, and the file's weights, dequantised, by the names of its state dict."""
    import gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    def said(key: str) -> Any:
        return fields[f"llama.{key}"].contents()

    fields, tensors = gguf.GGUFReader(path).fields, read_gguf(path)[0]
    heads = {"attn_q": said("attention.head_count"), "attn_k": said("attention.head_count_kv")}
    config = LlamaConfig(
        vocab_size=len(tensors["token_embd.weight"]),
        hidden_size=said("embedding_length"),
        intermediate_size=said("feed_forward_length"),
        num_hidden_layers=said("block_count"),
        num_attention_heads=heads["attn_q"],
        num_key_value_heads=heads["attn_k"],
        rms_norm_eps=said("attention.layer_norm_rms_epsilon"),
        rope_theta=said("rope.freq_base"),
        max_position_embeddings=said("context_length"),
        tie_word_embeddings="output.weight" not in tensors,
    )
    state = {}
    for name, array in tensors.items():
        *place, kind, _ = name.split(".")
        if kind in heads:  # halves of each head that turn together lie side by side in GGUF, far apart in transformers
            rows = array.reshape(heads[kind], -1, 2, array.shape[1])
            array = rows.swapaxes(1, 2).reshape(array.shape)
        new_name = f"model.layers.{place[1]}.{_LAYER[kind]}" if place else _OUTSIDE[kind]
        state[f"{new_name}.weight"] = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    return LlamaForCausalLM(config).eval(), state


def judge_of_text(network: nn.Module, gguf_file: Path) -> Callable[[Mapping[str, Tensor]], dict[str, float]]:
    """Bits per byte of psalms (Debian's package bible-kjv), in windows of 512 tokens of the file's own tokenizer."""
    from transformers import AutoTokenizer

    command = ["bible", "-f", "ps1:1-ps90:1"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    tokens = torch.tensor(tokenizer(text).input_ids[: _WINDOW * _WINDOWS]).split(_WINDOW)
    nbytes = sum(len(tokenizer.decode(window[1:]).encode()) for window in tokens)

    def judge(weights: Mapping[str, Tensor]) -> dict[str, float]:
        network.load_state_dict(dict(weights), strict=False)  # of tied weights a state dict has one name
        nats = 0.0
        with torch.inference_mode():
            for window in tokens:
                logits = network(window[None]).logits[0, :-1].float()
                nats += float(nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
        return {"bits per byte": nats / math.log(2) / nbytes}

    return judge
