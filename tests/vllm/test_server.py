"""The engine over HTTP against a real server: same prompts, same numbers, same weights."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mm_agrae.config.engine import EngineConfig
from mm_agrae.config.schema import ModelConfig
from mm_agrae.engines.vllm_http import Server
from mm_agrae.engines.vllm_server import VllmServerEngine
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.snapshot import save_weights
from mm_agrae.records import Completion, RenderedPrompt, Sampling
from mm_agrae.seeding import seed_for
from tests.unit.engines.fake_vllm import Alone
from tests.vllm.conftest import KEY, RealServer

Rendered = Callable[..., RenderedPrompt]
ATOL = 1e-4  # nats; both compute in fp32
# On a CPU vLLM keeps the weight of a linear layer in packed form only, beside an empty one.
EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.fixture(scope="module", params=["qwen3", "qwen2_5_vl", "qwen3_vl"])
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def policy(architecture: str, model_folder: Callable[[str], Path]) -> Policy:
    """Other weights than the server starts with, in every parameter."""
    return changed(load_policy(ModelConfig(path=str(model_folder(architecture)), device="cpu")), seed=1)


@pytest.fixture(scope="module")
def server(architecture: str, serve: Callable[[Path], RealServer], model_folder: Callable[[str], Path]) -> RealServer:
    return serve(model_folder(architecture))


@pytest.fixture
def prompts(policy: Policy, rendered: Rendered) -> list[RenderedPrompt]:
    text = [rendered(policy, question=question) for question in ("What is two plus two?", "How many?")]
    if not policy.sees:
        return text
    return [rendered(policy, (64, 48)), text[0], rendered(policy, (40, 64), (32, 32), seed=1), text[1]]


@pytest.fixture
def make_engine(server: RealServer, tmp_path: Path) -> Iterator[Callable[[Policy], VllmServerEngine]]:
    engines: list[VllmServerEngine] = []

    def make(policy: Policy, log: Callable[[str], None] = print) -> VllmServerEngine:
        settings = EngineConfig(kind="vllm_server", base_urls=(server.url,), recover_timeout_s=900)
        engines.append(VllmServerEngine(settings, policy, folder=tmp_path, ranks=Alone(), log=log))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def changed(policy: Policy, *, seed: int) -> Policy:
    """A copy with every weight moved, so that next tokens are far from evenly likely."""
    model = copy.deepcopy(policy.model)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.5 if parameter.ndim == 1 else 1.0
            parameter.add_(
                torch.randn(parameter.shape, generator=draw) * scale * parameter.std(correction=0).clamp(min=0.02)
            )
    return replace(policy, model=model)


def generate(engine: VllmServerEngine, prompts: Sequence[RenderedPrompt], sampling: Sampling) -> list[list[Completion]]:
    seeds = [
        [seed_for(0, place, number) for number in range(sampling.num_completions)] for place in range(len(prompts))
    ]
    return engine.generate(prompts, sampling, seeds)


def reported(groups: Sequence[Sequence[Completion]]) -> torch.Tensor:
    return torch.tensor([logprob for group in groups for completion in group for logprob in completion.logprobs])


def ours(
    policy: Policy, prompts: Sequence[RenderedPrompt], groups: Sequence[Sequence[Completion]], temperature: float = 1.0
) -> torch.Tensor:
    """The trainer's log-probabilities of the same tokens."""
    rows = [
        Row(prompt=prompt, completions=tuple(completion.token_ids for completion in group))
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    with torch.no_grad():
        return score(policy, lay_out(policy, rows), temperature=temperature).logprobs


def checksums(server: RealServer) -> dict[str, str]:
    return Server(server.url, api_key=KEY, timeout_s=60).post("/weight_checker", {"action": "checksum"})["checksums"]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_the_trainers(
    policy: Policy, prompts: list[RenderedPrompt], make_engine: Callable, temperature: float
) -> None:
    """With it: the server's prompt ids and picture places are ours, or the engine would have raised."""
    sampling = Sampling(num_completions=8, max_new_tokens=16, temperature=temperature)
    groups = generate(make_engine(policy), prompts, sampling)
    gap = (reported(groups) - ours(policy, prompts, groups, temperature)).abs()
    print(f"largest gap {gap.max():.2e} of {len(gap)} tokens")
    assert gap.max() < ATOL
    assert len({completion.token_ids for group in groups for completion in group}) > 4 * len(prompts)


def test_greedy_is_the_same_for_all(policy: Policy, prompts: list[RenderedPrompt], make_engine: Callable) -> None:
    groups = generate(make_engine(policy), prompts, Sampling(num_completions=3, max_new_tokens=12, temperature=0.0))
    assert all(len(set(group)) == 1 for group in groups)
    assert (reported(groups) - ours(policy, prompts, groups)).abs().max() < ATOL


def test_the_same_seeds_give_the_same_completions(
    policy: Policy, prompts: list[RenderedPrompt], make_engine: Callable
) -> None:
    engine = make_engine(policy)
    sampling = Sampling(num_completions=4, max_new_tokens=12)
    first = generate(engine, prompts, sampling)
    second = generate(engine, prompts, sampling)
    assert [[one.token_ids for one in group] for group in first] == [
        [one.token_ids for one in group] for group in second
    ]


def test_banned_ids_are_never_sampled(policy: Policy, prompts: list[RenderedPrompt], make_engine: Callable) -> None:
    """With a policy that would give nearly nothing else."""
    banned = list(policy.banned_token_ids)
    wishing = changed(policy, seed=2)
    with torch.no_grad():
        wishing.head.weight[banned] *= 20
    allowed = replace(wishing, banned_token_ids=())
    groups = generate(make_engine(wishing), prompts, Sampling(num_completions=8, max_new_tokens=16))
    assert (reported(groups) - ours(wishing, prompts, groups)).abs().max() < ATOL
    # Without the ban the same tokens would be far less likely.
    assert ours(allowed, prompts, groups).exp().mean() < 0.5 * ours(wishing, prompts, groups).exp().mean()


def test_an_update_arrives_in_every_weight_and_can_be_taken_back(
    policy: Policy, prompts: list[RenderedPrompt], make_engine: Callable, server: RealServer
) -> None:
    """Tied heads included, and pictures that the server has seen before."""
    sampling = Sampling(num_completions=4, max_new_tokens=12)
    engine = make_engine(policy)
    before = generate(engine, prompts, sampling)
    first = checksums(server)
    other = changed(policy, seed=3)
    engine.sync_weights(other, version=1)
    groups = generate(engine, prompts, sampling)
    assert (reported(groups) - ours(other, prompts, groups)).abs().max() < ATOL
    assert (reported(groups) - ours(policy, prompts, groups)).abs().max() > 100 * ATOL
    second = checksums(server)
    assert {name for name in first if first[name] == second[name]} == {name for name in first if first[name] == EMPTY}
    norms = [weight for name, weight in other.inner.named_parameters() if "norm" in name and "visual" not in name]
    assert {hashlib.sha256(weight.detach().numpy().tobytes()).hexdigest() for weight in norms} <= set(second.values())
    engine.sync_weights(policy, version=2)
    assert checksums(server) == first
    after = generate(engine, prompts, sampling)
    assert [[one.token_ids for one in group] for group in after] == [
        [one.token_ids for one in group] for group in before
    ]


def test_an_update_while_answers_are_under_way(
    policy: Policy, rendered: Rendered, make_engine: Callable, server: RealServer
) -> None:
    """Every token comes from the weights that it is said to come from, with the prompt computed by them."""
    # Answers that do not end are still under way when the update comes.
    policy = replace(policy, banned_token_ids=(*policy.banned_token_ids, *policy.eos_token_ids))
    other = changed(policy, seed=4)
    engine = make_engine(policy)
    prompts = [rendered(policy, *([(64, 48)] if policy.sees else []), seed=seed) for seed in range(4)]
    sampling = Sampling(num_completions=8, max_new_tokens=800)  # seconds, also beside a busy tester
    found: list[list[list[Completion]]] = []
    thread = threading.Thread(target=lambda: found.append(generate(engine, prompts, sampling)))
    thread.start()
    sampled = server.tokens_sampled()
    while server.tokens_sampled() < sampled + 40:
        assert thread.is_alive()
    engine.sync_weights(other, version=1)
    thread.join()
    (groups,) = found
    versions = [
        version for group in groups for one in group for version in one.weights_versions or (1,) * len(one.token_ids)
    ]
    assert {0, 1} == set(versions)
    each = torch.tensor(versions)
    told = reported(groups)
    assert (told - ours(policy, prompts, groups))[each == 0].abs().max() < ATOL
    assert (told - ours(other, prompts, groups))[each == 1].abs().max() < ATOL


def test_a_killed_server_that_comes_back_gets_its_weights(
    policy: Policy, prompts: list[RenderedPrompt], make_engine: Callable, server: RealServer, tmp_path: Path
) -> None:
    if server.model.name != "qwen2_5_vl":
        pytest.skip("one server is killed for all")
    sampling = Sampling(num_completions=4, max_new_tokens=12)
    told: list[str] = []
    engine = make_engine(policy, told.append)
    expected = generate(engine, prompts, sampling)
    held = checksums(server)
    server.kill()
    save_weights(changed(policy, seed=5), tmp_path / "elsewhere")
    server.start(tmp_path / "elsewhere")  # started from other weights, too
    again = generate(engine, prompts, sampling)
    assert [[one.token_ids for one in group] for group in again] == [
        [one.token_ids for one in group] for group in expected
    ]
    assert checksums(server) == held
    assert any("waited for" in line for line in told)
    assert "answers again" in told[-1]
