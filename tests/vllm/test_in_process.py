"""vLLM itself in this process: ids, log-probabilities and bans, and weights that arrive bit for bit."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ["TORCH_COMPILE_DISABLE"] = "1"  # vLLM compiles a few helpers even where it runs eagerly

from mm_agrae.config import RunConfig
from mm_agrae.config.model import LoraConfig, ModelConfig
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.engines.vllm_contract import MATCH
from mm_agrae.engines.vllm_engine import VllmEngine
from mm_agrae.engines.vllm_sync import weight_shapes
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.hugging_face import transformers
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.snapshot import save_weights
from mm_agrae.records import Completion, RenderedPrompt, Sampling
from tests.unit.engines.fake_vllm import MATCH as SERVES

Rendered = Callable[..., RenderedPrompt]
Folders = Callable[[str], Path]
SAMPLING = Sampling(num_completions=4, max_new_tokens=12, temperature=0.8)
SEEDS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


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


@pytest.fixture(scope="module", params=["qwen3", "qwen2_5_vl", "qwen3_vl"])
def engine(request: pytest.FixtureRequest, model_folder: Folders) -> Iterator[VllmEngine]:
    """Started from the embedded model; every test gives it weights of its own."""
    with running(model_folder(request.param)) as made:
        yield made


@pytest.fixture
def prompts(engine: VllmEngine, rendered: Rendered) -> list[RenderedPrompt]:
    return prompts_of(engine.policy, rendered)


def give(engine: VllmEngine, policy: Policy) -> None:
    """All of another policy's weights, as at the start of a run."""
    engine.policy = policy
    engine._send("all", 0)


def test_rollouts_are_the_policys_before_and_after_an_update(engine: VllmEngine, prompts: list[RenderedPrompt]) -> None:
    before = generated(engine, prompts)
    assert gap(engine.policy, prompts, before) < 1e-4
    assert [one.token_ids for one in generated(engine, prompts)[0]] == [one.token_ids for one in before[0]]
    engine.sync_weights(changed(engine.policy), version=1)
    after = generated(engine, prompts)
    assert gap(engine.policy, prompts, after) < 1e-4  # a stale key, value, picture or tied head would show
    assert gap(engine.policy, prompts, before) > 1e-3


def test_pictures_matter(engine: VllmEngine, prompts: list[RenderedPrompt]) -> None:
    if not engine.policy.sees:
        pytest.skip("the model takes text only")
    pictured = prompts[0]
    assert pictured.pixel_values is not None
    patches = torch.zeros_like(pictured.pixel_values)
    grey = replace(pictured, pixel_values=patches, picture_hashes=("grey", "greyer"))
    groups = generated(engine, [grey])
    assert gap(engine.policy, [grey], groups) < 1e-4
    assert gap(engine.policy, [pictured], groups) > 1e-3


@pytest.mark.parametrize(
    "model",
    [{"freeze": ["vision", "connector"]}, {"freeze": ["language"]}, {"lora": LoraConfig(rank=4)}],
    ids=["language", "tower", "adapters"],
)
def test_parts_that_are_trained_arrive_and_the_rest_stays(
    model: dict[str, Any], engine: VllmEngine, prompts: list[RenderedPrompt], model_folder: Folders
) -> None:
    if not engine.policy.sees and "freeze" in model:
        pytest.skip("the model takes text only")
    name = engine.policy.inner.config.model_type
    give(engine, load_policy(ModelConfig(path=str(model_folder(name)), device="cpu", **model)))
    before = generated(engine, prompts)  # vLLM has seen the pictures now
    assert weight_shapes(engine.policy, "frozen")
    for version in (1, 2):
        engine.sync_weights(changed(engine.policy, seed=version), version=version)
        assert gap(engine.policy, prompts, generated(engine, prompts)) < 1e-4
    assert gap(engine.policy, prompts, before) > 1e-3


def test_placeholders_are_never_sampled(
    engine: VllmEngine, prompts: list[RenderedPrompt], model_folder: Folders
) -> None:
    policy = load_policy(ModelConfig(path=str(model_folder(engine.policy.inner.config.model_type)), device="cpu"))
    (norm,) = (
        weight
        for name, weight in policy.inner.named_parameters()
        if name.endswith(("language_model.norm.weight", "model.norm.weight"))
    )
    with torch.no_grad():
        norm.zero_()  # every logit is 0: all tokens are equally probable
    give(engine, policy)
    many = Sampling(num_completions=64, max_new_tokens=32)
    (group,) = engine.generate(prompts[:1], many, [list(range(64))])
    tokens = [token for one in group for token in one.token_ids]
    assert len(set(tokens)) > 0.8 * policy.head.out_features
    assert not set(tokens) & set(policy.banned_token_ids)


def test_greedy_completions_take_the_most_probable_tokens(engine: VllmEngine, prompts: list[RenderedPrompt]) -> None:
    greedy = Sampling(num_completions=2, max_new_tokens=12, temperature=0.0)
    groups = engine.generate(prompts, greedy, [[1, 2]] * len(prompts))
    assert all(first == second for first, second in groups)
    ours = TransformersEngine(engine.policy, batch_rows=16).generate(prompts, greedy, [[1, 2]] * len(prompts))
    assert [group[0].token_ids for group in groups] == [group[0].token_ids for group in ours]


def test_names_that_do_not_match_are_listed(engine: VllmEngine) -> None:
    shapes = weight_shapes(engine.policy)
    missing = next(iter(shapes))
    known = {name: shape for name, shape in shapes.items() if name != missing}
    (found,) = engine.llm.collective_rpc(MATCH, args=(known | {"model.layers.0.stranger.bias": (3,)},))
    assert found["unknown"] == ["model.layers.0.stranger.bias"]
    assert len(found["missing"]) == 1
    assert found["missing"][0].rpartition(".")[2] == missing.rpartition(".")[2]
    (found,) = engine.llm.collective_rpc(MATCH, args=(shapes,))
    assert found == SERVES
    # A layer of the same name in a larger model: vLLM would load its first rows.
    wide = next(name for name in shapes if name.endswith("layers.0.mlp.up_proj.weight"))
    rows, columns = shapes[wide]
    (found,) = engine.llm.collective_rpc(MATCH, args=(shapes | {wide: (2 * rows, columns)},))
    assert [name.rpartition("layers.")[2] for name in found["cut"]] == ["0.mlp.gate_up_proj.weight"]
    # Of the same name in a smaller model, by loaders of several kinds: vLLM would refuse it in the middle of an update.
    for name, shape in shapes.items():
        (found,) = engine.llm.collective_rpc(MATCH, args=(shapes | {name: (shape[0] // 2, *shape[1:])},))
        assert len(found["misfit"]) == 1, name


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_every_weight_arrives_bit_for_bit(
    tied: bool, model_folder: Folders, rendered: Rendered, tmp_path: Path
) -> None:
    folder = model_folder("qwen2_5_vl") if tied else untied(model_folder("qwen3"), tmp_path / "untied")
    with running(folder) as engine:
        assert ("lm_head.weight" in weight_shapes(engine.policy)) != tied
        prompts = prompts_of(engine.policy, rendered)
        engine.sync_weights(changed(engine.policy), version=1)
        assert gap(engine.policy, prompts, generated(engine, prompts)) < 1e-4
        arrived = engine.llm.apply_model(digests)
        save_weights(engine.policy, tmp_path / "new")
    with running(tmp_path / "new") as fresh:
        assert fresh.llm.apply_model(digests) == arrived
