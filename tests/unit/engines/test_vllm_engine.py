"""vLLM in the trainer's process, against a small stand-in for the package."""

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mm_agrae.config import RunConfig
from mm_agrae.engines.vllm_engine import VllmEngine, llm_arguments
from mm_agrae.errors import ConfigError, EngineError
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.records import RenderedPrompt, Sampling
from tests.unit.engines.fake_llm import installed

Rendered = Callable[..., RenderedPrompt]
SAMPLING = Sampling(num_completions=2, max_new_tokens=3, temperature=0.7)


def recipe(folder: Path, engine: dict[str, Any], **model: Any) -> RunConfig:
    values = {"name": "tiny", "model": {"path": str(folder), "device": "cpu"} | model, "data": {}}
    return RunConfig.model_validate(values | {"engine": {"kind": "vllm"} | engine, "rollout": {"batch_rows": 32}})


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with installed(monkeypatch) as package:
        yield package


@pytest.fixture
def start(vllm: Any, model_folder: Callable[[str], Path]) -> Callable[..., VllmEngine]:
    """start(architecture, elsewhere=..., freeze=...): an engine whose completions are one end-of-text token.

    Elsewhere the policy has other weights than the folder that the engine starts from, frozen ones too.
    """

    def make(architecture: str = "qwen2_5_vl", *, elsewhere: bool = False, **model: Any) -> VllmEngine:
        config = recipe(model_folder(architecture), {}, **model)
        policy = load_policy(config.model)
        for parameter in policy.model.parameters() if elsewhere else ():
            parameter.data.add_(torch.randn_like(parameter))
        made = VllmEngine(policy, config, context_tokens=128, processes=1, weights_version=4)
        made.llm.answer = policy.eos_token_ids[:1]
        return made

    return make


def changed(policy: Policy) -> Policy:
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(torch.randn_like(parameter))
    return policy


def assert_in_step(engine: VllmEngine) -> None:
    theirs = dict(engine.llm.model.inner.named_parameters())
    assert all(torch.equal(theirs[name], ours) for name, ours in engine.policy.inner.named_parameters())
    assert torch.equal(engine.llm.model.lm_head.packed, engine.policy.head.weight)


def test_ids_and_patches_go_in_as_they_were_rendered(start: Callable[..., VllmEngine], rendered: Rendered) -> None:
    engine = start()
    asked: list[Any] = []
    engine.llm.fault = lambda outputs: asked.extend(engine.llm.requests) or outputs
    pictured, text = rendered(engine.policy, (64, 48), (32, 32)), rendered(engine.policy)
    engine.generate([pictured, text], SAMPLING, [[1, 2], [3, 4]])
    (first, params), (second, other) = asked
    assert first["prompt_token_ids"] == list(pictured.token_ids)
    assert first["mm_hashes"] == {"image": list(pictured.picture_hashes)}
    assert torch.equal(torch.cat([item["pixel_values"] for item in first["mm_kwargs"]]), pictured.pixel_values)
    assert torch.equal(torch.stack([item["image_grid_thw"] for item in first["mm_kwargs"]]), pictured.image_grid_thw)
    ranges = first["mm_placeholders"]["image"]
    assert [one.length for one in ranges] == [12, 4]
    pads = {pictured.token_ids[at] for one in ranges for at in range(one.offset, one.offset + one.length)}
    assert pads == {engine.policy.image_token_id}
    assert second == {"type": "token", "prompt_token_ids": list(text.token_ids)}
    assert (params.n, params.temperature, params.max_tokens) == (2, 0.7, 3)
    assert params.output_kind == "final only"
    assert set(params.logit_bias) == set(engine.policy.banned_token_ids)
    assert params.seed != other.seed


def test_completions_come_back_in_order(start: Callable[..., VllmEngine], rendered: Rendered) -> None:
    engine = start("qwen3")
    prompts = [rendered(engine.policy), rendered(engine.policy, question="And how many squares?")]
    groups = engine.generate(prompts, SAMPLING, [[1, 2], [3, 4]])
    assert [len(group) for group in groups] == [2, 2]
    completion = groups[0][0]
    assert completion.token_ids == engine.policy.eos_token_ids[:1]
    assert completion.logprobs == (-1.0,)
    assert completion.stop_reason == "eos"
    assert completion.weights_versions == ()
    assert engine.generate([], SAMPLING, []) == []


def test_the_first_weights_are_the_policys_whatever_the_engine_was_started_from(
    start: Callable[..., VllmEngine],
) -> None:
    engine = start(elsewhere=True, freeze=["vision"])
    assert_in_step(engine)
    assert engine.weights_version == 4
    assert engine.llm.calls == ["start", "finish", "reset prefix", "reset encoder"]


@pytest.mark.parametrize(
    ("freeze", "resets"),
    [([], ["reset prefix", "reset encoder"]), (["vision", "connector"], ["reset prefix"])],
)
def test_new_weights_arrive_and_the_old_ones_are_forgotten(
    freeze: list[str], resets: list[str], start: Callable[..., VllmEngine], rendered: Rendered
) -> None:
    engine = start("qwen3_vl", freeze=freeze)
    engine.llm.calls.clear()
    engine.sync_weights(changed(engine.policy), version=5)
    assert_in_step(engine)
    assert engine.llm.calls == ["start", "finish", *resets]
    assert engine.weights_version == 5
    engine.generate([rendered(engine.policy)], SAMPLING, [[1, 2]])  # and its tokens are labelled with them


def test_tokens_of_other_weights_are_not_taken(start: Callable[..., VllmEngine], rendered: Rendered) -> None:
    engine = start("qwen3")
    engine.llm.version = "somebody else's"
    with pytest.raises(EngineError, match=r"sampled with weights \"somebody else's\", but must with"):
        engine.generate([rendered(engine.policy)], SAMPLING, [[1, 2]])


def test_an_update_that_loads_too_little_is_an_error(start: Callable[..., VllmEngine]) -> None:
    engine = start("qwen3")
    backend = engine.llm.worker.weight_transfer_engine
    count = backend._counted
    backend._counted = lambda weights: (list(count(weights))[1:] and backend.received.update(num_weights=1)) or []
    with pytest.raises(EngineError, match=r"after 1 were loaded, but \d+ of '\w+\.5' were sent"):
        engine.sync_weights(engine.policy, version=5)


def test_weights_that_the_engine_does_not_know_are_named_before_the_first_step(
    start: Callable[..., VllmEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mm_agrae.engines.vllm_engine.weight_shapes", lambda policy, part="all": {"model.stranger.weight": (2, 2)}
    )
    with pytest.raises(EngineError, match=r"vLLM has no place for model\.stranger\.weight"):
        start("qwen3")


def wrong_prompt(outputs: list[Any]) -> list[Any]:
    outputs[0].prompt_token_ids[3] += 1
    return outputs


def no_logprobs(outputs: list[Any]) -> list[Any]:
    outputs[0].outputs[0].logprobs = None
    return outputs


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (wrong_prompt, "vLLM answered another prompt than it was asked. Position 3 is"),
        (no_logprobs, "sampled 1 tokens and knows 0 log-probabilities"),
        (lambda outputs: outputs[:-1], "vLLM answered 1 of 2 prompts"),
    ],
)
def test_wrong_answers_are_errors(fault: Any, told: str, start: Callable[..., VllmEngine], rendered: Rendered) -> None:
    engine = start("qwen3")
    engine.llm.fault = fault
    with pytest.raises(EngineError, match=told):
        engine.generate([rendered(engine.policy)] * 2, SAMPLING, [[1, 2], [3, 4]])


def test_a_sampled_placeholder_is_an_error(start: Callable[..., VllmEngine], rendered: Rendered) -> None:
    engine = start()
    engine.llm.answer = (engine.policy.banned_token_ids[0], engine.policy.eos_token_ids[0])
    with pytest.raises(EngineError, match="sampled the placeholder ids"):
        engine.generate([rendered(engine.policy)], SAMPLING, [[1, 2]])


def test_a_prompt_that_is_too_long_with_its_completion_is_refused(
    start: Callable[..., VllmEngine], rendered: Rendered
) -> None:
    engine = start("qwen3")
    prompt = rendered(engine.policy)
    engine.context_tokens = len(prompt.token_ids) + 2
    with pytest.raises(EngineError, match=rf"needs {engine.context_tokens + 1} tokens .* {engine.context_tokens}\."):
        engine.generate([prompt], SAMPLING, [[1, 2]])


def test_what_vllm_raises_is_told_with_what_it_was_doing(start: Callable[..., VllmEngine], rendered: Rendered) -> None:
    engine = start("qwen3")

    def fail(outputs: list[Any]) -> list[Any]:
        raise AssertionError("no blocks left")

    engine.llm.fault = fail
    with pytest.raises(EngineError, match="vLLM failed while sampling: no blocks left"):
        engine.generate([rendered(engine.policy)], SAMPLING, [[1, 2]])


def test_an_engine_that_sleeps_is_awake_when_it_is_needed(start: Callable[..., VllmEngine], rendered: Rendered) -> None:
    engine = start("qwen3")
    engine.sleeps = True
    engine.llm.calls.clear()
    prompt = rendered(engine.policy)
    engine.generate([prompt], SAMPLING, [[1, 2]])
    engine.generate([prompt], SAMPLING, [[1, 2]])
    engine.sync_weights(engine.policy, version=5)
    engine.generate([prompt], SAMPLING, [[1, 2]])
    assert engine.llm.calls == [
        *("generate", "sleep 1"),
        *("wake ['weights', 'kv_cache']", "generate", "sleep 1"),
        *("wake ['weights']", "start", "finish", "reset prefix"),
        *("wake ['kv_cache']", "generate", "sleep 1"),
    ]


def test_sleeping_on_a_cpu_is_refused(policy_of: Callable[[str], Policy], model_folder: Callable[[str], Path]) -> None:
    config = recipe(model_folder("qwen3"), {"sleeps": True})
    with pytest.raises(ConfigError, match=r"engine\.sleeps is true, but on a CPU vLLM gives no memory back"):
        llm_arguments(policy_of("qwen3"), config, context_tokens=64, processes=1)


def test_arguments_follow_the_policy_and_the_settings(
    policy_of: Callable[[str], Policy], model_folder: Callable[[str], Path]
) -> None:
    folder = model_folder("qwen2_5_vl")
    config = recipe(folder, {"memory_fraction": 0.3})
    policy = policy_of("qwen2_5_vl")
    made = llm_arguments(policy, config, context_tokens=9000, processes=1)
    small = llm_arguments(policy, config, context_tokens=100, processes=1)
    large = llm_arguments(policy, config, context_tokens=70000, processes=1)
    assert made["model"] == str(folder)
    assert (made["dtype"], made["max_model_len"]) == ("float32", 9000)
    # On a CPU as many rows as fit, whole, into one pass of bounded size; at least one.
    assert [one["max_num_seqs"] for one in (small, made, large)] == [32, 7, 1]
    assert [one["max_num_batched_tokens"] for one in (small, made, large)] == [8192, 7 * 9000, 70000]
    assert made["gpu_memory_utilization"] == 0.3
    assert made["logprobs_mode"] == "processed_logprobs"
    assert made["distributed_executor_backend"] == "uni"
    assert made["limit_mm_per_prompt"]["image"]["width"] ** 2 <= config.images.max_pixels
    several = llm_arguments(replace(policy, precision="bf16"), config, context_tokens=64, processes=4)
    assert several["distributed_executor_backend"] == "external_launcher"
    assert several["dtype"] == "bfloat16"
    assert llm_arguments(policy_of("qwen3"), config, context_tokens=64, processes=1)["limit_mm_per_prompt"] == {}
    elsewhere = replace(policy, model=copy.deepcopy(policy.model).to("meta"))  # any device but a CPU
    fast = llm_arguments(elsewhere, config, context_tokens=9000, processes=1)
    assert (fast["max_num_batched_tokens"], fast["max_num_seqs"]) == (9000, 32)


def test_a_recipe_without_vllm_says_what_to_install(
    policy_of: Callable[[str], Policy], model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    with pytest.raises(ConfigError, match=r"vLLM cannot be imported.*pip install 'mm-agrae\[vllm\]'"):
        VllmEngine(policy_of("qwen3"), recipe(model_folder("qwen3"), {}), context_tokens=64, processes=1)


def test_another_release_is_refused(start: Callable[..., VllmEngine], vllm: Any) -> None:
    vllm.__version__ = "0.40.1"
    with pytest.raises(EngineError, match=r"version 0\.40\.1"):
        start("qwen3")


def test_closing_stops_the_engine(start: Callable[..., VllmEngine]) -> None:
    engine = start("qwen3")
    calls = engine.llm.calls
    engine.close()
    assert calls[-1] == "shutdown"
