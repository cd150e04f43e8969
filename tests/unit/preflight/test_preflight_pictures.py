"""Perceptual hashes: copies match, other pictures do not, and the search misses no pair."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from check_sets import chart, jpeg
from PIL import Image

from mm_agrae.data.images import encode_png
from mm_agrae.preflight.pictures import (
    MAX_LONG_DISTANCE,
    MAX_SHORT_DISTANCE,
    PictureTable,
    fingerprint,
    inspect,
    near_pairs,
)

HEIGHTS = (120, 40, 90, 20, 70)


def alike(one: bytes, other: bytes) -> bool:
    table = PictureTable()
    numbers = [table.add(fingerprint(Image.open(BytesIO(data)).convert("RGB"), data)) for data in (one, other)]
    table.compare()
    return table.alike((numbers[0],), (numbers[1],))


@pytest.mark.parametrize("factor", [0.5, 0.7, 2.0])
def test_resized_copies_match(factor: float) -> None:
    picture = chart(HEIGHTS)
    resized = picture.resize((int(200 * factor), int(160 * factor)), Image.Resampling.BICUBIC)
    assert alike(encode_png(picture), encode_png(resized))


@pytest.mark.parametrize("quality", [90, 50])
def test_recompressed_copies_match(quality: int) -> None:
    picture = chart(HEIGHTS)
    assert alike(encode_png(picture), jpeg(picture, quality))


@pytest.mark.parametrize(
    "heights", [(40, 120, 90, 20, 70), (120, 40, 90, 70, 20), (120, 40, 90, 20), (60, 40, 90, 20, 70)]
)
def test_other_charts_do_not_match(heights: tuple[int, ...]) -> None:
    assert not alike(encode_png(chart(HEIGHTS)), encode_png(chart(heights)))


def test_a_picture_of_one_colour_matches_the_same_file_only() -> None:
    white, grey = (encode_png(Image.new("RGB", (100, 80), colour)) for colour in ("white", "grey"))
    larger = encode_png(Image.new("RGB", (200, 160), "white"))
    assert alike(white, white)
    assert not alike(white, grey)
    assert not alike(white, larger)
    assert not alike(white, encode_png(chart(HEIGHTS)))


def test_the_search_finds_the_pairs_that_a_double_loop_finds() -> None:
    draw = np.random.Generator(np.random.PCG64(0))
    base = draw.integers(0, 2, (60, 256), dtype=np.uint8)
    flips = [np.flatnonzero(draw.random(256) < rate) for rate in np.linspace(0, 0.06, 240)]
    bits = base[np.arange(240) % 60].copy()
    for row, places in zip(bits, flips, strict=True):
        row[places] ^= 1
    short_bits = bits[:, :64]
    near = (short_bits[:, None] != short_bits[None]).sum(-1)
    far = (bits[:, None] != bits[None]).sum(-1)
    expected = {
        (i, j): (int(near[i, j]), int(far[i, j]))
        for i in range(240)
        for j in range(i + 1, 240)
        if near[i, j] <= MAX_SHORT_DISTANCE and far[i, j] <= MAX_LONG_DISTANCE
    }
    assert 20 < len(expected) < 400
    short = np.packbits(short_bits, axis=1).view(">u8").astype(np.uint64)[:, 0]
    long = np.packbits(bits, axis=1).view(">u8").astype(np.uint64)
    found: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for left, right, distances in near_pairs(short, long):
        for i, j, pair in zip(left.tolist(), right.tolist(), distances.tolist(), strict=True):
            found.append(((min(i, j), max(i, j)), (pair[0], pair[1])))
    assert len(found) == len(dict(found))
    assert dict(found) == expected


def test_faults_of_size_and_of_the_file() -> None:
    assert not inspect(encode_png(chart(HEIGHTS)), "s").faults
    assert [kind for kind, _ in inspect(encode_png(Image.new("RGB", (27, 60))), "s").faults] == ["tiny_image"]
    assert not inspect(encode_png(Image.new("RGB", (28, 28))), "s").faults
    long = inspect(encode_png(Image.new("RGB", (30 * 200 + 1, 30))), "s")
    assert long.faults == (("extreme_aspect", "6001x30 pixels"),)
    assert not inspect(encode_png(Image.new("RGB", (30 * 200, 30))), "s").faults
    cut = encode_png(chart(HEIGHTS))[:200]
    broken = inspect(cut, "s")
    assert broken.fingerprint is None
    assert [kind for kind, _ in broken.faults] == ["unreadable_image"]
