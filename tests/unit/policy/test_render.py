"""One size, one count and one set of positions per image: what is rendered fits the model to the token."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image

from mm_agrae.config.schema import ImageConfig, ModelConfig
from mm_agrae.errors import ConfigError, DataError
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.render import count_tokens, render
from mm_agrae.prompts import make_prompt
from mm_agrae.records import Prompt, Sample

VISION = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
SIZES = [(1, 1), (7, 90), (64, 64), (65, 47), (300, 200), (199, 1), (640, 16), (31, 33), (16, 3000)]
BUDGETS = [ImageConfig(min_pixels=256, max_pixels=4096), ImageConfig(min_pixels=20000, max_pixels=40000)]

PolicyOf = Callable[[str], Policy]
MakeSample = Callable[..., Sample]


def prompt_of(sample: Sample) -> Prompt:
    return make_prompt(sample, system="none", instruction="boxed")


def turned_jpeg(width: int, height: int, orientation: int) -> bytes:
    picture = Image.new("RGB", (width, height), (200, 30, 60))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(params=VISION)
def policy(request: pytest.FixtureRequest, policy_of: PolicyOf) -> Policy:
    return policy_of(request.param)


@pytest.mark.parametrize("budget", BUDGETS)
def test_counts_agree_however_they_are_made(policy: Policy, make_sample: MakeSample, budget: ImageConfig) -> None:
    for size in SIZES:
        prompt = prompt_of(make_sample(size))
        made = render(policy, prompt, budget)
        assert made.pixel_values is not None
        assert made.image_grid_thw is not None
        visual = made.token_ids.count(policy.image_token_id)
        assert visual == len(made.pixel_values) // 4 == int(made.image_grid_thw.prod()) // 4
        assert len(made.token_ids) == len(made.unexpanded_token_ids) - 1 + visual
        assert made.unexpanded_token_ids.count(policy.image_token_id) == 1
        assert len(made.pixel_values) * 8 * 8 <= budget.max_pixels
        assert count_tokens(policy, prompt, budget) == len(made.token_ids) == made.position_ids.shape[1]
        assert made.mm_token_type_ids is not None
        assert made.mm_token_type_ids.tolist() == [int(t == policy.image_token_id) for t in made.token_ids]


def test_the_model_makes_as_many_features_as_there_are_placeholders(policy: Policy, make_sample: MakeSample) -> None:
    made = render(policy, prompt_of(make_sample((64, 48), (100, 30))), BUDGETS[0])
    with torch.no_grad():
        features = policy.backbone.get_image_features(made.pixel_values, made.image_grid_thw).pooler_output
    assert [len(feature) for feature in features] == (made.image_grid_thw.prod(1) // 4).tolist()  # type: ignore[union-attr]
    assert sum(map(len, features)) == made.token_ids.count(policy.image_token_id)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_picture_is_counted_and_rendered_upright(policy_of: PolicyOf, orientation: int) -> None:
    policy = policy_of("qwen2_5_vl")
    sample = Sample(id="t", question="<image>?", target="1", images=(turned_jpeg(96, 32, orientation),))
    made = render(policy, prompt_of(sample), BUDGETS[0])
    assert made.image_grid_thw is not None
    _, height, width = made.image_grid_thw[0].tolist()
    assert (height > width) == (orientation in (6, 8))
    assert count_tokens(policy, prompt_of(sample), BUDGETS[0]) == len(made.token_ids)


def test_positions_equal_those_the_model_finds_itself(policy: Policy, make_sample: MakeSample) -> None:
    made = render(policy, prompt_of(make_sample((64, 48), (48, 64))), BUDGETS[0])
    assert made.mm_token_type_ids is not None
    extra = 3
    ids = torch.tensor([[*made.token_ids, *[40] * extra]])
    types = torch.cat([made.mm_token_type_ids, torch.zeros(extra, dtype=torch.long)])[None]
    expected, _ = policy.backbone.get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=made.image_grid_thw)
    assert torch.equal(made.position_ids, expected[:, 0, :-extra])
    assert expected[:, 0, -extra:].tolist() == [[made.next_position + step for step in range(extra)]] * 3
    assert made.next_position < len(made.token_ids)


def test_text_positions_count_up(policy_of: PolicyOf, make_sample: MakeSample) -> None:
    for architecture, rows in (("qwen2_5_vl", 3), ("qwen3", 1)):
        made = render(policy_of(architecture), prompt_of(make_sample()), BUDGETS[0])
        assert made.position_ids.tolist() == [list(range(len(made.token_ids)))] * rows
        assert (
            made.next_position
            == len(made.token_ids)
            == count_tokens(policy_of(architecture), prompt_of(make_sample()), BUDGETS[0])
        )
        assert made.pixel_values is None
        assert made.token_ids == made.unexpanded_token_ids


def test_the_hash_follows_pixels_and_text_and_nothing_else(policy_of: PolicyOf, make_sample: MakeSample) -> None:
    policy, sample = policy_of("qwen2_5_vl"), make_sample((64, 64))

    def hash_of(changed: Sample) -> str:
        return render(policy, prompt_of(changed), BUDGETS[0]).content_hash

    first = hash_of(sample)
    assert hash_of(replace(sample, id="other", target="9", family="f")) == first
    assert hash_of(replace(sample, question=f"{sample.question}?")) != first
    other = hash_of(make_sample((64, 64), seed=1))
    assert other != first
    two = hash_of(make_sample((64, 64), (64, 64)))
    assert len({first, other, two}) == 3


def test_nothing_is_cut(policy_of: PolicyOf, make_sample: MakeSample) -> None:
    words = "circles and squares " * 9000
    made = render(policy_of("qwen2_5_vl"), prompt_of(make_sample((64, 64), question=words)), BUDGETS[0])
    assert len(made.token_ids) > 32768
    assert words.strip() in policy_of("qwen2_5_vl").tokenizer.decode(made.token_ids)


def test_a_picture_within_the_budget_keeps_its_pixels(policy_of: PolicyOf, make_sample: MakeSample) -> None:
    policy = policy_of("qwen2_5_vl")
    small = render(policy, prompt_of(make_sample((64, 64))), BUDGETS[0])
    assert small.image_grid_thw is not None
    assert small.image_grid_thw.tolist() == [[1, 8, 8]]
    large = render(policy, prompt_of(make_sample((64, 64))), BUDGETS[1])
    assert large.image_grid_thw is not None
    assert 20000 <= int(large.image_grid_thw.prod()) * 64 <= 40000


@pytest.mark.parametrize("images", [(), ((64, 64),)])
def test_a_question_that_holds_the_placeholder_is_refused(
    policy: Policy, make_sample: MakeSample, images: tuple[tuple[int, int], ...]
) -> None:
    prompt = prompt_of(make_sample(*images, question="What does <|image_pad|> mean?"))
    with pytest.raises(DataError, match="the question contains the placeholder token itself"):
        render(policy, prompt, BUDGETS[0])
    with pytest.raises(DataError, match="noise-0"):
        count_tokens(policy, prompt, BUDGETS[0])


def test_pictures_that_cannot_be_used_are_refused(policy_of: PolicyOf, make_sample: MakeSample) -> None:
    policy, sample = policy_of("qwen2_5_vl"), make_sample((64, 64))
    for data in (b"", b"no picture", sample.images[0][:200]):
        with pytest.raises(DataError, match="noise-0"):
            render(policy, prompt_of(replace(sample, images=(data,))), BUDGETS[0])
    for data in (b"", b"no picture"):
        with pytest.raises(DataError, match="noise-0"):
            count_tokens(policy, prompt_of(replace(sample, images=(data,))), BUDGETS[0])
    for use in (render, count_tokens):
        with pytest.raises(DataError, match="3000x10 pixels"):
            use(policy, prompt_of(make_sample((3000, 10))), BUDGETS[0])


def test_a_template_of_the_processor_alone_is_enough(
    model_folder: Callable[[str], Path], policy_of: PolicyOf, make_sample: MakeSample, tmp_path: Path
) -> None:
    """Some published folders keep the template of pictures beside the processor, and none in the tokenizer."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder("qwen2_5_vl"), folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    policy = load_policy(ModelConfig(path=str(folder), device="cpu"))
    assert policy.tokenizer.chat_template is None
    prompt = prompt_of(make_sample((64, 48)))
    made, expected = (render(one, prompt, BUDGETS[0]) for one in (policy, policy_of("qwen2_5_vl")))
    assert made.token_ids == expected.token_ids


def test_a_text_model_given_images_is_refused(policy_of: PolicyOf, make_sample: MakeSample) -> None:
    for use in (render, count_tokens):
        with pytest.raises(ConfigError, match=r"takes text only. Choose a vision-language model"):
            use(policy_of("qwen3"), prompt_of(make_sample((64, 64))), BUDGETS[0])


def test_a_budget_below_one_visual_token_is_refused(policy_of: PolicyOf, make_sample: MakeSample) -> None:
    with pytest.raises(ConfigError, match=r"covers 16x16 pixels. Set it to at least 256"):
        render(policy_of("qwen2_5_vl"), prompt_of(make_sample((64, 64))), ImageConfig(min_pixels=1, max_pixels=255))
