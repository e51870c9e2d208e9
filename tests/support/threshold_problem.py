"""A problem whose best network is a file of a few bytes: the sign of one of four numbers, a share of labels wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import evocompress
from evocompress.data import Examples, Splits

__all__ = [
    "examples",
    "few",
    "guesses",
    "network",
    "packed",
    "regression",
    "sequences",
    "splits",
    "twice",
    "unlabelled_test",
]


def network() -> nn.Module:
    """Two logits of four numbers; the dropout would make most answers a guess if it were left on."""
    return nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 2))


def packed(*, names: bool = True) -> bytes:
    """The network that answers by the first number's sign."""
    state = {"1.weight": torch.tensor([[-1.0, 0, 0, 0], [1.0, 0, 0, 0]]), "1.bias": torch.zeros(2)}
    return evocompress.pack(state, evocompress.Recipe(rate_weight=1e-4, names=names))


def examples(count: int, seed: int, noise: float) -> Examples:
    """Standard normal inputs (count, 4); each label is turned over with probability `noise`."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    turned = torch.rand(count, generator=generator) < noise
    return Examples(inputs, ((inputs[:, 0] > 0) ^ turned).long())


def splits(seed: int, *, train: int = 20_000, noise: float = 0.05) -> Splits:
    return Splits(
        "threshold", 2, examples(train, seed, noise), examples(50, seed + 1, noise), examples(4000, seed + 2, noise)
    )


def twice(seed: int) -> Splits:
    """The same examples to train on and to choose by."""
    made = splits(seed)
    return Splits("twice", 2, made.train, made.train, made.audit)


def few(seed: int) -> Splits:
    """So few training examples that only small files say something."""
    return splits(seed, train=600, noise=0.0)


def guesses(seed: int) -> Splits:
    """Labels that have nothing to do with the inputs."""
    return splits(seed, train=600, noise=0.5)


def unlabelled_test(seed: int) -> Splits:
    """Half of the training examples have labels, none of the test examples."""
    made = splits(seed)
    train = Examples(made.train.inputs, _hidden(made.train.labels, 10_000))
    return Splits("unlabelled", 2, train, made.validation, made.audit.without_labels())


def _hidden(labels: Tensor, count: int) -> Tensor:
    return torch.cat([labels[:-count], torch.full((count,), -100)])


def sequences(seed: int) -> Splits:
    """A label for each place of a sequence."""
    part = Examples(torch.zeros(8, 5, 4), torch.zeros(8, 5, dtype=torch.int64))
    return Splits("sequences", 2, part, part, part)


def regression(seed: int) -> Splits:
    """Numbers to predict."""
    part = Examples(torch.zeros(8, 4), torch.zeros(8, 2))
    return Splits("regression", 2, part, part, part)
