"""`mm-agrae doctor` on a recipe that runs and on recipes that do not, and what a run does about a false twin."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mm_agrae.cli import checkup, jobs
from mm_agrae.cli.engines import longest_tokens
from mm_agrae.cli.main import app
from mm_agrae.config import RunConfig, load_config
from mm_agrae.config.protocol import load_protocol
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.errors import ConfigError, DataError, EngineError
from mm_agrae.records import Completion, RenderedPrompt, Sampling
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.session import Session
from tests.thread_ranks import Rank, on_ranks


@pytest.fixture
def recipe(
    tmp_path: Path, model_folder: Callable[[str], Path], gym_folder: Path, recipe_text: Callable[[Path, Path], str]
) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe_text(model_folder("qwen2_5_vl"), gym_folder), encoding="utf-8")
    return path


def examined(recipe: Path, *overrides: str) -> tuple[int, dict[str, str]]:
    """Exit code, and the worst level of every topic."""
    runs = recipe.parent / "doctors_runs"
    ended = CliRunner().invoke(app, ["doctor", str(recipe), f"output_dir={runs}", *overrides])
    if ended.exception and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert not runs.exists(), "something stays behind"
    order = ["fine", "warning", "wrong"]
    worst: dict[str, str] = {}
    for line in ended.output.splitlines():
        level, _, rest = line.partition(" ")
        if level in order:
            topic = rest.strip().partition(":")[0]
            worst[topic] = max(level, worst.get(topic, "fine"), key=order.index)
    return ended.exit_code, worst


class Lower:
    """The embedded engine with log-probabilities that are too low."""

    def __init__(self, session: Session) -> None:
        self.inner = TransformersEngine(session.policy, batch_rows=64)
        self.weights_version = 0

    def generate(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        return [
            [
                Completion(
                    token_ids=one.token_ids,
                    logprobs=tuple(logprob - 1 for logprob in one.logprobs),
                    text=one.text,
                    stop_reason=one.stop_reason,
                )
                for one in group
            ]
            for group in self.inner.generate(prompts, sampling, seeds)
        ]

    def sync_weights(self, policy: Any, *, version: int) -> None:
        self.weights_version = version

    def close(self) -> None:
        """Nothing is held."""


def lower(config: RunConfig, session: Session) -> Lower:
    return Lower(session)


def test_a_recipe_that_runs_is_fine(recipe: Path) -> None:
    code, topics = examined(recipe)
    assert code == 0
    assert set(topics) == {
        "recipe", "data", "software", "model", "launch", "memory", "disk", "prompts", "answers", "engine", "twins",
    }  # fmt: skip
    assert "wrong" not in topics.values()


def test_everything_that_is_wrong_is_told_at_once(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "make_engine", lower)
    code, topics = examined(recipe, "data.train.split=valid", "train.keep_checkpoints=10000000")
    assert code == 2
    assert (topics["data"], topics["disk"]) == ("wrong", "wrong")
    assert {"prompts", "answers", "twins"}.isdisjoint(topics)
    code, topics = examined(recipe, "rollout.max_prompt_tokens=32")
    assert code == 2
    assert topics["prompts"] == topics["twins"] == "wrong"
    code, topics = examined(recipe)
    assert (code, topics["twins"], topics["engine"]) == (2, "wrong", "fine")
    code, topics = examined(recipe, "engine.on_mismatch=warn")
    assert (code, topics["twins"]) == (0, "warning")


@pytest.mark.parametrize(
    ("override", "topics"),
    [("rollout.grup_size=3", {"recipe": "wrong"}), ("model.path=/nowhere", {"model": "wrong"})],
)
def test_what_stops_the_look_ends_with_2(recipe: Path, override: str, topics: dict[str, str]) -> None:
    code, found = examined(recipe, override)
    assert code == 2
    assert topics.items() <= found.items()
    assert "twins" not in found


def test_an_engine_that_is_not_there_is_wrong(recipe: Path) -> None:
    nobody = ("engine.base_urls=[http://127.0.0.1:9]", "engine.recover_timeout_s=0", "engine.request_timeout_s=2")
    code, topics = examined(recipe, "engine.kind=vllm_server", *nobody)
    assert (code, topics["engine"], topics["model"]) == (2, "wrong", "fine")
    assert "twins" not in topics


def test_an_engine_that_is_not_installed_is_told_with_the_line_that_installs_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not there
    with pytest.raises(ConfigError, match=r"pip install 'mm-agrae\[vllm\]'"):
        jobs.run_train(recipe, ["engine.kind=vllm"], tmp_path / "run", False, lambda line: None)


def test_a_run_refuses_a_false_twin_before_anything_is_learnt(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "make_engine", lower)
    with pytest.raises(
        EngineError, match="the engine is not the trainer's twin:\n  engine and trainer differ by 1 nats"
    ):
        jobs.run_train(recipe, [], tmp_path / "run", False, lambda line: None)
    run = RunDir(tmp_path / "run")
    assert not run.metrics.exists() or not run.metrics.read_text()
    saved = json.loads(run.twin.read_text(encoding="utf-8"))
    assert saved["gap_mean_nats"] == pytest.approx(1, abs=1e-4)
    assert [finding["kind"] for finding in saved["findings"]] == ["log-probs"]


def test_an_evaluation_refuses_a_false_twin_before_anything_is_measured(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "make_engine", lower)
    with pytest.raises(
        EngineError, match="the engine is not the trainer's twin:\n  engine and trainer differ by 1 nats"
    ):
        jobs.run_evaluate(recipe, [], tmp_path / "run", lambda line: None)
    assert RunDir(tmp_path / "run").twin.exists()
    assert not list((tmp_path / "run").rglob("*held_out*"))
    jobs.run_evaluate(recipe, ["engine.on_mismatch=warn"], tmp_path / "other", lambda line: None)
    assert list((tmp_path / "other").rglob("held_out.json"))


def test_a_run_that_cannot_be_compared_is_refused_unless_told_otherwise(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[bool] = []
    monkeypatch.setattr(jobs, "train", lambda session, parts: began.append(True))
    monkeypatch.setattr(jobs, "write_report", lambda run: "none")
    with pytest.raises(DataError, match=r"none of the first \d+ problems can be used.*engine.on_mismatch=warn goes on"):
        jobs.run_train(recipe, ["rollout.max_prompt_tokens=3"], tmp_path / "run", False, lambda line: None)
    assert not began
    said: list[str] = []
    jobs.run_train(
        recipe, ["rollout.max_prompt_tokens=3", "engine.on_mismatch=warn"], tmp_path / "other", False, said.append
    )
    assert began
    assert any(line.startswith("warning: twin check: none of the first ") for line in said)


@dataclass(frozen=True)
class Opened:
    """Of a session what the engine's lines look at."""

    world: Rank
    policy: None = None


@pytest.mark.parametrize("failing", [0, 1])
def test_an_engine_that_fails_on_one_rank_ends_the_look_on_all(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The others would wait in the twin check for a process that is elsewhere."""
    closed: list[int] = []

    class Ready:
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def close(self) -> None:
            closed.append(self.rank)

    def make(config: RunConfig, session: Any) -> Ready:
        if session.world.rank == failing:
            raise EngineError("no memory for vLLM")
        return Ready(session.world.rank)

    monkeypatch.setattr(checkup, "make_engine", make)
    config = load_config(recipe)

    def look(rank: Rank) -> list[str]:
        opened: Any = Opened(rank)
        return [str(line) for line in checkup.engine_lines(config, opened, [])]

    assert on_ranks(2, look) == [[f"wrong   engine: rank {failing}: no memory for vLLM"]] * 2
    assert closed == [1 - failing]


def test_a_run_goes_on_with_a_warning_where_it_is_told_to(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "make_engine", lower)
    began: list[bool] = []
    monkeypatch.setattr(jobs, "train", lambda session, parts: began.append(True))
    monkeypatch.setattr(jobs, "write_report", lambda run: "none")
    said: list[str] = []
    jobs.run_train(recipe, ["engine.on_mismatch=warn"], tmp_path / "run", False, said.append)
    assert began
    assert any(line.startswith("warning: twin check: engine and trainer differ by 1 nats per token") for line in said)
    assert any(line.startswith("twin check: over ") for line in said)
    assert RunDir(tmp_path / "run").twin.exists()


def test_an_engine_is_made_for_the_longest_that_may_be_asked(recipe: Path) -> None:
    # Prompts of up to 128 tokens; completions of 8 in training, and where measured as many unless it says otherwise.
    assert longest_tokens(load_config(recipe)) == 128 + 8
    assert longest_tokens(load_config(recipe, ["evaluate.max_completion_tokens=4"])) == 128 + 8
    assert longest_tokens(load_config(recipe, ["evaluate.max_completion_tokens=30"])) == 128 + 30
    card = load_protocol("aime24").sampling
    measured = load_config(recipe, ["data.eval.contest={protocol: aime24, path: none}"])
    assert longest_tokens(measured) == card.max_prompt_tokens + card.max_completion_tokens > 128 + 8
