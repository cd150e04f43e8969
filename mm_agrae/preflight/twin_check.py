"""Ask the engine, score with the trainer: the measuring part of the twin check.

Nothing of the run moves: the seeds are the check's own, no global generator is drawn from, and no weight changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch

from mm_agrae.data.sampler import PromptSampler
from mm_agrae.engines.base import Engine
from mm_agrae.errors import ConfigError, DataError, EngineError
from mm_agrae.evaluate.blind import blinded
from mm_agrae.evaluate.run import Ranks
from mm_agrae.policy.feed import Feed
from mm_agrae.policy.forward import hidden_states, lay_out, logits_of, score_states
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy
from mm_agrae.preflight.twin import PictureTwin, PromptTwin, TwinReport, bound_of, judge
from mm_agrae.records import Completion, RenderedPrompt, Sample, Sampling
from mm_agrae.seeding import seed_for

# Per process at least; a few tokens show other weights or another prompt as well as many do.
NUM_PROMPTS, NUM_COMPLETIONS, NUM_TOKENS = 4, 2, 16
# Samples per prompt of the check among which ones with pictures are looked for.
LOOK = 8


def check_twins(engine: Engine, feed: Feed, samples: Sequence[Sample], ranks: Ranks) -> TwinReport:
    """Compare engine and trainer on the first usable problems; every process asks about its own.

    Args:
        engine: In step with the weights of feed.policy.
        feed: Renders, for the policy that is the trainer.
        samples: The problems of the run.
        ranks: All of them must call it.

    Returns:
        The same report on every process.

    Raises:
        DataError: No process finds a problem that it can use; raised on all of them.
        EngineError: The engine failed on a process; raised on all of them.
    """
    config = feed.config
    prompts = prompts_to_ask(feed, samples, ranks)
    seeds = [
        [seed_for(config.seed, "twin", prompt.sample.id, number) for number in range(NUM_COMPLETIONS)]
        for prompt in prompts
    ]
    sampling = Sampling(
        num_completions=NUM_COMPLETIONS,
        max_new_tokens=min(NUM_TOKENS, config.rollout.max_completion_tokens),
        temperature=config.rollout.temperature,
    )
    problem, asked = "", []
    try:
        asked = ask(engine, feed, prompts, sampling, seeds)
    except (EngineError, ConfigError, DataError) as error:
        problem = str(error)
    # Before anything is scored: forward passes of sharded weights need every process.
    if problems := [found for found in ranks.collect([problem]) if found]:
        raise EngineError(f"twin check: {problems[0]}")
    parts = ranks.collect([[_twin(feed.policy, one, sampling) for one in asked]])
    twins = [replace(twin, rank=rank) for rank, part in enumerate(parts) for twin in part]
    return judge(
        twins, bound_of(feed.policy.precision, config.engine.max_logprob_gap_nats), temperature=sampling.temperature
    )


def prompts_to_ask(feed: Feed, samples: Sequence[Sample], ranks: Ranks) -> list[RenderedPrompt]:
    """As many prompts on every process: its own ones, or where it has none, those of another.

    So every engine is asked, and with sharded weights every process makes as many forward passes.

    Args:
        feed: Renders; its log is told what cannot be used only where nobody can use anything.
        samples: The problems of the run.
        ranks: All of them must call it.

    Returns:
        NUM_PROMPTS prompts, or as many as it takes to ask every server.

    Raises:
        DataError: No process has any.
    """
    said: list[str] = []
    mine = first_prompts(replace(feed, log=said.append), samples, ranks)
    has_any = ranks.collect([bool(mine)])
    if all(has_any):
        return mine
    if not any(has_any):
        reasons = [reason for part in ranks.collect([said]) for reason in part]
        raise DataError(
            f"none of the first {_num_looked_at(feed, samples, ranks)} problems can be used, so engine and trainer "
            f"cannot be compared; the first: {reasons[0]}"
        )
    lender = has_any.index(True)
    lent = ranks.collect([mine if ranks.rank == lender else []])[lender]
    return mine or lent


def first_prompts(feed: Feed, samples: Sequence[Sample], ranks: Ranks) -> list[RenderedPrompt]:
    """This process's prompts from the beginning of the run's order; the same ones at every start.

    Those with pictures come first, with one place for a text. What cannot be used is passed over and told feed.log: the
    run meets it in its own time. Few problems are repeated, because every process must ask about as many.

    Args:
        feed: Renders, and its log is told.
        samples: The problems of the run.
        ranks: Among whom they are shared out.

    Returns:
        As many prompts as on every other process; none where this one can use no problem.
    """
    num_prompts = _num_prompts(feed, ranks)
    order = PromptSampler(len(samples), feed.config.seed).indices(0, _num_looked_at(feed, samples, ranks))
    usable = list(_readable(feed, samples, order))
    pictured = [sample for sample in usable if sample.images]
    texts = [sample for sample in usable if not sample.images]
    places = ranks.size * (num_prompts - 1)
    lined_up = [*pictured[:places], *texts[: ranks.size], *pictured[places:], *texts[ranks.size :]]
    rendered: list[RenderedPrompt] = []
    for sample in ranks.share(lined_up):
        if len(rendered) < num_prompts and (prompt := _rendered(feed, sample)):
            rendered.append(prompt)
    return [rendered[place % len(rendered)] for place in range(num_prompts)] if rendered else []


def _num_prompts(feed: Feed, ranks: Ranks) -> int:
    """Per process, and enough for every server: process r asks server r, r + 1, ... about its prompts."""
    return max(NUM_PROMPTS, len(feed.config.engine.base_urls) - ranks.size + 1)


def _num_looked_at(feed: Feed, samples: Sequence[Sample], ranks: Ranks) -> int:
    return min(len(samples), LOOK * _num_prompts(feed, ranks) * ranks.size)


def _readable(feed: Feed, samples: Sequence[Sample], order: Sequence[int]) -> Iterator[Sample]:
    for index in order:
        try:
            yield samples[index]
        except DataError as error:
            feed.log(str(error))


def _rendered(feed: Feed, sample: Sample) -> RenderedPrompt | None:
    try:
        prompt = feed.admit(sample)
        return feed.render(prompt) if prompt else None
    except (ConfigError, DataError) as error:  # a text model meets its first picture in a ConfigError
        feed.log(str(error))
        return None


def ask(
    engine: Engine,
    feed: Feed,
    prompts: Sequence[RenderedPrompt],
    sampling: Sampling,
    seeds: Sequence[Sequence[int]],
) -> list[Asked]:
    """Sample every prompt, and answer it greedily with its pictures and with grey ones.

    Args:
        engine: Is asked.
        feed: Renders the grey pictures.
        prompts: [P] what it is asked.
        sampling: Of the samples.
        seeds: [P][num_completions] of them.

    Returns:
        [P] answers, in the order of the prompts.

    Raises:
        EngineError: The engine failed.
    """
    # A model that sees has as many forward passes for a text as for a picture: sharded weights make every process keep
    # step with the others.
    grey = [_greyed(feed, prompt) for prompt in prompts] if feed.policy.sees else []
    sampled = engine.generate(prompts, sampling, seeds)
    greedy = engine.generate(
        [*prompts, *grey], replace(sampling, num_completions=1, temperature=0.0), [[0]] * (len(prompts) + len(grey))
    )
    return [
        Asked(
            prompt=prompt,
            grey=grey[number] if grey else None,
            sampled=sampled[number],
            greedy=greedy[number][0],
            blind=greedy[len(prompts) + number][0] if grey else None,
        )
        for number, prompt in enumerate(prompts)
    ]


def _greyed(feed: Feed, prompt: RenderedPrompt) -> RenderedPrompt:
    """The same tokens with grey pictures of the same sizes; a text stays what it is."""
    if not prompt.sample.images:
        return prompt
    (sample,) = blinded([prompt.sample], "grey", {0: 0})
    grey = feed.render(replace(prompt.prompt, sample=sample))
    assert grey.token_ids == prompt.token_ids, "a grey picture has the size of the real one"
    return grey


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt and what the engine answered: samples, the most probable completion, and that to grey pictures."""

    prompt: RenderedPrompt
    grey: RenderedPrompt | None
    sampled: Sequence[Completion]
    greedy: Completion
    blind: Completion | None


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """Of every token by the trainer: log-probabilities in nats, and the lead of its best token over this one."""

    logprobs: list[float]
    untempered: list[float]
    leads: list[float]


def _twin(policy: Policy, asked: Asked, sampling: Sampling) -> PromptTwin:
    completions = [*asked.sampled, asked.greedy]
    broken = tuple(_faults([*completions, *([asked.blind] if asked.blind else [])], policy, sampling.max_new_tokens))
    # What is broken is not scored, but the forward passes are made: other processes may be waiting in theirs.
    ids = [policy.eos_token_ids[:1] if broken else completion.token_ids for completion in completions]
    own = _score(policy, asked.prompt, ids, sampling.temperature)
    blind = _score(policy, asked.grey, ids[-1:], 1.0) if asked.grey else None
    if broken:
        return PromptTwin(
            sample_id=asked.prompt.sample.id, engine=(), trainer=(), untempered=(), leads=(), malformed=broken
        )
    stated = [logprob for completion in asked.sampled for logprob in completion.logprobs]
    picture = None
    if asked.blind and blind and asked.prompt.sample.images:
        picture = _picture(asked.greedy, asked.blind, own.untempered[len(stated) :], blind.untempered)
    return PromptTwin(
        sample_id=asked.prompt.sample.id,
        engine=tuple(stated),
        trainer=tuple(own.logprobs[: len(stated)]),
        untempered=tuple(own.untempered[: len(stated)]),
        leads=tuple(own.leads[len(stated) :]),
        picture=picture,
    )


def _picture(
    seen: Completion, blind: Completion, by_trainer: list[float], by_trainer_blind: list[float]
) -> PictureTwin:
    """What changes over the tokens that the two completions begin with.

    Args:
        seen, blind: The engine's most probable completions, with and without pictures.
        by_trainer, by_trainer_blind: Log-probabilities of the tokens of `seen`, with and without pictures.
    """
    pairs = zip(seen.token_ids, blind.token_ids, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    by_engine = zip(seen.logprobs[:shared], blind.logprobs[:shared], strict=True)
    trainer = zip(by_trainer[:shared], by_trainer_blind[:shared], strict=True)
    return PictureTwin(
        engine=tuple(one - other for one, other in by_engine),
        trainer=tuple(one - other for one, other in trainer),
        parted=seen.token_ids != blind.token_ids,
    )


@torch.no_grad()
def _score(
    policy: Policy, prompt: RenderedPrompt, completions: Sequence[tuple[int, ...]], temperature: float
) -> _Scores:
    """What an update would compute of these completions."""
    layout = lay_out(policy, [Row(prompt=prompt, completions=tuple(completions))]).to(policy.device)
    with policy.arithmetic():
        states = hidden_states(policy, layout).flatten(0, 1)[layout.sources]
        tempered, plain = (
            score_states(policy, states, layout.targets, value, entropy_gradient=False).logprobs
            for value in (temperature, 1.0)
        )
        logits = logits_of(policy, states, 1.0)
    leads = logits.amax(dim=-1) - logits.gather(1, layout.targets[:, None])[:, 0]
    return _Scores(logprobs=tempered.tolist(), untempered=plain.tolist(), leads=leads.tolist())


def _faults(completions: Sequence[Completion], policy: Policy, max_new_tokens: int) -> Iterator[str]:
    """What no completion may be, whatever the weights."""
    for completion in completions:
        ids, banned = completion.token_ids, set(completion.token_ids) & set(policy.banned_token_ids)
        if len(ids) != len(completion.logprobs):
            yield f"{len(ids)} tokens come with {len(completion.logprobs)} log-probabilities"
        elif not 1 <= len(ids) <= max_new_tokens:
            yield f"a completion has {len(ids)} tokens, but 1 to {max_new_tokens} were asked for"
        elif banned:
            yield f"token {min(banned)} was sampled, a placeholder of pictures that must never be"
        elif completion.stop_reason == "eos" and ids[-1] not in policy.eos_token_ids:
            yield f"a completion ended by itself, but its last token {ids[-1]} is no end-of-text token"
        elif completion.stop_reason == "length" and len(ids) != max_new_tokens:
            yield f"a completion of {len(ids)} tokens says that it was cut at {max_new_tokens}"
