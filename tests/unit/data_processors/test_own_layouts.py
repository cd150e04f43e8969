"""Layouts of users' own sets: what becomes of the question, the images and the answer."""

from typing import Any

import pytest

from data_processors import PROCESSORS
from data_processors.conversion.description import Drop, Part, Row
from data_processors.conversion.files import Files
from data_processors.conversion.samples import convert_row
from mm_agrae.records import Sample
from tests.fixtures.pictures import circle, square
from tests.fixtures.tables import image_cell

DISC, RED = image_cell(circle("7")), image_cell(square("red"))


def converted(name: str, **values: Any) -> Sample | Drop:
    row = Row(values=values, index=5, split="mine", part=Part(split="mine"), files=Files())
    return convert_row(PROCESSORS[name], row)


def sample(name: str, **values: Any) -> Sample:
    result = converted(name, **values)
    assert isinstance(result, Sample), result
    return result


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


TEXT, IMAGE = {"type": "text", "text": "Find "}, {"type": "image"}


@pytest.mark.parametrize(
    ("prompt", "question", "num_images"),
    [
        ("Find x.", "<image>Find x.", 1),
        (user("Find <image> x."), "Find <image> x.", 1),
        (user([TEXT, IMAGE]), "Find <image>", 1),
        (user([TEXT, {"type": "image", "text": None}]), "Find <image>", 1),
        (user([TEXT, {"type": "image", "image": RED}, {"type": "image", "image": DISC}]), "Find <image><image>", 2),
    ],
)
def test_chat_prompts(prompt: Any, question: str, num_images: int) -> None:
    result = sample("chat", prompt=prompt, images=[DISC], answer="1")
    assert (result.id, result.question, len(result.images)) == ("chat/mine/5", question, num_images)


def test_images_in_the_parts_come_before_those_beside() -> None:
    held = sample("chat", prompt=user([TEXT, {"type": "image", "image": RED}]), images=[DISC], answer="1")
    assert held.images == (RED["bytes"],)
    single = sample("chat", prompt="Find x.", image=DISC, answer="1")
    assert single.images == (DISC["bytes"],)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (user([IMAGE, IMAGE]), "number of image marks is not the number of images"),
        ([*user("1"), {"role": "assistant", "content": "2"}], "prompt is not one question of a user"),
        ([{"role": "system", "content": "Be brief."}], "prompt is not one question of a user"),
        (None, "prompt is not one question of a user"),
        (["Find x."], "prompt is not one question of a user"),
        ([{"role": "user"}], "not a row of this data set (KeyError)"),
    ],
)
def test_chat_prompts_that_cannot_be_used(prompt: Any, reason: str) -> None:
    assert converted("chat", prompt=prompt, images=[DISC], answer="1") == Drop(reason)


@pytest.mark.parametrize(
    ("values", "target"),
    [
        ({"answer": " 4 "}, "4"),
        ({"answer": 27.0}, "27"),
        ({"solution": "<think>so</think><answer>\\boxed{\\frac{1}{2}}</answer>"}, "\\frac{1}{2}"),
        ({"answer": None, "solution": "5"}, "5"),
        ({"answer": "1", "solution": "2", "ground_truth": "3"}, "1"),
        ({"ground_truth": False}, "False"),
    ],
)
def test_chat_answers(values: dict[str, Any], target: str) -> None:
    assert sample("chat", prompt="Find x.", **values).target == target


def test_a_system_message_is_kept() -> None:
    prompt = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *user("1+1?")]
    assert sample("chat", prompt=prompt, answer="2").metadata == {"system": "Be brief."}


def test_easyr1_without_images() -> None:
    result = sample("easyr1", problem="1+1?", answer="\\boxed{2}")
    assert (result.id, result.question, result.target, result.images) == ("easyr1/mine/5", "1+1?", "2", ())


@pytest.mark.parametrize(
    ("truth", "target", "solution"),
    [
        ("60", "60", None),
        (27.0, "27", None),
        ({"question": "q", "target": "025", "solution": "\\boxed{025}"}, "025", "\\boxed{025}"),
        ({"question": "q", "target": "3", "solution": "no box"}, "3", None),
        (["2"], "2", None),
    ],
)
def test_ground_truth_of_verl(truth: Any, target: str, solution: str | None) -> None:
    model = {"style": "rule", "ground_truth": truth}
    result = sample("verl", prompt=user("q"), reward_model=model, data_source="AIME2025", ability="math")
    assert (result.target, result.solution, result.family) == (target, solution, "AIME2025")
    assert result.metadata == {"style": "rule", "ability": "math"}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"ground_truth": ["1", "2"]}, "ground truth is a list, but not of one"),
        ({"ground_truth": {"question": "q", "target": None}}, "no answer"),
        ({"ground_truth": "\\boxed{1"}, "answer box is not closed"),
        (None, "no answer"),
    ],
)
def test_ground_truth_that_cannot_be_used(model: Any, reason: str) -> None:
    assert converted("verl", prompt=user("q"), reward_model=model) == Drop(reason)


def test_images_of_verl_may_be_wrapped() -> None:
    model = {"ground_truth": "7"}
    for cell in (DISC, {"image": DISC}, {"image": DISC["bytes"]}):
        assert sample("verl", prompt=user("Find x."), reward_model=model, images=[cell]).images == (DISC["bytes"],)
