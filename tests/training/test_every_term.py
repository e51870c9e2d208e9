"""Every term of training: a new one is held against this as soon as it has a row."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from training_problem import net, problem

from evocompress.errors import ModelError
from evocompress.extensions import TERMS
from evocompress.protocols import GeneSpec, Term
from evocompress.training.genes import TrainingGenes, terms_of
from evocompress.training.trainer import train


def switched_on(spec: GeneSpec) -> Any:
    """A value that is not the plain one."""
    if spec.kind == "choice":
        return next(option for option in spec.options if option != spec.plain)
    if isinstance(spec.default, tuple):
        return math.sqrt(spec.default[0] * spec.default[1])
    return 1 if spec.kind == "whole" else 0.1 if spec.high is None else min(0.1, spec.high)


def genes(name: str) -> dict[str, Any]:
    return {spec.name: switched_on(spec) for spec in TERMS[name].genes}


@pytest.mark.parametrize("name", TERMS.builtin)
def test_it_has_what_the_protocol_asks_for(name: str) -> None:
    needed = {key for key in (*vars(Term), *Term.__annotations__) if not key.startswith("_")}
    assert not [key for key in needed if not hasattr(TERMS[name], key)]
    on = terms_of(TrainingGenes(**genes(name)))
    assert any(type(term) is TERMS[name] for term in on)
    assert not TERMS[name].genes or not any(type(term) is TERMS[name] for term in terms_of(TrainingGenes()))


@pytest.mark.parametrize("name", TERMS.builtin)
def test_it_trains_alike_twice_and_leaves_the_network_whole(name: str) -> None:
    states = []
    for _ in range(2):
        model, before = net(), torch.random.get_rng_state()
        try:
            curves = train(
                model, problem(), TrainingGenes(batch_size=30, **genes(name)), epochs=2, seed=3, teacher=net()
            )
        except ModelError as refusal:
            pytest.skip(f"this network has nothing for it: {refusal}")
        assert not curves.diverged and torch.equal(torch.random.get_rng_state(), before)
        states.append(model.state_dict())
    first, second = states
    assert {key: x.shape for key, x in first.items()} == {key: x.shape for key, x in net().state_dict().items()}
    assert all(torch.equal(first[key], second[key]) and bool(first[key].isfinite().all()) for key in first)
