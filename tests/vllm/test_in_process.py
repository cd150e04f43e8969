"""vLLM itself in this process: ids, log-probabilities and bans, and weights that arrive bit for bit."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mm_agrae.config import RunConfig
from mm_agrae.config.model import LoraConfig
from mm_agrae.engines.vllm_engine import VllmEngine
from mm_agrae.engines.vllm_sync import weight_shapes
from mm_agrae.errors import EngineError
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.hugging_face import transformers
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.snapshot import save_weights
from mm_agrae.records import Completion, RenderedPrompt, Sampling

Rendered = Callable[..., RenderedPrompt]
SAMPLING = Sampling(num_completions=4, max_new_tokens=12, temperature=0.8)
SEEDS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
ARCHITECTURES = ["qwen3", "qwen2_5_vl", "qwen3_vl"]


@contextmanager
def running(folder: Path, **model: Any) -> Iterator[VllmEngine]:
    values = {"name": "tiny", "model": {"path": str(folder), "device": "cpu"} | model, "data": {}}
    settings = {"engine": {"kind": "vllm", "memory_fraction": 0.3}, "images": {"min_pixels": 256, "max_pixels": 4096}}
    config = RunConfig.model_validate(values | settings | {"rollout": {"batch_rows": 32}})
    with closing(VllmEngine(load_policy(config.model), config, context_tokens=256, processes=1)) as engine:
        yield engine


def prompts_of(policy: Policy, rendered: Rendered) -> list[RenderedPrompt]:
    if not policy.sees:
        return [rendered(policy, question=f"How many is {n} and 1?") for n in range(3)]
    return [rendered(policy, (64, 48), (32, 32)), rendered(policy), rendered(policy, (48, 64), seed=3)]


def generated(engine: VllmEngine, prompts: list[RenderedPrompt]) -> list[list[Completion]]:
    return engine.generate(prompts, SAMPLING, SEEDS[: len(prompts)])


def gap(policy: Policy, prompts: list[RenderedPrompt], groups: list[list[Completion]]) -> float:
    """Largest difference between the engine's log-probabilities and ours."""
    rows = [
        Row(prompt=prompt, completions=tuple(one.token_ids for one in group))
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    with torch.no_grad():
        ours = score(policy, lay_out(policy, rows), temperature=SAMPLING.temperature).logprobs
    theirs = torch.tensor([value for group in groups for one in group for value in one.logprobs])
    return (ours - theirs).abs().max().item()


def changed(policy: Policy, seed: int = 0) -> Policy:
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise))
    return policy


def digests(model: torch.nn.Module) -> dict[str, str]:
    """Of every weight as it is multiplied with: on a CPU, layers keep a packed copy and not the weight."""
    found = {}
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if "weight" in own and "cpu_linear" in vars(module):
            width = module.embedding_dim if "embedding_dim" in vars(module) else module.input_size_per_partition
            own["weight"] = module.quant_method.apply(module, torch.eye(width), None).T
        for kind, weight in own.items():
            content = weight.detach().contiguous().numpy().tobytes()
            assert content, f"{name}.{kind} is empty"
            found[f"{name}.{kind}"] = hashlib.sha256(content).hexdigest()
    return found


def untied(folder: Path, out: Path) -> Path:
    """The same model with a head of its own."""
    auto = transformers.AutoModelForImageTextToText if "vl" in folder.name else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(folder)
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().flip(0).clone())
    model.save_pretrained(out)
    for file in folder.iterdir():
        if not (out / file.name).exists():
            (out / file.name).write_bytes(file.read_bytes())
    return out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rollouts_are_the_policys(
    architecture: str, model_folder: Callable[[str], Path], rendered: Rendered, tmp_path: Path
) -> None:
    with running(model_folder(architecture)) as engine:
        prompts = prompts_of(engine.policy, rendered)
        before = generated(engine, prompts)
        assert gap(engine.policy, prompts, before) < 1e-4
        assert generated(engine, prompts) == before
        if engine.policy.sees:
            # The picture matters: with another one of the same size the log-probabilities are others.
            patches = torch.zeros_like(prompts[0].pixel_values)
            grey = replace(prompts[0], pixel_values=patches, picture_hashes=("grey", "greyer"))
            assert gap(engine.policy, [prompts[0]], generated(engine, [grey])) > 1e-3

        engine.sync_weights(changed(engine.policy), version=1)
        after = generated(engine, prompts)
        assert gap(engine.policy, prompts, after) < 1e-4  # a stale key, value, picture or tied head would show
        assert gap(engine.policy, prompts, before) > 1e-3
        arrived = engine.llm.apply_model(digests)
        save_weights(engine.policy, tmp_path / "new")
    with running(tmp_path / "new") as fresh:
        assert fresh.llm.apply_model(digests) == arrived


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2_5_vl"])
def test_a_head_of_its_own_arrives_too(
    architecture: str, model_folder: Callable[[str], Path], rendered: Rendered, tmp_path: Path
) -> None:
    with running(untied(model_folder(architecture), tmp_path / f"untied_{architecture}")) as engine:
        assert "lm_head.weight" in weight_shapes(engine.policy)
        prompts = prompts_of(engine.policy, rendered)
        generated(engine, prompts)
        engine.sync_weights(changed(engine.policy), version=1)
        assert gap(engine.policy, prompts, generated(engine, prompts)) < 1e-4


@pytest.mark.parametrize(
    "model",
    [{"freeze": ["vision", "connector"]}, {"freeze": ["language"]}, {"lora": LoraConfig(rank=4).model_dump()}],
    ids=["language", "tower", "adapters"],
)
def test_parts_that_are_trained_arrive_and_the_rest_stays(
    model: dict[str, Any], model_folder: Callable[[str], Path], rendered: Rendered
) -> None:
    with running(model_folder("qwen2_5_vl"), **model) as engine:
        prompts = prompts_of(engine.policy, rendered)
        before = generated(engine, prompts)  # vLLM has seen the pictures now
        assert weight_shapes(engine.policy, "frozen")
        for version in (1, 2):
            engine.sync_weights(changed(engine.policy, seed=version), version=version)
            assert gap(engine.policy, prompts, generated(engine, prompts)) < 1e-4
        assert gap(engine.policy, prompts, before) > 1e-3


def test_placeholders_are_never_sampled(model_folder: Callable[[str], Path], rendered: Rendered) -> None:
    hot = Sampling(num_completions=64, max_new_tokens=64, temperature=50.0)
    with running(model_folder("qwen2_5_vl")) as engine:
        prompt = rendered(engine.policy, (32, 32))
        (group,) = engine.generate([prompt], hot, [list(range(64))])
        tokens = [token for one in group for token in one.token_ids]
        assert len(set(tokens)) > 300  # nearly uniform over 512
        assert not set(tokens) & set(engine.policy.banned_token_ids)
        with pytest.raises(EngineError, match="needs 30000"):
            engine.generate([prompt], replace(hot, max_new_tokens=30000 - len(prompt.token_ids)), [list(range(64))])


def test_names_that_vllm_does_not_know_are_listed(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(policy: Policy, part: Any = "all") -> dict[str, tuple[int, ...]]:
        shapes = weight_shapes(policy, part)
        missing = next(iter(shapes))
        return {name: shape for name, shape in shapes.items() if name != missing} | {"model.stranger.bias": (3,)}

    monkeypatch.setattr("mm_agrae.engines.vllm_engine.weight_shapes", wrong)
    with (
        pytest.raises(EngineError, match=r"vLLM has no place for model\.stranger\.bias"),
        running(model_folder("qwen3")),
    ):
        pass


def test_greedy_completions_are_the_most_probable_ones(model_folder: Callable[[str], Path], rendered: Rendered) -> None:
    with running(model_folder("qwen3")) as engine:
        prompts = prompts_of(engine.policy, rendered)
        greedy = Sampling(num_completions=2, max_new_tokens=12, temperature=0.0)
        groups = engine.generate(prompts, greedy, [[1, 2]] * 3)
        assert all(first == second for first, second in groups)
