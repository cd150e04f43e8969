"""What vLLM is asked, and how its answers are judged."""

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mm_agrae.engines.vllm_pixels import Raw, features, pack, pictures_of
from mm_agrae.engines.vllm_requests import (
    Choice,
    check_prompt,
    drop_present_versions,
    read_reply,
    request_body,
    sampling_params,
    to_completions,
)
from mm_agrae.errors import EngineError
from mm_agrae.policy.load import Policy
from mm_agrae.records import Completion, RenderedPrompt, Sampling

Rendered = Callable[..., RenderedPrompt]
SAMPLING = Sampling(num_completions=2, max_new_tokens=3, temperature=0.7, top_p=0.9)


@pytest.fixture(scope="module")
def policy(policy_of: Callable[[str], Policy]) -> Policy:
    return policy_of("qwen2_5_vl")


@pytest.fixture(scope="module")
def prompt(policy: Policy, rendered: Rendered) -> RenderedPrompt:
    return rendered(policy, (64, 48), (32, 32))


def test_values_are_packed_as_msgpack_has_them() -> None:
    # spec.md: positive fixint, uint 64, str 32, array 32, map 32, ext 32.
    assert pack(None) == b"\xc0"
    assert [pack(False), pack(True)] == [b"\xc2", b"\xc3"]
    assert pack(127) == b"\x7f"
    assert pack(128) == b"\xcf" + (128).to_bytes(8, "big")
    assert pack("ab") == b"\xdb\0\0\0\2ab"
    assert pack([1, None]) == b"\xdd\0\0\0\2\x01\xc0"
    assert pack({"a": 1}) == b"\xdf\0\0\0\1\xdb\0\0\0\1a\x01"
    assert pack(Raw(content=b"xyz")) == b"\xc9\0\0\0\3\3xyz"
    with pytest.raises(TypeError, match="-1 has no msgpack form"):
        pack([-1])


def test_pictures_are_found_where_their_placeholders_stand(policy: Policy, prompt: RenderedPrompt) -> None:
    # 16 x 16 pixels make a token: 64 x 48 are 4 x 3 of them, 32 x 32 are 2 x 2.
    first, second = pictures_of(policy, prompt)
    assert [first.length, second.length] == [12, 4]
    start = prompt.token_ids.index(policy.image_token_id)
    assert first.offset == start
    assert set(prompt.token_ids[second.offset : second.offset + 4]) == {policy.image_token_id}
    assert torch.equal(torch.cat([first.patches, second.patches]), prompt.pixel_values)
    assert (first.name, second.name) == prompt.picture_hashes


def test_patches_travel_bit_for_bit(policy: Policy, prompt: RenderedPrompt) -> None:
    first, second = pictures_of(policy, prompt)
    made = features([first, second])
    item = base64.b64decode(made["kwargs_data"]["image"][1])
    assert second.patches.numpy().tobytes() in item
    assert second.grid.numpy().tobytes() in item
    assert made["mm_hashes"]["image"] == list(prompt.picture_hashes)
    assert made["mm_placeholders"]["image"][1] == {"offset": second.offset, "length": 4}


def test_a_text_prompt_has_no_features(policy: Policy, rendered: Rendered) -> None:
    body = request_body(policy, rendered(policy), {})
    assert "features" not in body
    assert body["return_token_ids"] is True


def test_a_request_bans_placeholders_and_stops_where_the_policy_stops(policy: Policy) -> None:
    params = sampling_params(policy, SAMPLING, [5, 6])
    assert params["n"] == 2
    assert params["logit_bias"] == dict.fromkeys(policy.banned_token_ids, -100.0)
    assert params["stop_token_ids"] == list(policy.eos_token_ids)
    assert params["ignore_eos"] is True
    assert (params["temperature"], params["top_p"], params["max_tokens"], params["logprobs"]) == (0.7, 0.9, 3, 0)


def test_seeds_decide_the_request_and_leave_room_to_count(policy: Policy) -> None:
    seeds = [sampling_params(policy, SAMPLING, row)["seed"] for row in ([5, 6], [5, 6], [6, 5], [5, 7])]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 2**62 for seed in seeds)


def test_a_greedy_answer_is_asked_for_once_and_counts_for_all(policy: Policy, prompt: RenderedPrompt) -> None:
    sampling = replace(SAMPLING, temperature=0.0)
    assert sampling_params(policy, sampling, [5, 6])["n"] == 1
    first, second = complete(policy, prompt, [choice(policy)], sampling=sampling)
    assert first == second


def test_a_temperature_that_vllm_would_raise_is_refused(policy: Policy) -> None:
    with pytest.raises(EngineError, match=r"temperature is 0\.005, but vLLM samples at 0\.01 or more. Set it to 0"):
        sampling_params(policy, replace(SAMPLING, temperature=0.005), [5, 6])


def test_another_prompt_is_named_by_its_first_difference(policy: Policy, prompt: RenderedPrompt) -> None:
    check_prompt(policy, prompt, prompt.token_ids)
    other = list(prompt.token_ids)
    other[3] = 77
    with pytest.raises(
        EngineError, match=rf"sample 'noise-0': .*Position 3 is token 77, but must be token {prompt.token_ids[3]}"
    ):
        check_prompt(policy, prompt, other)
    with pytest.raises(EngineError, match=f"Position {len(other) - 1} is the end"):
        check_prompt(policy, prompt, prompt.token_ids[:-1])


def test_placeholders_that_were_expanded_twice_are_named(policy: Policy, prompt: RenderedPrompt) -> None:
    at = prompt.token_ids.index(policy.image_token_id)
    twice = [*prompt.token_ids[:at], *[policy.image_token_id] * 11, *prompt.token_ids[at:]]
    with pytest.raises(EngineError, match="expanded twice"):
        check_prompt(policy, prompt, twice)


def reply(policy: Policy, prompt: RenderedPrompt, **changes: Any) -> dict[str, Any]:
    ranges = [{"offset": one.offset, "length": one.length} for one in pictures_of(policy, prompt)]
    entry = {"token_id": 40, "logprob": -0.5}
    span = {"version": "run.3", "start": 0, "end": 1}
    made = {"finish_reason": "length", "token_ids": [40], "logprobs": {"content": [entry]}, "weight_versions": [span]}
    choices = [
        made | {"index": 1, "token_ids": [41], "logprobs": {"content": [entry | {"token_id": 41}]}},
        made | {"index": 0},
    ]
    return {
        "prompt_token_ids": list(prompt.token_ids),
        "mm_placeholders": {"image": ranges},
        "choices": choices,
    } | changes


def test_a_reply_is_read_in_the_order_of_its_indices(policy: Policy, prompt: RenderedPrompt) -> None:
    first, second = read_reply(policy, prompt, reply(policy, prompt))
    assert first == Choice(token_ids=(40,), logprobs=(-0.5,), finish_reason="length", weights=(("run.3", 0, 1),))
    assert second.token_ids == (41,)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompt_token_ids": None}, "Position 0 is the end"),
        ({"mm_placeholders": None}, r"pictures stand at \(offset, length\) \[\], but must stand at"),
        ({"choices": [{"index": 0}]}, "lacks 'logprobs'"),
    ],
)
def test_a_reply_that_is_not_ours_is_refused(
    policy: Policy, prompt: RenderedPrompt, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(EngineError, match=told):
        read_reply(policy, prompt, reply(policy, prompt, **changes))


def test_log_probabilities_of_other_tokens_are_refused(policy: Policy, prompt: RenderedPrompt) -> None:
    made = reply(policy, prompt)
    made["choices"][0]["token_ids"] = [99]
    with pytest.raises(EngineError, match="of other tokens"):
        read_reply(policy, prompt, made)


def choice(policy: Policy, **changes: Any) -> Choice:
    """Two words and the end."""
    fields = {
        "token_ids": (40, 41, policy.eos_token_ids[0]),
        "logprobs": (-0.5, -0.25, -0.125),
        "finish_reason": "stop",
        "weights": (("run.3", 0, 3),),
    }
    return Choice(**(fields | changes))


def complete(
    policy: Policy, prompt: RenderedPrompt, choices: list[Choice], *, sampling: Sampling = SAMPLING
) -> list[Completion]:
    return to_completions(policy, prompt, sampling, choices, versions={"run.3": 3, "run.4": 4})


def test_a_choice_becomes_a_completion(policy: Policy, prompt: RenderedPrompt) -> None:
    cut = choice(policy, token_ids=(40, 41, 42), finish_reason="length")
    ended, other = complete(policy, prompt, [choice(policy), cut])
    assert ended == Completion(
        token_ids=(40, 41, policy.eos_token_ids[0]),
        logprobs=(-0.5, -0.25, -0.125),
        text=policy.tokenizer.decode([40, 41]),
        stop_reason="eos",
        weights_versions=(3, 3, 3),
    )
    assert other.stop_reason == "length"


def test_tokens_of_other_weights_are_told_apart(policy: Policy, prompt: RenderedPrompt) -> None:
    mixed = choice(policy, weights=(("run.3", 0, 1), ("run.4", 1, 3)))
    first, second = complete(policy, prompt, [mixed, choice(policy)])
    assert first.weights_versions == (3, 4, 4)
    assert second.weights_versions == (3, 3, 3)
    assert [one.weights_versions for one in drop_present_versions([[first, second]], 3)[0]] == [(3, 4, 4), ()]
    assert drop_present_versions([[first, second]], 4) == [[first, second]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"logprobs": (-0.5, -0.25)}, "sampled 3 tokens and knows 2 log-probabilities"),
        ({"logprobs": (-0.5, -9999.0, -0.1)}, "sampled 3 tokens and knows 2 log-probabilities"),
        ({"logprobs": (-0.5, float("nan"), -0.1)}, "sampled 3 tokens and knows 2 log-probabilities"),
        (
            {"token_ids": (40, 41), "logprobs": (-0.5, -0.1), "weights": (("run.3", 0, 2),)},
            "--max-model-len of at least",
        ),
        ({"weights": (("run.3", 0, 2),)}, "names the weights of 2 tokens of a completion of 3"),
    ],
)
def test_completions_that_this_policy_cannot_give_are_refused(
    policy: Policy, prompt: RenderedPrompt, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(EngineError, match=told):
        complete(policy, prompt, [choice(policy), choice(policy, **changes)])


def test_a_sampled_placeholder_is_refused(policy: Policy, prompt: RenderedPrompt) -> None:
    sampled = choice(policy, token_ids=(40, policy.image_token_id, policy.eos_token_ids[0]))
    with pytest.raises(EngineError, match=rf"placeholder ids \[{policy.image_token_id}\], which are banned"):
        complete(policy, prompt, [choice(policy), sampled])


def test_too_few_choices_are_refused(policy: Policy, prompt: RenderedPrompt) -> None:
    with pytest.raises(EngineError, match="gave 1 completions of 2"):
        complete(policy, prompt, [choice(policy)])
