"""Whole runs in this process: pictures and texts in one batch, text alone, refusals, offline tracking."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import run_files
import torch
from colours import RECIPE, colour_sample, ignore, write_colours

from mm_agrae.cli.jobs import run_evaluate, run_train
from mm_agrae.config import load_config
from mm_agrae.engines.scripted_engine import ScriptedEngine
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.errors import EngineError
from mm_agrae.metrics.catalogue import check_keys
from mm_agrae.records import Completion
from mm_agrae.rollout import Judge
from mm_agrae.store.checkpoint import complete_checkpoints, latest_checkpoint
from mm_agrae.store.run_dir import RunDir
from mm_agrae.store.tracker import read_metrics
from mm_agrae.train.loop import Parts, train
from mm_agrae.train.session import open_session
from mm_agrae.verify import VerifierPool


def test_a_run_leaves_everything_behind(recipe: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = run_train(recipe, [], tmp_path / "run", False, said.append)
    lines = read_metrics(run.metrics)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    for line in lines:
        check_keys(key for key in line if key != "step")
    # Measured before and after, and nowhere else.
    assert [line["step"] for line in lines if "eval/held_out/pass@1" in line] == [0, 4]
    assert {path.name for path in run.eval.iterdir()} == {"step_000000", "step_000004"}
    assert {path.name for path in run.rollouts.iterdir()} == {f"step_00000{step}.jsonl" for step in (1, 2, 3, 4)}
    assert {path.name for path in run.checkpoints.iterdir()} == {"step_000002", "step_000004"}
    assert run.recipe.read_text(encoding="utf-8") == recipe.read_text(encoding="utf-8")
    assert run.report.stat().st_size > 1000
    assert said[-1] == f"report: {run.report}"
    progress = [line for line in said if line.strip().startswith(("step", "1/4", "2/4", "3/4", "4/4"))]
    assert len(progress) == 5
    assert len({len(line) for line in progress}) == 1, "columns are not fixed"
    # Something was learnt from: weights moved.
    assert any(line.get("policy/grad_norm", 0) > 0 for line in lines)
    for line in lines[1:]:  # groups that move no weight need nothing
        assert (line["throughput/update_useful_flops_per_s"] > 0) == (line["group/skipped_frac"] < 1)
    # What is logged is what was sampled.
    for line in lines[1:]:
        saved = run_files.groups(run)[f"rollouts/step_{line['step']:06d}.jsonl"]
        rollouts = [rollout for group in saved for rollout in group["rollouts"]]
        assert len(saved) == 3
        assert line["reward/mean"] == pytest.approx(sum(r["reward"] for r in rollouts) / 12)
        assert line["reward/batch_accuracy"] == sum(r["verdict"]["status"] == "correct" for r in rollouts) / 12
        assert line["advantage/abs_mean"] == pytest.approx(sum(abs(r["advantage"]) for r in rollouts) / 12)
    with_picture = {bool(group["images"]) for groups in run_files.groups(run).values() for group in groups}
    assert with_picture == {True, False}


def test_the_rollout_and_the_trainer_agree_on_log_probabilities(recipe: Path, tmp_path: Path) -> None:
    run = run_train(recipe, ["train.num_steps=2"], tmp_path / "run", False, ignore)
    gaps = [line["rollout/logprob_gap_max_nats"] for line in read_metrics(run.metrics)[1:]]
    assert any(gap is not None for gap in gaps)
    assert all(gap < 1e-4 for gap in gaps if gap is not None)


def test_the_seed_decides_the_run(recipe: Path, tmp_path: Path) -> None:
    one, same, other = (
        run_train(recipe, ["train.num_steps=1", f"seed={seed}"], tmp_path / str(number), False, ignore)
        for number, seed in enumerate((0, 0, 1))
    )
    assert run_files.weights(one) == run_files.weights(same)
    assert run_files.groups(one) == run_files.groups(same)
    assert run_files.groups(one) != run_files.groups(other)


def test_fresh_adapters_are_decided_by_the_seed(recipe: Path, tmp_path: Path) -> None:
    overrides = ["train.num_steps=1", "model.lora.rank=2"]
    runs = []
    for number in range(2):
        torch.manual_seed(number)  # what the global generator holds must not matter
        runs.append(run_train(recipe, overrides, tmp_path / str(number), False, ignore))
    one, other = (latest_checkpoint(run.checkpoints) for run in runs)
    assert one
    assert other
    name = "model/adapter_model.safetensors"
    assert (one / name).read_bytes() == (other / name).read_bytes()


def test_text_alone_goes_the_same_way(warm_model: Callable[[str], Path], text_data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "text.yaml"
    recipe.write_text(RECIPE.format(model=warm_model("qwen3"), data=text_data), encoding="utf-8")
    run = run_train(recipe, ["train.num_steps=2"], tmp_path / "run", False, ignore)
    lines = read_metrics(run.metrics)
    assert any(line.get("policy/grad_norm", 0) > 0 for line in lines)
    assert run.report.exists()


def test_what_is_over_the_budget_is_refused_counted_and_named(
    warm_model: Callable[[str], Path], tmp_path: Path
) -> None:
    samples = [colour_sample(index) for index in range(5)]
    long = replace(colour_sample(5), question=f"<image>{'Which colour? ' * 40}")
    data = write_colours(tmp_path / "data", [*samples, long])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=warm_model("qwen2_5_vl"), data=data), encoding="utf-8")
    said: list[str] = []
    run = run_train(recipe, ["train.num_steps=4", "rollout.num_prompts=3"], tmp_path / "run", False, said.append)
    assert any(line.startswith("refused sample 'colour5': its prompt has ") for line in said)
    # 12 admitted prompts of an order in which one of six is refused: two whole epochs and 2 of the third.
    refused = read_metrics(run.metrics)[-1]["rollout/refused_samples"]
    assert refused == sum(line.startswith("refused sample 'colour5'") for line in said)
    assert refused in (2, 3)
    ids = {group["sample_id"] for groups in run_files.groups(run).values() for group in groups}
    assert "colour5" not in ids


def test_a_problem_drawn_twice_in_a_step_is_answered_anew(warm_model: Callable[[str], Path], tmp_path: Path) -> None:
    data = write_colours(tmp_path / "data", [colour_sample(0)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=warm_model("qwen2_5_vl"), data=data), encoding="utf-8")
    run = run_train(recipe, ["train.num_steps=1", "rollout.num_prompts=4"], tmp_path / "run", False, ignore)
    groups = run_files.groups(run)["rollouts/step_000001.jsonl"]
    answers = {tuple(tuple(rollout["token_ids"]) for rollout in group["rollouts"]) for group in groups}
    assert len(answers) > 1


@pytest.mark.parametrize("group_size", [2, 4])
def test_scripted_answers_are_rewarded_as_they_deserve(recipe: Path, tmp_path: Path, group_size: int) -> None:
    """A script that is right at even seeds: rewards follow the flags, and the log keeps the script's words."""
    config = load_config(recipe, ["train.num_steps=2", f"rollout.group_size={group_size}"])
    session = open_session(config, recipe="", job="train", out=tmp_path / "run", resume=False, log=ignore)
    encode = session.policy.tokenizer.encode
    engine = ScriptedEngine(
        lambda prompt, seed: f"\\boxed{{{prompt.sample.target if seed % 2 == 0 else 'green'}}}",
        lambda text: [*encode(text, add_special_tokens=False), session.policy.tokenizer.eos_token_id],
    )
    samples = [colour_sample(index, image=index % 2 > 0) for index in range(8)]
    measured: list[int] = []
    gaps: list[tuple[float, float]] = []

    def evaluate(step: int) -> dict[str, float]:
        measured.append(step)
        return {}

    with VerifierPool(num_workers=1, timeout_s=5.0) as verifier:
        judge = Judge(verifier=verifier, correct_weight=0.9, format_weight=0.1)
        parts = Parts(
            samples=samples,
            engine=engine,
            judge=judge,
            evaluate=evaluate,
            check_gap=lambda gap, tokens: gaps.append((gap, tokens)),
        )
        train(session, parts)
    session.close()
    assert measured == [0, 2]
    assert engine.weights_version == 2
    for groups in run_files.groups(session.run_dir).values():
        for group in groups:
            for rollout in group["rollouts"]:
                right = group["target"] in rollout["text"]
                assert rollout["verdict"]["status"] == ("correct" if right else "wrong")
                assert rollout["reward"] == pytest.approx(1.0 if right else 0.1)
    lines = read_metrics(session.run_dir.metrics)
    assert lines[1]["group/mixed_frac"] > 0
    # The engine claims probability 1 for every token, and the gap says that this is not the trainer's view.
    assert lines[1]["rollout/logprob_gap_mean_nats"] > 0.01
    assert gaps == [(line["rollout/logprob_gap_mean_nats"], line["policy/learnt_tokens"]) for line in lines[1:]]
    assert all(tokens > 0 for _, tokens in gaps)


def test_wandb_offline_by_one_setting(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = run_train(recipe, ["train.num_steps=1", "tracker.wandb=offline"], tmp_path / "run", False, ignore)
    assert list((run.logs / "wandb").glob("offline-run-*/*.wandb"))
    assert run_files.state(run)["wandb_run_id"]


def test_evaluation_counts_what_it_saved(recipe: Path, tmp_path: Path) -> None:
    overrides = ["evaluate.num_samples=4", "evaluate.ks=[1, 4]"]
    run = run_evaluate(recipe, overrides, tmp_path / "run", ignore)
    folder = run.eval_at(0)
    summary = json.loads((folder / "held_out.json").read_text(encoding="utf-8"))
    saved = run_files.groups(run)
    correct = [
        sum(rollout["verdict"]["status"] == "correct" for rollout in group["rollouts"])
        for group in saved["eval/step_000000/held_out.jsonl"]
    ]
    best = [
        group["rollouts"][0]["verdict"]["status"] == "correct"
        for group in saved["eval/step_000000/held_out.greedy.jsonl"]
    ]
    overall = summary["overall"]
    assert summary["num_problems"] == len(correct) == len(best) == 6
    assert summary["refused"] == 0
    assert 0 < sum(correct) < 24
    assert overall["pass@1"]["value"] == pytest.approx(sum(correct) / 24)
    assert overall["avg@4"]["value"] == pytest.approx(sum(correct) / 24)
    assert overall["pass@4"]["value"] == pytest.approx(sum(count > 0 for count in correct) / 6)
    assert overall["greedy"]["value"] == pytest.approx(sum(best) / 6)
    assert {family: part["num_problems"] for family, part in summary["by_family"].items()} == {"shown": 6}
    assert {level: part["num_problems"] for level, part in summary["by_difficulty"].items()} == {"1": 3, "2": 3}
    assert read_metrics(run.metrics)[0]["eval/held_out/pass@1"] == overall["pass@1"]["value"]
    assert run.report.exists()
    again = run_evaluate(recipe, overrides, tmp_path / "again", ignore)
    assert run_files.groups(again) == saved
    assert json.loads((again.eval_at(0) / "held_out.json").read_text(encoding="utf-8")) == summary


def test_evaluation_counts_refused_problems(recipe: Path, mixed_data: Path, tmp_path: Path) -> None:
    """Problems told in words are longer than this budget, pictures are not."""
    overrides = [f"data.eval.held_out.path={mixed_data}", "data.eval.held_out.split=train", "evaluate.greedy=false"]
    lengths = {
        bool(group["images"]): group["num_prompt_tokens"]
        for group in run_files.groups(run_evaluate(recipe, overrides, tmp_path / "all", ignore))[
            "eval/step_000000/held_out.jsonl"
        ]
    }
    short, long = sorted(lengths.values())
    assert short < long
    run = run_evaluate(recipe, [*overrides, f"rollout.max_prompt_tokens={short}"], tmp_path / "some", ignore)
    summary = json.loads((run.eval_at(0) / "held_out.json").read_text(encoding="utf-8"))
    assert summary["num_problems"] + summary["refused"] == 24
    assert summary["refused"] in (8, 16)
    assert "greedy" not in summary["overall"]
    assert isinstance(run, RunDir)


def test_adapters_of_a_run_are_measured_and_trained_further(recipe: Path, tmp_path: Path) -> None:
    one_step = ["train.num_steps=1", "train.optim.lr=1e-2"]
    run = run_train(recipe, [*one_step, "model.lora.rank=2"], tmp_path / "adapters", False, ignore)
    model = run.checkpoints / "step_000001" / "model"
    assert (model / "adapter_config.json").exists()
    measured = read_metrics(run_evaluate(recipe, [f"model.path={model}"], tmp_path / "eval", ignore).metrics)
    after = read_metrics(run.metrics)[-1]
    assert measured[0]["eval/held_out/pass@1"] == after["eval/held_out/pass@1"]
    further = run_train(recipe, [*one_step, f"model.path={model}"], tmp_path / "further", False, ignore)
    assert (further.checkpoints / "step_000001" / "model" / "model.safetensors").exists()


def test_an_engine_that_parts_from_the_trainer_ends_the_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that missed an update: the step that shows it is not kept."""
    real = TransformersEngine.generate

    def late(engine: TransformersEngine, *asked: Any) -> list[list[Completion]]:
        groups = real(engine, *asked)
        if engine.weights_version == 0:
            return groups
        return [
            [replace(one, logprobs=tuple(value - 0.01 for value in one.logprobs)) for one in group] for group in groups
        ]

    monkeypatch.setattr(TransformersEngine, "generate", late)
    settings = ["train.num_steps=3", "train.checkpoint_every=1", "data.eval={}"]
    with pytest.raises(EngineError, match=r"step 2: the engine's log-probabilities are 1\.00e-02 nats off"):
        run_train(recipe, settings, tmp_path / "run", False, ignore)
    run = RunDir.open(tmp_path / "run")
    assert [line["step"] for line in read_metrics(run.metrics)] == [0, 1]
    assert list(complete_checkpoints(run.checkpoints)) == [1]
