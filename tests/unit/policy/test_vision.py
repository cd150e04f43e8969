"""What the backbone is given of pictures: encoded once under a frozen tower, with gradient under a trained one."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mm_agrae.config.model import LoraConfig, ModelConfig
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.policy import vision
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.layout import Row, one_by_one
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.vision import image_inputs, share_tower, tower_is_frozen
from mm_agrae.policy.vision_cache import PictureFeatures, VisionCache
from mm_agrae.records import RenderedPrompt, Sampling

ModelFolder = Callable[[str], Path]
PolicyOf = Callable[[str], Policy]
Rendered = Callable[..., RenderedPrompt]

VISION = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
GIB = 2**30


def trained(policy: Policy) -> Policy:
    """A copy to change."""
    return replace(policy, model=copy.deepcopy(policy.model), vision_cache=VisionCache(GIB))


def frozen(policy: Policy, *, max_bytes: int = GIB) -> Policy:
    """A copy whose tower is frozen."""
    model = copy.deepcopy(policy.model)
    made = replace(policy, model=model, vision_cache=VisionCache(max_bytes))
    made.backbone.visual.requires_grad_(False)
    return made


@contextmanager
def encoded(policy: Policy) -> Iterator[list[int]]:
    """Patches of every call of the tower."""
    calls: list[int] = []
    hook = policy.backbone.visual.register_forward_pre_hook(lambda _module, args: calls.append(len(args[0])))
    yield calls
    hook.remove()


def prompts_of(policy: Policy, rendered: Rendered) -> list[RenderedPrompt]:
    """One picture, two pictures, none."""
    return [
        rendered(policy, (64, 48), question="How many circles?"),
        rendered(policy, (40, 64), (32, 32), question="Which is taller?", seed=1),
        rendered(policy, question="What is two plus two?"),
    ]


def rows_of(prompts: Sequence[RenderedPrompt]) -> list[Row]:
    return [Row(prompt=prompt, completions=((40, 41, 42), (43,))) for prompt in prompts]


def logprobs(policy: Policy, prompts: Sequence[RenderedPrompt]) -> Tensor:
    return score(policy, lay_out(policy, rows_of(prompts))).logprobs


def features(policy: Policy, prompts: Sequence[RenderedPrompt]) -> list[Tensor]:
    """Everything that a backbone is given of the pictures of these prompts, picture by picture."""
    with policy.arithmetic():
        output = image_inputs(policy, [prompt for prompt in prompts if prompt.picture_hashes])
    image = output["mm_encoder_outputs"]["image"]
    return [
        torch.cat([embeddings, *(level[number] for level in image.deepstack_features)], dim=1)
        for number, embeddings in enumerate(image.pooler_output)
    ]


@pytest.fixture(params=VISION)
def policy(request: pytest.FixtureRequest, policy_of: PolicyOf) -> Policy:
    return policy_of(request.param)


def test_a_prompt_without_pictures_gives_the_backbone_nothing(policy: Policy) -> None:
    assert image_inputs(policy, []) == {}


def test_a_trained_tower_encodes_once_with_the_numbers_and_gradients_of_pixels(
    policy: Policy, rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = trained(policy)
    prompts = prompts_of(policy, rendered)
    weights = [p for p in policy.backbone.visual.parameters() if p.requires_grad]
    found = logprobs(policy, prompts)
    with encoded(policy) as calls:
        gradients = torch.autograd.grad(logprobs(policy, prompts).sum(), weights)
    assert calls == [sum(len(p.pixel_values) for p in prompts if p.pixel_values is not None)]
    assert len(policy.vision_cache) == 0
    # As under a transformers whose backbone takes pixels only.
    monkeypatch.setattr(vision, "takes_features", lambda backbone: False)
    expected = logprobs(policy, prompts)
    assert set(image_inputs(policy, prompts[:1])) == {"pixel_values", "image_grid_thw"}
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for gradient, pixel_gradient in zip(gradients, torch.autograd.grad(expected.sum(), weights), strict=True):
        torch.testing.assert_close(gradient, pixel_gradient, rtol=1e-5, atol=1e-6)


def test_a_frozen_tower_encodes_a_picture_once_for_rollout_and_update(policy: Policy, rendered: Rendered) -> None:
    policy = frozen(policy)
    prompts = prompts_of(policy, rendered)
    engine = TransformersEngine(policy, batch_rows=8)
    with encoded(policy) as calls:
        engine.generate(prompts, Sampling(num_completions=2, max_new_tokens=2), [[0, 1]] * 3)
        logprobs(policy, prompts).sum().backward()
        with torch.no_grad():
            logprobs(policy, prompts)
        another = rendered(policy, (64, 48), question="Same picture?")
        logprobs(policy, [another])
    assert another.content_hash != prompts[0].content_hash
    assert sorted(calls) == [2 * 2 * 4, 2 * 4 * 4, 4 * 3 * 4]  # visual tokens of the three pictures, 4 patches each
    assert all(parameter.grad is None for parameter in policy.backbone.visual.parameters())
    assert policy.backbone.language_model.layers[0].self_attn.q_proj.weight.grad.norm() > 0


def test_the_cache_changes_no_bit(policy: Policy, rendered: Rendered) -> None:
    prompts = prompts_of(policy, rendered)
    cached, plain = frozen(policy), frozen(policy, max_bytes=0)
    expected = [features(plain, [prompt]) for prompt in prompts[:2]]
    features(cached, prompts[1:2])  # so that one of the two prompts is there and the other is not
    with encoded(cached) as calls:
        mixed = features(cached, prompts)
    assert len(calls) == 1
    assert all(map(torch.equal, mixed, [*expected[0], *expected[1]]))
    assert all(map(torch.equal, features(cached, prompts), features(plain, prompts)))
    assert torch.equal(logprobs(cached, prompts), logprobs(plain, prompts))
    assert len(plain.vision_cache) == 0


def test_frozen_features_are_those_of_the_trained_tower(policy: Policy, rendered: Rendered) -> None:
    prompts = prompts_of(policy, rendered)
    together = features(trained(policy), prompts)
    for found, expected in zip(features(frozen(policy), prompts), together, strict=True):
        assert not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    width, model_type = policy.inner.config.get_text_config().hidden_size, policy.inner.config.model_type
    levels = len(policy.backbone.visual.deepstack_merger_list) if model_type == "qwen3_vl" else 0
    assert (levels > 0) == (model_type == "qwen3_vl")
    assert together[0].shape == (12, width * (1 + levels))


def test_repeated_prompts_share_the_features_of_a_frozen_tower(policy_of: PolicyOf, rendered: Rendered) -> None:
    policy = frozen(policy_of("qwen3_vl"))
    rows = rows_of(prompts_of(policy, rendered)[:1])
    with encoded(policy) as calls:
        repeated = score(policy, lay_out(policy, one_by_one(rows[0]))).logprobs
    assert len(calls) == 1
    torch.testing.assert_close(repeated, score(policy, lay_out(policy, rows)).logprobs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("part", ["patch_embed", "merger"])
def test_trap_12_changed_weights_of_the_tower_are_seen(policy_of: PolicyOf, rendered: Rendered, part: str) -> None:
    """Features that were kept under the name of the picture alone would outlive the weights that made them."""
    policy = frozen(policy_of("qwen2_5_vl"))
    prompts = prompts_of(policy, rendered)[:1]
    before = features(policy, prompts)[0]
    with torch.no_grad():
        next(policy.backbone.visual.get_submodule(part).parameters()).mul_(1.5)
    after = features(policy, prompts)[0]
    assert float((after - before).abs().max()) > 1e-3
    assert torch.equal(after, features(frozen(policy), prompts)[0])
    assert len(policy.vision_cache) == 1


def test_trap_12_weights_that_are_put_in_the_place_of_others_are_seen(policy_of: PolicyOf, rendered: Rendered) -> None:
    """Such a change leaves the parameter the same object, and its version as it was."""
    policy = frozen(policy_of("qwen2_5_vl"))
    prompts = prompts_of(policy, rendered)[:1]
    before = features(policy, prompts)[0]
    weight = next(policy.backbone.visual.merger.parameters())
    version = weight._version
    weight.data = 1.5 * weight.data
    assert weight._version == version
    assert float((features(policy, prompts)[0] - before).abs().max()) > 1e-3


def test_trap_12_another_tower_another_parameter_and_another_precision_are_seen(
    policy_of: PolicyOf, rendered: Rendered
) -> None:
    """A version counts the writes into one tensor; another tensor may stand at the same count."""
    policy = frozen(policy_of("qwen2_vl"))
    prompts = prompts_of(policy, rendered)[:1]
    features(policy, prompts)
    other = replace(policy, model=copy.deepcopy(policy.model))
    assert other.vision_cache is policy.vision_cache
    with encoded(other) as calls:
        features(other, prompts)
        weight = other.backbone.visual.merger.ln_q.weight
        other.backbone.visual.merger.ln_q.weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
        features(other, prompts)
        features(replace(other, precision="bf16"), prompts)
        features(replace(other, precision="bf16"), prompts)
    assert len(calls) == 3


def test_trap_13_the_embedded_engine_sees_a_changed_tower(policy_of: PolicyOf, rendered: Rendered) -> None:
    """An engine that keeps encoded pictures over a change of weights samples from a policy that is gone."""
    policy = trained(policy_of("qwen3_vl"))
    prompts = prompts_of(policy, rendered)[:1]
    engine = TransformersEngine(policy, batch_rows=8)
    sampling = Sampling(num_completions=2, max_new_tokens=3)
    before = engine.generate(prompts, sampling, [[0, 1]])[0][0]
    with torch.no_grad():
        for parameter in policy.backbone.visual.parameters():
            parameter.mul_(1.5)
    engine.sync_weights(policy, version=1)
    for requires_grad in (True, False):
        policy.backbone.visual.requires_grad_(requires_grad)
        (found,) = engine.generate(prompts, sampling, [[0, 1]])
        row = Row(prompt=prompts[0], completions=tuple(completion.token_ids for completion in found))
        expected = score(policy, lay_out(policy, [row])).logprobs.detach()
        reported = torch.tensor([logprob for completion in found for logprob in completion.logprobs])
        torch.testing.assert_close(reported, expected, rtol=0, atol=1e-5)
        assert abs(found[0].logprobs[0] - before.logprobs[0]) > 1e-3


def test_trap_09_the_tower_gets_nothing_that_is_meant_for_the_language_model(
    policy: Policy, rendered: Rendered
) -> None:
    """Arguments of the backbone would reach an encoder that it calls itself, and with them the attention of the row."""
    seen: list[set[str]] = []
    for made in (trained(policy), frozen(policy)):
        block = made.backbone.visual.blocks[0]
        hook = block.register_forward_pre_hook(lambda _m, _args, names: seen.append(set(names)), with_kwargs=True)
        logprobs(made, prompts_of(made, rendered))
        hook.remove()
    assert len(seen) == 3 + 1
    assert not set.union(*seen) & {"attention", "attention_mask", "use_cache", "mm_token_type_ids"}


def test_trap_11_positions_that_a_forward_left_behind_are_not_used(policy: Policy, rendered: Rendered) -> None:
    """A backbone remembers how far the positions of its last pictures were shifted, for whoever gives it none."""
    policy = trained(policy)
    prompts = prompts_of(policy, rendered)
    expected = logprobs(policy, prompts)
    policy.backbone.rope_deltas = torch.tensor([[17]])
    assert torch.equal(logprobs(policy, prompts), expected)


@pytest.mark.parametrize("freeze", [False, True], ids=["trained", "frozen"])
def test_recomputing_reaches_the_layers_of_a_trained_tower_only(
    policy_of: PolicyOf, rendered: Rendered, freeze: bool
) -> None:
    policy = (frozen if freeze else trained)(policy_of("qwen2_5_vl"))
    prompts = prompts_of(policy, rendered)[:1]
    expected = [p.grad for p in _with_gradient(policy, prompts)]
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy.model.enable_input_require_grads()
    policy = replace(policy, vision_cache=VisionCache(0))
    blocks = policy.backbone.visual.blocks
    calls: list[int] = []
    hook = blocks[0].attn.register_forward_hook(lambda _m, _args, _out: calls.append(1))
    found = _with_gradient(policy, prompts)
    hook.remove()
    assert len(calls) == (1 if freeze else 2)
    for parameter, gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)


def _with_gradient(policy: Policy, prompts: Sequence[RenderedPrompt]) -> list[torch.nn.Parameter]:
    policy.model.zero_grad(set_to_none=True)
    logprobs(policy, prompts).sum().backward()
    return policy.trainable()


@pytest.mark.parametrize(("gib", "calls_of_three_passes"), [(0.0, 3), (0.5, 1)])
def test_the_setting_decides_how_often_a_picture_is_encoded(
    model_folder: ModelFolder, rendered: Rendered, gib: float, calls_of_three_passes: int
) -> None:
    config = ModelConfig(
        path=str(model_folder("qwen2_5_vl")), device="cpu", freeze=("vision", "connector"), vision_cache_gib=gib
    )
    policy = load_policy(config)
    assert policy.vision_cache.max_bytes == gib * GIB
    prompts = prompts_of(policy, rendered)[:1]
    with encoded(policy) as calls:
        for _ in range(3):
            logprobs(policy, prompts)
    assert len(calls) == calls_of_three_passes


def test_a_frozen_tower_with_a_trained_merger_is_trained(model_folder: ModelFolder, rendered: Rendered) -> None:
    config = ModelConfig(path=str(model_folder("qwen3_vl")), device="cpu", freeze=("vision",))
    policy = load_policy(config)
    assert not tower_is_frozen(policy)
    logprobs(policy, prompts_of(policy, rendered)).sum().backward()
    mergers = [p for name, p in policy.backbone.visual.named_parameters() if "merger" in name]
    assert all(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in mergers)


def test_with_adapters_policy_and_reference_share_the_features(model_folder: ModelFolder, rendered: Rendered) -> None:
    config = ModelConfig(path=str(model_folder("qwen2_5_vl")), device="cpu", lora=LoraConfig(rank=2))
    policy = load_policy(config)
    assert tower_is_frozen(policy)
    prompts = prompts_of(policy, rendered)
    with encoded(policy) as calls:
        logprobs(policy, prompts)
        with policy.without_adapters(), torch.no_grad():
            logprobs(policy, prompts)
    assert len(calls) == 3


def test_a_reference_shares_a_frozen_tower(policy_of: PolicyOf, rendered: Rendered) -> None:
    policy = frozen(policy_of("qwen3_vl"))
    prompts = prompts_of(policy, rendered)
    own = trained(policy_of("qwen3_vl"))
    expected = logprobs(own, prompts).detach()
    reference = share_tower(own, policy)
    assert reference.backbone.visual is policy.backbone.visual
    with encoded(policy) as calls:
        logprobs(policy, prompts)
        found = logprobs(reference, prompts).detach()
    assert len(calls) == 3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_reference_keeps_its_tower_where_the_policys_moves(policy_of: PolicyOf) -> None:
    policy, reference = trained(policy_of("qwen3_vl")), trained(policy_of("qwen3_vl"))
    assert share_tower(reference, policy) is reference
    assert reference.backbone.visual is not policy.backbone.visual
    text = policy_of("qwen3")
    assert share_tower(text, text) is text


def picture(num_bytes: int) -> PictureFeatures:
    return PictureFeatures(embeddings=torch.zeros(num_bytes // 8, 1), deepstack=(torch.zeros(num_bytes // 8, 1),))


def test_the_cache_keeps_what_was_used_last_within_its_bytes() -> None:
    cache = VisionCache(96)
    for name in "abc":
        cache.put(name, picture(32))
    assert (len(cache), cache.num_bytes) == (3, 96)
    assert cache.get("a") is not None
    cache.put("d", picture(16))  # b was not used for the longest time
    assert cache.get("b") is None
    assert all(cache.get(name) is not None for name in "acd")
    assert cache.num_bytes == 80
    cache.put("e", picture(96))  # fills it alone
    assert (len(cache), cache.num_bytes) == (1, 96)
    cache.put("f", picture(104))  # is too large, and no reason to forget another
    assert cache.get("f") is None
    assert cache.get("e") is not None


def test_kept_features_are_ordinary_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied from CUDA without blocking, they would be pinned; no kernel runs, only the copies are looked at."""
    blocking: list[bool] = []
    real = Tensor.to

    def watched(self: Tensor, *args: object, **options: object) -> Tensor:
        blocking.append(not options.get("non_blocking", False))
        return real(self, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Tensor, "to", watched)
    cache = VisionCache(GIB)
    cache.put("a", picture(32))
    found = cache.get("a")
    assert found is not None
    assert all(blocking)
    assert not any(tensor.is_pinned() for tensor in (found.embeddings, *found.deepstack))
