from collections.abc import Callable

import pytest

from mm_agrae.engines.scripted_engine import ScriptedEngine
from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt, Sampling


@pytest.fixture
def prompt(policy_of: Callable[[str], Policy], rendered: Callable[..., RenderedPrompt]) -> RenderedPrompt:
    return rendered(policy_of("qwen3"))


def make_engine() -> ScriptedEngine:
    return ScriptedEngine(lambda prompt, seed: f"{prompt.sample.id}{seed}", lambda text: list(map(ord, text)))


def test_it_answers_from_the_script(prompt: RenderedPrompt) -> None:
    ((first, second),) = make_engine().generate([prompt], Sampling(num_completions=2, max_new_tokens=9), [[7, 8]])
    assert (first.text, second.text) == ("noise-07", "noise-08")
    assert first.token_ids == tuple(map(ord, "noise-07"))
    assert first.logprobs == (0.0,) * 8
    assert first.stop_reason == "eos"


def test_what_is_too_long_stops_by_length(prompt: RenderedPrompt) -> None:
    ((only,),) = make_engine().generate([prompt], Sampling(num_completions=1, max_new_tokens=5), [[7]])
    assert len(only.token_ids) == len(only.logprobs) == 5
    assert only.stop_reason == "length"


def test_seeds_of_the_wrong_shape_are_refused(prompt: RenderedPrompt) -> None:
    with pytest.raises(ValueError, match=r"1 prompts with 2 completions each, but the seeds have the shape \[1\]"):
        make_engine().generate([prompt], Sampling(num_completions=2, max_new_tokens=5), [[7]])


def test_versions_are_kept(prompt: RenderedPrompt) -> None:
    engine = make_engine()
    assert engine.weights_version == 0
    engine.sync_weights(None, version=5)
    assert engine.weights_version == 5
    engine.close()
