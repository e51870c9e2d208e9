"""Pictures of every kind become the same pixels, or an error of one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from evocompress.errors import DataError
from evocompress.support.pictures import read_pixels

LEVELS = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
WIDE = LEVELS.astype(np.uint16) * 257
BIG_ENDIAN = Image.frombytes("I;16B", (8, 6), WIDE.astype(">u2").tobytes())
HIDDEN = LEVELS == 0


def grey_map(path: Path) -> None:
    path.write_bytes(b"P5 8 6 65535\n" + WIDE.astype(">u2").tobytes())


@pytest.mark.parametrize(
    ("name", "mode", "write"),
    [
        ("a.png", "L", Image.fromarray(LEVELS).save),
        ("a.png", "I;16", Image.fromarray(WIDE).save),
        ("old.png", "I", Image.fromarray(WIDE).save),
        ("a.tif", "I;16", Image.fromarray(WIDE).save),
        ("a.tif", "I;16B", BIG_ENDIAN.save),
        ("a.pgm", "I", grey_map),
    ],
)
def test_levels_of_8_and_16_bits(
    name: str, mode: str, write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "old.png":  # as pillow opened it before 10.3
        monkeypatch.setitem(PngImagePlugin._MODES, (16, 0), ("I", "I;16B"))
    write(tmp_path / name)
    with Image.open(tmp_path / name) as opened:
        assert opened.mode == mode
    assert (read_pixels(tmp_path / name, grey=True)[:, :, 0] == LEVELS).all()
    assert (read_pixels(tmp_path / name) == LEVELS[:, :, None]).all()


def with_alpha(mode: str) -> Image.Image:
    """The levels, with black that is not to be seen where they are 0."""
    picture = Image.fromarray(LEVELS).convert("LA" if mode == "LA" else "RGBA")
    picture.putalpha(Image.fromarray(np.where(HIDDEN, 0, 255).astype(np.uint8)))
    return picture


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (with_alpha("RGBA"), {}),
        (with_alpha("LA"), {}),
        (Image.fromarray(LEVELS), {"transparency": 0}),
        (Image.fromarray(WIDE), {"transparency": 0}),
        (Image.fromarray(LEVELS).convert("RGB"), {"transparency": (0, 0, 0)}),
        (Image.fromarray(LEVELS).convert("P"), {"transparency": 0}),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_what_is_transparent_is_white(picture: Image.Image, options: dict[str, Any], tmp_path: Path) -> None:
    picture.save(tmp_path / "a.png", **options)
    assert (read_pixels(tmp_path / "a.png", grey=True)[:, :, 0] == np.where(HIDDEN, 255, LEVELS)).all()


@pytest.mark.parametrize(("alpha", "seen"), [(255, 0), (128, 127), (0, 255)])
def test_black_that_is_half_transparent_is_grey(alpha: int, seen: int, tmp_path: Path) -> None:
    Image.new("RGBA", (3, 2), (0, 0, 0, alpha)).save(tmp_path / "a.png")
    assert (read_pixels(tmp_path / "a.png") == seen).all()


@pytest.mark.parametrize("levels", [LEVELS, WIDE], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 3), (3, 2), (8, 1)])
def test_a_picture_is_turned_as_its_exif_says(levels: Any, orientation: int, turns: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(levels).save(tmp_path / "a.png", exif=exif)
    assert (read_pixels(tmp_path / "a.png", grey=True)[:, :, 0] == np.rot90(LEVELS, turns)).all()


def test_a_size_is_filled_without_stretching(tmp_path: Path) -> None:
    columns = np.repeat(np.array([0, 200, 0], np.uint8), 20)
    Image.fromarray(np.tile(columns, (20, 1))).save(tmp_path / "a.png")
    assert (read_pixels(tmp_path / "a.png", size=(10, 10))[:, 3:-3] == 200).all()


def cut(path: Path) -> None:
    Image.fromarray(LEVELS).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-30])


def odd_exif(path: Path) -> None:
    Image.fromarray(LEVELS).save(path, "PNG", exif=b"Exif\0\0no such thing")


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: Image.fromarray(LEVELS / np.float32(255)).save(path), "floating-point numbers, which do not say"),
        (lambda path: Image.fromarray(LEVELS.astype(np.int32)).save(path), "32-bit integers, which do not say"),
        (lambda path: path.write_text("no picture"), "is no picture that pillow knows; give a PNG or JPEG"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: None, "No such file"),
        (lambda path: Image.new("L", (80, 60)).save(path), "Image size (4800 pixels) exceeds limit"),
        (cut, "truncated"),
        (odd_exif, "not a TIFF file"),
    ],
)
def test_what_is_no_picture_is_said_on_one_line(
    write: Callable[[Path], object], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(DataError) as caught:
        read_pixels(tmp_path / "a.tif")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.tif'}") and expected in message and "\n" not in message
