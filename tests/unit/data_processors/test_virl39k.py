from pathlib import Path

from tests.fixtures.pictures import circle, dots
from tests.unit.data_processors.drawn import convert_one, drawn_samples, drop_reason

VALUES = {"question": "What is 1+1?", "answer": "\\boxed{2}", "image": [], "qid": "q1"}


def test_images_come_from_the_archive_in_order(tmp_path: Path) -> None:
    samples = {sample.id: sample for sample in drawn_samples("virl39k", "train", tmp_path)}
    two = samples["virl39k/train/Processed-2"]
    assert two.images == (circle("7"), dots(3, mode="L"))
    assert samples["virl39k/train/Processed-1"].question == "<image>Find the radius of the circle."
    assert samples["virl39k/train/Processed-3"].images == ()


def test_pass_rates() -> None:
    rates = {"PassRate_32BTrained": -1.0, "PassRate_7BBase": None, "PassRate_7BUntrained": 0.125}
    sample = convert_one("virl39k", VALUES | rates, split="train")
    assert sample.metadata == {"origin": "", "PassRate_7BUntrained": 0.125}
    assert sample.difficulty is None


def test_boxes() -> None:
    assert convert_one("virl39k", VALUES | {"answer": "\\boxed{\\frac{1}{2}}"}).target == "\\frac{1}{2}"
    assert convert_one("virl39k", VALUES | {"answer": "7"}).target == "7"
    unbalanced = "\\boxed{\\left\\{\\eqalign{x=1\\cr y=2}\\right."
    assert drop_reason("virl39k", VALUES | {"answer": unbalanced}) == "answer box is not closed"
    assert drop_reason("virl39k", VALUES | {"answer": "\\boxed{None}"}) == "no answer"
    assert drop_reason("virl39k", VALUES | {"answer": None}) == "no answer"


def test_marks_without_images() -> None:
    reason = "number of image marks is not the number of images"
    assert drop_reason("virl39k", VALUES | {"question": "<image>What?"}) == reason
