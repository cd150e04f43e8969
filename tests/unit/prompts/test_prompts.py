from dataclasses import replace
from typing import get_args

import pytest

from mm_agrae.config.protocol import load_protocol
from mm_agrae.config.schema import Instruction
from mm_agrae.errors import DataError
from mm_agrae.prompts import make_prompt
from mm_agrae.prompts.texts import INSTRUCTIONS, SYSTEMS, may_ask_for_box
from mm_agrae.records import Sample

IMAGE = {"type": "image"}


def make_sample(question: str, *, images: int) -> Sample:
    return Sample(id="s1", question=question, target="1", images=(b"png",) * images)


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_images_stand_where_their_marks_were() -> None:
    sample = make_sample("<image>Compare this\nwith <image> now.", images=2)
    prompt = make_prompt(sample, system="none", instruction="none")
    content = [IMAGE, text("Compare this\nwith "), IMAGE, text(" now.")]
    assert prompt.messages == ({"role": "user", "content": content},)
    assert prompt.sample is sample


def test_text_has_one_part_and_the_named_texts_around_it() -> None:
    prompt = make_prompt(make_sample("What is 1 + 1? \n", images=0), system="assistant", instruction="boxed")
    system, user = prompt.messages
    assert system == {"role": "system", "content": [text(SYSTEMS["assistant"] or "")]}
    assert user == {"role": "user", "content": [text(f"What is 1 + 1?\n{INSTRUCTIONS['boxed']}")]}


@pytest.mark.parametrize(
    ("question", "images"), [("<image>?", 0), ("<image>?", 2), ("?", 1), ("<image><image>?", 1), ("<image><image>", 0)]
)
def test_marks_and_images_must_be_as_many(question: str, images: int) -> None:
    message = f"'s1' has {images} images and {question.count('<image>')} <image> marks .* one mark per image"
    with pytest.raises(DataError, match=message):
        make_prompt(make_sample(question, images=images), system="none", instruction="none")


def test_a_sample_may_bring_its_own_wording() -> None:
    sample = Sample(id="s1", question="<image>?", target="1", images=(b"png",), own_prompt="Hint: look. <image> Well?")
    prompt = make_prompt(sample, system="none", instruction="own")
    assert prompt.messages == ({"role": "user", "content": [text("Hint: look. "), IMAGE, text(" Well?")]},)


def test_own_wording_must_be_there_and_hold_the_marks() -> None:
    bare = make_sample("<image>?", images=1)
    with pytest.raises(DataError, match=r"'s1' has no prompt of its own, but prompt\.instruction own needs one"):
        make_prompt(bare, system="none", instruction="own")
    with pytest.raises(DataError, match="1 images and 0 <image> marks"):
        make_prompt(replace(bare, own_prompt="Well?"), system="none", instruction="own")


def test_the_config_knows_every_instruction() -> None:
    assert set(get_args(Instruction)) == set(INSTRUCTIONS)


def test_which_instructions_leave_the_form_uncounted() -> None:
    assert {name for name in INSTRUCTIONS if not may_ask_for_box(name)} == {"own", "hashes"}


def test_dynamath_asks_for_the_decimals_that_it_counts() -> None:
    assert "three decimals" in (INSTRUCTIONS[load_protocol("dynamath").prompt.instruction] or "")
