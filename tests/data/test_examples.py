"""Examples that are no images: tokens, sequences with a label for each place, inputs without labels."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evocompress.data import Examples, Splits
from evocompress.data.examples import IGNORED
from evocompress.data.user import as_splits
from evocompress.errors import DataError, ModelError
from evocompress.support.modules import first_tensor
from evocompress.tasks.classification import calibration_examples, check_fit, evaluate

TOKENS = torch.tensor([[0, 1, 2], [2, 1, 0], [3, 3, 3], [1, 2, 3]], dtype=torch.int32)


class Language(nn.Module):
    """Says that the next token is the same, and its certainty of it."""

    def forward(self, tokens: Tensor) -> Any:
        assert tokens.dtype == torch.int64
        return SimpleNamespace(loss=None, logits=4.0 * nn.functional.one_hot(tokens, 5).float())


def test_tokens_go_to_the_network_as_they_are() -> None:
    data = Examples.unlabelled(TOKENS)
    inputs, labels = data.batch(torch.tensor([2, 0]))
    assert inputs.dtype == torch.int64 and inputs.tolist() == [[3, 3, 3], [0, 1, 2]]
    assert data.is_discrete and labels.tolist() == [-100, -100]
    assert data.take(torch.tensor([1])).to("cpu").batch(slice(None))[0].tolist() == [[2, 1, 0]]


def test_each_place_of_a_sequence_counts() -> None:
    labels = TOKENS.long().clone()
    labels[0, 0], labels[1] = 4, IGNORED
    result = evaluate(Language(), Examples(TOKENS, labels), batch_size=3)
    assert (result.correct, result.total) == (8, 9)
    right = -math.log(math.exp(4) / (math.exp(4) + 4))
    assert result.loss == pytest.approx((9 * right + 4) / 9)
    check_fit(Language(), Examples(TOKENS, labels), classes=5)
    with pytest.raises(ModelError, match="gives 5 logits; the data set has 6"):
        check_fit(Language(), Examples(TOKENS, labels), classes=6)


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"shape \(2, 3, 5\) for 2 examples of labels \(2,\); it must return logits \(2, classes\)"
    ):
        check_fit(Language(), Examples(TOKENS, torch.zeros(4).long()), classes=1)
    with pytest.raises(ModelError, match=r"fails on inputs of shape \(2, 3\), torch.int64: "):
        check_fit(nn.Linear(3, 2), Examples.unlabelled(TOKENS), classes=1)
    with pytest.raises(ModelError, match=r"it must return logits \(4, 3, classes\)"):
        evaluate(nn.Flatten(), Examples(TOKENS, TOKENS.long()))


@pytest.mark.parametrize(
    ("images", "labels", "options", "match"),
    [
        (TOKENS.short(), [0] * 4, {}, "torch.int16 .*uint8 or float32 .*or int32 or int64"),
        (TOKENS, [0] * 3, {}, r"int64 \(3,\): must be int64 \(4,\), one for each image, or \(4, 3\), for each place"),
        (TOKENS, [[0] * 2] * 4, {}, r"int64 \(4, 2\): must be"),
        (TOKENS, [0] * 4, {"mean": (0.5,)}, "passed on as they are"),
        (torch.zeros(4, 1, 2, 2), [[0]] * 4, {}, r"must be int64 \(4,\), one for each image; or float32 \(4, …\), num"),
        (torch.zeros(4, 1, 2, 2), [[0.0]] * 3, {}, r"float32 \(3, 1\): must be"),
        (torch.zeros(2, 1, 2, 2), [0.0, math.nan], {}, "labels hold NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused(images: Tensor, labels: Any, options: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        Examples(images, torch.tensor(labels), **options)


def test_labels_may_be_numbers() -> None:
    numbers = torch.tensor([[0.5, -100.0], [-2.0, 1.0], [0.0, 3.0]])
    part = Examples(torch.ones(3, 1, 2, 2), numbers)
    assert part.has_numbers and part.is_labelled and not part.without_labels().is_labelled
    assert torch.equal(part.batch(torch.tensor([2, 0]))[1], numbers[[2, 0]])
    splits = as_splits("m:f", {"train": part, "validation": part, "audit": part})
    assert splits.classes == 2 and splits.sha256 != as_splits("m:f", [part.take(torch.tensor([2, 1, 0]))] * 3).sha256
    with pytest.raises(DataError, match="labels are torch.int64 in audit, torch.float32 in train; must be of one kind"):
        Splits("own", 2, part, part, part.without_labels())
    assert as_splits("m:f", [(part.inputs, numbers)] * 3).train.has_numbers
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"labels are numbers, \(2, 2\); classification needs classes"):
        check_fit(network, part, classes=2)
    assert not calibration_examples(network, part, classes=2).is_labelled  # packing needs no labels


def test_splits_of_sequences() -> None:
    labels = TOKENS.long().clone()
    labels[0] = IGNORED
    part = Examples(TOKENS, labels)
    assert len(Splits("own", 4, part, part, part).sha256) == 64
    with pytest.raises(DataError, match=r"labels of train are 0..3; must be 0..2"):
        Splits("own", 3, part, part, part)
    splits = as_splits("m:f", [(TOKENS.numpy().astype(np.int64), np.zeros(4, np.int64))] * 3)
    assert splits.train.is_discrete and splits.classes == 1


def test_what_counts_of_a_result_is_found() -> None:
    one, two = torch.zeros(1), torch.ones(2)
    assert first_tensor({"hidden": one, "logits": two}) is two
    assert first_tensor(SimpleNamespace(last_hidden_state=one, pooler_output=two)) is one
    assert first_tensor([None, (one, two)]) is one
    assert first_tensor({"a": None, "b": two}) is two
    with pytest.raises(ModelError, match="a dict without a tensor"):
        first_tensor({"a": None})
