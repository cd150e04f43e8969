"""A group over the budget, computed in pieces that share one pass over the prompt, against the group in one pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from precise import precise
from torch import Tensor

from mm_agrae.config.model import LoraConfig, ModelConfig
from mm_agrae.policy.forward import TokenScores
from mm_agrae.policy.gradient import differentiate, score_rows
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.packing import Budget
from mm_agrae.policy.tiny import ARCHITECTURES
from mm_agrae.records import RenderedPrompt

Rendered = Callable[..., RenderedPrompt]
PolicyOf = Callable[[str], Policy]
WHOLE = Budget(tokens=10**6)
# Pieces of these completions at 5 tokens: 5 and an empty one | 1, 3 and an empty one; at 1 token: 5 and an empty one |
# 1 | 3 and an empty one.
RAGGED = ((40, 41, 42, 43, 44), (), (45,), (46, 40, 47), ())


def recomputed(policy: Policy) -> Policy:
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy.model.enable_input_require_grads()
    return policy


def make_row(policy: Policy, rendered: Rendered) -> Row:
    prompt = rendered(policy, (64, 48), (32, 32)) if policy.sees else rendered(policy)
    return Row(prompt=prompt, completions=RAGGED, group=3, first=2)


def uneven(rows: Sequence[Row], scores: TokenScores) -> Tensor:
    """A loss of log-probabilities and entropies with another weight for every completion, by its place in the group."""
    weights = [
        torch.full((len(completion),), 0.5 * place - 1.7)
        for row in rows
        for place, completion in enumerate(row.completions, start=row.first)
    ]
    return (torch.cat(weights) * (scores.logprobs + 0.3 * scores.entropy)).sum()


def gradients(policy: Policy, rows: Sequence[Row], budget: Budget) -> tuple[float, dict[str, Tensor]]:
    policy.model.zero_grad(set_to_none=True)
    loss = differentiate(policy, rows, uneven, budget=budget, temperature=0.7, entropy_gradient=True)
    return float(loss), {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    total = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    assert float(total) > 0
    for name, gradient in expected.items():
        # A gradient that cancels to nothing has no relative error to speak of.
        scale = max(float(gradient.norm()), 1e-5 * float(total))
        assert float((found[name] - gradient).norm()) <= tolerance * scale, name


@contextmanager
def passes(policy: Policy) -> Iterator[list[tuple[int, bool]]]:
    """Tokens of every pass of the last decoder layer, and whether it was made with gradient."""
    seen: list[tuple[int, bool]] = []
    layer = policy.inner.get_decoder().layers[-1].mlp
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].shape[1], torch.is_grad_enabled())))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pieces_have_the_gradient_of_the_whole_group(
    policy_of: PolicyOf, rendered: Rendered, architecture: str, recompute: bool
) -> None:
    policy = precise(policy_of(architecture))
    row = make_row(policy, rendered)
    loss, expected = gradients(policy, [row], WHOLE)
    assert len(expected) == len(list(policy.model.parameters()))
    if recompute:
        recomputed(policy)
    for tokens in (1, 5):
        found_loss, found = gradients(policy, [row], Budget(tokens=tokens))
        assert found_loss == pytest.approx(loss, rel=1e-6)
        assert_same_gradients(found, expected, 1e-7)


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3"])
def test_pieces_in_single_precision(policy_of: PolicyOf, rendered: Rendered, architecture: str) -> None:
    policy = precise(policy_of(architecture))
    policy = replace(policy, model=policy.model.float())
    row = make_row(policy, rendered)
    assert_same_gradients(gradients(policy, [row], Budget(tokens=1))[1], gradients(policy, [row], WHOLE)[1], 1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"freeze": ("vision", "connector")},
        {"freeze": ("language",)},
        {"lora": LoraConfig(rank=2, target_modules=("q_proj", "k_proj", "v_proj", "up_proj"))},
    ],
)
def test_pieces_where_only_a_part_is_trained(
    model_folder: Callable[[str], Path], rendered: Rendered, settings: dict
) -> None:
    config = ModelConfig.model_validate({"path": str(model_folder("qwen2_5_vl")), "device": "cpu"} | settings)
    policy = precise(load_policy(config))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:  # 0 at first, and the other half of the adapter would have no gradient
                parameter.normal_(std=0.1)
    row = make_row(policy, rendered)
    _, expected = gradients(policy, [row], WHOLE)
    assert len(expected) == len(policy.trainable())
    for made in (policy, recomputed(policy)):
        assert_same_gradients(gradients(made, [row], Budget(tokens=1))[1], expected, 1e-7)


def test_rows_that_pass_through_nothing_trained_have_no_gradient(
    model_folder: Callable[[str], Path], rendered: Rendered
) -> None:
    """Only the vision tower is trained, and the prompt has no picture."""
    policy = load_policy(ModelConfig(path=str(model_folder("qwen2_5_vl")), device="cpu", freeze=("language",)))
    row = Row(prompt=rendered(policy), completions=RAGGED)
    for budget in (WHOLE, Budget(tokens=1)):
        loss, found = gradients(policy, [row], budget)
        assert loss != 0
        assert found == {}


def test_the_prompt_is_computed_once_more_and_not_once_per_piece(policy_of: PolicyOf, rendered: Rendered) -> None:
    policy = precise(policy_of("qwen2_5_vl"))
    row = make_row(policy, rendered)
    length = len(row.prompt.token_ids)
    pictures: list[int] = []
    policy.backbone.visual.register_forward_pre_hook(lambda *_: pictures.append(1))
    with passes(policy) as seen:
        gradients(policy, [row], Budget(tokens=5))
    assert seen == [(length, False), (5, True), (4, True), (length, True)]
    assert len(pictures) == 2
    with passes(policy) as seen:
        gradients(policy, [row], Budget(tokens=length + 9))  # exactly what the row has
    assert seen == [(length + 9, True)]
    with passes(policy) as seen:
        gradients(policy, [row], Budget(tokens=5, apart=False))
    assert seen == [(length + 9, True)]
    with passes(policy) as seen:
        gradients(policy, [row], Budget(tokens=length + 8))  # the completions together keep to the budget
    assert seen == [(length, False), (9, True), (length, True)]


def test_pieces_are_recomputed_layer_by_layer(policy_of: PolicyOf, rendered: Rendered) -> None:
    policy = recomputed(precise(policy_of("qwen3")))
    row = make_row(policy, rendered)
    length = len(row.prompt.token_ids)
    with passes(policy) as seen:
        gradients(policy, [row], Budget(tokens=5))
    assert [tokens for tokens, _ in seen] == [length, 5, 5, 4, 4, length, length]
    assert not any(module.training for module in policy.model.modules())


def test_passes_of_few_tokens_keep_their_activations(policy_of: PolicyOf, rendered: Rendered) -> None:
    policy = recomputed(precise(policy_of("qwen3")))
    row = make_row(policy, rendered)
    length = len(row.prompt.token_ids)
    kept: list[list[int]] = []
    for budget in (
        Budget(tokens=5, recompute_above=4),
        Budget(tokens=5, recompute_above=length),
        Budget(tokens=length + 9, recompute_above=length + 8),
        Budget(tokens=length + 9, recompute_above=length + 9),
    ):
        with passes(policy) as seen:
            gradients(policy, [row], budget)
        kept.append([tokens for tokens, _ in seen])
    assert kept[0] == [length, 5, 5, 4, length, length]
    assert kept[1] == [length, 5, 4, length]
    assert kept[2] == [length + 9, length + 9]
    assert kept[3] == [length + 9]


def test_a_bound_of_targets_cuts_too(policy_of: PolicyOf, rendered: Rendered) -> None:
    policy = precise(policy_of("qwen3"))
    row = make_row(policy, rendered)
    length = len(row.prompt.token_ids)
    with passes(policy) as seen:
        gradients(policy, [row], Budget(tokens=10**6, targets=8))
    assert seen == [(length, False), (6, True), (3, True), (length, True)]


def test_scores_of_pieces_equal_those_of_the_whole(policy_of: PolicyOf, rendered: Rendered) -> None:
    policy = precise(policy_of("qwen3_vl"))
    row = make_row(policy, rendered)
    whole = score_rows(policy, [row], budget=WHOLE, temperature=0.5)
    with passes(policy) as seen:
        pieces = score_rows(policy, [row], budget=Budget(tokens=5), temperature=0.5)
    assert seen == [(len(row.prompt.token_ids), False), (5, False), (4, False)]
    assert not pieces.logprobs.requires_grad
    torch.testing.assert_close(pieces.logprobs, whole.logprobs)
    torch.testing.assert_close(pieces.entropy, whole.entropy)


def test_a_group_without_a_token_is_never_cut(policy_of: PolicyOf, rendered: Rendered) -> None:
    policy = precise(policy_of("qwen3"))
    row = replace(make_row(policy, rendered), completions=((), ()))
    assert score_rows(policy, [row], budget=Budget(tokens=1)).logprobs.shape == (0,)
