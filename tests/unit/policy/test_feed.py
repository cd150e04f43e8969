from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mm_agrae.config import RunConfig, parse_config
from mm_agrae.data.sampler import PromptSampler
from mm_agrae.errors import DataError
from mm_agrae.policy.feed import Cursor, Feed
from mm_agrae.policy.load import Policy
from mm_agrae.records import Sample

LONG = "How many red circles are there? " * 40


@pytest.fixture
def config(recipe_text: Callable[[Path, Path], str]) -> RunConfig:
    return parse_config(recipe_text(Path("model"), Path("data")), ["rollout.max_prompt_tokens=60"])


@pytest.fixture
def policy(policy_of: Callable[[str], Policy]) -> Policy:
    return policy_of("qwen2_5_vl")


def make_samples(make_sample: Callable[..., Sample], *, long: set[int], count: int = 6) -> list[Sample]:
    return [
        replace(make_sample((64, 64), seed=i, **({"question": LONG} if i in long else {})), id=f"s{i}")
        for i in range(count)
    ]


def test_prompts_come_in_the_samplers_order_and_the_cursor_goes_on(
    policy: Policy, config: RunConfig, make_sample: Callable[..., Sample]
) -> None:
    lines: list[str] = []
    feed = Feed(policy=policy, config=config, log=lines.append)
    samples = make_samples(make_sample, long={2, 4})
    sampler = PromptSampler(num_samples=6, seed=3)
    order = [f"s{i}" for i in sampler.indices(0, 12)]
    first, cursor = feed.take(samples, sampler, 3, Cursor())
    second, end = feed.take(samples, sampler, 4, cursor)
    whole, same_end = feed.take(samples, sampler, 7, Cursor())
    taken = [prompt.sample.id for prompt in [*first, *second]]
    assert taken == [prompt.sample.id for prompt in whole]
    assert taken == [name for name in order if name not in ("s2", "s4")][:7]
    assert end == same_end
    assert end.position == order.index(taken[-1], 6) + 1
    assert end.refused == sum(name in ("s2", "s4") for name in order[: end.position])


def test_what_is_too_long_is_named_and_counted_and_nothing_is_cut(
    policy: Policy, config: RunConfig, make_sample: Callable[..., Sample]
) -> None:
    lines: list[str] = []
    feed = Feed(policy=policy, config=config, log=lines.append)
    samples = make_samples(make_sample, long={1}, count=2)
    admitted = feed.admit(samples[0])
    assert admitted is not None
    length = len(feed.render(admitted).token_ids)
    assert lines == []
    assert feed.admit(samples[1]) is None
    assert len(lines) == 1
    assert "refused sample 's1'" in lines[0]
    assert "over rollout.max_prompt_tokens 60" in lines[0]
    rollout = config.rollout.model_copy(update={"max_prompt_tokens": length})
    exact = replace(feed, config=config.model_copy(update={"rollout": rollout}))
    assert exact.admit(samples[0]) is not None
    rollout = config.rollout.model_copy(update={"max_prompt_tokens": length - 1})
    below = replace(feed, config=config.model_copy(update={"rollout": rollout}))
    assert below.admit(samples[0]) is None


def test_one_sample_that_fits_is_always_found(
    policy: Policy, config: RunConfig, make_sample: Callable[..., Sample]
) -> None:
    feed = Feed(policy=policy, config=config, log=lambda _line: None)
    samples = make_samples(make_sample, long={1, 2, 3}, count=4)
    for seed in range(12):
        prompts, _ = feed.take(samples, PromptSampler(num_samples=4, seed=seed), 4, Cursor())
        assert [prompt.sample.id for prompt in prompts] == ["s0"] * 4


def test_a_data_set_that_is_refused_as_a_whole_is_an_error(
    policy: Policy, config: RunConfig, make_sample: Callable[..., Sample]
) -> None:
    feed = Feed(policy=policy, config=config, log=lambda _line: None)
    samples = make_samples(make_sample, long={0, 1, 2}, count=3)
    with pytest.raises(DataError, match=r"all 3 samples are over rollout.max_prompt_tokens 60"):
        feed.take(samples, PromptSampler(num_samples=3, seed=0), 1, Cursor())
