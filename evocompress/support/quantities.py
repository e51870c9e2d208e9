"""Parsing and printing of sizes and shares, as people write and read them."""

from __future__ import annotations

import re

from evocompress.errors import ConfigError

__all__ = ["OUTPUT_LIMIT", "format_bytes", "format_duration", "parse_bytes", "parse_duration", "parse_fraction"]

#: What the tensors of an `.evc` file may take at most once they are decoded, where a command reads it: more than nearly
#: all checkpoints do, and the same on every machine, so that a command which works on one works on the others.
OUTPUT_LIMIT = "64GiB"

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{prefix}{end}": 1000**power for power, prefix in enumerate("kmgt", 1) for end in ("", "b")}
_UNITS |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)}
_SIZE = re.compile(r"\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[a-z]*)\s*", re.IGNORECASE)


def parse_bytes(text: str | int) -> int:
    """A size in bytes from what people write: decimal kB, MB, GB, binary KiB, MiB, GiB, or a bare number of bytes.

    >>> parse_bytes("16kB"), parse_bytes("64KiB"), parse_bytes("1.5 MB"), parse_bytes("900")
    (16000, 65536, 1500000, 900)
    """
    match = _SIZE.fullmatch(str(text))
    unit = match["unit"].lower() if match else None
    nbytes = round(float(match["number"]) * _UNITS[unit]) if match and unit in _UNITS else 0
    if nbytes < 1:
        raise ConfigError(
            f"size={text!r} is not a number of at least 1 byte with an optional unit (B, kB, MB, GB, KiB, MiB, GiB): "
            "write for example 16kB, 64KiB or 900."
        )
    return nbytes


_SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|sec|min|m|h|d)\s*)+", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(sec|s|min|m|h|d)", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds from what people write: numbers with units s, min, h and d.

    >>> parse_duration("2h"), parse_duration("1.5 min"), parse_duration("1h30min")
    (7200.0, 90.0, 5400.0)
    """
    seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in _PART.findall(text))
    if not _DURATION.fullmatch(text) or not seconds > 0:
        raise ConfigError(
            f"duration={text!r} is no time above 0 with units (s, min, h, d): write for example 2h or 90min."
        )
    return seconds


def parse_fraction(text: str | float, *, what: str = "share") -> float:
    """A share in [0, 1] from `0.95` or `95%`; `what` it is of is said where it is none.

    >>> parse_fraction("95%"), parse_fraction("0.5")
    (0.95, 0.5)
    """
    stripped = str(text).strip()
    try:
        value = float(stripped.removesuffix("%")) / (100.0 if stripped.endswith("%") else 1.0)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{what}={text!r} is not within 0 to 1: write for example 0.95 or 95%.")
    return value


def format_duration(seconds: float) -> str:
    """A time for people, as minutes and seconds, with hours before them where there are any.

    >>> format_duration(8.4), format_duration(312), format_duration(7300)
    ('0:08', '5:12', '2:01:40')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_bytes(nbytes: float) -> str:
    """A size for people, three digits and a decimal unit.

    >>> format_bytes(912), format_bytes(3412), format_bytes(1_724_320)
    ('912 B', '3.41 kB', '1.72 MB')
    """
    if nbytes < 1000:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        nbytes /= 1000
        if nbytes < 999.5 or unit == "GB":
            break
    digits = 2 if nbytes < 9.995 else 1 if nbytes < 99.95 else 0
    return f"{nbytes:.{digits}f} {unit}"
