from io import BytesIO

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
