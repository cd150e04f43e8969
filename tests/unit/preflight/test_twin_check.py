"""Engines that are the trainer's twins, and engines that are not, each by the name of its fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import engines
import numpy as np
import pytest
import torch
from engines import Altered, sharpened

from mm_agrae.config.load import parse_config
from mm_agrae.data.dataset import open_dataset
from mm_agrae.engines.base import Engine
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.errors import DataError, EngineError
from mm_agrae.policy.feed import Feed
from mm_agrae.policy.load import Policy
from mm_agrae.preflight.twin import TwinReport
from mm_agrae.preflight.twin_check import LOOK, NUM_PROMPTS, check_twins, first_prompts
from mm_agrae.records import Sample
from tests.thread_ranks import Meeting, Rank, alone, on_ranks

Make = Callable[[Policy], Engine]


@pytest.fixture(scope="module")
def pictures(gym_folder: Path) -> Sequence[Sample]:
    return list(open_dataset(gym_folder, "train"))


@pytest.fixture(scope="module")
def texts(make_sample: Callable[..., Sample]) -> list[Sample]:
    return [replace(make_sample(question=f"What is {n} plus two?"), id=f"text{n}") for n in range(6)]


@pytest.fixture(scope="module")
def feed_of(policy_of: Callable[[str], Policy], recipe_text: Callable[[Path, Path], str]) -> Callable[..., Feed]:
    """feed_of(architecture, *overrides): of a sharpened model."""

    def make(architecture: str, *overrides: str) -> Feed:
        config = parse_config(recipe_text(Path("model"), Path("data")), overrides)
        return Feed(policy=sharpened(policy_of(architecture)), config=config, log=pytest.fail)

    return make


@pytest.fixture(scope="module")
def sees(feed_of: Callable[..., Feed]) -> Feed:
    return feed_of("qwen2_5_vl", "rollout.temperature=0.6")


@pytest.fixture(scope="module")
def reads(feed_of: Callable[..., Feed]) -> Feed:
    return feed_of("qwen3", "rollout.temperature=0.6")


def embedded(policy: Policy) -> TransformersEngine:
    return TransformersEngine(policy, batch_rows=64)


def report_of(feed: Feed, samples: Sequence[Sample], engine: Engine) -> TwinReport:
    report = check_twins(engine, feed, samples, alone())
    assert report
    return report


def test_the_embedded_engine_is_a_twin(sees: Feed, pictures: Sequence[Sample]) -> None:
    report = report_of(sees, pictures, embedded(sees.policy))
    assert report.findings == report.notes == ()
    assert report.num_prompts == report.num_pictured == NUM_PROMPTS
    assert report.num_tokens > NUM_PROMPTS
    assert report.gap_max_nats is not None
    assert report.gap_max_nats < 1e-5
    assert report.greedy_agreement == 1


def test_a_text_model_is_a_twin_and_pictures_are_not_tested(reads: Feed, texts: Sequence[Sample]) -> None:
    report = report_of(reads, texts, embedded(reads.policy))
    assert report.findings == ()
    assert report.num_pictured == 0
    assert report.notes == ("no prompt of the check has a picture, so whether the engine sees pictures was not tested",)


def altered(answer: Callable[[Any], Any]) -> Make:
    return lambda policy: Altered(policy, answer=answer)


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        pytest.param(engines.other_weights, {"log-probs", "greedy"}, id="other weights"),
        pytest.param(engines.temperature_of_one, {"temperature"}, id="temperature of one"),
        pytest.param(engines.sampled_greedy, {"greedy"}, id="temperature 0 is ignored"),
        pytest.param(altered(engines.one_place_late), {"log-probs"}, id="one place late"),
        pytest.param(altered(engines.all_lower), {"log-probs"}, id="all lower"),
        pytest.param(altered(engines.not_a_number), {"log-probs"}, id="not a number"),
        pytest.param(altered(engines.without_the_last_token), {"malformed"}, id="last token dropped"),
        pytest.param(altered(engines.said_to_have_ended), {"malformed"}, id="cut off unsaid"),
        pytest.param(altered(engines.without_the_first_token), {"malformed"}, id="first token dropped"),
        pytest.param(altered(engines.without_a_logprob), {"malformed"}, id="log-probability dropped"),
    ],
)
@pytest.mark.parametrize("model", ["qwen2_5_vl", "qwen3"])
def test_a_faulty_engine_is_caught(request: pytest.FixtureRequest, model: str, make: Make, kinds: set[str]) -> None:
    feed, samples = (
        request.getfixturevalue(name)
        for name in (("sees", "pictures") if model == "qwen2_5_vl" else ("reads", "texts"))
    )
    report = report_of(feed, samples, make(feed.policy))
    assert {finding.kind for finding in report.findings} == kinds


def test_an_engine_that_ignores_pictures_is_caught(sees: Feed, pictures: Sequence[Sample]) -> None:
    report = report_of(sees, pictures, engines.blind(sees.policy))
    assert "pictures" in {finding.kind for finding in report.findings}
    assert report.num_parted == 0
    assert report.picture_effect_engine_nats == 0


def test_a_sampled_placeholder_is_caught(sees: Feed, pictures: Sequence[Sample]) -> None:
    policy = sees.policy
    pad = policy.image_token_id
    swap = Altered(policy, answer=lambda one: replace(one, token_ids=(pad, *one.token_ids[1:])))
    (finding,) = report_of(sees, pictures, swap).findings
    assert f"token {pad} was sampled, a placeholder of pictures" in finding.text


def test_bf16_passes_by_its_own_bound_and_not_by_that_of_fp32(sees: Feed, pictures: Sequence[Sample]) -> None:
    rounded = replace(sees.policy, precision="bf16")
    in_bf16 = replace(sees, policy=rounded)
    # The same weights, computed in fp32 by the engine and in bf16 by the trainer: what kernels may differ by.
    report = report_of(in_bf16, pictures, embedded(sees.policy))
    assert report.findings == ()
    assert report.gap_mean_nats is not None
    assert report.gap_mean_nats > 1e-3
    strict = replace(in_bf16, config=parse_config_with(in_bf16, "engine.max_logprob_gap_nats", 1e-3))
    assert "log-probs" in {finding.kind for finding in report_of(strict, pictures, embedded(sees.policy)).findings}


def parse_config_with(feed: Feed, key: str, value: float) -> Any:
    section, name = key.split(".")
    changed = getattr(feed.config, section).model_copy(update={name: value})
    return feed.config.model_copy(update={section: changed})


def test_nothing_of_the_run_moves(sees: Feed, pictures: Sequence[Sample]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    weights = {name: tensor.clone() for name, tensor in sees.policy.model.state_dict().items()}
    engine = embedded(sees.policy)
    assert report_of(sees, pictures, engine) == report_of(sees, pictures, engine)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in sees.policy.model.state_dict().items())
    assert all(parameter.grad is None for parameter in sees.policy.model.parameters())


def test_pictures_come_first_and_one_text(sees: Feed, pictures: Sequence[Sample], texts: Sequence[Sample]) -> None:
    quiet = replace(sees, log=lambda line: None)
    mixed = first_prompts(quiet, [*texts, *pictures], alone())
    assert [bool(prompt.sample.images) for prompt in mixed] == [True] * (NUM_PROMPTS - 1) + [False]
    assert len({prompt.sample.id for prompt in mixed}) == NUM_PROMPTS
    assert [prompt.sample.id for prompt in first_prompts(quiet, [*texts, *pictures], alone())] == [
        prompt.sample.id for prompt in mixed
    ]


class Damaged(list[Sample]):
    """A data set of which the rows that stand at even places cannot be read."""

    def __getitem__(self, index: Any) -> Any:
        if index % 2 == 0:
            raise DataError("row cannot be read")
        return super().__getitem__(index)


def test_what_cannot_be_used_is_left_to_the_run(sees: Feed, texts: Sequence[Sample]) -> None:
    quiet = replace(sees, log=lambda line: None)
    found = [prompt.sample.id for prompt in first_prompts(quiet, Damaged(texts), alone())]
    assert sorted(set(found)) == ["text1", "text3", "text5"]
    assert len(found) == NUM_PROMPTS
    long = [replace(texts[0], question="How many? " * 400)] * (2 * LOOK)
    assert first_prompts(quiet, long, alone()) == []
    with pytest.raises(
        DataError,
        match=r"none of the first 16 problems can be used.*; the first: refused sample 'text0': its prompt has",
    ):
        check_twins(embedded(sees.policy), quiet, long, alone())
    with pytest.raises(DataError, match=r"none of the first 1 problems can be used.*row cannot be read"):
        check_twins(embedded(sees.policy), quiet, Damaged(texts[:1]), alone())


def test_every_server_is_asked(sees: Feed, pictures: Sequence[Sample]) -> None:
    def num_prompts(num_servers: int, rank: Rank) -> int:
        urls = tuple(f"http://127.0.0.1:{port}" for port in range(8000, 8000 + num_servers))
        engine = sees.config.engine.model_copy(update={"kind": "vllm_server", "base_urls": urls})
        served = replace(sees, config=sees.config.model_copy(update={"engine": engine}))
        return len(first_prompts(served, pictures, rank))

    assert num_prompts(NUM_PROMPTS, alone()) == NUM_PROMPTS
    assert num_prompts(NUM_PROMPTS + 3, alone()) == NUM_PROMPTS + 3
    # Prompt i of process r goes to server r + i, so the second process asks the last one.
    assert num_prompts(NUM_PROMPTS + 3, Rank(1, Meeting(2))) == NUM_PROMPTS + 2


def on_two_ranks(engine_of: Callable[[int], Engine], feed: Feed, samples: Sequence[Sample]) -> list[Any]:
    """What check_twins returns, or the error that it raises, on each of two ranks."""
    return on_ranks(
        2, lambda rank: check_twins(engine_of(rank.rank), feed, samples, rank), stops=(EngineError, DataError)
    )


def test_ranks_ask_about_prompts_of_their_own_and_agree_on_the_findings(sees: Feed, pictures: Sequence[Sample]) -> None:
    one, other = on_two_ranks(
        lambda rank: engines.blind(sees.policy) if rank else embedded(sees.policy), sees, pictures
    )
    assert one == other
    assert one.num_prompts == 2 * NUM_PROMPTS
    assert one.num_parted > 0
    assert "pictures" in {finding.kind for finding in one.findings}
    meeting = Meeting(2)
    shares = [{p.sample.id for p in first_prompts(sees, pictures, Rank(rank, meeting))} for rank in range(2)]
    assert not shares[0] & shares[1]


@pytest.mark.parametrize("place", [0, 1])
def test_a_rank_without_a_prompt_asks_about_those_of_another(sees: Feed, texts: Sequence[Sample], place: int) -> None:
    """So its engine is judged, too; two samples, of which one or the other is too long, leave a rank without any."""
    quiet = replace(sees, log=lambda line: None)
    one_each = [[prompt.sample.id for prompt in first_prompts(quiet, texts[:2], Rank(r, Meeting(2)))] for r in range(2)]
    spoilt = one_each[place][0]
    samples = [replace(one, question="How many? " * 400) if one.id == spoilt else one for one in texts[:2]]
    engine = altered(engines.all_lower)
    reports = on_two_ranks(lambda r: engine(sees.policy) if r == place else embedded(sees.policy), quiet, samples)
    assert reports[0] == reports[1]
    assert reports[0].num_prompts == 2 * NUM_PROMPTS
    (finding,) = reports[0].findings
    assert f"(rank {place})" in finding.text
    assert f"{NUM_PROMPTS} of {2 * NUM_PROMPTS} prompts" in finding.text


def test_all_ranks_stop_when_none_has_a_prompt(sees: Feed, texts: Sequence[Sample]) -> None:
    long = [replace(texts[0], question="How many? " * 400)]
    errors = on_two_ranks(lambda rank: embedded(sees.policy), replace(sees, log=lambda line: None), long)
    assert isinstance(errors[0], DataError)
    assert str(errors[0]) == str(errors[1])


class Dead(Altered):
    def generate(self, prompts: Any, sampling: Any, seeds: Any) -> Any:
        raise EngineError("http://127.0.0.1:8000 does not answer")


def test_all_ranks_stop_when_the_engine_of_one_fails(
    sees: Feed, pictures: Sequence[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is in a forward pass by then, where sharded weights would let it wait for the others."""

    def score(*given: object) -> None:
        pytest.fail("scored")

    monkeypatch.setattr("mm_agrae.preflight.twin_check._score", score)
    errors = on_two_ranks(lambda rank: Dead(sees.policy) if rank else embedded(sees.policy), sees, pictures)
    assert [str(error) for error in errors] == ["twin check: http://127.0.0.1:8000 does not answer"] * 2
