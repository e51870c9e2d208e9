"""Sensitivities of recurrent, attention and embedding layers, against the Gauss-Newton matrix itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gauss_newton import check_diagonal, check_packs
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.codecs import Sensitivity
from evocompress.data import Examples
from evocompress.errors import ModelError

WORDS, WIDTH, LENGTH = 12, 8, 6


class Recurrent(nn.Module):
    """A recurrent layer and a head on its last output."""

    def __init__(self, layer: nn.Module, width: int, begin: Callable[[int], Any] | None = None) -> None:
        super().__init__()
        self.layer, self.head, self.begin = layer, nn.Linear(width, 4), begin

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.layer(x) if self.begin is None else self.layer(x, self.begin(len(x)))
        result: Tensor = self.head(output[:, -1] + output[:, 0])
        return result


class Cells(nn.Module):
    """Single steps, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(5, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = (x.new_zeros(len(x), 7), x.new_zeros(len(x), 7))
        for step in x.unbind(1):
            state = self.cell(step, state)
        result: Tensor = self.head(state[0])
        return result


class Transformer(nn.Module):
    """An encoder of tokens; its head shares the embedding's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Any:
        return {"logits": self.head(self.encoder(self.embedding(tokens)))}


class Attention(nn.Module):
    """Attention from one sequence to another, whose features are of another width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(5, width)
        self.attention = nn.MultiheadAttention(8, 2, kdim=width, vdim=width, batch_first=True)
        self.query = nn.Linear(5, 8)

    def forward(self, x: Tensor) -> Tensor:
        key = self.key(x)
        mixed, _ = self.attention(query=self.query(x[:, :2]), key=key, value=torch.tanh(key))
        result: Tensor = mixed.mean(1)
        return result


class Twice(nn.Module):
    """One linear layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(torch.tanh(self.body(torch.tanh(self.body(x[:, 0])))))
        return result


def begin(*shape: int) -> Callable[[int], Tensor]:
    value = torch.randn(shape[0], 1, shape[1], generator=torch.Generator().manual_seed(6))
    return lambda n: value.expand(-1, n, -1).contiguous()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True), 12),
    "projected lstm": lambda: Recurrent(nn.LSTM(5, 6, proj_size=3, batch_first=True), 3),
    "gru": lambda: Recurrent(nn.GRU(5, 6, num_layers=2, batch_first=True), 6),
    "rnn": lambda: Recurrent(nn.RNN(5, 6, nonlinearity="relu", batch_first=True), 6, begin(1, 6)),
    "cells": Cells,
    "transformer": Transformer,
    "attention": lambda: Attention(8),
    "attention of another width": lambda: Attention(6),
    "twice": Twice,
}


def build(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        return MODELS[name]().eval()


def examples(name: str, n: int = 600) -> Examples:
    generator = torch.Generator().manual_seed(1)
    if name == "transformer":
        chances = 0.6 ** torch.arange(WORDS - 1)  # the last word is never seen
        return Examples.unlabelled(torch.multinomial(chances, n * LENGTH, True, generator=generator).view(n, LENGTH))
    steps = torch.randn(n, LENGTH, 5, generator=generator)
    return Examples.unlabelled((steps + steps.roll(1, 2) + 0.5 * steps.roll(1, 1)) * torch.tensor([1, 2, 1, 0.5, 1]))


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_the_diagonal_is_about_that_of_the_gauss_newton_matrix(name: str) -> None:
    check_diagonal(build(name), examples(name, 200))


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_every_matrix_of_every_kind_is_known_and_packs() -> None:
    for name in MODELS:
        check_packs(build(name), examples(name, 128))


def test_names_of_one_tensor_share_what_is_known_and_unseen_words_cost_something() -> None:
    found = second_order_sensitivities(build("transformer"), examples("transformer"), samples=300, seed=0)
    one, other = found["embedding.weight"], found["head.weight"]
    assert isinstance(one, Sensitivity) and one is other
    alone = nn.Sequential(nn.Embedding(WORDS, WIDTH), nn.Flatten(), nn.Linear(WIDTH * LENGTH, 3))
    words = second_order_sensitivities(alone, examples("transformer"), samples=300, seed=0)["0.weight"]
    assert isinstance(words, Sensitivity) and words.H.shape == (1, WIDTH, WIDTH)
    assert 0 < words.g[-1] < 0.5 * words.g[0] and (np.diff(words.g[:5]) < 0).all()
    assert np.count_nonzero(words.H) == WIDTH


def test_packed_sequences() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(5, 6, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            lengths = torch.full((len(x),), LENGTH - 2)
            return self.layer(pack_padded_sequence(x, lengths, batch_first=True))[1].transpose(0, 1)

    class Plain(Packed):
        def forward(self, x: Tensor) -> Any:
            return self.layer(x[:, : LENGTH - 2])[1].transpose(0, 1)

    torch.manual_seed(0)
    packed, plain = Packed(), Plain()
    plain.load_state_dict(packed.state_dict())
    one, other = (second_order_sensitivities(m, examples("gru"), samples=128, seed=0) for m in (packed, plain))
    for name in one:
        a, b = one[name], other[name]
        if isinstance(a, Sensitivity):
            assert isinstance(b, Sensitivity)
            np.testing.assert_allclose(a.g[:, None, None] * a.H, b.g[:, None, None] * b.H, rtol=1e-3, atol=1e-6)


def test_a_layer_that_computes_in_its_own_way_gets_a_scale() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name it has in torch
            return nn.functional.linear(input, 2 * self.weight.flip(1))

    class Named(nn.Linear):
        pass

    model = nn.Sequential(nn.Flatten(), Named(30, 9), Doubled(9, 3))
    found = second_order_sensitivities(model, examples("gru"), samples=64, seed=0)
    assert isinstance(found["1.weight"], Sensitivity) and isinstance(found["2.weight"], float)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (nn.Linear(7, 3), r"fails on calibration examples of shape \(2, 6, 5\): "),
        (nn.Flatten(0), r"float32 \(60,\).*must be floats \(n"),
        (nn.Embedding(3, 3), "fails on calibration"),
    ],
)
def test_examples_that_do_not_fit_are_refused(model: nn.Module, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        second_order_sensitivities(model, examples("gru"), samples=64, seed=0)


def test_outputs_of_one_number_and_frozen_or_unused_weights() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 1))
    model.register_module("spare", nn.Linear(2, 2))
    model.forward = lambda x: model[1](model[0](x))  # type: ignore[method-assign]
    model[1].weight.requires_grad_(False)
    found = second_order_sensitivities(model, examples("gru"), samples=64, seed=0)
    assert isinstance(found["1.weight"], Sensitivity) and found["spare.weight"] == 1.0
    assert not model[1].weight.requires_grad and model[1].bias.requires_grad
