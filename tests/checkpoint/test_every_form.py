"""Conformance of every form of a network: a new one is held against this as soon as it has a row."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training_problem import net, problem

from evocompress.checkpoint.forms import changed, formed, gathered, loaded
from evocompress.errors import ModelError
from evocompress.extensions import FORMS
from evocompress.networks import build
from evocompress.protocols import Form, Genes

#: A network that a form has something for; that of `training_problem.net` where none is named.
NETWORKS: dict[str, tuple[str, dict[str, object]]] = {"plan": ("connected_cnn", {"image_size": 8, "width": 4})}


def network(name: str) -> nn.Module:
    return build(*NETWORKS[name]) if name in NETWORKS else net()


def genes(name: str) -> Genes:
    """Half of the way between a gene's least value and the largest, or 0.5."""
    return {spec.name: 1 if spec.kind == "whole" else 0.5 for spec in FORMS[name]().genes}


@pytest.mark.parametrize("name", FORMS.builtin)
def test_it_has_what_the_protocol_asks_for(name: str) -> None:
    form = FORMS[name]()
    needed = {key for key in (*vars(Form), *Form.__annotations__) if not key.startswith("_")}
    assert not [key for key in needed if not hasattr(form, key)]
    assert all(spec.role == "architecture" for spec in form.genes)
    coarse = form.coarse(genes(name))
    assert form.coarse(coarse) == coarse and form.coarse({}) == {}


@pytest.mark.parametrize("name", FORMS.builtin)
def test_a_file_says_its_form_and_a_form_that_is_there_keeps_its_values(name: str) -> None:
    plain = network(name)
    form, asked = FORMS[name](), FORMS[name]().coarse(genes(name))
    try:
        form.check(plain, asked, asked)
    except ModelError as refusal:
        pytest.skip(f"this network has nothing for it: {refusal}")
    other = changed(plain, plain, asked)
    state = other.state_dict()
    shapes = {key: x.shape for key, x in formed(plain, state).state_dict().items()}
    assert shapes == {key: x.shape for key, x in state.items()}
    again = loaded(plain, state, "the file").state_dict()
    kept = changed(other, plain, asked).state_dict()
    assert all(torch.equal(again[key], x) and torch.equal(kept[key], x) for key, x in state.items())
    assert {key: x.shape for key, x in plain.state_dict().items()} == {
        key: x.shape for key, x in changed(other, plain, {}).state_dict().items()
    } or not form.gathers_exactly
    if form.gathers_exactly and name not in NETWORKS:
        images = problem().batch(slice(0, 9))[0]
        with torch.no_grad():
            assert torch.allclose(gathered(other, plain).eval()(images), other.eval()(images), atol=1e-4)
