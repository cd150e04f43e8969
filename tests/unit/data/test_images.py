from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mm_agrae.data.images import encode_png, open_image
from mm_agrae.errors import DataError


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def test_png_keeps_every_pixel() -> None:
    image = Image.effect_noise((31, 17), 90).convert("RGB")
    assert open_image(encode_png(image), "s").tobytes() == image.tobytes()


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "white")
    image.paste((255, 0, 0), (0, 0, 10, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # shown upright after a quarter turn clockwise: the red left edge comes to the top
    upright = open_image(encoded(image, "JPEG", exif=exif, quality=95), "s")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 3))[1] < 60 < upright.getpixel((10, 30))[1]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    data = encoded(image, transparency=image.getpixel((0, 0))) if mode == "P" else encoded(image)
    opened = open_image(data, "s")
    assert opened.mode == "RGB"
    assert opened.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "CMYK", "1"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert open_image(encoded(Image.new(mode, (5, 5)), "TIFF"), "s").mode == "RGB"


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_of_16_bits_keeps_its_shades(form: str) -> None:
    shades = np.array([[0, 255, 256, 0x7F00, 0xFFFF]], dtype=np.uint16)
    opened = np.asarray(open_image(encoded(Image.fromarray(shades), form), "s"))
    assert opened[0, :, 0].tolist() == [0, 0, 1, 127, 255]
    assert (opened == opened[..., :1]).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_an_agreed_white_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match="numbers of 32 bits"):
        open_image(encoded(Image.new(mode, (4, 4), 1000), "TIFF"), "s")


@pytest.mark.parametrize("entry", [b"\1\0\0\4", b"\1\x1a\0\5"])
def test_an_exif_block_of_wrong_types_is_a_broken_image(entry: bytes) -> None:
    """The width or the resolution is marked as text; Pillow stumbles over each with an error of another kind."""
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112], exif[0x0100], exif[0x011A] = 6, 40, 72.0
    data = encoded(image, "JPEG", exif=exif)
    assert data.count(entry) == 1
    with pytest.raises(DataError, match="cannot be decoded"):
        open_image(data.replace(entry, entry[:2] + b"\0\2"), "s")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty image"),
        (b"no image at all", "cannot be decoded"),
        (encode_png(Image.effect_noise((40, 40), 90).convert("RGB"))[:-900], "cannot be decoded"),
    ],
)
def test_broken_images_are_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"'geo/7'.*{words}"):
        open_image(data, "geo/7")
