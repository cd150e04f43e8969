"""The embedded engine against the trainer's scores, the plain model, and its own promises about seeds."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mm_agrae.engines import shared_decoder
from mm_agrae.engines.shared_decoder import MAX_WAVES, SharedDecoder
from mm_agrae.engines.transformers_engine import COMPACT_AT, TransformersEngine
from mm_agrae.errors import EngineError
from mm_agrae.policy.forward import score
from mm_agrae.policy.layout import Row, make_layout
from mm_agrae.policy.load import Policy
from mm_agrae.policy.tiny import ARCHITECTURES
from mm_agrae.records import Completion, RenderedPrompt, Sampling
from mm_agrae.seeding import seed_for

Rendered = Callable[..., RenderedPrompt]
PolicyOf = Callable[[str], Policy]


def sharpen(policy: Policy, *, head_bias: dict[int, float] | None = None) -> Policy:
    """A copy whose next-token distributions are far from even, with a bias on some logits."""
    model = copy.deepcopy(policy.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "qkv")):
                parameter.mul_(3)
            if any(part in name for part in ("down_proj", "o_proj")):
                parameter.mul_(8)
    bias = torch.zeros(model.config.get_text_config().vocab_size)
    for token, value in (head_bias or {}).items():
        bias[token] = value
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(3 * head.weight)  # no longer tied
    head.bias = torch.nn.Parameter(bias)
    return replace(policy, model=model)


def make_prompts(policy: Policy, rendered: Rendered) -> list[RenderedPrompt]:
    text = [rendered(policy, question=question) for question in ("What is two plus two?", "How many?")]
    if not policy.sees:
        return [*text, rendered(policy)]
    return [rendered(policy, (64, 48)), text[0], rendered(policy, (40, 64), (32, 32), seed=1), text[1]]


def make_seeds(num_prompts: int, num_completions: int, *, run: int = 0) -> list[list[int]]:
    return [[seed_for(run, p, g) for g in range(num_completions)] for p in range(num_prompts)]


def generate(
    policy: Policy, prompts: Sequence[RenderedPrompt], sampling: Sampling, *, batch_rows: int = 64, run: int = 0
) -> list[list[Completion]]:
    seeds = make_seeds(len(prompts), sampling.num_completions, run=run)
    return TransformersEngine(policy, batch_rows=batch_rows).generate(prompts, sampling, seeds)


def ids_of(groups: Sequence[Sequence[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in group] for group in groups]


def next_probabilities(policy: Policy, prompt: RenderedPrompt) -> Tensor:
    """[V] distribution of the first token by the model's own forward, placeholders cut."""
    inputs: dict[str, Any] = {"input_ids": torch.tensor([prompt.token_ids])}
    if prompt.mm_token_type_ids is not None:
        inputs["mm_token_type_ids"] = prompt.mm_token_type_ids[None]
    if prompt.pixel_values is not None:
        inputs |= {"pixel_values": prompt.pixel_values, "image_grid_thw": prompt.image_grid_thw}
    with torch.no_grad():
        logits = policy.model(**inputs).logits[0, -1].clone()
    logits[list(policy.banned_token_ids)] = float("-inf")
    return logits


WAYS = [*((name, True) for name in ARCHITECTURES), ("qwen2_5_vl", False), ("qwen3", False)]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{'shared' if way[1] else 'repeated'}")
def policy(request: pytest.FixtureRequest, policy_of: PolicyOf) -> Policy:
    """With prompts shared between completions, or repeated for them."""
    architecture, shares = request.param
    return replace(sharpen(policy_of(architecture)), shares_prompts=shares)


@pytest.fixture
def sees(policy_of: PolicyOf) -> Policy:
    return sharpen(policy_of("qwen2_5_vl"))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_rollout_logprobs_equal_the_trainers(policy: Policy, rendered: Rendered, temperature: float) -> None:
    prompts = make_prompts(policy, rendered)
    sampling = Sampling(num_completions=3, max_new_tokens=12, temperature=temperature)
    groups = generate(policy, prompts, sampling)
    rows = [
        Row(prompt=prompt, completions=tuple(completion.token_ids for completion in group))
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    with torch.no_grad():
        expected = score(policy, make_layout(rows), temperature=temperature).logprobs
    reported = torch.tensor([logprob for group in groups for completion in group for logprob in completion.logprobs])
    torch.testing.assert_close(reported, expected, rtol=0, atol=1e-5)
    assert len({completion for group in ids_of(groups) for completion in group}) > len(prompts)


def test_the_seed_alone_decides_a_completion(policy: Policy, rendered: Rendered) -> None:
    prompts = make_prompts(policy, rendered)
    sampling = Sampling(num_completions=4, max_new_tokens=10)
    expected = ids_of(generate(policy, prompts, sampling))
    assert ids_of(generate(policy, prompts, sampling, batch_rows=1)) == expected
    assert ids_of(generate(policy, prompts, sampling, batch_rows=8)) == expected
    seeds = make_seeds(len(prompts), 4)
    turned = TransformersEngine(policy, batch_rows=64).generate(prompts[::-1], sampling, seeds[::-1])
    assert ids_of(turned) == expected[::-1]
    single = TransformersEngine(policy, batch_rows=64).generate(
        prompts[1:2], replace(sampling, num_completions=1), [[seeds[1][2]]]
    )
    assert ids_of(single) == [[expected[1][2]]]
    assert ids_of(generate(policy, prompts, sampling, run=1)) != expected


def test_greedy_equals_the_models_own_generate(policy: Policy, rendered: Rendered) -> None:
    prompts = make_prompts(policy, rendered)
    groups = generate(policy, prompts, Sampling(num_completions=1, max_new_tokens=12, temperature=0.0))
    for prompt, (completion,) in zip(prompts, groups, strict=True):
        inputs: dict[str, Any] = {"input_ids": torch.tensor([prompt.token_ids])}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if prompt.mm_token_type_ids is not None:
            inputs["mm_token_type_ids"] = prompt.mm_token_type_ids[None]
        if prompt.pixel_values is not None:
            inputs |= {"pixel_values": prompt.pixel_values, "image_grid_thw": prompt.image_grid_thw}
        with torch.no_grad():
            made = policy.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=12,
                suppress_tokens=list(policy.banned_token_ids),
                eos_token_id=list(policy.eos_token_ids),
            )
        assert completion.token_ids == tuple(made[0, len(prompt.token_ids) :].tolist())
    assert len(set(groups[0][0].token_ids)) > 1


def test_trap_10_placeholders_are_never_sampled_however_likely(policy_of: PolicyOf, rendered: Rendered) -> None:
    """A sampled placeholder would be taken for an image that is not there when the completion is learnt from."""
    plain = policy_of("qwen2_5_vl")
    pushed = sharpen(plain, head_bias=dict.fromkeys(plain.banned_token_ids, 50.0))
    prompts = [rendered(plain, (64, 64))]
    for temperature in (0.0, 1.0, 2.0):
        sampling = Sampling(num_completions=8, max_new_tokens=8, temperature=temperature)
        sampled = {token for group in ids_of(generate(pushed, prompts, sampling)) for ids in group for token in ids}
        assert sampled
        assert not sampled & set(plain.banned_token_ids)
    unguarded = replace(pushed, banned_token_ids=())
    one = Sampling(num_completions=8, max_new_tokens=1)
    assert {ids[0] for ids in ids_of(generate(unguarded, prompts, one))[0]} <= set(plain.banned_token_ids)


def test_finished_rows_leave_and_images_are_seen_once(policy_of: PolicyOf, rendered: Rendered) -> None:
    plain = policy_of("qwen2_5_vl")
    policy = sharpen(plain, head_bias={plain.tokenizer.eos_token_id: 8.0})
    prompts = make_prompts(policy, rendered)
    shapes: list[tuple[int, ...]] = []
    patches: list[int] = []
    policy.backbone.register_forward_pre_hook(
        lambda _module, _args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    policy.backbone.visual.register_forward_pre_hook(
        lambda _module, args, kwargs: patches.append(len(args[0] if args else kwargs["hidden_states"])),
        with_kwargs=True,
    )
    groups = generate(policy, prompts, Sampling(num_completions=16, max_new_tokens=40), batch_rows=1000)
    assert patches == [sum(len(prompt.pixel_values) for prompt in prompts if prompt.pixel_values is not None)]
    assert shapes[0] == (1, sum(len(prompt.token_ids) for prompt in prompts)), "every prompt once, without padding"
    assert {width for _, width in shapes[1:]} == {1}
    lengths = [len(completion.token_ids) for group in groups for completion in group]
    assert min(lengths) == 1
    assert max(lengths) > 3
    for step, (decoded, _) in enumerate(shapes[1:], start=1):
        running = sum(length > step for length in lengths)
        assert running <= decoded
        assert running > (1 - COMPACT_AT) * decoded
    assert len(shapes) == max(lengths)


def test_prefill_in_pieces_changes_no_number(
    policy_of: PolicyOf, rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = sharpen(policy_of("qwen2_5_vl"))
    prompts = sorted(make_prompts(policy, rendered), key=lambda prompt: len(prompt.token_ids))
    lengths = [len(prompt.token_ids) for prompt in prompts]
    sampling = Sampling(num_completions=3, max_new_tokens=8)
    whole = generate(policy, prompts, sampling)
    widths: list[int] = []
    policy.backbone.register_forward_pre_hook(
        lambda _module, _args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    # The first two go together, the others are over the bound as soon as they are not alone.
    monkeypatch.setattr(shared_decoder, "PREFILL_TOKENS", lengths[0] + lengths[1])
    pieces = generate(policy, prompts, sampling)
    assert widths[:4] == [lengths[0] + lengths[1], lengths[2], lengths[3], 1]
    assert ids_of(pieces) == ids_of(whole)
    reported, expected = (
        [logprob for group in groups for completion in group for logprob in completion.logprobs]
        for groups in (pieces, whole)
    )
    assert reported == pytest.approx(expected, rel=0, abs=1e-5)


def test_stop_reasons_and_text(policy_of: PolicyOf, rendered: Rendered) -> None:
    plain = policy_of("qwen2_5_vl")
    eos = plain.tokenizer.eos_token_id
    policy = sharpen(plain, head_bias={eos: 3.0})
    groups = generate(policy, make_prompts(policy, rendered), Sampling(num_completions=16, max_new_tokens=6))
    completions = [completion for group in groups for completion in group]
    assert {completion.stop_reason for completion in completions} == {"eos", "length"}
    for completion in completions:
        assert len(completion.logprobs) == len(completion.token_ids) <= 6
        assert not set(completion.token_ids[:-1]) & set(policy.eos_token_ids)
        ended = completion.token_ids[-1] in policy.eos_token_ids
        assert (completion.stop_reason == "eos") == ended
        assert ended or len(completion.token_ids) == 6
        assert completion.text == policy.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        assert "<|" not in completion.text


def test_samples_follow_the_softmax(sees: Policy, rendered: Rendered) -> None:
    prompt = rendered(sees, (64, 64))
    count = 6000
    sampling = Sampling(num_completions=count, max_new_tokens=1, temperature=0.7)
    (group,) = generate(sees, [prompt], sampling)
    expected = count * (next_probabilities(sees, prompt).double() / 0.7).softmax(-1)
    seen = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=len(expected)).double()
    common = expected >= 5
    expected = torch.cat([expected[common], expected[~common].sum()[None]])
    seen = torch.cat([seen[common], seen[~common].sum()[None]])
    statistic = float(((seen - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    assert freedom > 20
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


def test_streams_of_neighbouring_steps_are_not_tied(policy_of: PolicyOf, rendered: Rendered) -> None:
    """Two tokens drawn in a row from nearly even distributions must not go together."""
    policy = policy_of("qwen2_5_vl")
    (group,) = generate(policy, [rendered(policy, (64, 64))], Sampling(num_completions=3000, max_new_tokens=2))
    pairs = torch.tensor([c.token_ids for c in group if len(c.token_ids) == 2]).double()
    assert abs(float(torch.corrcoef(pairs.T)[0, 1])) < 4 / len(pairs) ** 0.5


def test_top_p_keeps_the_nucleus_and_reports_the_full_softmax(sees: Policy, rendered: Rendered) -> None:
    prompt = rendered(sees, (64, 64))
    probabilities = next_probabilities(sees, prompt).softmax(-1)
    nucleus: set[int] = set()
    mass = 0.0
    for token in probabilities.argsort(descending=True).tolist():
        if mass >= 0.3:
            break
        nucleus.add(token)
        mass += float(probabilities[token])
    (group,) = generate(sees, [prompt], Sampling(num_completions=2000, max_new_tokens=1, top_p=0.3))
    assert {completion.token_ids[0] for completion in group} == nucleus
    assert 1 < len(nucleus) < 40
    for completion in group:
        assert completion.logprobs[0] == pytest.approx(float(probabilities[completion.token_ids[0]].log()), abs=1e-4)


def test_weights_follow_the_policy_and_their_version_moves(sees: Policy, rendered: Rendered) -> None:
    engine = TransformersEngine(sees, batch_rows=4, weights_version=3)
    assert engine.weights_version == 3
    prompts, greedy = make_prompts(sees, rendered), Sampling(num_completions=1, max_new_tokens=8, temperature=0.0)
    before = engine.generate(prompts, greedy, make_seeds(len(prompts), 1))
    with torch.no_grad():
        sees.inner.get_input_embeddings().weight.copy_(sees.inner.get_input_embeddings().weight.roll(1, 0))
    engine.sync_weights(sees, version=4)
    assert engine.weights_version == 4
    assert ids_of(engine.generate(prompts, greedy, make_seeds(len(prompts), 1))) != ids_of(before)
    engine.close()


def test_weights_that_are_not_finite_stop_the_engine(sees: Policy, rendered: Rendered) -> None:
    with torch.no_grad():
        sees.inner.get_input_embeddings().weight.fill_(float("nan"))
    for temperature in (0.0, 1.0):
        with pytest.raises(EngineError, match="not finite"):
            generate(
                sees,
                [rendered(sees, (64, 64))],
                Sampling(num_completions=2, max_new_tokens=4, temperature=temperature),
            )


@pytest.mark.parametrize("seeds", [[], [[1, 2]], [[1], [2]], [[1, 2], [3]]])
def test_seeds_of_the_wrong_shape_are_refused(sees: Policy, rendered: Rendered, seeds: list[list[int]]) -> None:
    prompts = make_prompts(sees, rendered)[:2]
    with pytest.raises(ValueError, match="one seed per completion"):
        TransformersEngine(sees, batch_rows=4).generate(prompts, Sampling(num_completions=2, max_new_tokens=2), seeds)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_keys_are_kept_once_in_the_precision_of_attention(
    policy: Policy, rendered: Rendered, precision: str, dtype: torch.dtype
) -> None:
    """Keys of a prompt stand once for its two completions; where lines repeat it, a step adds one key to each."""
    policy = replace(policy, precision=precision)
    prompts = make_prompts(policy, rendered)
    width = max(len(prompt.token_ids) for prompt in prompts)
    seen: list[list[tuple[torch.dtype, int, int]]] = []

    def look(_module: Any, _args: Any, kwargs: dict[str, Any], _out: Any) -> None:
        if not policy.shares_prompts:
            layers = kwargs["past_key_values"].layers
        elif isinstance(kwargs["attention"], SharedDecoder):
            (wave,) = kwargs["attention"].waves
            layers = [*wave.prompts, *wave.own]
        else:
            return
        tensors = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        seen.append([(tensor.dtype, tensor.shape[0], tensor.shape[-2]) for tensor in tensors])

    policy.backbone.register_forward_hook(look, with_kwargs=True)
    sampling = Sampling(num_completions=2, max_new_tokens=4, temperature=0.0)
    generate(policy, prompts, sampling)
    num_tensors = policy.inner.config.get_text_config().num_hidden_layers * 2
    if policy.shares_prompts:
        assert len(seen) == 3, "three tokens are decoded after the prefill"
        for tensors in seen:
            assert tensors[:num_tensors] == [(dtype, len(prompts), width)] * num_tensors
            assert [sizes[:2] for sizes in tensors[num_tensors:]] == [(dtype, 2 * len(prompts))] * num_tensors
    else:
        shapes = [(len(prompts), width)] + [(2 * len(prompts), width + step) for step in (1, 2, 3)]
        assert seen == [[(dtype, *shape)] * num_tensors for shape in shapes], "the prefill, then three tokens"


def test_waiting_prompts_take_the_places_of_finished_rows(
    policy_of: PolicyOf, rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = policy_of("qwen2_5_vl")
    policy = sharpen(plain, head_bias={plain.tokenizer.eos_token_id: 6.0})
    prompts = make_prompts(policy, rendered) * 4
    rows_before: list[int] = []
    num_rows: list[int] = []
    num_waves: list[int] = []
    start, step = SharedDecoder.start, SharedDecoder.step

    def watched_start(self: SharedDecoder, *args: Any, **kwargs: Any) -> Tensor:
        rows_before.append(sum(wave.num_rows for wave in self.waves))
        return start(self, *args, **kwargs)

    def watched_step(self: SharedDecoder, ids: Tensor, positions: Tensor) -> Tensor:
        num_rows.append(len(ids))
        num_waves.append(len(self.waves))
        return step(self, ids, positions)

    sampling = Sampling(num_completions=4, max_new_tokens=40)
    expected = ids_of(generate(policy, prompts, sampling, batch_rows=1000))
    monkeypatch.setattr(SharedDecoder, "start", watched_start)
    monkeypatch.setattr(SharedDecoder, "step", watched_step)
    assert ids_of(generate(policy, prompts, sampling, batch_rows=16)) == expected
    assert rows_before[0] == 0
    assert max(rows_before) > 0, "prompts join while others are decoded"
    assert max(num_rows) <= 16
    assert 1 < max(num_waves) <= MAX_WAVES


def test_no_prompts_give_no_completions(sees: Policy) -> None:
    assert generate(sees, [], Sampling(num_completions=2, max_new_tokens=2)) == []
