"""Genes of ideas in a configuration: what is accepted, and what an error says. And genes of several ideas together."""

from __future__ import annotations

from typing import Any

import pytest
from configured_genes import configured_genes

from evocompress.errors import ConfigError, ModelError
from evocompress.evolve.config import parse_config
from evocompress.evolve.genome import GenomeReader
from evocompress.networks import build

LEAST: dict[str, Any] = {"model": "digits_cnn", "data": "digits"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({**LEAST, "genes": {"alpha": 0}}, "genes.alpha"),
        ({**LEAST, "genes": {"alpha": [0.5, 1.5]}}, "genes.alpha"),
        ({**LEAST, "genes": {"alpha": [0.5, 0.5]}}, "the first number must be below the second"),
        ({**LEAST, "genes": {"alpha": "half"}}, "genes.alpha"),
        ({**LEAST, "genes": {"alpha": 0.5, "rank": [0.0, 1.0]}}, "genes.rank"),
        ({**LEAST, "genes": {"near": 1.5}}, "genes.near: must be at most 1 (got 1.5)"),
        (
            {**LEAST, "genes": {"near": [0.5, 0.1]}},
            "genes.near: the first number must be below the second (got [0.5, 0.1])",
        ),
        ({**LEAST, "genes": {"decay": -1}}, "genes.decay"),
        ({**LEAST, "genes": {"far": [0.0, 0.1]}}, "genes.far"),
        ({**LEAST, "genes": {"kernel": 0}}, "genes.kernel"),
        ({**LEAST, "genes": {"period": [1, 2.5]}}, "genes.period"),
        ({**LEAST, "genes": {"thin": 1.0}}, "genes.thin: must be below 1 (got 1.0)"),
        ({**LEAST, "genes": {"thin": [0, 0.5]}}, "genes.thin"),
        ({**LEAST, "genes": {"alpha": True}}, "genes.alpha: is true or false"),
        ({**LEAST, "genes": {"snap": 1.5}}, "genes.snap: must be at most 1 (got 1.5)"),
        ({**LEAST, "genes": {"snap": [0.5, 0.5]}}, "the first number must be below the second"),
    ],
)
def test_a_wrong_configuration_says_what_to_do(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(data, "x.toml")
    assert expected in str(caught.value)


def test_a_plan_may_bring_the_kernels_that_genes_act_on() -> None:
    plain = build("connected_cnn", {"plan": {"kernel": 1}})
    GenomeReader(configured_genes(snap=0.5, kernel=(1, 3)), {}).check(plain)
    with pytest.raises(ModelError, match="genes snap"):
        GenomeReader(configured_genes(snap=0.5), {}).check(plain)
