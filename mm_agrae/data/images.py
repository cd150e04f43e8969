"""Encoded image files to pictures and back. Nothing is resized here: that happens once, when a prompt is rendered."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from mm_agrae.errors import DataError

# Level 1 packs drawn pictures nearly as small as the default level 6 and takes a third of its time.
PNG_LEVEL = 1
# What Pillow raises on broken files beside OSError; a broken EXIF block is a TypeError or a struct.error.
_BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    NotImplementedError,
    struct.error,
    Image.DecompressionBombError,
)


def open_image(data: bytes, sample_id: str) -> Image.Image:
    """Decode an image as a person sees it: turned upright by its EXIF tag, transparency on white, RGB.

    Grey of 16 bits becomes 8 bits by its upper byte. Numbers of 32 bits have no agreed black and white and are refused.

    Args:
        data: An image file (PNG, JPEG, ...).
        sample_id: Named in the error.

    Raises:
        DataError: If the bytes are empty, truncated, no image that Pillow can read, or pixels of 32 bits.
    """
    if not data:
        raise DataError(
            f"sample {sample_id!r} has an empty image (0 bytes), but every image must be a whole image file. "
            "Write the data set again with the image, or remove the sample."
        )
    try:
        with Image.open(BytesIO(data)) as image:
            if image.mode in ("I", "F"):
                raise ValueError("its pixels are numbers of 32 bits, not grey or colours of 8 or 16")
            upright = ImageOps.exif_transpose(image)
            # Pillow clips at 255, which would turn nearly every pixel white.
            if upright.mode.startswith("I;16"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
                return Image.alpha_composite(ground, rgba).convert("RGB")
            return upright.convert("RGB")
    except _BROKEN as error:
        raise DataError(_undecodable(data, sample_id, error)) from error


def image_size(data: bytes, sample_id: str) -> tuple[int, int]:
    """Width and height after the EXIF turn, from the header alone.

    Raises:
        DataError: If the header cannot be read.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except _BROKEN as error:
        raise DataError(_undecodable(data, sample_id, error)) from error


def encode_png(image: Image.Image) -> bytes:
    """The picture as a PNG file, without loss."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _undecodable(data: bytes, sample_id: str, error: Exception) -> str:
    return (
        f"sample {sample_id!r} has an image of {len(data)} bytes that cannot be decoded ({error}), but every image "
        "must be a whole image file that Pillow can read. Replace the image, or remove the sample."
    )
