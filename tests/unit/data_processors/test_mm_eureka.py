import json
from pathlib import Path

from data_processors.conversion.files import Files
from data_processors.mm_eureka import read_rerooted
from tests.fixtures.mm_eureka import INSTRUCTION, message
from tests.fixtures.pictures import circle, dots
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason


def test_images_are_found_under_the_local_folder(tmp_path: Path) -> None:
    samples = drawn_samples("mm_eureka", "train", tmp_path)
    assert [sample.images for sample in samples] == [(circle("5"),), (dots(4),), (dots(4), circle("5")), ()]
    assert samples[2].question == "<image><image>Add the number of dots to the radius."


def test_the_longest_end_of_a_path_wins(tmp_path: Path) -> None:
    for place in ("1.png", "geo/1.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(place.encode())
    assert read_rerooted("file:///mnt/store/geo/1.png", Files(tmp_path)) == b"geo/1.png"
    assert read_rerooted("file:///mnt/store/other/1.png", Files(tmp_path)) == b"1.png"
    assert read_rerooted("file:///mnt/store/2.png", Files(tmp_path)) == b""
    assert read_rerooted("", Files(tmp_path)) == b""


def test_an_instruction_stays_in_the_own_prompt_only(tmp_path: Path) -> None:
    plain, instructed = drawn_samples("mm_eureka", "train", tmp_path)[:2]
    assert plain.own_prompt is None
    assert instructed.own_prompt == f"<image>{INSTRUCTION}How many dots are there?\nA. 3\nB. 4"
    assert instructed.question == "<image>How many dots are there?\nA. 3\nB. 4"
    assert (instructed.target, instructed.options) == ("B", ("3", "4"))


def test_messages_of_every_shape() -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2+3?"}]
    for cell in (said, json.dumps(said)):
        assert convert_one("mm_eureka", {"id": "1", "message": cell, "answer": "5"}).question == "What is 2+3?"
    assert drop_reason("mm_eureka", {"id": "1", "message": "{", "answer": "5"}) == "message is no JSON"
    for cell in ("3", None, ["What?"]):
        values = {"id": "1", "message": cell, "answer": "5"}
        assert drop_reason("mm_eureka", values) == "message is no list of messages"


def test_marks_in_the_text_must_agree_with_the_images() -> None:
    values = {"id": "1", "message": message("<image>Then <image>?", "a.png", "b.png"), "answer": "5"}
    assert convert_one("mm_eureka", values).question == "<image>Then <image>?"
    wrong = values | {"message": message("<image>Then <image>?", "a.png")}
    assert drop_reason("mm_eureka", wrong) == "number of image marks is not the number of images"
