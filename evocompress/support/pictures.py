"""Pictures in files as pixels, 8 bits a channel: of 16 bits too, on white where transparent, turned as EXIF says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evocompress.errors import DataError
from evocompress.support.optional_libraries import needs_extra

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["read_pixels"]

_UNSCALED = {"F": "floating-point numbers", "I": "32-bit integers"}


def read_pixels(path: Path, *, grey: bool = False, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """A picture's pixels (height, width, 3), or 1 where `grey`, the way up that its EXIF orientation says.

    Grey of 16 bits is scaled, 65535 to 255. What is transparent becomes white, as on paper and on the page of a
    gallery: the colours that a file holds there are never seen, and are mostly black, in which a black shape is lost.

    Args:
        path: The file.
        grey: One channel in place of red, green and blue.
        size: Width and height to fill: scaled, and what is then over at two sides cut off. Default its own.

    Raises:
        DataError: It cannot be read as a picture, or its pixels are floating-point numbers or 32-bit integers.
        EvocompressError: pillow is missing.
    """
    with needs_extra("report"):
        from PIL import Image, ImageOps, UnidentifiedImageError
    try:
        with Image.open(path) as opened:
            picture = _on_white(_eight_bits(ImageOps.exif_transpose(opened), opened.format))
    except UnidentifiedImageError:
        raise DataError(f"{path} is no picture that pillow knows; give a PNG or JPEG.") from None
    except Exception as error:  # a damaged file makes pillow raise OSError, ValueError, SyntaxError, struct.error, …
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: {reason}") from None
    if grey:
        picture = picture.convert("L")
    if size is not None:
        picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    return np.array(picture).reshape(picture.height, picture.width, 1 if grey else 3)


def _eight_bits(picture: Image, file_format: str | None) -> Image:
    """Grey of 16 bits as grey of 8, with white for a transparent level; other pictures as they are.

    Raises:
        ValueError: Its levels have no scale.
    """
    from PIL import Image

    # Mode I holds 16 bits where it comes of a portable greymap or, in older pillows, of a PNG.
    if not picture.mode.startswith("I;16") and not (picture.mode == "I" and file_format in ("PNG", "PPM")):
        if picture.mode in _UNSCALED:
            raise ValueError(
                f"its pixels are {_UNSCALED[picture.mode]}, which do not say what is white; "
                "save it with 8 or 16 bits a channel."
            )
        return picture
    levels = np.asarray(picture).astype(np.uint32)
    scaled = ((levels + 128) // 257).astype(np.uint8)  # rounded; 65535 is 257 · 255
    if picture.has_transparency_data:
        scaled[levels == picture.info["transparency"]] = 255
    return Image.fromarray(scaled)


def _on_white(picture: Image) -> Image:
    from PIL import Image

    if not picture.has_transparency_data:
        return picture.convert("RGB")
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")
