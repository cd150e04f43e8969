"""A whole step, sampling and update, of models whose completions cannot share a prompt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import REPEATING, build_family

from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.config.schema import ModelConfig, TrainConfig
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.estimator import assemble
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.optim import make_optimizer
from mm_agrae.records import Completion, RenderedPrompt, RolloutGroup, Sampling
from mm_agrae.train.distributed import World
from mm_agrae.train.update import Learner, update
from tests.unit.train.updates import experienced, judged

FAMILIES = ("mistral", "qwen3_next")  # a window, and a recurrent state
QUESTIONS = ("How many red circles are there?", "What is two plus two?")
CORRECT = ((True, False, False), (False, True, True))
MAX_NEW_TOKENS = 6


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, model_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return build_family(tmp_path / "model", request.param, REPEATING[request.param], words=model_folder("qwen3"))


def load(folder: Path) -> Policy:
    return load_policy(ModelConfig(path=str(folder), device="cpu"), log=lambda line: None)


def sampled(policy: Policy, prompts: list[RenderedPrompt]) -> list[list[Completion]]:
    sampling = Sampling(num_completions=3, max_new_tokens=MAX_NEW_TOKENS, temperature=1.0)
    seeds = [[10 * place + number for number in range(3)] for place in range(len(prompts))]
    return TransformersEngine(policy, batch_rows=64).generate(prompts, sampling, seeds)


def learner_of(policy: Policy, **train: Any) -> Learner:
    settings = TrainConfig.model_validate({"optim": {"lr": 1e-3, "max_grad_norm": 1e9}} | train)
    return Learner(
        policy=policy,
        reference=None,
        optimizer=make_optimizer(policy.trainable(), settings.optim),
        algorithm=assemble(
            AlgorithmConfig.model_validate({"aggregation": "token_mean"}), max_completion_tokens=MAX_NEW_TOKENS
        ),
        config=settings,
        temperature=1.0,
        max_completion_tokens=MAX_NEW_TOKENS,
        world=World(device="cpu"),
    )


def plain_step(policy: Policy, folder: Path, groups: list[RolloutGroup], advantages: torch.Tensor) -> Any:
    """The same step by hand: eager attention, one completion at a time, the mean over all tokens of -advantage."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    num_tokens = sum(len(rollout.completion.token_ids) for group in groups for rollout in group.rollouts)
    for group, row in zip(groups, advantages.tolist(), strict=True):
        for rollout, advantage in zip(group.rollouts, row, strict=True):
            ids, start = rollout.completion.token_ids, len(group.prompt.token_ids)
            logits = model(input_ids=torch.tensor([[*group.prompt.token_ids, *ids]])).logits[0, start - 1 : -1]
            logits = logits.index_fill(-1, torch.tensor(policy.banned_token_ids), float("-inf"))
            logprobs = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
            (-advantage * logprobs.sum() / num_tokens).backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0).step()
    return model, float(norm)


def test_a_step_equals_one_by_hand_with_every_completion_alone(folder: Path, rendered: Any) -> None:
    policy = load(folder)
    assert not policy.shares_prompts
    prompts = [rendered(policy, question=question) for question in QUESTIONS]
    groups = [
        RolloutGroup(prompt=prompt, rollouts=tuple(map(judged, completions, correct)), weights_version=0)
        for prompt, completions, correct in zip(prompts, sampled(policy, prompts), CORRECT, strict=True)
    ]
    learner = learner_of(policy)
    batch = experienced(learner, groups)
    after, norm = plain_step(policy, folder, groups, batch.estimate.advantages)
    metrics = update(learner, batch, step=0)
    assert metrics["policy/grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert metrics["rollout/logprob_gap_max_nats"] < 1e-4
    assert metrics["policy/ratio_max"] == pytest.approx(1.0)
    # Adam's first step is the sign of the gradient, which rounding decides where the gradient is next to nothing.
    moved = [
        (mine.detach() - theirs.detach()).abs() > 1e-4
        for mine, theirs in zip(policy.model.parameters(), after.parameters(), strict=True)
    ]
    assert sum(int(part.sum()) for part in moved) <= 1e-2 * sum(part.numel() for part in moved)


def test_what_was_sampled_has_the_scores_of_training(folder: Path, rendered: Any) -> None:
    policy = load(folder)
    prompts = [rendered(policy, question=question) for question in QUESTIONS]
    for prompt, completions in zip(prompts, sampled(policy, prompts), strict=True):
        row = Row(prompt=prompt, completions=tuple(completion.token_ids for completion in completions))
        expected = [logprob for completion in completions for logprob in completion.logprobs]
        found = score(policy, lay_out(policy, [row])).logprobs
        torch.testing.assert_close(found.detach(), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_padding_and_packing_change_nothing(folder: Path, rendered: Any) -> None:
    found = []
    for budget in (16384, 1):  # all lines in one pass, and every line in its own, without padding
        policy = load(folder)
        prompts = [rendered(policy, question=question) for question in QUESTIONS]
        groups = [
            RolloutGroup(prompt=prompt, rollouts=tuple(map(judged, completions, correct)), weights_version=0)
            for prompt, completions, correct in zip(prompts, sampled(policy, prompts), CORRECT, strict=True)
        ]
        learner = learner_of(policy, micro_batch_tokens=budget)
        metrics = update(learner, experienced(learner, groups), step=0)
        found.append({key: value for key, value in metrics.items() if not key.startswith(("time/", "rollout/"))})
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-6)
