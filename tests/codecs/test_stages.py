"""Stages, what each does that the others do not; the registry, and the choice."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import pywt
import scipy.fft
from laplace_weights import laplace

from evocompress.codecs import CODECS, STAGES, Cost, best, codec_spec, parse_codec, try_codec
from evocompress.codecs.codebook import Codebook
from evocompress.codecs.codec import Codec
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.entropy import BitCounter, State
from evocompress.codecs.linearconv import LinearConv
from evocompress.codecs.registry import stage_by_number
from evocompress.codecs.threshold import Threshold
from evocompress.codecs.wavelet import WAVELETS, Wavelet, _backward, _forward
from evocompress.errors import CodecError


@pytest.mark.parametrize("name", sorted(CODECS))
def test_a_spec_parses_to_the_codec_that_it_came_from(name: str) -> None:
    codec = parse_codec(name)
    assert parse_codec(codec_spec(codec)) == codec
    assert codec == parse_codec(CODECS[name].replace("+", " + "))
    assert isinstance(hash(codec), int) and "stages" in repr(codec)


def test_stage_numbers_are_unique_and_known() -> None:
    numbers = [stage.number for stage in STAGES.values()]
    assert len(set(numbers)) == len(numbers)
    assert all(stage_by_number(stage.number) == stage() for stage in STAGES.values())
    assert stage_by_number(999) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deadzon", "Did you mean 'deadzone'"),
        ("deadzone(pass=2)", "Did you mean 'passes'"),
        ("deadzone(passes)", "has no parameter"),
        ("deadzone(passes=two)", "must be of type int"),
        ("deadzone(passes=1.5)", "must be of type int"),
        ("deadzone(passes=11)", r"must lie in \[0, 10\]"),
        ("deadzone(step_scale=0)", "must lie in"),
        ("deadzone(step_scale=100.5)", r"must lie in \[0.01, 100\]"),
        ("trellis(step_scale=100.5)", r"must lie in \[0.01, 100\]"),
        ("dct(axes=rows)+deadzone", "must be one of spatial, matrix"),
        ("dct(axes=2)+deadzone", "must be of type"),
        ("threshold(mode=firm)+deadzone", "must be one of hard, soft"),
        ("threshold(bits=-1)+deadzone", "must lie in"),
        ("wavelet(name=db9)+deadzone", "must be one of haar"),
        ("wavelet(level=9)+deadzone", "must lie in"),
        ("codebook(values=257)", "must lie in"),
        ("codebook(passes=-1)", "must lie in"),
        ("lowrank(rank=0)+deadzone", "must lie in"),
        ("linearconv(alpha=1.5)+deadzone", "must lie in"),
        ("linearconv(rank=0)+deadzone", "must lie in"),
        ("dct(axes=spatial)", "one quantiser at its end"),
        ("deadzone+dct", "one quantiser at its end"),
        ("", "is not a stage"),
        ("dct((+deadzone", "is not a stage"),
        ("dct + + deadzone", "is not a stage"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        parse_codec(text)


def test_nothing_but_zeros_has_a_step_of_one_byte() -> None:
    for array in (np.zeros((3, 4)), np.full((3, 4), 1e-9)):
        coded = parse_codec("deadzone").encode(array, Cost(1e-4))
        assert coded.side == b"\0" and not coded.planes[0].symbols.any()


def test_best_picks_the_least_score() -> None:
    x, cost = laplace(20, 10, 3, 3), Cost(1e-4)
    candidates = [parse_codec(name) for name in CODECS if name != "lossless"]
    scores = [try_codec(codec, x, cost, State()).score for codec in candidates]
    chosen = best(candidates, x, cost, State())
    assert chosen.score == min(scores) and chosen.codec == candidates[int(np.argmin(scores))]
    again = best([candidates[0], Codec(candidates[0].stages)], x, cost, State())
    assert again.codec is candidates[0]
    with pytest.raises(CodecError, match="no candidate"):
        best([], x, cost, State())


def test_a_trial_reports_the_distortion_that_it_has() -> None:
    x, cost = laplace(9, 9), Cost(1e-4, scale=3.0)
    trial = try_codec(parse_codec("dct-matrix"), x, cost, State())
    error = float(((trial.codec.decode(trial.coded, x.shape) - x) ** 2).sum())
    assert trial.distortion == pytest.approx(3 * error)
    assert trial.score == pytest.approx(3 * error + 1e-4 * trial.bits)


def test_a_trial_leaves_the_statistics_alone() -> None:
    state = State()
    before = state.weights.table.copy()
    try_codec(parse_codec("deadzone"), laplace(9, 9), Cost(1e-4), state)
    assert (state.weights.table == before).all()


@pytest.mark.parametrize("weight", [1e-3, 1e-4, 1e-5])
def test_deadzone_scores_better_than_plain_rounding(weight: float) -> None:
    x, cost = laplace(64, 16, 3, 3), Cost(weight)
    assert (
        try_codec(Codec((DeadZone(),)), x, cost, State()).score
        < try_codec(Codec((DeadZone(passes=0),)), x, cost, State()).score
    )


def test_the_step_is_optimal_at_high_rate() -> None:
    x, cost = laplace(128, 128), Cost(1e-7)
    scores = {s: try_codec(Codec((DeadZone(step_scale=s),)), x, cost, State()).score for s in (0.5, 1.0, 2.0)}
    assert min(scores, key=lambda scale: scores[scale]) == 1.0


def smooth(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Kernels that vary slowly over space."""
    coarse = np.random.default_rng(seed).normal(0, 1, (24, 8, 2, 2))
    return np.repeat(np.repeat(coarse, 4, axis=2), 4, axis=3)


def test_dct_wins_on_smooth_kernels() -> None:
    scores = {name: try_codec(parse_codec(name), smooth(), Cost(1e-2), State()).score for name in ("deadzone", "dct")}
    assert scores["dct"] < 0.7 * scores["deadzone"]


def test_dct_codes_the_coefficients_of_scipy() -> None:
    x = laplace(4, 3, 5, 5)
    coded = parse_codec("dct+deadzone").encode(x, Cost(1e-12))
    step = Cost(1e-12).step
    coefficients = scipy.fft.dctn(x, axes=(2, 3), norm="ortho").reshape(4, -1)
    assert np.abs(coded.planes[0].symbols * step - coefficients).max() < 0.05 * np.abs(coefficients).max()


@pytest.mark.parametrize("name", WAVELETS)
def test_wavelet_coefficients_lie_as_pywavelets_has_them(name: str) -> None:
    for shape, level in itertools.product(
        ((5, 7), (1, 9), (1, 1), (2, 2), (16, 9), (33, 100), (1, 1000), (17, 1)), (1, 3, 8)
    ):
        x = laplace(*shape)
        axes = (0, 1) if shape[0] > 1 else (1,)
        depth = min(level, pywt.dwtn_max_level(shape, name, axes))
        bands = pywt.wavedecn(x, name, mode="periodization", level=depth, axes=axes)
        expected = pywt.coeffs_to_array(bands, axes=axes)[0]
        found = _forward(x, name, level)
        assert found.shape == expected.shape and np.allclose(found, expected)
        assert np.allclose(_backward(found, shape, name, level), x)


@pytest.mark.parametrize("name", WAVELETS)
def test_wavelets_keep_squared_errors_on_even_lengths(name: str) -> None:
    x = laplace(64, 64)
    assert (_forward(x, name, 2) ** 2).sum() == pytest.approx((x**2).sum())


def test_wavelets_win_on_steps() -> None:
    x = np.repeat(np.repeat(np.random.default_rng(1).normal(0, 1, (16, 16)), 4, axis=0), 4, axis=1)
    scores = {name: try_codec(parse_codec(name), x, Cost(1e-2), State()).score for name in ("deadzone", "wavelet")}
    assert scores["wavelet"] < 0.6 * scores["deadzone"]


def test_soft_thresholding_shrinks_and_hard_does_not() -> None:
    x, cost = np.array([[3.0, -2.0, 0.5, 0.0]]), Cost(1.0)
    for mode, expected in (("hard", [3.0, -2.0, 0.0, 0.0]), ("soft", [2.0, -1.0, 0.0, 0.0])):
        codec = Codec((Threshold(mode=mode, bits=1.0), DeadZone(step_scale=0.01, passes=0)))  # type: ignore[arg-type]
        assert np.allclose(codec.decode(codec.encode(x, cost), x.shape), expected, atol=0.02)


def test_lowrank_finds_the_rank_and_wins_there() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0, 0.3, (80, 3)) @ rng.normal(0, 0.3, (3, 120))
    coded = parse_codec("lowrank").encode(x, Cost(1e-6))
    assert coded.planes[0].symbols.shape == (1, 3)
    scores = {name: try_codec(parse_codec(name), x, Cost(1e-6), State()).score for name in ("deadzone", "lowrank")}
    assert scores["lowrank"] < 0.2 * scores["deadzone"]


def test_lowrank_of_noise_at_a_high_price_is_nothing() -> None:
    coded = parse_codec("lowrank").encode(laplace(30, 30), Cost(10.0))
    assert coded.planes == ()


def test_linearconv_keeps_the_filters_that_the_others_combine() -> None:
    rng = np.random.default_rng(3)
    primaries = rng.normal(0, 0.3, (5, 72))
    x = np.concatenate([primaries, rng.normal(0, 0.6, (27, 5)) @ primaries])[rng.permutation(32)].reshape(32, 8, 3, 3)
    coded = parse_codec("linearconv").encode(x, Cost(1e-6))
    assert int(coded.planes[0].symbols.sum()) == 5
    scores = {name: try_codec(parse_codec(name), x, Cost(1e-6), State()).score for name in ("deadzone", "linearconv")}
    assert scores["linearconv"] < 0.3 * scores["deadzone"]


def test_linearconv_alpha_bounds_the_primaries() -> None:
    coded = Codec((LinearConv(alpha=0.25), DeadZone())).encode(laplace(32, 20), Cost(1e-8))
    assert int(coded.planes[0].symbols.sum()) == 8


def test_a_codebook_of_few_values_gives_those_values() -> None:
    rng = np.random.default_rng(4)
    x = rng.choice([-0.31, 0.0, 0.11, 0.42], size=(40, 40))
    codec = Codec((Codebook(values=4),))
    coded = codec.encode(x, Cost(1e-7))
    y = codec.decode(coded, x.shape)
    assert len(np.unique(y)) == 4 and np.abs(x - y).max() < 0.42 / 127
    assert coded.planes[0].symbols.shape == (1, 4)


@pytest.mark.parametrize("values", [2, 3, 16])
def test_a_codebook_is_never_larger_than_asked(values: int) -> None:
    codec = Codec((Codebook(values=values),))
    y = codec.decode(codec.encode(laplace(50, 50), Cost(1e-9)), (50, 50))
    assert len(np.unique(y)) <= values


def test_a_codebook_drops_values_that_do_not_pay() -> None:
    codec = Codec((Codebook(values=64),))
    counts = [codec.encode(laplace(50, 50), Cost(weight)).planes[0].symbols.size for weight in (1e-6, 1e-4)]
    assert counts[1] < counts[0] / 2


def test_no_named_codec_is_useless_on_every_kind_of_tensor() -> None:
    """Each lossy preset beats dead-zone quantisation on something."""
    rng = np.random.default_rng(5)
    primaries = rng.normal(0, 0.3, (6, 75))
    combined = (rng.normal(0, 0.5, (40, 6)) @ primaries).reshape(40, 3, 5, 5)
    mirrored = rng.normal(0, 0.2, (24, 8, 5, 5))
    kinds = {
        "smooth": smooth(),
        "levels": rng.choice([-0.3, 0.1, 0.7], size=(40, 40)),
        "steps": np.kron(rng.normal(0, 1, (16, 16)), np.ones((4, 4))),
        "waves": np.sin(np.linspace(0, 9, 64))[:, None] * np.cos(np.linspace(0, 7, 96))[None],
        "combined": combined,
        "mirrored": mirrored + mirrored[..., ::-1],
    }
    for name in set(CODECS) - {"deadzone", "lossless"}:
        gains = []
        for x in kinds.values():
            weight = 1e-4
            plain = try_codec(parse_codec("deadzone"), x, Cost(weight), State()).score
            gains.append(plain - try_codec(parse_codec(name), x, Cost(weight), State()).score)
        assert max(gains) > 0, name


@pytest.mark.parametrize("stage", sorted(name for name, kind in STAGES.items() if not kind.terminal))
def test_no_transform_stands_before_lossless(stage: str) -> None:
    with pytest.raises(CodecError, match=f"{stage} \\+ lossless: lossless keeps a tensor's bytes .* give it alone"):
        parse_codec(f"{stage}+lossless")


def test_stages_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Wavelet().level = 3  # type: ignore[misc]


def test_counting_an_empty_plane_costs_nothing() -> None:
    counter = BitCounter(State())
    counter.plane(np.zeros((0, 5), np.int32), "weights")
    assert counter.bits == 0
