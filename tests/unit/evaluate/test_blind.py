import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mm_agrae.data.images import encode_png
from mm_agrae.evaluate.blind import blind_lines, blind_report, blinded, find_donors
from mm_agrae.evaluate.diff import SetDiff
from mm_agrae.evaluate.intervals import Interval
from mm_agrae.evaluate.paired import Paired
from mm_agrae.records import Sample


def picture(shade, size=(40, 30)):
    return encode_png(Image.new("RGB", size, (shade, 0, 0)))


def sample(number, *images):
    return Sample(id=f"s{number}", question="<image>" * len(images) + "?", target="1", images=images)


def replaced(samples, mode, seed=0):
    return blinded(samples, mode, find_donors(samples, mode, seed=seed))


def test_grey_pictures_have_the_size_that_a_person_sees():
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30), "red").save(turned, format="JPEG", exif=exif)
    samples = [sample(0, picture(9), picture(8, (7, 5))), sample(1), sample(2, turned.getvalue())]
    grey = replaced(samples, "grey")
    assert [one.id for one in grey] == ["s0", "s2"]  # a problem without pictures cannot be blinded
    pictures = [Image.open(io.BytesIO(data)) for one in grey for data in one.images]
    assert [each.size for each in pictures] == [(40, 30), (7, 5), (30, 40)]
    assert {each.getcolors(10000)[0][1] for each in pictures} == {(128, 128, 128)}
    assert (grey[0].question, grey[0].target) == (samples[0].question, samples[0].target)


@given(shades=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=2), max_size=12), seed=st.integers(0, 99))
def test_nobody_is_handed_a_picture_of_its_own(shades, seed):
    samples = [sample(number, *map(picture, own)) for number, own in enumerate(shades)]
    by_id = {one.id: one for one in samples}
    swapped = {one.id: one for one in replaced(samples, "swap", seed)}
    for name, one in swapped.items():
        assert len(one.images) == len(by_id[name].images)
        assert not set(one.images) & set(by_id[name].images)
    # Left out is only who shares a picture with everybody that has as many.
    for name in by_id.keys() - swapped.keys():
        own = by_id[name].images
        assert all(set(own) & set(other.images) for other in samples if len(other.images) == len(own))


@given(shades=st.lists(st.integers(0, 5), min_size=2, max_size=12), seed=st.integers(0, 99))
def test_single_pictures_that_are_equal_move_together(shades, seed):
    samples = [sample(number, picture(shade)) for number, shade in enumerate(shades)]
    swapped = replaced(samples, "swap", seed)
    assert {one.images for one in swapped} == ({one.images for one in samples} if len(set(shades)) > 1 else set())


def test_one_picture_in_two_encodings_is_one():
    plain = io.BytesIO()
    Image.new("RGB", (40, 30), (7, 0, 0)).save(plain, format="PNG", compress_level=0)
    assert plain.getvalue() != picture(7)
    assert replaced([sample(0, picture(7)), sample(1, plain.getvalue())], "swap") == []


def test_pictures_are_swapped_between_problems_with_as_many():
    a, b, c, d, e, f, g, h, i = map(picture, range(9))
    samples = [sample(0, a), sample(1, b, c), sample(2, d), sample(3, e, f), sample(4, g, h, i)]
    # Nobody else has three pictures, so that problem is left out.
    assert {one.id: one.images for one in replaced(samples, "swap", 1)} == {
        "s0": (d,), "s1": (e, f), "s2": (a,), "s3": (b, c),
    }  # fmt: skip


def test_the_seed_decides_who_gets_what():
    samples = [sample(number, picture(number)) for number in range(9)]
    first = find_donors(samples, "swap", seed=1)
    assert find_donors(samples, "swap", seed=1) == first
    assert find_donors(samples, "swap", seed=2) != first


@pytest.mark.parametrize("mode", ["grey", "swap"])
def test_text_alone_has_no_donors(mode):
    assert find_donors([sample(0), sample(1)], mode, seed=0) == {}


def paired(blind, seen):
    return Paired(
        num_shared=10, num_only_first=0, num_only_second=2, first=blind, second=seen,
        difference=Interval(seen - blind, 0.1, 0.5), num_higher=3, num_lower=0, p_value=0.25, test="mcnemar",
    )  # fmt: skip


def test_the_share_of_the_score_that_needs_the_image():
    metrics = {"pass@1": paired(0.2, 0.5), "greedy": paired(0.1, 0.0), "avg@1": paired(0.5, 0.25)}
    report = blind_report(SetDiff(name="s", otherwise=(), metrics=metrics, aggregate={}))
    assert report["pass@1"]["needs_image_frac"] == pytest.approx(0.6)  # 0.3 of 0.5
    assert report["greedy"]["needs_image_frac"] is None
    assert report["avg@1"]["needs_image_frac"] == -1
    first, second, third = blind_lines("s", "grey", report)
    assert "60 % of the score needs the image (10 problems)" in first
    assert "nothing was right with pictures" in second
    assert "the score is higher without the pictures (10 problems)" in third
    assert "%" not in third
