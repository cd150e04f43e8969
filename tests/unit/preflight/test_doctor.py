"""The doctor's lines by themselves: numbers by hand, and what is told when something does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mm_agrae.config import RunConfig
from mm_agrae.config.load import parse_config
from mm_agrae.config.schema import ImageConfig, PromptConfig
from mm_agrae.data.dataset import open_dataset
from mm_agrae.policy.load import Policy
from mm_agrae.preflight.doctor import (
    NUM_PROBLEMS,
    Line,
    Size,
    answer_lines,
    disk_line,
    launch_lines,
    length_lines,
    memory_line,
    recipe_lines,
    twin_lines,
)
from mm_agrae.preflight.lengths import Budget
from mm_agrae.preflight.twin import Bound, PromptTwin, judge
from mm_agrae.records import Sample
from mm_agrae.verify import VerifierPool

GIB = 2**30
# 1 Gi weights, half of them trained: a checkpoint is 4 GiB of weights and 4 GiB of moments.
SIZE = Size(num_weights=GIB, num_trained=GIB // 2, adapters_only=False)


@pytest.fixture
def config(recipe_text: Callable[[Path, Path], str]) -> Callable[..., RunConfig]:
    return lambda *overrides: parse_config(recipe_text(Path("model"), Path("data")), overrides)


@pytest.fixture(scope="module")
def problems(gym_folder: Path) -> list[Sample]:
    return list(open_dataset(gym_folder, "train"))


def test_a_line_begins_with_its_level() -> None:
    assert str(Line(level="wrong", topic="disk", text="full")) == "wrong   disk: full"


def test_settings_without_effect_are_warnings(config: Callable[..., RunConfig]) -> None:
    assert [line.level for line in recipe_lines(config())] == ["fine"]
    (line,) = recipe_lines(config("algorithm.max_sampling_rounds=4"))
    assert line.level == "warning"
    assert "algorithm.max_sampling_rounds is set but changes nothing" in line.text


def test_sizes_by_hand() -> None:
    assert SIZE.checkpoint_bytes == 8 * GIB
    assert replace(SIZE, adapters_only=True).checkpoint_bytes == 6 * GIB
    # Trained: 4 + 4 + 8 bytes, or with masters 2 + 4 + 4 + 8. Frozen: 4, or 2.
    assert SIZE.training_bytes("fp32", num_processes=1) == 10 * GIB
    assert SIZE.training_bytes("bf16_with_fp32_masters", num_processes=1) == 10 * GIB
    trained = replace(SIZE, num_trained=GIB)
    assert trained.training_bytes("bf16_with_fp32_masters", num_processes=1) == 18 * GIB
    # Nothing is in pieces, so several processes hold as much each.
    assert SIZE.training_bytes("fp32", num_processes=8) == 10 * GIB


def test_what_is_whole_on_every_process_is_not_divided() -> None:
    # Of 0.5 Gi trained weights 0.25 in pieces, of 0.5 Gi frozen ones none: a tied head and a frozen tower.
    size = replace(SIZE, num_trained_pieces=GIB // 4)
    # 16 x 0.25 whole, 4 x 0.5 frozen, 16 x 0.25 / 4 in pieces.
    assert size.training_bytes("fp32", num_processes=4) == (4 + 2 + 1) * GIB
    # With masters 18 and 2 bytes, but pieces are masters themselves: 18 x 0.25, 2 x 0.5, 16 x 0.25 / 4.
    assert size.training_bytes("bf16_with_fp32_masters", num_processes=4) == 6.5 * GIB
    everything = replace(size, num_frozen_pieces=GIB // 2)
    assert everything.training_bytes("fp32", num_processes=4) == 5.5 * GIB


def test_checkpoints_need_room_for_one_more_than_are_kept(config: Callable[..., RunConfig]) -> None:
    kept = config("train.keep_checkpoints=2")
    assert disk_line(kept, SIZE, free_bytes=24 * GIB + 1).level == "fine"
    line = disk_line(kept, SIZE, free_bytes=24 * GIB)
    assert line.level == "wrong"
    assert line.text.startswith("3 checkpoints of 8.00 GiB are 24.00 GiB; runs has 24.00 GiB free. Free space")
    best = config("train.keep_checkpoints=2", "train.keep_best=eval/held_out/pass@1")
    assert disk_line(best, SIZE, free_bytes=24 * GIB + 1).level == "wrong"


def test_what_training_holds_must_fit_the_device() -> None:
    assert memory_line(SIZE, "fp32", num_processes=1, device_bytes=None).level == "fine"
    assert memory_line(SIZE, "fp32", num_processes=1, device_bytes=11 * GIB).level == "fine"
    line = memory_line(SIZE, "fp32", num_processes=1, device_bytes=9 * GIB)
    assert line.level == "wrong"
    assert "take 10.0 GiB per process, activations come on top; the device has 9.0 GiB. Train adapters" in line.text
    assert memory_line(SIZE, "fp32", num_processes=2, device_bytes=9 * GIB).level == "wrong"
    shared = replace(SIZE, num_trained_pieces=SIZE.num_trained, num_frozen_pieces=GIB // 2)
    pieces = memory_line(shared, "fp32", num_processes=2, device_bytes=9 * GIB)
    assert pieces.level == "fine"
    assert "take at least 5.0 GiB per process" in pieces.text


@pytest.mark.parametrize(
    ("num_processes", "num_devices", "levels"),
    [(1, 0, ["fine"]), (4, 4, ["fine"]), (3, 3, ["warning"]), (5, 5, ["wrong"]), (1, 2, ["fine", "warning"])],
)
def test_processes_share_prompts(
    config: Callable[..., RunConfig], num_processes: int, num_devices: int, levels: list[str]
) -> None:
    lines = launch_lines(config("rollout.num_prompts=4"), num_processes=num_processes, num_devices=num_devices)
    assert [line.level for line in lines] == levels


def test_prompts_against_the_budget(policy_of: Callable[[str], Policy], problems: list[Sample]) -> None:
    def lines(limit: int, *, broken: int = 0) -> list[Line]:
        budget = Budget(
            policy=policy_of("qwen2_5_vl"),
            prompt=PromptConfig(instruction="none"),
            images=ImageConfig(min_pixels=1024, max_pixels=4096),
            max_prompt_tokens=limit,
        )
        bad = [replace(problem, question="no mark") for problem in problems[:broken]]
        return list(length_lines(budget, [*bad, *problems[broken:]]))

    (fine,) = lines(500)
    assert fine.level == "fine"
    assert fine.text.startswith(f"the first {NUM_PROBLEMS} prompts have ")
    longest = int(fine.text.partition("a maximum of ")[2].partition(";")[0])
    assert [line.level for line in lines(longest)] == ["fine"]
    (some,) = lines(longest - 1)
    assert some.level == "warning"
    assert "of them are left out" in some.text
    assert [line.level for line in lines(3)] == ["wrong"]
    first, rest = lines(500, broken=2)
    assert (first.level, rest.level) == ("wrong", "fine")
    assert first.text.startswith("2 problems cannot be used")


def test_reference_answers_must_be_judged_correct(problems: list[Sample]) -> None:
    def lines(samples: list[Sample]) -> list[Line]:
        with VerifierPool(num_workers=1) as pool:
            return list(answer_lines(samples, pool, "generic"))

    (fine,) = lines(problems)
    assert (fine.level, fine.text) == ("fine", "64 of 64 reference answers are judged correct under profile generic")
    bad = [replace(problem, target="None") for problem in problems]
    (one,) = lines([*bad[:1], *problems[1:]])
    assert one.level == "warning"
    assert one.text.startswith("1 of 64 reference answers can never or not safely be rewarded")
    assert repr(problems[0].id) in one.text
    assert [line.level for line in lines(bad)] == ["wrong"]


def test_twins_in_lines() -> None:
    same = PromptTwin(sample_id="a", engine=(-1.0,), trainer=(-1.0,), untempered=(-1.0,), leads=(0.0,))
    bound = Bound(mean_nats=0.01, token_nats=0.1)
    good = judge([same], bound, temperature=1.0)
    bad = judge([replace(same, engine=(-2.0,))], bound, temperature=1.0)
    assert [line.level for line in twin_lines(good, refuses=True)] == ["fine", "fine"]
    assert [line.level for line in twin_lines(bad, refuses=True)] == ["wrong", "fine"]
    assert [line.level for line in twin_lines(bad, refuses=False)] == ["warning", "fine"]
