"""Arrays in planes: which planes there are, and where each number lies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.codecs.planes import as_matrix, from_planes, kernel_places, plane_layouts, split, to_planes
from evocompress.codecs.scales import MAX_CODE, MIN_CODE, scale_code, scale_codes, scale_value, scale_values


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), [(1, 1)]),
        ((0,), []),
        ((3, 0), []),
        ((255,), [(1, 255)]),
        ((256,), [(1, 256)]),
        ((257,), [(1, 256), (1, 1)]),
        ((512,), [(2, 256)]),
        ((700,), [(2, 256), (1, 188)]),
        ((1, 300), [(1, 256), (1, 44)]),
        ((2, 300), [(2, 300)]),
        ((1, 5, 7), [(1, 35)]),
        ((20, 3, 5, 5), [(20, 75)]),
    ],
)
def test_planes_of_a_shape(shape: tuple[int, ...], expected: list[tuple[int, int]]) -> None:
    assert [(plane.rows, plane.columns) for plane in plane_layouts(shape)] == expected
    x = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    parts = split(x)
    assert [part.shape for part in parts] == expected
    assert [number for part in parts for number in part.ravel()] == x.ravel().tolist()
    planes = to_planes(x)
    assert all(plane.symbols.dtype == np.int32 for plane in planes)
    back = from_planes((plane.symbols for plane in planes), shape)
    assert back.shape == shape and back.dtype == np.int32 and (back == x).all()


def test_kernels_of_a_convolution() -> None:
    assert [kernel_places(shape) for shape in ((4, 3, 5, 7), (4, 3, 5), (4, 3), (4,))] == [35, 5, 1, 1]
    assert as_matrix(np.zeros((4, 3, 5))).shape == (4, 15) and as_matrix(np.zeros(4)).shape == (1, 4)


@settings(deadline=None)
@given(st.integers(MIN_CODE, MAX_CODE))
def test_a_scale_is_a_power_of_the_eighth_root_of_two(code: int) -> None:
    value = scale_value(code)
    assert math.log2(value) == pytest.approx(code / 8, abs=1e-12 * abs(code) + 1e-14)
    assert scale_code(value) == code == scale_codes(np.array([value]))[0]
    assert scale_values(np.array([code])).tolist() == [value]


def test_scales_go_from_one_end_to_the_other() -> None:
    assert (MIN_CODE, MAX_CODE) == (-8000, 8000)
    values = np.array([0.0, 5e-324, 1.0, 1.7e308])
    assert scale_codes(values).tolist() == [scale_code(value) for value in values] == [-8000, -8000, 0, 8000]
    assert scale_code(-1.0) == -8000
    assert scale_values(np.array([-9000, 9000])).tolist() == [scale_value(-8000), scale_value(8000)]
    nearest = [scale_code(2 ** (share / 8)) for share in (0.49, 0.51, 7.49, -0.49, -0.51)]
    assert nearest == [0, 1, 7, 0, -1] == scale_codes(2 ** (np.array([0.49, 0.51, 7.49, -0.49, -0.51]) / 8)).tolist()
