"""Whole models with bf16 weights and fp32 masters: scores, gradients, rollouts, what is saved and how it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mm_agrae.config.model import LoraConfig, ModelConfig
from mm_agrae.config.schema import OptimConfig
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.errors import ConfigError
from mm_agrae.policy.forward import hidden_states, score
from mm_agrae.policy.layout import Row, make_layout
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.masters import Masters
from mm_agrae.policy.optim import make_optimizer, optimizer_step
from mm_agrae.policy.snapshot import model_tensors, optimizer_tensors, restore_optimizer, save_weights
from mm_agrae.records import RenderedPrompt, Sampling
from mm_agrae.train.distributed import World

ModelFolder = Callable[[str], Path]
Rendered = Callable[..., RenderedPrompt]

# Of a log-probability under bf16 arithmetic, in these models.
BF16_NATS = 0.1


def bf16(folder: Path, *, trained: bool = True, weights: Path | None = None, **settings: object) -> Policy:
    config = {"path": str(folder), "device": "cpu", "precision": "bf16", "stored_weights": "bf16_with_fp32_masters"}
    return load_policy(ModelConfig.model_validate(config | settings), trained=trained, weights=weights)


def fp32(folder: Path, **settings: object) -> Policy:
    return load_policy(ModelConfig.model_validate({"path": str(folder), "device": "cpu", **settings}))


def rows_of(policy: Policy, rendered: Rendered) -> list[Row]:
    pictured = rendered(policy, (64, 48)) if policy.sees else rendered(policy)
    text = rendered(policy, question="What is two plus two?")
    return [
        Row(prompt=pictured, completions=((40, 41, 42), (), (43, 44))),
        Row(prompt=text, completions=((50, 51), (52,))),
    ]


def learn(policy: Policy, optimizer: torch.optim.Optimizer, rows: Sequence[Row], *, lr: float = 1e-3) -> None:
    (-score(policy, make_layout(rows)).logprobs.mean()).backward()
    parameters = policy.trainable()
    World(device="cpu").sum_gradients(parameters)
    optimizer_step(optimizer, parameters, loss=0.0, lr=lr, max_grad_norm=1.0)


def check_rounded(policy: Policy) -> Masters:
    """Every weight is bf16, and the trained ones are their fp32 masters rounded."""
    masters = policy.masters
    assert masters is not None
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.bfloat16}
    assert [id(weight) for weight in masters.weights] == [id(weight) for weight in policy.trainable()]
    for weight, master in zip(masters.weights, masters.fp32, strict=True):
        assert master.dtype == torch.float32
        assert torch.equal(weight, master.bfloat16())
    return masters


def test_bf16_weights_need_bf16_arithmetic(model_folder: ModelFolder) -> None:
    with pytest.raises(ConfigError, match=r"model.precision comes out as fp32.*Set model.precision=bf16"):
        fp32(model_folder("qwen3"), stored_weights="bf16_with_fp32_masters")


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3"])
def test_a_model_in_bf16(model_folder: ModelFolder, rendered: Rendered, architecture: str) -> None:
    """Weights rounded, buffers not; scores and gradients are those of fp32 but for rounding."""
    exact, policy = fp32(model_folder(architecture)), bf16(model_folder(architecture))
    masters = check_rounded(policy)
    assert all(torch.equal(one, two) for one, two in zip(masters.fp32, exact.trainable(), strict=True))
    for one, two in zip(policy.model.buffers(), exact.model.buffers(), strict=True):
        assert torch.equal(one, two)
    found = []
    for each in (policy, exact):
        logprobs = score(each, make_layout(rows_of(each, rendered))).logprobs
        logprobs.mean().backward()
        gradients = [weight.grad for weight in each.trainable() if weight.grad is not None]
        found.append((logprobs.detach(), torch.cat([gradient.reshape(-1) for gradient in gradients])))
    (rough, rough_gradient), (logprobs, gradient) = found
    assert rough.dtype == rough_gradient.dtype == torch.float32
    assert 0 < (rough - logprobs).abs().max() < BF16_NATS
    assert torch.cosine_similarity(rough_gradient, gradient, dim=0) > 0.999


def test_trap_23_hidden_states_stay_in_bf16(model_folder: ModelFolder, rendered: Rendered) -> None:
    """A wrapper around the model that turns what it returns into fp32 doubles the largest tensors of a pass."""
    policy = bf16(model_folder("qwen2_5_vl"))
    layout = make_layout(rows_of(policy, rendered))
    with policy.arithmetic():
        assert not torch.is_autocast_enabled("cpu"), "weights in bf16 need no cast in every pass"
        assert hidden_states(policy, layout).dtype == torch.bfloat16
    assert score(policy, layout).logprobs.dtype == torch.float32


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl", "qwen3"])
def test_fp32_weights_are_cast_in_every_pass(model_folder: ModelFolder, rendered: Rendered, architecture: str) -> None:
    """Norms and rotation hand over queries and keys in another type than values; a group is shared all the same."""
    policy = fp32(model_folder(architecture), precision="bf16")
    assert policy.masters is None
    assert policy.shares_prompts
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}
    with policy.arithmetic():
        assert torch.is_autocast_enabled("cpu")
    exact, rough = (
        score(each, make_layout(rows_of(each, rendered))).logprobs
        for each in (fp32(model_folder(architecture)), policy)
    )
    assert 0 < (exact - rough).abs().max() < BF16_NATS
    rough.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in policy.trainable() if weight.grad is not None)


def test_what_is_frozen_has_no_master(model_folder: ModelFolder) -> None:
    policy = bf16(model_folder("qwen2_5_vl"), freeze=("vision", "connector"))
    masters = check_rounded(policy)
    assert 0 < len(masters.fp32) < len(list(policy.model.parameters()))
    evaluated = bf16(model_folder("qwen2_5_vl"), trained=False)
    assert evaluated.masters is None
    assert evaluated.trainable() == []
    assert {parameter.dtype for parameter in evaluated.model.parameters()} == {torch.bfloat16}


def test_a_folder_with_frozen_weights_is_an_ordinary_one(
    model_folder: ModelFolder, rendered: Rendered, tmp_path: Path
) -> None:
    """Masters of what is trained, the rounded weights widened of what is not; the policy keeps its own tensors."""
    policy = bf16(model_folder("qwen2_5_vl"), freeze=("vision", "connector"))
    assert policy.masters is not None
    learn(policy, make_optimizer(policy.trainable(), OptimConfig(), masters=policy.masters), rows_of(policy, rendered))
    held = [parameter.data_ptr() for parameter in policy.model.parameters()]
    save_weights(policy, tmp_path / "model")
    assert [parameter.data_ptr() for parameter in policy.model.parameters()] == held
    full = dict(zip(policy.masters.weights, policy.masters.fp32, strict=True))
    saved = fp32(tmp_path / "model")
    for mine, others in zip(policy.model.parameters(), saved.model.parameters(), strict=True):
        assert torch.equal(full[mine] if mine in full else mine.float(), others)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_frozen_weights_are_widened_in_host_memory(model_folder: ModelFolder, tmp_path: Path) -> None:
    settings = ModelConfig(path=str(model_folder("qwen2_5_vl")), device="cuda", freeze=("vision", "connector"))
    policy = load_policy(settings)
    frozen = {name for name, parameter in policy.model.named_parameters() if not parameter.requires_grad}
    found = {
        (name in frozen, t.device.type, t.dtype) for name, t in model_tensors(policy).items() if t.is_floating_point()
    }
    assert {(True, "cpu", torch.float32), (False, "cuda", torch.float32)} <= found
    save_weights(policy, tmp_path / "model")
    saved = fp32(tmp_path / "model")
    for mine, others in zip(policy.model.parameters(), saved.model.parameters(), strict=True):
        assert torch.equal(mine.cpu(), others.bfloat16())


@pytest.mark.parametrize("recompute", [False, True])
def test_learning_goes_on_as_if_it_had_not_been_saved(
    model_folder: ModelFolder, rendered: Rendered, tmp_path: Path, recompute: bool
) -> None:
    """The folder holds the masters, so that a run that loads it continues exactly; saving leaves the run as it was."""
    settings = {"freeze": ("vision",), "gradient_checkpointing": recompute}
    policy = bf16(model_folder("qwen2_5_vl"), **settings)
    rows = rows_of(policy, rendered)
    optimizer = make_optimizer(policy.trainable(), OptimConfig(), masters=policy.masters)
    learn(policy, optimizer, rows)
    save_weights(policy, tmp_path / "model")
    save_file(optimizer_tensors(policy, optimizer), tmp_path / "optimizer.safetensors")
    masters = check_rounded(policy)

    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "float32"
    resumed = bf16(model_folder("qwen2_5_vl"), weights=tmp_path / "model", **settings)
    again = make_optimizer(resumed.trainable(), OptimConfig(), masters=resumed.masters)
    restore_optimizer(resumed, again, load_file(tmp_path / "optimizer.safetensors"))
    check_equal(resumed, policy)
    ordinary = fp32(tmp_path / "model", freeze=("vision",))
    assert all(torch.equal(one, two) for one, two in zip(ordinary.trainable(), masters.fp32, strict=True))

    before = [master.clone() for master in masters.fp32]
    learn(policy, optimizer, rows)
    learn(resumed, again, rows)
    check_equal(resumed, policy)
    assert any(not torch.equal(one, two) for one, two in zip(before, masters.fp32, strict=True))


def check_equal(one: Policy, other: Policy) -> None:
    """Masters, and every weight with or without one."""
    for pair in zip(check_rounded(one).fp32, check_rounded(other).fp32, strict=True):
        assert torch.equal(*pair)
    for mine, others in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, others)


def test_adapters_are_rounded_and_saved_like_other_weights(
    model_folder: ModelFolder, rendered: Rendered, tmp_path: Path
) -> None:
    settings = {"lora": LoraConfig(rank=4).model_dump()}
    policy = bf16(model_folder("qwen2_5_vl"), **settings)
    rows = rows_of(policy, rendered)
    optimizer = make_optimizer(policy.trainable(), OptimConfig(), masters=policy.masters)
    for _ in range(2):
        learn(policy, optimizer, rows, lr=1e-2)
    save_weights(policy, tmp_path / "adapters")
    saved = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert all("lora" in name for name in saved)
    check_equal(bf16(model_folder("qwen2_5_vl"), weights=tmp_path / "adapters", **settings), policy)
    with policy.without_adapters(), torch.no_grad():
        first = score(policy, make_layout(rows)).logprobs
    start = score(bf16(model_folder("qwen2_5_vl"), trained=False), make_layout(rows)).logprobs
    assert torch.equal(first, start)


def test_rollouts_come_from_the_weights_that_are_trained(model_folder: ModelFolder, rendered: Rendered) -> None:
    """Both sides compute with the bf16 weights, so what is left of the gap is the order of the sums."""
    policy = bf16(model_folder("qwen2_5_vl"))
    prompts = [rendered(policy, (64, 48)), rendered(policy, question="What is two plus two?")]
    engine = TransformersEngine(policy, batch_rows=8)
    groups = engine.generate(prompts, Sampling(max_new_tokens=12, num_completions=4), [[0, 1, 2, 3], [4, 5, 6, 7]])
    rows = [
        Row(prompt=prompt, completions=tuple(completion.token_ids for completion in group))
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    told = torch.tensor([logprob for group in groups for completion in group for logprob in completion.logprobs])
    with torch.no_grad():
        gap = (score(policy, make_layout(rows)).logprobs - told).abs()
    assert len(told) > 8
    assert gap.max() < BF16_NATS
    assert gap.mean() < BF16_NATS / 5


@pytest.mark.parametrize("recompute", [False, True])
def test_micro_batches_add_up_to_their_union(model_folder: ModelFolder, rendered: Rendered, recompute: bool) -> None:
    """A gradient over micro-batches is the gradient of their union, though each is computed in bf16."""
    policy = bf16(model_folder("qwen3"), gradient_checkpointing=recompute)
    rows = rows_of(policy, rendered)

    def gradient(batches: Sequence[Sequence[Row]]) -> Tensor:
        policy.model.zero_grad(set_to_none=True)
        for batch in batches:
            score(policy, make_layout(batch)).logprobs.sum().backward()
        return torch.cat([weight.grad.reshape(-1) for weight in policy.trainable() if weight.grad is not None])

    whole, parts = gradient([rows]), gradient([[row] for row in rows])
    assert (whole - parts).norm() < 2e-2 * whole.norm()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_learning_on_cuda(model_folder: ModelFolder, rendered: Rendered) -> None:
    """auto is bf16 with masters there, the optimiser is fused, and steps far below bf16 resolution are kept."""
    policy = load_policy(ModelConfig(path=str(model_folder("qwen2_5_vl")), device="cuda"))
    masters = check_rounded(policy)
    assert policy.stored_weights == "bf16_with_fp32_masters"
    assert {tensor.device.type for tensor in (*masters.weights, *masters.fp32)} == {"cuda"}
    optimizer = make_optimizer(policy.trainable(), OptimConfig(), masters=masters)
    assert optimizer.param_groups[0]["fused"]
    before = [master.clone() for master in masters.fp32]
    for _ in range(3):
        learn(policy, optimizer, rows_of(policy, rendered), lr=1e-6)
    check_rounded(policy)
    moved = [float((one - two).abs().max()) for one, two in zip(masters.fp32, before, strict=True)]
    assert 0 < max(moved) < 1e-5
