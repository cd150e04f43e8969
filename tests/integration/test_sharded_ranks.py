"""One step of training by two processes, whole or in pieces, is the step of one: see ranks.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from launches import two_processes

from mm_agrae.train.distributed import World

# How the weights are held, and the model: its architecture, then flags of ranks.load.
WAYS = (
    "qwen2_5_vl",
    "qwen2_5_vl+sharded+recomputing",
    "qwen2_5_vl+sharded+gathered",
    "qwen2_5_vl+sharded+frozen",
    "qwen2_5_vl+sharded+lora",
    "qwen2_5_vl+sharded+again",
    "qwen3+sharded+untied",
    "qwen3+bf16",
    "qwen3+sharded+bf16",
)
SHARDED = [way for way in WAYS if "+sharded" in way]
HOLDING = {"sharded", "gathered", "recomputing"}


def model_of(way: str) -> str:
    return "+".join(word for word in way.split("+") if word not in HOLDING)


@pytest.fixture(scope="module")
def alone(warm_model: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
    """What one process finds with whole weights and large micro-batches, by model."""
    world = World(device="cpu")
    found = {}
    for model in sorted({model_of(way) for way in WAYS if "bf16" not in way}):
        architecture, *flags = model.split("+")
        torch.manual_seed(0)
        policy = ranks.load(str(warm_model(architecture)), flags)
        settings = ranks.settings_of(micro_batch_tokens=1000)
        found[model] = ranks.learn(policy, world, settings, count=ranks.count_of(flags))
    return found


@pytest.fixture(scope="module")
def together(warm_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What two processes find with small ones, by way."""
    out = tmp_path_factory.mktemp("ranks") / "found.pt"
    jobs = [f"{way}={warm_model(way.partition('+')[0])}{''.join(way.partition('+')[1:])}" for way in WAYS]
    ended = two_processes(ranks.__file__, out, *jobs)
    assert ended.returncode == 0, ended.stderr[:6000]
    return torch.load(out, weights_only=False)


def check_same_updates(two: dict[str, Any], one: dict[str, Any]) -> None:
    """Log-probabilities, every gradient of both updates, where they moved the weights, every figure."""
    torch.testing.assert_close(two["logprobs"], one["logprobs"], rtol=0, atol=5e-6)
    assert len(two["gradients"]) == len(one["gradients"]) == 2
    for found, expected in zip(two["gradients"], one["gradients"], strict=True):
        assert list(found) == list(expected)
        floor = 1e-7 * float(torch.stack([gradient.norm() for gradient in expected.values()]).norm())
        assert floor > 0
        for name, gradient in expected.items():
            assert float((found[name] - gradient).norm()) <= 1e-5 * float(gradient.norm()) + floor, name
    moves, expected_moves = (torch.cat([move.reshape(-1) for move in of["moves"].values()]) for of in (two, one))
    assert float(expected_moves.norm()) > 0
    assert float((moves - expected_moves).norm()) <= 1e-3 * float(expected_moves.norm())
    for key, value in one["metrics"].items():
        assert key.startswith("time/") or two["metrics"][key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


def test_trap_14_two_processes_have_the_gradient_of_one(together: dict[str, Any], alone: dict[str, Any]) -> None:
    """A gradient averaged over ranks or micro-batches is that of another loss wherever these are unequal.

    A group of rank 1 is learnt from by rank 0, and ranks run different numbers of micro-batches. Clipping, which takes
    the norm of the summed gradient, and AdamW are those of training.
    """
    two = together["qwen2_5_vl"]
    check_same_updates(two, alone["qwen2_5_vl"])
    for gradients in two["gradients"]:
        norm = float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())
        assert norm > ranks.MAX_GRAD_NORM, "nothing was clipped"
    (first, learnt_by_first), (second, learnt_by_second) = two["rows"]
    assert (first, second) == ([0, 2, 4, 6], [1, 3, 5, 7])
    assert set(learnt_by_first) - set(first), "no group changed hands"
    assert sorted(learnt_by_first + learnt_by_second) == list(range(8))
    assert len(set(two["num_passes"])) == 2


@pytest.mark.parametrize("way", [way for way in SHARDED if "bf16" not in way])
def test_trap_15_sharded_ranks_keep_step(together: dict[str, Any], alone: dict[str, Any], way: str) -> None:
    """Every pass through sharded weights is a meeting of all ranks: one that has fewer micro-batches waits for ever.

    It repeats one without weight, and the numbers stay those of one process; sampling again may leave it no group at
    all, and then it computes one that is not learnt from. The norm that clips and AdamW see pieces and whole weights
    side by side.
    """
    check_same_updates(together[way], alone[model_of(way)])
    first, second = together[way]["num_passes"]
    if "again" in way:
        assert [learnt for _, learnt in together[way]["rows"]] == [[0, 1], []]
        assert first == second >= 2
    else:
        assert first == second == max(together["qwen2_5_vl"]["num_passes"])


def test_weights_are_gathered_by_layer_or_by_update(together: dict[str, Any]) -> None:
    """train.reshard_after_forward: what is left in pieces at the end of a pass; log-probabilities come before."""
    by_layer = together["qwen2_5_vl+sharded+recomputing"]
    assert set(by_layer["pieces"]) == {len(by_layer["in_parts"])}
    by_update = together["qwen2_5_vl+sharded+gathered"]
    assert set(by_update["pieces"]) == {0, len(by_update["in_parts"])}
    assert by_update["in_parts"] == by_layer["in_parts"]


def test_a_tower_in_pieces_is_called_by_ranks_without_pictures_too(together: dict[str, Any]) -> None:
    """In some passes one rank has pictures and the other has none; a frozen tower is whole, and each calls its own."""
    for way in ("qwen2_5_vl+sharded+recomputing", "qwen2_5_vl+sharded+gathered"):
        found = together[way]
        assert found["num_towers"] == found["num_passes"]
        assert any(".visual." in name for name in found["in_parts"])
    calls, passes = together["qwen2_5_vl"]["num_towers"], together["qwen2_5_vl"]["num_passes"]
    assert calls[0] < passes[0]
    assert calls[1] < passes[1]
    assert calls[0] != calls[1]
    for way in ("qwen2_5_vl+sharded+frozen", "qwen2_5_vl+sharded+lora"):
        assert together[way]["in_parts"]
        assert not any(".visual." in name for name in together[way]["in_parts"])


def test_trap_16_the_head_is_outside_of_what_is_sharded(together: dict[str, Any], alone: dict[str, Any]) -> None:
    """A head that is called by itself, beside a sharded root, would multiply with the piece that its rank holds.

    One that is tied stays whole, as does its embedding, and its gradient is summed like that of an unsharded model. A
    head of its own is gathered around its scores.
    """
    two, one = together["qwen2_5_vl+sharded+recomputing"], alone["qwen2_5_vl"]
    name = "model.language_model.embed_tokens.weight"
    assert two["summed"] == {name}
    assert name not in two["in_parts"]
    assert not two["summed"] & two["in_parts"]
    for found, expected in zip(two["gradients"], one["gradients"], strict=True):
        assert found[name].shape == expected[name].shape
        torch.testing.assert_close(
            found[name], expected[name], rtol=1e-4, atol=1e-5 * float(expected[name].abs().max())
        )
    untied = together["qwen3+sharded+untied"]
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= untied["in_parts"]
    assert not untied["summed"]


@pytest.mark.parametrize("way", SHARDED)
def test_moments_are_whole_outside_and_go_back_into_pieces(together: dict[str, Any], way: str) -> None:
    """Saved by two processes, they are those of one, under the names of the weights."""
    moments = together[way]["moments"]
    assert moments.keys() == together[way]["again"].keys()
    for name, tensor in moments.items():
        kind, _, weight = name.partition("/")
        if kind != "step":
            assert tensor.shape == together[way]["gradients"][0][full_name(way, weight)].shape
        assert torch.equal(tensor, together[way]["again"][name])


def full_name(way: str, weight: str) -> str:
    return f"base_model.model.{weight}" if "lora" in way else weight


def test_pieces_of_bf16_weights_are_their_own_fp32_masters(together: dict[str, Any]) -> None:
    """Two processes with pieces make the step of two processes with whole weights and masters, in bf16's precision."""
    pieces, masters = together["qwen3+sharded+bf16"], together["qwen3+bf16"]
    for found, expected in zip(pieces["gradients"], masters["gradients"], strict=True):
        for name, gradient in expected.items():
            assert found[name].dtype == torch.float32
            assert float((found[name] - gradient).norm()) <= 3e-2 * float(gradient.norm()) + 1e-6, name
    largest = max(float(move.abs().max()) for move in pieces["moves"].values())
    assert largest == pytest.approx(2e-4, rel=0.05), "two steps of AdamW at 1e-4"
