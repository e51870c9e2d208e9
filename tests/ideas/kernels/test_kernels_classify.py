"""Classes of kernels that are known by construction, at several sizes, with noise, and of odd ones."""

from __future__ import annotations

import numpy as np
import pytest

from evocompress.errors import EvocompressError
from evocompress.ideas.kernels import Kernel, classify
from evocompress.ideas.kernels.colour import colour_filters
from evocompress.ideas.kernels.evidence import FALSE_ALARMS
from evocompress.ideas.kernels.shapes import Floats

pytestmark = pytest.mark.slow

SIZES = [(3, 3), (5, 5), (7, 7), (11, 11)]
SOBEL = np.outer([1.0, 2, 1], [-1, 0, 1])
PREWITT = np.outer([1.0, 1, 1], [-1, 0, 1])
SCHARR = np.outer([3.0, 10, 3], [-1, 0, 1])
LAPLACE4 = np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
LAPLACE8 = np.array([[1.0, 1, 1], [1, -8, 1], [1, 1, 1]])


def grid(size: tuple[int, int]) -> tuple[Floats, Floats]:
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    return x - (size[1] - 1) / 2, y - (size[0] - 1) / 2


def gauss(size: tuple[int, int], sigma: float) -> Floats:
    x, y = grid(size)
    made = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    total: Floats = made / made.sum()
    return total


def gabor(
    size: tuple[int, int], frequency: float, degrees: float, sigma: float, phase: float, aspect: float = 1.0
) -> Floats:
    x, y = grid(size)
    turn = np.radians(degrees)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    made: Floats = np.exp(-(u**2 + aspect**2 * v**2) / (2 * sigma**2)) * np.cos(2 * np.pi * frequency * u + phase)
    return made


def padded(small: Floats, size: tuple[int, int]) -> Floats:
    made = np.zeros(size)
    top, left = (size[0] - 3) // 2, (size[1] - 3) // 2
    made[top : top + 3, left : left + 3] = small
    return made


def noisy(kernel: Floats, level: float, count: int, seed: int = 0) -> Floats:
    """Copies with white noise of `level` times the kernel's norm, of random signs and scales."""
    generator = np.random.default_rng(seed)
    scale = generator.choice([-1.0, 1.0], size=(count, 1, 1)) * 10 ** generator.uniform(-6, 6, size=(count, 1, 1))
    noise = generator.standard_normal((count, *kernel.shape)) / np.sqrt(kernel.size)
    made: Floats = scale * (kernel + level * np.linalg.norm(kernel) * noise)
    return made


def one(kernel: object) -> Kernel:
    return classify(np.array(kernel, dtype=float)[None])[0]


def share(found: list[Kernel], kernel_class: str, order: int | None = None) -> float:
    return float(np.mean([(kernel.kernel_class, kernel.order) == (kernel_class, order) for kernel in found]))


def turned(found: list[Kernel], degrees: float) -> Floats:
    """Errors of the orientation, degrees in [0, 90]."""
    angles = np.array([k.orientation_degrees for k in found if k.orientation_degrees is not None])
    error: Floats = np.abs((angles - degrees + 90) % 180 - 90)
    return error


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operator", [SOBEL, PREWITT, SCHARR], ids=["Sobel", "Prewitt", "Scharr"])
def test_first_derivatives_at_several_angles(operator: Floats, size: tuple[int, int]) -> None:
    for degrees in (0.0, 30.0, 90.0, 135.0):
        turn = np.radians(degrees)
        kernel = padded(np.cos(turn) * operator + np.sin(turn) * operator.T, size)
        exact = one(kernel)
        assert (exact.kernel_class, exact.order, exact.isotropic) == ("derivative", 1, False)
        assert turned([exact], degrees)[0] < 1 and exact.confidence > 0.6
        found = classify(noisy(kernel, 0.15, 40))
        assert share(found, "derivative", 1) >= 0.8
        assert np.median(turned(found, degrees)) < 5


def test_a_sobel_pair_is_at_0_and_90_degrees() -> None:
    assert one(SOBEL).orientation_degrees == pytest.approx(0, abs=0.01)
    assert one(SOBEL.T).orientation_degrees == pytest.approx(90, abs=0.01)
    assert one(-SOBEL).orientation_degrees == pytest.approx(0, abs=0.01)
    diagonal = [[-2, -1, 0], [-1, 0, 1], [0, 1, 2]]  # grows to the right and downwards
    assert one(diagonal).orientation_degrees == pytest.approx(45, abs=0.01)
    assert one(np.fliplr(diagonal)).orientation_degrees == pytest.approx(135, abs=0.01)


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
@pytest.mark.parametrize(("values", "order"), [((0, -1, 1), 1), ((1, -2, 1), 2)], ids=["difference", "second"])
def test_the_direction_of_three_pixels_in_one_row(values: tuple[int, ...], order: int, size: tuple[int, int]) -> None:
    for eighth in range(8):
        degrees, kernel = 45.0 * eighth, np.zeros((3, 3))
        down, right = round(np.sin(np.radians(degrees))), round(np.cos(np.radians(degrees)))
        for step, value in zip((-1, 0, 1), values, strict=True):
            kernel[1 + step * down, 1 + step * right] = value
        for level, largest in ((0.0, 0.1), (0.02, 2.0), (0.1, 4.0), (0.2, 7.0)):
            found = classify(noisy(padded(kernel, size), level, 20 if level else 1))
            assert share(found, "derivative", order) >= 0.8
            right_ones = [each for each in found if each.order == order]
            assert np.median(turned(right_ones, degrees)) < largest, (degrees, level)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operator", [LAPLACE4, LAPLACE8], ids=["4", "8"])
def test_laplacians_are_second_derivatives_alike_in_all_directions(operator: Floats, size: tuple[int, int]) -> None:
    exact = one(padded(operator, size))
    assert (exact.kernel_class, exact.order, exact.isotropic) == ("derivative", 2, True)
    assert exact.orientation_degrees is None and exact.confidence > 0.8
    assert share(classify(noisy(padded(operator, size), 0.15, 100)), "derivative", 2) >= 0.9


def test_second_derivatives_along_one_direction() -> None:
    line = np.outer([1.0, 1, 1], [1, -2, 1])
    for kernel, degrees in ((line, 0.0), (line.T, 90.0), (np.array([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]]), 135.0)):
        found = one(kernel)
        assert (found.kernel_class, found.order, found.isotropic) == ("derivative", 2, False)
        assert turned([found], degrees)[0] < 1
        assert share(classify(noisy(kernel, 0.15, 100)), "derivative", 2) >= 0.9
    mixed = one([[1, 0, -1], [0, 0, 0], [-1, 0, 1]])
    assert (mixed.kernel_class, mixed.order, mixed.orientation_degrees) == ("derivative", 2, None)


@pytest.mark.parametrize("size", [*SIZES, (4, 4), (3, 5), (9, 9)], ids=str)
def test_low_pass(size: tuple[int, int]) -> None:
    for kernel in (gauss(size, max(size) / 5), gauss(size, max(size) / 4), np.ones(size)):
        exact = one(kernel)
        assert (exact.kernel_class, exact.isotropic) == ("low-pass", True) and exact.confidence > 0.9
        assert share(classify(noisy(kernel, 0.15, 60)), "low-pass") >= 0.95


def test_an_elongated_low_pass_has_the_direction_in_which_it_varies() -> None:
    x, y = grid((9, 9))
    for degrees in (0.0, 30.0, 120.0):
        turn = np.radians(degrees)
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        found = classify(noisy(np.exp(-(u**2) / 2 - v**2 / 18), 0.2, 30))
        assert share(found, "low-pass") >= 0.95 and not any(kernel.isotropic for kernel in found)
        assert np.median(turned(found, degrees)) < 3


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_differences_of_gaussians_are_band_pass(size: tuple[int, int]) -> None:
    for inner in (0.8, 1.0):
        kernel = gauss(size, inner) - gauss(size, 1.6 * inner)
        exact = one(kernel)
        assert (exact.kernel_class, exact.isotropic, exact.order) == ("band-pass", True, None)
        assert share(classify(noisy(kernel, 0.1, 60)), "band-pass") >= 0.9


@pytest.mark.parametrize("size", [*SIZES, (5, 3)], ids=str)
def test_identity_and_what_is_left_by_a_blur(size: tuple[int, int]) -> None:
    point = np.zeros(size)
    point[size[0] // 2, size[1] // 2] = 1.0
    assert one(point).kernel_class == "identity" and one(point).confidence > 0.95
    assert share(classify(noisy(point, 0.15, 60)), "identity") >= 0.9
    if size[0] >= 7:
        assert one(point - gauss(size, size[0] / 4)).kernel_class == "high-pass"
    assert one(padded(3 * LAPLACE4 * -1 / 3, size) + point).kernel_class == "high-pass"  # sharpens
    assert one((-1.0) ** np.add(*np.indices(size))).kernel_class == "high-pass"


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_gabor_functions_and_their_parameters(size: tuple[int, int]) -> None:
    frequency = 1.4 / size[0]
    for degrees, phase in ((0.0, 0.0), (25.0, 1.0), (90.0, np.pi / 2), (140.0, -2.0)):
        kernel = gabor(size, frequency, degrees, 0.5 / frequency, phase, 0.8)
        exact = one(kernel)
        assert (exact.kernel_class, exact.order) == ("gabor", None) and exact.confidence > 0.6
        assert exact.r2 is not None and exact.r2 > 0.9999 and exact.bandwidth is not None
        if size[0] == 5 and phase == np.pi / 2:
            continue  # two numbers along u, which many frequencies and widths make alike
        assert exact.frequency == pytest.approx(frequency, rel=0.01)
        assert exact.bandwidth == pytest.approx(np.log2((0.5 + 0.1874) / (0.5 - 0.1874)), rel=0.02)
        assert turned([exact], degrees)[0] < 0.5
        assert exact.phase is not None and abs(np.exp(1j * exact.phase) - np.exp(1j * phase)) < 0.05
        found = classify(noisy(kernel, 0.2, 30))
        assert share(found, "gabor") >= 0.85 and np.median(turned(found, degrees)) < 3
        assert np.median([kernel.frequency or 0 for kernel in found]) == pytest.approx(frequency, rel=0.1)


def test_a_sign_flip_turns_the_phase_half_way_round() -> None:
    kernel = gabor((9, 9), 0.2, 40, 2.2, 0.5)
    plus, minus = classify(np.stack([kernel, -1e-200 * kernel]))
    assert plus.kernel_class == minus.kernel_class == "gabor" and plus.frequency == pytest.approx(minus.frequency)
    assert plus.phase is not None and minus.phase is not None
    assert np.exp(1j * plus.phase) == pytest.approx(-np.exp(1j * minus.phase), abs=1e-6)


@pytest.mark.parametrize("size", [*SIZES, (4, 4), (1, 7), (2, 2)], ids=str)
def test_white_noise_is_none_of_these(size: tuple[int, int]) -> None:
    count = 300 if size[0] > 7 else 1000
    found = classify(np.random.default_rng(11).standard_normal((count, *size)))
    alarms = 1 - share(found, "none")
    assert alarms <= FALSE_ALARMS + 3.3 * np.sqrt(FALSE_ALARMS * (1 - FALSE_ALARMS) * (1 / count + 1 / 1000))
    assert alarms > 0.005


def test_confidence_is_about_how_often_a_class_is_right() -> None:
    right, sure = [], []
    for number, (kernel, name) in enumerate(
        [
            (SOBEL, "derivative"),
            (gauss((3, 3), 0.8), "low-pass"),
            (padded(np.eye(3)[1:2].T @ np.eye(3)[1:2], (3, 3)), "identity"),
        ]
    ):
        for level in (0.2, 0.5, 0.8):
            for found in classify(noisy(kernel, level, 150, seed=number)):
                if found.kernel_class != "none":
                    right.append(found.kernel_class == name)
                    sure.append(found.confidence)
    high = np.array(sure) > 0.9
    assert np.mean(np.array(right)[high]) > 0.93
    assert np.mean(np.array(right)[~high]) < np.mean(np.array(right)[high]) - 0.05


def test_scale_and_sign_change_nothing_else() -> None:
    kernels = np.random.default_rng(3).standard_normal((50, 5, 5)).cumsum(axis=2)
    plain, scaled = classify(kernels), classify(-3e-170 * kernels)
    assert [(k.kernel_class, k.order) for k in plain] == [(k.kernel_class, k.order) for k in scaled]
    assert [k.confidence for k in plain] == pytest.approx([k.confidence for k in scaled], abs=1e-3)
    assert len({k.kernel_class for k in plain}) > 1


def test_odd_kernels_have_a_class_too() -> None:
    nothing = one(np.zeros((3, 3)))
    assert nothing == Kernel("none", 1.0) and nothing.norm == 0
    assert one(np.full((5, 5), -7.0)).kernel_class == "low-pass"
    assert one([[2.0]]).kernel_class == "identity" and one([[0.0]]).kernel_class == "none"
    corner = one([[0, 0, 5], [0, 0, 0], [0, 0, 0]])
    assert corner.kernel_class == "identity"
    assert one(np.full((3, 3), 5e-324)).kernel_class == "low-pass"
    assert one(np.full((3, 3), 1e308)).kernel_class == "low-pass"
    assert classify(np.zeros((0, 3, 3))) == []
    for kernel, name, order in (
        ([[1, 2, 1]], "low-pass", None),
        ([[-1, 0, 1]], "derivative", 1),
        ([[-1, 1]], "derivative", 1),
        ([[1, -2, 1]], "derivative", 2),
        ([[1], [1]], "low-pass", None),
        ([[1, 1], [-1, -1]], "derivative", 1),
        ([[1, 0], [0, -1]], "derivative", 1),
    ):
        assert (one(kernel).kernel_class, one(kernel).order) == (name, order), kernel
    assert one([[-1], [0], [1]]).orientation_degrees == 90 and one([[-1, 0, 1]]).orientation_degrees == 0


def test_mistakes() -> None:
    with pytest.raises(EvocompressError, match="34×34; those of at most 1089"):
        classify(np.ones((1, 34, 34)))
    with pytest.raises(EvocompressError, match=r"shape \(3, 3\)"):
        classify(np.ones((3, 3)))
    with pytest.raises(EvocompressError, match="NaN"):
        classify(np.full((1, 3, 3), np.nan))


@pytest.mark.parametrize("size", [(5, 5), (11, 11)], ids=str)
def test_colours(size: tuple[int, int]) -> None:
    spot, edge = gauss(size, size[0] / 5), padded(SOBEL, size)
    weights = {"grey": [1, 1, 1], "red-green": [1, -1, 0], "blue-yellow": [-0.5, -0.5, 1], "red": [1, 0, 0]}
    for name, colour in weights.items():
        for level in (0.0, 0.1):
            noise = np.random.default_rng(1).standard_normal((3, *size)) / np.sqrt(3 * spot.size)
            made = [np.multiply.outer(np.array(colour, float), picture) for picture in (spot, edge)]
            filters = np.stack([each + level * np.linalg.norm(each) * noise for each in made])
            blob, border = colour_filters(filters)
            assert blob is not None and border is not None
            expected = {"grey": "luminance", "red": "colour"}.get(name, "opponent")
            assert (blob.colour, border.colour) == (expected, expected)
            assert blob.is_blob == (name != "grey") and not border.is_blob
            assert (border.picture.kernel_class, border.picture.order) == ("derivative", 1)
    noise = np.random.default_rng(2).standard_normal((100, 3, *size))
    assert sum(found is not None for found in colour_filters(noise)) < 10
    assert colour_filters(np.zeros((1, 3, *size))) == [None]
