"""Recipes and their rules."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from evocompress import Recipe, Rule
from evocompress.codecs import parse_codec
from evocompress.errors import CodecError


def test_the_first_rule_that_applies_counts() -> None:
    recipe = Recipe(
        1e-3, (Rule("fc.*", ("dct",), dims="matrix"), Rule("fc.*", ("codebook",)), Rule("*.bias", ("wavelet",)))
    )
    assert recipe.rule("fc.weight", 2).codecs == ("dct",)
    assert recipe.rule("fc.bias", 1).codecs == ("codebook",)
    assert recipe.rule("conv.bias", 1).codecs == ("wavelet",)


def test_default_rules_take_what_is_left() -> None:
    matrix, vector = Recipe().rule("w", 4), Recipe().rule("b", 1)
    assert "deadzone" in matrix.codecs and matrix.rate_factor == 1.0
    assert vector.rate_factor < 0.1 and Recipe().rule("scalar", 0) == vector


@pytest.mark.parametrize(
    ("dims", "applies"),
    [("any", [True] * 4), ("vector", [True, True, False, False]), ("matrix", [False, False, True, True])],
)
def test_dims_tells_vectors_from_matrices(dims: Any, applies: list[bool]) -> None:
    rule = Rule("a.*", dims=dims)
    assert [rule.applies("a.b", dimensions) for dimensions in (0, 1, 2, 4)] == applies
    assert not any(rule.applies("A.b", dimensions) for dimensions in (0, 1, 2, 4))


def test_a_single_codec_may_be_written_as_text() -> None:
    assert Rule(codecs="dct").codecs == ("dct",)  # type: ignore[arg-type]
    assert Rule(codecs=["dct", "lowrank"]).candidates == (parse_codec("dct"), parse_codec("lowrank"))  # type: ignore[arg-type]


def test_codecs_are_objects_or_text_and_however_they_are_written_the_rule_is_the_same() -> None:
    written_out = "dct(axes=spatial)+threshold(mode=hard)+deadzone"
    rules = [Rule("a*", (codec, "lowrank")) for codec in ("dct", written_out, parse_codec("dct"))]
    assert len(set(rules)) == 1 and rules[0] != Rule("a*", ("lowrank", "dct"))
    assert [rule.candidates for rule in rules] == [(parse_codec("dct"), parse_codec("lowrank"))] * 3
    for rule in rules:
        assert Rule(**json.loads(json.dumps(rule.to_json()))) == rule
        assert all(isinstance(spec, str) and parse_codec(spec) for spec in rule.codecs)
    assert pickle.loads(pickle.dumps(rules[2])) == rules[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codecs": ()}, "has no codecs"),
        ({"codecs": ("dcT",)}, "Did you mean 'dct'"),
        ({"codecs": ("lossless", "dct")}, "stand alone"),
        ({"rate_factor": 0.0}, "must be positive"),
        ({"rate_factor": float("nan")}, "must be positive"),
        ({"dims": "tensor"}, "must be one of any, vector, matrix"),
        ({"codecs": ("nope",)}, r"no codec or stage 'nope'.*wavelet\.$"),
        ({"codecs": 3}, "A codec is 3"),
        ({"match": 3}, "match is 3"),
        ({"rate_factor": "x"}, "rate_factor is 'x'"),
    ],
)
def test_a_wrong_rule_says_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        Rule(**arguments)


def test_rules_may_be_one_and_must_be_rules() -> None:
    rule: Any = Rule("a*")
    assert Recipe(rules=rule).rules == (rule,)
    for given in ("conv*", ("conv*",)):
        wrong: Any = given
        with pytest.raises(CodecError, match=r"rules holds 'conv\*'"):
            Recipe(rules=wrong)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), "x", None])
def test_the_rate_weight_must_be_positive(weight: Any) -> None:
    with pytest.raises(CodecError, match="rate_weight"):
        Recipe(weight)


def test_json_and_back() -> None:
    recipe = Recipe(3e-4, (Rule("a*", ("dct", "wavelet"), 0.5, "matrix"), Rule("b", ("lossless",))))
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert hash(recipe) == hash(Recipe.from_json(recipe.to_json()))


def test_check_names_all_idle_patterns() -> None:
    recipe = Recipe(rules=(Rule("a"), Rule("b"), Rule("w", dims="vector")))
    with pytest.raises(CodecError, match="'b', 'w'; tensors are a, w"):
        recipe.check([("a", 2), ("w", 2)])
    recipe.check([("a", 2), ("b", 0), ("w", 1)])
