import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mm_agrae.data.images import encode_png
from mm_agrae.errors import DataError
from mm_agrae.evaluate.blind import blind_lines, blind_report, blinded
from mm_agrae.evaluate.diff import SetDiff
from mm_agrae.evaluate.intervals import Interval
from mm_agrae.evaluate.paired import Paired
from mm_agrae.records import Sample


def picture(shade, size=(40, 30)):
    return encode_png(Image.new("RGB", size, (shade, 0, 0)))


def sample(number, *images):
    return Sample(id=f"s{number}", question="<image>" * len(images) + "?", target="1", images=images)


def test_grey_pictures_have_the_size_that_a_person_sees():
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30), "red").save(turned, format="JPEG", exif=exif)
    samples = [sample(0, picture(9), picture(8, (7, 5))), sample(1), sample(2, turned.getvalue())]
    grey = blinded(samples, "grey", seed=0)
    assert [one.id for one in grey] == ["s0", "s2"]  # a problem without pictures cannot be blinded
    pictures = [Image.open(io.BytesIO(data)) for one in grey for data in one.images]
    assert [each.size for each in pictures] == [(40, 30), (7, 5), (30, 40)]
    assert {each.getcolors(10000)[0][1] for each in pictures} == {(128, 128, 128)}
    assert (grey[0].question, grey[0].target) == (samples[0].question, samples[0].target)


@given(shades=st.lists(st.integers(0, 5), min_size=2, max_size=12), seed=st.integers(0, 99))
def test_nobody_is_handed_equal_pictures(shades, seed):
    samples = [sample(number, bytes([shade])) for number, shade in enumerate(shades)]
    if len(set(shades)) == 1:
        with pytest.raises(DataError, match="can swap its pictures"):
            blinded(samples, "swap", seed=seed)
        return
    swapped = blinded(samples, "swap", seed=seed)
    assert [one.id for one in swapped] == [one.id for one in samples]
    assert all(one.images != other.images for one, other in zip(samples, swapped, strict=True))
    # Equal pictures move together, and every picture is handed out.
    assert {one.images for one in swapped} == {one.images for one in samples}


def test_pictures_are_swapped_between_problems_with_as_many():
    samples = [
        sample(0, b"a"),
        sample(1, b"b", b"c"),
        sample(2, b"d"),
        sample(3, b"e", b"f"),
        sample(4, b"g", b"h", b"i"),
    ]
    swapped = blinded(samples, "swap", seed=1)
    # Nobody else has three pictures, so that problem is left out.
    assert {one.id: one.images for one in swapped} == {
        "s0": (b"d",), "s1": (b"e", b"f"), "s2": (b"a",), "s3": (b"b", b"c"),
    }  # fmt: skip


def test_the_seed_decides_who_gets_what():
    samples = [sample(number, bytes([number])) for number in range(9)]
    first = blinded(samples, "swap", seed=1)
    assert blinded(samples, "swap", seed=1) == first
    assert blinded(samples, "swap", seed=2) != first


@pytest.mark.parametrize("mode", ["grey", "swap"])
def test_text_alone_is_refused(mode):
    with pytest.raises(DataError, match=f"none of the 2 problems .* Leave --blind {mode}"):
        blinded([sample(0), sample(1)], mode, seed=0)


def paired(blind, seen):
    return Paired(
        num_shared=10, num_only_first=0, num_only_second=2, first=blind, second=seen,
        difference=Interval(seen - blind, 0.1, 0.5), num_higher=3, num_lower=0, p_value=0.25, test="mcnemar",
    )  # fmt: skip


def test_the_share_of_the_score_that_needs_the_image():
    metrics = {"pass@1": paired(0.2, 0.5), "greedy": paired(0.1, 0.0)}
    report = blind_report(SetDiff(name="s", otherwise=(), metrics=metrics, aggregate={}))
    assert report["pass@1"]["needs_image_frac"] == pytest.approx(0.6)  # 0.3 of 0.5
    assert report["greedy"]["needs_image_frac"] is None
    first, second = blind_lines("s", "grey", report)
    assert "60 % of the score needs the image (10 problems)" in first
    assert "nothing was right with pictures" in second
