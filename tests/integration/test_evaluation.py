"""Whole evaluations with the embedded model: killed and resumed, by a card, blind, scored again, compared."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import run_files
from colours import ignore
from processes import environment

import mm_agrae.evaluate.run as evaluate_run
from mm_agrae.cli.evaluate import eval_diff, rescore
from mm_agrae.cli.jobs import run_evaluate
from mm_agrae.errors import CheckpointError, DataError
from mm_agrae.policy.tiny import build_model_folder
from mm_agrae.store.run_dir import RunDir

CARD = """\
name: colours
title: Colours of squares
data: {processor: "", hub_id: "", split: test, num_problems: 6}
prompt: {instruction: none}
sampling: {num_samples: 4, temperature: 0.6, top_p: 0.95, max_prompt_tokens: 48, max_completion_tokens: 6}
images: {min_pixels: 1024, max_pixels: 4096}
profile: generic
ks: [1, 2]
g_pass_ks: [4]
"""


def summary_of(run: RunDir, name: str = "held_out") -> dict[str, Any]:
    return json.loads((run.eval_at(0) / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("card") / "colours.yaml"
    path.write_text(CARD, encoding="utf-8")
    return path


def killed_after(problems: int, *words: str | Path) -> None:
    """Evaluate two problems at a time; SIGKILL falls in the middle of writing the line after so many problems."""
    program = (
        "import os, signal\n"
        "import mm_agrae.evaluate.run as run\n"
        "from mm_agrae.evaluate.journal import Journal\n"
        "run.MAX_PROBLEMS = 2\n"
        "whole, saved = Journal.append, [0]\n"
        "def append(self, entries):\n"
        f"    if saved[0] == {problems}:\n"
        "        with self.path.open('a') as file:\n"
        '            file.write(\'{"sampled": {"step"\')\n'
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    whole(self, entries)\n"
        "    saved[0] += len(entries)\n"
        "Journal.append = append\n"
        "from mm_agrae.cli.main import main\n"
        "main()\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], env=environment(), capture_output=True, check=False
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()


def test_a_killed_evaluation_goes_on_and_ends_the_same(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_run, "MAX_PROBLEMS", 2)
    straight = run_evaluate(recipe, [], tmp_path / "straight", ignore)
    out = tmp_path / "killed"
    killed_after(4, "eval", recipe, "--out", out)
    partial = RunDir(out).eval_at(0) / "held_out.partial.jsonl"
    lines = partial.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 1 + 4 + 1  # what is measured, four problems, a torn line
    # As if the kill had fallen in the middle of saving the second pair.
    partial.write_text("".join(lines[:4]) + lines[4][:50], encoding="utf-8")
    assert not (RunDir(out).eval_at(0) / "held_out.json").exists()
    measured: list[int] = []
    entries = evaluate_run.Evaluator._entries
    monkeypatch.setattr(
        evaluate_run.Evaluator,
        "_entries",
        lambda self, work, prompts: measured.append(len(prompts)) or entries(self, work, prompts),
    )
    run = run_evaluate(recipe, [], out, ignore, resume=True)
    assert measured == [2, 2]  # the first pair was not sampled again; half of the second was saved
    assert run_files.groups(run) == run_files.groups(straight)
    assert summary_of(run) == summary_of(straight)
    assert run_files.metrics(run) == run_files.metrics(straight)
    assert not partial.exists()
    # Finished sets are not measured again, and give the same figures.
    again = run_evaluate(recipe, [], out, ignore, resume=True)
    assert measured == [2, 2]
    assert run_files.metrics(again) == run_files.metrics(straight)


def test_other_problems_cannot_be_resumed(
    recipe: Path, mixed_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    run_evaluate(recipe, [], out, ignore)
    monkeypatch.setattr("mm_agrae.evaluate.run.content_hash", lambda sample: "another problem")
    with pytest.raises(CheckpointError, match=r"held_out\.json was measured on other problems"):
        run_evaluate(recipe, [], out, ignore, resume=True)


def test_another_model_at_the_same_path_cannot_be_resumed(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text(encoding="utf-8")
    (model,) = re.findall(r"model: \{path: (.+?),", text)
    shutil.copytree(model, tmp_path / "model")
    copied = tmp_path / "recipe.yaml"
    copied.write_text(text.replace(model, str(tmp_path / "model")), encoding="utf-8")
    out = tmp_path / "run"
    run_evaluate(copied, [], out, ignore)
    partial = RunDir(out).eval_at(0) / "held_out.partial.jsonl"
    partial.write_text("left behind by a kill", encoding="utf-8")
    run_evaluate(copied, [], out, ignore, resume=True)
    assert not partial.exists()
    build_model_folder(
        tmp_path / "other", architecture="qwen2_5_vl", size="tiny", corpus=["Which colour is square 1?"], seed=1
    )
    shutil.rmtree(tmp_path / "model")
    (tmp_path / "other").rename(tmp_path / "model")
    with pytest.raises(CheckpointError, match="or with another model than now"):
        run_evaluate(copied, [], out, ignore, resume=True)


def test_a_card_wins_over_the_recipe_and_says_so(recipe: Path, card: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = run_evaluate(recipe, [f"data.eval.held_out.protocol={card}"], tmp_path / "run", said.append)
    summary = summary_of(run)
    assert summary["num_samples"] == 4
    assert list(summary["overall"]) == [
        "pass@1", "pass@2", "avg@4", "maj@2", "cons@4", "g_pass_50@4", "g_pass_75@4", "g_pass_100@4", "mg_pass@4",
        "formatted", "truncated",
    ]  # fmt: skip
    measured = summary["measured"]
    assert (measured["protocol"], measured["departures"], measured["data"]["split"]) == ("colours", [], "test")
    assert measured["settings"]["evaluate"]["temperature"] == 0.6
    assert measured["settings"]["images"]["max_pixels"] == 4096
    lines = (run.eval_at(0) / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
    assert max(len(r["token_ids"]) for line in lines for r in json.loads(line)["rollouts"]) <= 6
    assert any("protocol colours decides" in line for line in said)


def test_a_trial_is_a_departure(recipe: Path, card: Path, tmp_path: Path) -> None:
    trial = ["evaluate.trial.num_samples=1", "evaluate.trial.max_pixels=1024", "data.eval.held_out.limit=4"]
    said: list[str] = []
    run = run_evaluate(recipe, [f"data.eval.held_out.protocol={card}", *trial], tmp_path / "run", said.append)
    departures = ["num_samples 1 instead of 4", "max_pixels 1024 instead of 4096", "the first 4 problems only"]
    assert summary_of(run)["measured"]["departures"] == departures
    assert summary_of(run)["num_samples"] == 1
    assert any(line.endswith("; ".join(departures)) for line in said)


@pytest.mark.parametrize(
    ("line", "other", "message"),
    [
        ('processor: ""', "processor: mathvista", r"processor of .* is '', but protocol colours measures 'mathvista'"),
        ("num_problems: 6", "sha256: c0ffee", r"sha256 of .* measures 'c0ffee'"),
    ],
)
def test_other_data_than_those_of_the_card_are_refused(
    recipe: Path, tmp_path: Path, line: str, other: str, message: str
) -> None:
    path = tmp_path / "colours.yaml"
    path.write_text(CARD.replace(line, other), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        run_evaluate(recipe, [f"data.eval.held_out.protocol={path}"], tmp_path / "run", ignore)


@pytest.mark.parametrize("mode", ["grey", "swap"])
def test_blind_measures_the_same_problems_with_other_pictures(recipe: Path, tmp_path: Path, mode: str) -> None:
    said: list[str] = []
    run = run_evaluate(recipe, [], tmp_path / "run", said.append, blind=mode)  # type: ignore[arg-type]
    report = json.loads((run.path / f"blind_{mode}.json").read_text(encoding="utf-8"))
    row = report["sets"]["held_out"]["pass@1"]
    assert row["num_problems"] == 6
    assert row["seen"] == summary_of(run)["overall"]["pass@1"]["value"]
    assert row["difference"]["value"] == pytest.approx(row["seen"] - row["blind"])
    assert row["needs_image_frac"] == pytest.approx((row["seen"] - row["blind"]) / row["seen"])
    seen, blind = (
        [json.loads(line) for line in (folder / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]
        for folder in (run.eval_at(0), run.eval_at(0) / f"blind_{mode}")
    )
    assert [group["sample_id"] for group in seen] == [group["sample_id"] for group in blind]
    assert all(one["images"] != other["images"] for one, other in zip(seen, blind, strict=True))
    assert (len({tuple(g["images"]) for g in blind}) == 1) == (mode == "grey")
    assert any(line.startswith(f"blind ({mode}) held_out pass@1: ") for line in said)


def test_a_set_that_cannot_be_blinded_is_named_and_the_others_are_measured(
    recipe: Path, mixed_data: Path, tmp_path: Path
) -> None:
    one = f"data.eval.one={{path: {mixed_data}, split: test, limit: 1}}"
    said: list[str] = []
    run = run_evaluate(recipe, [one, "data.eval.held_out.limit=2"], tmp_path / "run", said.append, blind="swap")
    report = json.loads((run.path / "blind_swap.json").read_text(encoding="utf-8"))
    assert (list(report["sets"]), report["left_out"]) == (["held_out"], {"held_out": 0})
    told = [line for line in said if line.startswith("no problem of set one can swap its pictures")]
    assert len(told) == 1
    assert said.index(told[0]) < next(place for place, line in enumerate(said) if line.startswith("eval "))
    with pytest.raises(DataError, match=r"no set of data\.eval can be measured blind"):
        run_evaluate(recipe, ["data.eval.held_out.limit=1"], tmp_path / "none", ignore, blind="swap")
    assert not list((tmp_path / "none" / "eval").rglob("*.json"))


def test_scoring_again_and_comparing(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_evaluate(recipe, ["evaluate.num_samples=4", "evaluate.ks=[1, 2]"], tmp_path / "run", ignore)
    rescore(run.path, tmp_path / "same")
    assert "0 verdicts changed" in capsys.readouterr().out
    again = json.loads((tmp_path / "same" / "held_out.json").read_text(encoding="utf-8"))
    before = summary_of(run)
    assert {key: again[key] for key in before if key != "fingerprint"} == {
        key: value for key, value in before.items() if key != "fingerprint"
    }
    with pytest.raises(DataError, match="exists and is not empty"):
        rescore(run.path, tmp_path / "same")
    eval_diff(run.path, tmp_path / "same", out=tmp_path / "diff.json")
    compared = json.loads((tmp_path / "diff.json").read_text(encoding="utf-8"))["held_out"]
    assert {paired["difference"]["value"] for paired in compared["metrics"].values()} == {0.0}
    assert compared["otherwise"] == []


def test_scoring_again_by_another_rule_lists_what_changed(recipe: Path, tmp_path: Path) -> None:
    run = run_evaluate(recipe, [], tmp_path / "run", ignore)
    file = run.eval_at(0) / "held_out.jsonl"
    groups = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    # A completion that was right is taken for wrong by a verifier that has since been mended.
    place = next((i, n) for i, g in enumerate(groups) for n, r in enumerate(g["rollouts"]) if r["reward"] > 0.5)
    groups[place[0]]["rollouts"][place[1]]["verdict"]["status"] = "wrong"
    file.write_text("".join(json.dumps(group) + "\n" for group in groups), encoding="utf-8")
    rescore(run.path, tmp_path / "mended")
    (change,) = map(json.loads, (tmp_path / "mended" / "changed.jsonl").read_text(encoding="utf-8").splitlines())
    assert (change["sample_id"], change["completion"]) == (groups[place[0]]["sample_id"], place[1])
    assert (change["before"]["status"], change["after"]["status"]) == ("wrong", "correct")
    mended = json.loads((tmp_path / "mended" / "held_out.json").read_text(encoding="utf-8"))
    assert mended["overall"] == summary_of(run)["overall"]


def test_scoring_again_needs_no_torch() -> None:
    code = (
        "import sys, mm_agrae.evaluate.rescore, mm_agrae.evaluate.diff, mm_agrae.cli.main\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
