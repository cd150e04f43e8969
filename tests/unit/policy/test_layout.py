"""Layouts by hand, and padded lines against groups end to end on models that take both."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.layout import Layout, Row, make_layout, make_padded_layout, one_by_one
from mm_agrae.policy.load import Policy
from mm_agrae.records import Prompt, RenderedPrompt, Sample

Rendered = Callable[..., RenderedPrompt]
PolicyOf = Callable[[str], Policy]


def text_prompt(*ids: int, first_position: int = 0) -> RenderedPrompt:
    return RenderedPrompt(
        prompt=Prompt(sample=Sample(id="hand", question="", target=""), messages=()),
        token_ids=ids,
        unexpanded_token_ids=ids,
        position_ids=torch.arange(first_position, first_position + len(ids))[None],
        next_position=first_position + len(ids),
        mm_token_type_ids=None,
        pixel_values=None,
        image_grid_thw=None,
        content_hash="",
    )


ROWS = (
    Row(prompt=text_prompt(10, 11, 12), completions=((20, 21), (), (22,))),
    Row(prompt=text_prompt(13), completions=((23, 24, 25),)),
)
SHAPES = {
    "one prompt": [Row(prompt=text_prompt(10, 11), completions=((20, 21), (22,)))],
    "prompt of one token": [Row(prompt=text_prompt(10), completions=((20, 21), (22,)))],
    "completions of one token": [Row(prompt=text_prompt(10, 11), completions=((20,), (21,), (22,)))],
    "one completion": [Row(prompt=text_prompt(10, 11), completions=((20, 21, 22),))],
    "one of everything": [Row(prompt=text_prompt(10), completions=((20,),))],
    "an empty completion": [Row(prompt=text_prompt(10, 11), completions=((), (20, 21), ()))],
    "an empty group": [Row(prompt=text_prompt(10, 11), completions=((),)), ROWS[1]],
    "the same prompt twice": [ROWS[0], replace(ROWS[0], group=1, completions=((30,),))],
}


def predictors(layout: Layout) -> list[int]:
    """Id of the token that predicts each target."""
    return layout.input_ids.flatten()[layout.sources].tolist()


def test_groups_end_to_end_by_hand() -> None:
    layout = make_layout(ROWS)
    assert layout.input_ids.tolist() == [[10, 11, 12, 20, 21, 22, 13, 23, 24, 25]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2, 3]]
    assert layout.sources.tolist() == [2, 3, 2, 6, 7, 8]
    assert layout.targets.tolist() == [20, 21, 22, 23, 24, 25]
    assert layout.inputs()["attention_mask"].ndim == 4
    assert layout.inputs()["attention"] is layout.attention


def test_padded_lines_by_hand() -> None:
    layout = make_padded_layout(ROWS)
    assert layout.input_ids.tolist() == [
        [10, 11, 12, 20, 21],
        [10, 11, 12, 0, 0],
        [10, 11, 12, 22, 0],
        [13, 23, 24, 25, 0],
    ]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0], [0, 1, 2, 3, 0], [0, 1, 2, 3, 0]]
    assert layout.attention.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]]
    assert layout.sources.tolist() == [2, 3, 12, 15, 16, 17]
    assert layout.targets.tolist() == [20, 21, 22, 23, 24, 25]
    assert layout.inputs().keys() == {"input_ids", "position_ids", "attention_mask"}


def test_one_by_one_keeps_the_place_in_the_group() -> None:
    row = replace(ROWS[0], group=7, first=4)
    assert [(line.completions, line.group, line.first) for line in one_by_one(row)] == [
        (((20, 21),), 7, 4),
        (((),), 7, 5),
        (((22,),), 7, 6),
    ]


@pytest.mark.parametrize("make", [make_layout, make_padded_layout])
def test_no_rows_are_refused(make: Callable[[list[Row]], Layout]) -> None:
    with pytest.raises(ValueError, match="there are 0 rows, but a layout needs at least one"):
        make([])


@pytest.mark.parametrize("name", SHAPES)
def test_trap_26_the_smallest_shapes_predict_the_same_tokens_in_both_layouts(name: str) -> None:
    """Empty completions, and prompts, completions and groups of one, are where an index off by one would show."""
    rows = SHAPES[name]
    flat, padded = make_layout(rows), make_padded_layout(rows)
    assert predictors(flat) == predictors(padded)
    assert flat.targets.tolist() == padded.targets.tolist()
    expected = [
        before
        for row in rows
        for completion in row.completions
        for before in (row.prompt.token_ids[-1], *completion[:-1])[: len(completion)]
    ]
    assert predictors(flat) == expected


@pytest.mark.parametrize("name", SHAPES)
def test_trap_26_the_smallest_shapes_have_equal_scores_in_both_layouts(policy_of: PolicyOf, name: str) -> None:
    """The kernels see blocks of one token there, and parts without any."""
    policy = policy_of("qwen3")
    flat, padded = (score(policy, make(SHAPES[name])) for make in (make_layout, make_padded_layout))
    assert flat.logprobs.shape == (sum(row.num_targets for row in SHAPES[name]),)
    torch.testing.assert_close(flat.logprobs, padded.logprobs, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(flat.entropy, padded.entropy, rtol=1e-5, atol=2e-5)


def test_trap_26_no_line_is_padded_before_its_first_token() -> None:
    """Padding in front shifts positions, and whatever counts tokens from the start of a line."""
    mask = make_padded_layout(ROWS).attention
    assert isinstance(mask, torch.Tensor)
    assert bool((mask.diff(dim=1) <= 0).all())
    assert mask[:, 0].tolist() == [1, 1, 1, 1]


def test_positions_go_on_from_the_prompt_and_not_from_its_length() -> None:
    row = Row(prompt=text_prompt(10, 11, first_position=5), completions=((20, 21),))
    assert make_layout([row]).position_ids.tolist() == make_padded_layout([row]).position_ids.tolist() == [[5, 6, 7, 8]]


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl"])
def test_padded_lines_with_pictures_equal_groups_end_to_end(
    policy_of: PolicyOf, rendered: Rendered, architecture: str
) -> None:
    sharing = policy_of(architecture)
    sharing = replace(sharing, model=copy.deepcopy(sharing.model).double())
    repeating = replace(sharing, shares_prompts=False)
    rows = [
        Row(prompt=rendered(sharing, (64, 48)), completions=((40, 41, 42), (), (43,))),
        Row(prompt=rendered(sharing, (40, 64), (32, 32)), completions=((50, 51), (52,))),
        Row(prompt=rendered(sharing, question="What is two plus two?"), completions=((60, 61),)),
    ]
    flat, padded = lay_out(sharing, rows), lay_out(repeating, rows)
    assert flat.input_ids.shape[0] == 1
    assert padded.input_ids.shape[0] == 6
    assert padded.position_ids.shape == (3, *padded.input_ids.shape)
    assert len(padded.pictured) == 5
    found = {}
    for name, policy, layout in (("flat", sharing, flat), ("padded", repeating, padded)):
        logprobs = score(policy, layout).logprobs
        (torch.linspace(-1, 2, len(logprobs)) * logprobs).sum().backward()
        gradients = {key: p.grad.clone() for key, p in policy.model.named_parameters() if p.grad is not None}
        policy.model.zero_grad(set_to_none=True)
        found[name] = (logprobs.detach(), gradients)
    torch.testing.assert_close(found["padded"][0], found["flat"][0], rtol=1e-5, atol=1e-6)
    total = torch.stack([gradient.norm() for gradient in found["flat"][1].values()]).norm()
    assert found["padded"][1].keys() == found["flat"][1].keys()
    for name, gradient in found["flat"][1].items():
        scale = max(float(gradient.norm()), 1e-5 * float(total))
        assert float((found["padded"][1][name] - gradient).norm()) <= 1e-5 * scale, name


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl"])
def test_trap_11_positions_left_by_an_earlier_call_are_not_used(
    policy_of: PolicyOf, rendered: Rendered, architecture: str
) -> None:
    """These models keep the offset between tokens and positions of the last picture they were called with."""
    policy = replace(policy_of(architecture), model=copy.deepcopy(policy_of(architecture).model))
    row = Row(prompt=rendered(policy, (64, 48)), completions=((40, 41, 42), (43,)))
    layouts = [make_layout([row]), make_padded_layout([row])]
    expected = [score(policy, layout).logprobs.detach() for layout in layouts]
    stale = rendered(policy, (64, 64), (64, 64))
    with torch.no_grad():
        policy.backbone(
            input_ids=torch.tensor([stale.token_ids]),
            pixel_values=stale.pixel_values,
            image_grid_thw=stale.image_grid_thw,
            mm_token_type_ids=stale.mm_token_type_ids[None],
        )
    assert policy.backbone.rope_deltas is not None
    assert int(policy.backbone.rope_deltas) != row.prompt.next_position - len(row.prompt.token_ids)
    for layout, logprobs in zip(layouts, expected, strict=True):
        torch.testing.assert_close(score(policy, layout).logprobs.detach(), logprobs)
