"""Data as people have them: torch data sets and loaders, batches by name, several inputs, transforms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from evocompress.calibration.fisher import sensitivities
from evocompress.calibration.output_change import OutputChange
from evocompress.calibration.second_order import second_order_sensitivities
from evocompress.data import Examples, Splits
from evocompress.data.torch_datasets import IGNORED, DatasetInputs
from evocompress.data.user import as_splits
from evocompress.errors import DataError, ModelError
from evocompress.tasks import build
from evocompress.tasks.measure import measure
from evocompress.training.dead_parts import cut
from evocompress.training.trainer import TrainingGenes, train


def points(n: int = 90, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > x[:, 1]).long()


class Lengths(Dataset[dict[str, Tensor]]):
    """Sequences of several lengths, by name."""

    def __init__(self, lengths: list[int], name: str = "labels") -> None:
        self.lengths, self.name = lengths, name

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"ids": torch.arange(self.lengths[index]) + index, self.name: torch.tensor(int(self.lengths[index] > 3))}


def padded(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    ids = nn.utils.rnn.pad_sequence([item["ids"] for item in items], batch_first=True)
    (name,) = set(items[0]) - {"ids"}
    return {"ids": ids, "mask": ids > 0, name: torch.stack([item[name] for item in items])}


class Bag(nn.Module):
    """A network by name; it returns several things."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 6), nn.Linear(6, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        mean = (self.embedding(ids) * mask[..., None]).sum(1)
        return {"mean": mean, "logits": self.head(mean)}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        logits: Tensor = self.head((self.first(left) + self.second(right)).relu())
        return logits


def test_a_map_style_data_set_is_what_its_arrays_are() -> None:
    x, y = points()
    lazy, plain = Examples.of_dataset(TensorDataset(x, y)), Examples(x, y)
    assert len(lazy) == 90 and torch.equal(lazy.labels, y) and lazy.counted == 90
    for index in (slice(3, 9), torch.tensor([5, 1, 80])):
        for one, other in zip(lazy.batch(index), plain.batch(index), strict=True):
            assert torch.equal(one, other)
    few = lazy.take(torch.tensor([7, 3])).take(torch.tensor([1]))
    assert torch.equal(few.batch(slice(None))[0], x[3:4]) and few.labels.tolist() == [int(y[3])]
    networks = []
    for examples in (lazy, plain):
        torch.manual_seed(0)
        networks.append(nn.Linear(3, 2))
        train(networks[-1], examples, TrainingGenes(), epochs=2, seed=1)
    assert torch.equal(networks[0].weight, networks[1].weight)


def test_workers_of_a_loader_give_the_same_batches_in_order() -> None:
    x, y = points()
    loader = DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True, num_workers=2)
    examples = Examples.of_dataset(loader)
    assert isinstance(examples.inputs, DatasetInputs) and examples.inputs.workers == 2
    assert torch.equal(examples.labels, y)
    indices = [torch.tensor([4, 2]), torch.tensor([80]), torch.tensor([1, 1, 3])]
    for (inputs, labels), index in zip(examples.batches(indices), indices, strict=True):
        assert torch.equal(inputs, x[index]) and torch.equal(labels, y[index])


@pytest.mark.parametrize("name", ["labels", "label", "targets", "target", "y"])
def test_batches_by_name_of_several_lengths(name: str) -> None:
    loader = DataLoader(Lengths([2, 5, 3, 4] * 10, name), collate_fn=padded)
    examples = Examples.of_dataset(loader)
    inputs, labels = examples.batch(torch.tensor([0, 2]))
    assert set(inputs) == {"ids", "mask"} and inputs["ids"].shape == (2, 3) and labels.tolist() == [0, 0]
    assert inputs["mask"].dtype == torch.bool
    assert examples.labels.tolist() == [0, 1, 0, 1] * 10
    network, task = Bag(), build("classification")
    task.check(network, examples, 2)
    train(network, examples, TrainingGenes(learning_rate=0.05, batch_size=8), epochs=30, seed=0)
    assert measure(task, network, examples).value > 0.9
    assert set(sensitivities(network, examples, samples=20, seed=0)) == set(network.state_dict())
    assert set(second_order_sensitivities(network, examples, samples=20, seed=0)) == set(network.state_dict())
    assert OutputChange(network, examples)(network) == 0


def test_labels_of_places_are_filled_up() -> None:
    items = [{"ids": torch.arange(n), "labels": torch.arange(n)} for n in (2, 4, 3)]
    lists: Any = items
    loader = DataLoader(
        lists,
        collate_fn=lambda batch: {
            k: nn.utils.rnn.pad_sequence(
                [item[k] for item in batch], batch_first=True, padding_value=IGNORED if k == "labels" else 0
            )
            for k in batch[0]
        },
    )
    examples = Examples.of_dataset(loader)
    assert examples.labels.tolist() == [[0, 1, IGNORED, IGNORED], [0, 1, 2, 3], [0, 1, 2, IGNORED]]
    assert examples.counted == 9
    assert examples.batch(slice(0, 1))[1].tolist() == [[0, 1]]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(*points(9), strict=True)


@pytest.mark.parametrize(
    "source",
    [
        Stream(),
        DataLoader(Stream(), batch_size=4),
        DataLoader(TensorDataset(*points(9)), batch_size=2),
        DataLoader([tuple(part[i : i + 3] for part in points(9)) for i in (0, 3, 6)], batch_size=None),  # type: ignore[arg-type]
        Subset(TensorDataset(*(torch.cat([part.flip(0), part]) for part in points(9))), range(9, 18)),
    ],
    ids=["iterable", "loader of an iterable", "loader", "loader of batches", "subset"],
)
def test_every_kind_of_source(source: Any) -> None:
    x, y = points(9)
    splits = as_splits("m:f", [source] * 3)
    assert splits.classes == 2 and torch.equal(splits.audit.labels, y)
    assert torch.equal(splits.train.batch(slice(None))[0], x)
    assert splits.sha256 == as_splits("m:f", {"train": source, "validation": source, "audit": source}).sha256


def test_the_labels_that_a_data_set_says_are_taken_if_its_items_agree() -> None:
    class Said(Dataset[tuple[Tensor, int]]):
        def __init__(self, targets: list[int]) -> None:
            self.targets, self.read = targets, 0

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            self.read += 1
            return torch.ones(2), index % 3

    honest, other = Said([i % 3 for i in range(1000)]), Said([0] * 1000)
    assert Examples.of_dataset(honest).labels.tolist() == honest.targets and honest.read == 8
    assert Examples.of_dataset(other).labels.tolist() == honest.targets
    assert Examples.of_dataset(Subset(honest, [5, 4])).labels.tolist() == [2, 1]


def test_inputs_without_labels() -> None:
    examples = Examples.of_dataset(TensorDataset(torch.ones(5, 2)))
    assert not examples.is_labelled and examples.batch(slice(2))[1].tolist() == [IGNORED] * 2
    labelled = Examples.of_dataset(TensorDataset(*points(9))).without_labels()
    assert labelled.batch(slice(2))[1].tolist() == [IGNORED] * 2


@pytest.mark.parametrize("kind", [dict, tuple])
def test_several_inputs_in_memory(kind: type) -> None:
    x, y = points(200)
    arrays = {"left": x.numpy(), "right": np.ones((200, 2), np.float32)}
    inputs = arrays if kind is dict else tuple(arrays.values())
    splits = as_splits("m:f", [(inputs, y.numpy())] * 3)
    network, task = Two(), build("classification")
    task.check(network, splits.train, splits.classes)
    curves = train(
        network, splits.train, TrainingGenes(learning_rate=0.02, rate_term="on"), epochs=30, seed=0, rate_weight=0.05
    )
    assert measure(task, network, splits.validation).value > 0.9 and curves.grid
    with torch.no_grad():
        network.head.weight[:, 2:] = 0
    live = cut(network, splits.train.batch(slice(0, 2))[0])
    assert live.parameters_after < live.parameters_before
    assert splits.sha256 != as_splits("m:f", [({**arrays, "right": arrays["left"][:, :2]}, y.numpy())] * 3).sha256


def test_a_transform_is_for_training_batches_alone() -> None:
    x, y = points(64)
    seen = []

    def transform(inputs: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(len(inputs))
        return inputs + torch.randn(inputs.shape, generator=generator)

    parts = {"train": (x, y), "validation": (x, y), "audit": (x, y), "transform": transform}
    splits = as_splits("m:f", parts)
    assert torch.equal(splits.train.batch(slice(None))[0], x)
    networks = [nn.Linear(3, 2) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    for network in networks:
        train(network, splits.train, TrainingGenes(batch_size=32), epochs=1, seed=3)
    assert seen == [32, 32] * 2 and torch.equal(networks[0].weight, networks[1].weight)
    with pytest.raises(DataError, match="transform 5 must be a function"):
        as_splits("m:f", parts | {"transform": 5})


class Broken(Dataset[int]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        raise OSError("picture 7 is damaged")


class Endless(Dataset[Tensor]):
    def __getitem__(self, index: int) -> Tensor:
        return torch.ones(2)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Broken(), "m:f, train: an example fails: OSError: picture 7 is damaged"),
        (Endless(), "m:f, train: .* has no length; give one that has, or an IterableDataset"),
        (TensorDataset(torch.ones(0, 2), torch.ones(0)), "m:f, train: the data set has no examples"),
        (DataLoader(TensorDataset(*points(9)), collate_fn=lambda items: items[0]), "of 9 examples .* a batch of"),
        ({"left": np.ones((5, 2))}, r"m:f, train: is a dict of left; give a pair \(dict of inputs, labels\)"),
        (({"left": np.ones((5, 2)), "right": np.ones((4, 2))}, np.ones(5, int)), "tensors .* of one n"),
        (({"left": np.full((5, 2), np.nan)}, np.ones(5, int)), "NaN or infinity"),
        (({"left": np.ones((5, 2))}, np.ones(4, int)), r"labels torch.int64 \(4,\): must be int64 \(5,\)"),
    ],
)
def test_what_is_wrong_is_said(part: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_splits("m:f", [part] * 3)


def test_a_network_that_does_not_take_the_names_is_told_them() -> None:
    examples = Examples.of_dataset(DataLoader(Lengths([2, 5, 3]), collate_fn=padded))
    with pytest.raises(ModelError, match=r"fails on inputs of ids of shape \(2, 5\), torch.int64; mask of shape"):
        build("classification").check(nn.Linear(3, 2), examples, 2)


def test_splits_of_data_sets_are_described() -> None:
    splits = Splits("m", 2, *[Examples.of_dataset(TensorDataset(*points(30, seed))) for seed in range(3)])
    assert splits.describe()["train"] == 30 and len(splits.sha256) == 64
