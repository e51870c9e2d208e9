"""A DataLoader: words of several lengths, which a collate function pads, and the language that they are of.

Batches are dicts: the network is called with all but the labels, by name. A transform changes training batches.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

_SYLLABLES = {"a": "ka to mi ru sa ne ko hi".split(), "b": "lon ber gan stel mor wick ton ley".split()}


class Words(Dataset):
    """Made-up words; an item is a dict of the letters' numbers, from 1, and the label."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw = lambda high: int(torch.randint(high, (), generator=generator))  # noqa: E731
        self.items = []
        for _ in range(count):
            language = draw(2)
            word = "".join(_SYLLABLES["ab"[language]][draw(8)] for _ in range(1 + draw(4)))
            self.items.append({"letters": torch.tensor([ord(c) - 96 for c in word]), "label": language})

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        return self.items[index]


def collate(items):
    """One batch: letters (n, L), 0 where a word has ended, their lengths, and the labels."""
    letters = [item["letters"] for item in items]
    return {
        "letters": pad_sequence(letters, batch_first=True),
        "lengths": torch.tensor([len(word) for word in letters]),
        "labels": torch.tensor([item["label"] for item in items]),
    }


class Reader(nn.Module):
    """A mean of embeddings of neighbouring letters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(27, width, padding_idx=0)
        self.convolution = nn.Conv1d(width, width, 2, padding=1)
        self.head = nn.Linear(width, 2)

    def forward(self, letters: torch.Tensor, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits (n, 2), and what they were made of."""
        features = self.convolution(self.embedding(letters).movedim(1, 2)).relu()
        mean = features.sum(2) / lengths[:, None]
        return {"features": mean, "logits": self.head(mean)}


def network(width: int = 16) -> nn.Module:
    """The network; keyword options come from [model_options] in the TOML."""
    return Reader(width)


def forget_letters(inputs, generator):
    """A transform of a training batch: one letter of twenty is unknown."""
    gone = torch.rand(inputs["letters"].shape, generator=generator) < 0.05
    return {**inputs, "letters": inputs["letters"].masked_fill(gone.to(inputs["letters"].device), 0)}


def data(seed: int, words: int = 600):
    """Three loaders. How many examples a step has is the gene batch_size, and their order is the training's."""
    loaders = [DataLoader(Words(words, 3 * seed + part), collate_fn=collate) for part in range(3)]
    return dict(zip(("train", "validation", "audit"), loaders, strict=True)) | {"transform": forget_letters}
