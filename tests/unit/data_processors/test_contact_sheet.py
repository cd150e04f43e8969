"""The contact sheet: a cell per sample, pictures inside it, long texts cut."""

from data_processors.conversion.contact_sheet import GAP, GROUND, MAX_LINES, WIDTH, contact_sheet
from mm_agrae.records import Sample, Tolerance
from tests.fixtures.pictures import square

RED, BLUE = (255, 0, 0), (0, 0, 255)


def sample(*colours: str, question: str = "Which colour?", size: int = 30) -> Sample:
    images = tuple(square(colour, size=size) for colour in colours)
    return Sample(id="s", question="<image>" * len(images) + question, target="red", images=images)


def test_pictures_stand_side_by_side_in_their_cell() -> None:
    sheet = contact_sheet([sample("red", "blue")])
    assert sheet.width == WIDTH + 2 * GAP
    assert sheet.getpixel((0, 0)) == GROUND
    left, right = 2 * GAP + 5, 2 * GAP + (WIDTH - 2 * GAP) // 2 + 5
    assert (sheet.getpixel((left, 2 * GAP + 5)), sheet.getpixel((right, 2 * GAP + 5))) == (RED, BLUE)


def test_large_pictures_are_reduced_and_small_ones_are_not_enlarged() -> None:
    large, small = contact_sheet([sample("red", size=2000)]), contact_sheet([sample("red", size=20)])
    reds = [sum(pixel == RED for pixel in sheet.get_flattened_data()) for sheet in (large, small)]
    assert reds == [190 * 190, 20 * 20]


def test_rows_fill_up_from_the_left() -> None:
    sheet = contact_sheet([sample("red")] * 3, columns=2)
    assert sheet.width == GAP + 2 * (WIDTH + GAP)
    assert sheet.getpixel((sheet.width - GAP - 1, sheet.height - GAP - 1)) == GROUND
    assert sheet.getpixel((GAP + 1, sheet.height - GAP - 1)) == (255, 255, 255)


def test_what_a_sample_says_makes_its_cell_higher_up_to_a_limit() -> None:
    plain = contact_sheet([sample()]).height
    told = Sample(
        id="s",
        question="Which colour?",
        target="A",
        answer_kind="choice",
        options=("red", "blue"),
        tolerance=Tolerance(kind="round", value=1),
        group="g",
        own_prompt="Say it.",
    )
    assert contact_sheet([told]).height > plain
    long, longer = (contact_sheet([sample(question="word " * count)]).height for count in (2_000, 20_000))
    assert long == longer < MAX_LINES * 20
