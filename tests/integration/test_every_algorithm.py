"""Every preset with every weighting and trust region that may go with it trains, on pictures and on words."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from mm_agrae.config.algorithm import AlgorithmConfig, Weighting
from mm_agrae.config.presets import PRESETS
from mm_agrae.config.schema import ImageConfig, ModelConfig, TrainConfig
from mm_agrae.data.dataset import open_dataset
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.estimator import START, assemble
from mm_agrae.metrics.catalogue import check_keys
from mm_agrae.policy.feed import Cursor
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.optim import make_optimizer
from mm_agrae.policy.render import render
from mm_agrae.prompts import make_prompt
from mm_agrae.records import RenderedPrompt, Sampling
from mm_agrae.rollout import Harvest, Judge, rollout
from mm_agrae.train.distributed import World
from mm_agrae.train.experience import experience
from mm_agrae.train.sampling import sample_groups
from mm_agrae.train.update import Learner, update
from mm_agrae.verify import VerifierPool

NUM_PROMPTS, GROUP_SIZE, MAX_TOKENS = 2, 4, 7
WEIGHTINGS = [(), *[(name,) for name in get_args(Weighting)], ("agrae", "hadw")]


def combinations() -> Iterator[dict]:
    """The whole product, without what is refused (which test_algorithm_config names one by one)."""
    for preset in PRESETS:
        for weighting in WEIGHTINGS:
            if preset == "grpo_lead":
                weighting = ("grpo_lead", *(name for name in weighting if name != "grpo_lead"))
            for region in ("fixed", "elastic"):
                if preset != "sapo" or region == "fixed":
                    yield {"preset": preset, "weighting": weighting, "trust_region": region}


def name_of(algorithm: dict) -> str:
    return "-".join((algorithm["preset"], *algorithm["weighting"], algorithm["trust_region"]))


# By name: grpo_lead with and without its own weighting named is one combination.
EVERY = {name_of(algorithm): algorithm for algorithm in combinations()}


def test_the_product_is_whole() -> None:
    # 13 presets, 11 weightings, 2 regions; grpo_lead holds its own weighting already, sapo takes no elastic region.
    assert len(EVERY) == 13 * 11 * 2 - 2 - 11


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with VerifierPool(num_workers=1, timeout_s=5.0) as pool:
        yield Judge(verifier=pool, correct_weight=0.9, format_weight=0.1)


@pytest.fixture(scope="module")
def pictures(warm_model: Callable[[str], Path], mixed_data: Path) -> tuple[Policy, list[RenderedPrompt]]:
    return start(warm_model("qwen2_5_vl"), mixed_data)


@pytest.fixture(scope="module")
def words(warm_model: Callable[[str], Path], text_data: Path) -> tuple[Policy, list[RenderedPrompt]]:
    return start(warm_model("qwen3"), text_data)


def start(model: Path, data: Path) -> tuple[Policy, list[RenderedPrompt]]:
    policy = load_policy(ModelConfig(path=str(model), device="cpu"))
    samples = open_dataset(data, "train")
    images = ImageConfig(min_pixels=1024, max_pixels=1024)
    prompts = [make_prompt(samples[index], system="none", instruction="none") for index in range(4)]
    return policy, [render(policy, prompt, images) for prompt in prompts]


def train_two_steps(policy: Policy, prompts: Sequence[RenderedPrompt], judge: Judge, algorithm: dict) -> list[dict]:
    """Two steps with two updates each, from sampling to the optimiser; the metrics of both."""
    policy = replace(policy, model=copy.deepcopy(policy.model))
    world = World(device="cpu")
    settings = TrainConfig.model_validate({"num_steps": 2, "updates_per_rollout": 2, "optim": {"lr": 1e-3}})
    bound = assemble(
        AlgorithmConfig.model_validate({**algorithm, "max_sampling_rounds": 2}), max_completion_tokens=MAX_TOKENS
    )
    learner = Learner(
        policy=policy,
        reference=None,
        optimizer=make_optimizer(policy.trainable(), settings.optim),
        algorithm=bound,
        config=settings,
        temperature=1.0,
        max_completion_tokens=MAX_TOKENS,
        world=world,
    )
    engine = TransformersEngine(policy, batch_rows=64)
    sampling = Sampling(num_completions=GROUP_SIZE, max_new_tokens=MAX_TOKENS)
    before = torch.cat([parameter.detach().reshape(-1).clone() for parameter in policy.trainable()])
    state, logged = START, []
    for step in range(2):

        def harvest(number: int, cursor: Cursor, step: int = step) -> tuple[Harvest, Cursor]:
            chosen = prompts[number * NUM_PROMPTS % len(prompts) :][:NUM_PROMPTS]
            seeds = [[100 * step + 10 * place + i for i in range(GROUP_SIZE)] for place in range(NUM_PROMPTS)]
            return rollout(engine, judge, chosen, sampling, seeds), cursor

        sampled = sample_groups(
            harvest, world, count=NUM_PROMPTS, max_rounds=bound.max_sampling_rounds, cursor=Cursor()
        )
        batch, state = experience(sampled, bound, state)
        logged.append(batch.metrics() | update(learner, batch, step=step))
        engine.sync_weights(policy, version=step + 1)
    after = torch.cat([parameter.detach().reshape(-1) for parameter in policy.trainable()])
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after), "nothing was learnt"
    assert bool(state.anchor.history) == ("hadw" in algorithm["weighting"])
    return logged


def check(logged: list[dict], algorithm: dict) -> None:
    for metrics in logged:
        check_keys(metrics)
        assert ("advantage/anchor" in metrics) == ("hadw" in algorithm["weighting"])
        assert math.isfinite(metrics["policy/loss"])
        assert math.isfinite(metrics["policy/grad_norm"])
    assert max(metrics["policy/grad_norm"] for metrics in logged) > 0


@pytest.mark.parametrize("name", EVERY)
def test_trains_on_pictures(pictures, judge, name: str) -> None:
    check(train_two_steps(*pictures, judge, EVERY[name]), EVERY[name])


@pytest.mark.parametrize("name", EVERY)
def test_trains_on_words(words, judge, name: str) -> None:
    check(train_two_steps(*words, judge, EVERY[name]), EVERY[name])
