"""Sizes and shares as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evocompress.errors import ConfigError
from evocompress.support.quantities import format_bytes, parse_bytes, parse_fraction


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("900", 900), ("16kB", 16000), ("16 KB", 16000), ("16k", 16000), ("64KiB", 65536), ("1.5MB", 1500000),
     ("2MiB", 2097152), (".5kB", 500), ("1GB", 10**9), (512, 512), (" 7 B ", 7)],
)  # fmt: skip
def test_parse_bytes(text: str | int, nbytes: int) -> None:
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "kB", "-5kB", "12 kilos", "1e3", "0", "1.2.3kB", "nan", "5 k B"])
def test_parse_bytes_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="size=.*write for example 16kB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "1.01", "101%", "-0.1", "nan", "x"])
def test_parse_fraction_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="share="):
        parse_fraction(text)


@settings(deadline=None)
@given(st.integers(1, 10**12))
def test_format_bytes_is_right_to_three_digits(nbytes: int) -> None:
    text = format_bytes(nbytes)
    assert len(text) <= 7 or nbytes >= 999.5e9
    assert parse_bytes(text) == pytest.approx(nbytes, rel=0.006)
