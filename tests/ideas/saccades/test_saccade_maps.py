"""Maps of where gates look: what they learn, whether they are faithful, figures."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from saccade_gates import decided
from torch import Tensor, nn

from evocompress.data import Examples
from evocompress.errors import ModelError
from evocompress.ideas.saccades.cost import multiply_adds, saccade_cost
from evocompress.ideas.saccades.figure import saccade_figure
from evocompress.ideas.saccades.maps import deletion_test, saccade_maps
from evocompress.ideas.saccades.saccade import SaccadeConv2d
from evocompress.ideas.saccades.sequence import SaccadeSequence
from evocompress.tasks.classification import evaluate

SIDE, BLOCK = 16, 4
pytestmark = pytest.mark.usefixtures("seeded")


def find_the_mark(count: int) -> Examples:
    """A cross or a ring of 4×4 pixels in one of 16 blocks, in faint noise; the class is which of the two."""
    marks = torch.tensor(
        [
            [[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]],
            [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]],
        ]
    )
    labels = torch.randint(2, (count,))
    images = 0.1 * torch.randn(count, 1, SIDE, SIDE)
    rows, columns = torch.randint(SIDE // BLOCK, (2, count))
    for image, label, row, column in zip(images, labels, rows, columns, strict=True):
        image[0, BLOCK * row : BLOCK * (row + 1), BLOCK * column : BLOCK * (column + 1)] += 2.0 * marks[label]
    return Examples(images, labels)


class Marks(nn.Module):
    """One saccade layer, and the largest response of each filter."""

    def __init__(self) -> None:
        super().__init__()
        self.look = SaccadeConv2d(1, 8, block=BLOCK, temperature=1.0)
        self.linear = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.look(images).relu().amax(dim=(2, 3)))
        return logits


def fitted(model: nn.Module, examples: Examples, *, steps: int, cost: float) -> nn.Module:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        images, labels = examples.batch(torch.randint(len(examples), (64,)))
        weight = cost * min(2 * step / steps, 1)
        loss = nn.functional.cross_entropy(model(images), labels) + weight * saccade_cost(model)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


@functools.cache
def trained_marks() -> nn.Module:
    torch.manual_seed(0)
    return fitted(Marks(), find_the_mark(1000), steps=250, cost=0.1)


def test_a_gate_learns_to_look_where_something_is_and_its_map_is_faithful() -> None:
    model, unseen = trained_marks(), find_the_mark(500)
    assert evaluate(model, unseen).accuracy > 0.95
    (reading,) = saccade_maps(model, unseen.inputs).values()
    marked = nn.functional.avg_pool2d(unseen.inputs, BLOCK)[:, 0] > 0.5
    assert (reading.choices[marked] > 0).float().mean() > 0.95
    assert (reading.choices[~marked] > 0).float().mean() < 0.2
    found = deletion_test(model, unseen, 0)
    assert found.chosen < 0.7 and found.others > 0.9
    assert deletion_test(model, unseen, 0) == found
    assert multiply_adds(model, unseen.inputs) < 0.6 * multiply_adds(nn.Conv2d(1, 8, 3, padding=1), unseen.inputs)


def test_a_sequence_learns_to_look_where_something_is() -> None:
    network = fitted(SaccadeSequence(2, BLOCK, classes=2, width=32), find_the_mark(1000), steps=300, cost=0.0)
    unseen = find_the_mark(500)
    assert evaluate(network, unseen).accuracy > 0.9  # two of sixteen blocks by chance: 0.56
    found = deletion_test(network, unseen, 0)
    assert found.chosen < found.others - 0.2


def test_deletion_removes_as_many_chosen_as_others() -> None:
    model, examples = trained_marks(), find_the_mark(40)
    (reading,) = saccade_maps(model, examples.inputs).values()
    seen: list[Tensor] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    deletion_test(model, examples, 1)
    hook.remove()
    _, first, second = seen
    chosen = reading.on_pixels(reading.choices > 0, (SIDE, SIDE))
    gone = [(images != examples.inputs)[:, 0] for images in (first, second)]
    assert not (gone[0] & ~chosen).any() and not (gone[1] & chosen).any()
    counts = [mask.sum(dim=(1, 2)) for mask in gone]
    assert torch.equal(*counts) and counts[0].sum() > 0
    torch.testing.assert_close(first[:, 0][gone[0]], examples.inputs.mean().expand(int(counts[0].sum())))


def test_what_cannot_be_tested_for_faithfulness() -> None:
    examples = find_the_mark(10)
    with pytest.raises(ModelError, match="no saccade layers"):
        deletion_test(nn.Flatten(), examples, 0)
    model = Marks()
    decided(model.look, 1)
    with pytest.raises(ModelError, match="chose all blocks or none"):
        deletion_test(model, examples, 0)
    with pytest.raises(ModelError, match="layer is 'loook'; saccade layers are 'look'"):
        deletion_test(model, examples, 0, layer="loook")


def test_maps_are_spread_over_the_pixels_of_the_image() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), SaccadeConv2d(1, 1, block=4))
    (reading,) = saccade_maps(model, torch.randn(1, 1, 20, 12)).values()
    assert reading.size == (10, 6) and reading.choices.shape == (1, 3, 2)
    pixels = reading.on_pixels(torch.arange(6).view(1, 3, 2), (20, 12))[0]
    assert pixels[0].tolist() == [0] * 8 + [1] * 4 and pixels[:, 0].tolist() == [0] * 8 + [2] * 8 + [4] * 4


def test_a_figure_has_a_panel_for_each_layer_and_a_frame_for_each_chosen_block() -> None:
    model, examples = trained_marks(), find_the_mark(1)
    readings = saccade_maps(model, examples.inputs)
    figure = saccade_figure(examples.inputs[0], readings, "t")
    assert len(figure.axes) == 2
    assert len(figure.axes[1].patches) == int((readings["look"].choices > 0).sum()) > 0
    (thick,) = {patch.get_linewidth() for patch in figure.axes[1].patches}
    model, image = SaccadeConv2d(1, 1, block=4), torch.randn(1, 1, 76, 76)
    small = saccade_figure(image[0], saccade_maps(decided(model, 1), image), "t").axes[1]
    (thin,) = {patch.get_linewidth() for patch in small.patches}
    assert len(small.patches) == 19**2 and thin < thick / 2
    image = torch.randn(1, 1, 96, 96)
    many = saccade_figure(image[0], saccade_maps(model, image), "t").axes[1]
    assert not many.patches  # frames would hide the image; it is tinted blue
    drawn = np.asarray(many.images[0].get_array())
    assert (drawn[..., 2] > drawn[..., 0]).all() and drawn[..., 0].std() > 0.05
    with pytest.raises(ModelError, match="of several images"):
        saccade_figure(examples.inputs[0], saccade_maps(model, find_the_mark(2).inputs), "t")
