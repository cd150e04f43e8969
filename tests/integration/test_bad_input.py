"""Bad input ends in a message that says what to do, and loses nothing."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import run_files
import torch
from colours import RECIPE, colour_sample, cut_short_after, write_colours
from launches import mm_agrae
from safetensors.torch import save_file

import mm_agrae.cli.main as command_line
from data_processors.visual_gym.write import write_gym
from mm_agrae.data.dataset import open_dataset, write_dataset
from mm_agrae.data.sampler import PromptSampler
from mm_agrae.store.checkpoint import latest_checkpoint, read_state
from mm_agrae.store.run_dir import RunDir

Run = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """refused(*words): what the command line says on standard error; it must end with exit code 2."""

    def run(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["mm-agrae", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert said.startswith("error: ")
        assert "Traceback" not in said
        return said

    return run


def accepted(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["mm-agrae", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 0


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.path=/nowhere/model", "model.path '/nowhere/model' is no model that can be loaded"),
        ("train.num_step=3", "unknown key 'train.num_step'. Did you mean 'num_steps'?"),
        ("rollout.group_size=1", "group_size is 1, but a group-relative advantage needs at least 2"),
        ("data.train.path=/nowhere/data", "/nowhere/data"),
        ("data.train.split=dev", "has no split 'dev'; it has ['test', 'train']"),
        ("data.train.format=jsonl", "no data processor is called 'jsonl'. There are"),
        ("data.train=null", "data.train names no set, but training needs problems to learn from"),
        ("data.train.families=[chess]", "has no problem of families ['chess']"),
        ("rollout.num_prompts", "must have the form dotted.key=value"),
    ],
)
def test_what_cannot_start_leaves_nothing(
    refused: Run, recipe: Path, tmp_path: Path, setting: str, message: str
) -> None:
    assert message in refused("train", recipe, setting, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_model(refused: Run, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("no model", encoding="utf-8")
    said = refused("train", recipe, f"model.path={tmp_path / 'model'}", "--out", tmp_path / "run")
    assert "is no model that can be loaded" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.device=cuda"], "model.device is cuda, but torch sees no CUDA device"),
        (["model.device=cuda", "model.precision=bf16"], "model.device is cuda, but torch sees no CUDA device"),
        (
            ["model.stored_weights=bf16_with_fp32_masters"],
            "model.stored_weights is bf16_with_fp32_masters, but model.precision comes out as fp32",
        ),
    ],
)
def test_no_gpu(refused: Run, recipe: Path, tmp_path: Path, settings: Sequence[str], message: str) -> None:
    assert message in refused("train", recipe, *settings, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("job", ["train", "sft"])
def test_a_text_model_given_pictures(
    refused: Run, recipe: Path, warm_model: Callable[[str], Path], text_data: Path, tmp_path: Path, job: str
) -> None:
    """The first picture comes after texts: what was learnt from those is saved."""
    samples = [colour_sample(index, image=False) for index in range(12)]
    place = PromptSampler(12, 0).indices(4, 1)[0]
    samples[place] = colour_sample(place)
    data = write_colours(tmp_path / "data", samples)
    settings = [f"model.path={warm_model('qwen3')}", f"data.train.path={data}", f"data.eval.held_out.path={text_data}"]
    said = refused(job, recipe, *settings, "--out", tmp_path / "run")
    assert "the data has images, but the model takes text only" in said
    assert "The run is saved up to step 1" in said
    assert (tmp_path / "run" / "checkpoints" / "step_000001" / "COMPLETE").exists()


def test_an_answer_column_that_is_missing(refused: Run, recipe: Path, mixed_data: Path, tmp_path: Path) -> None:
    table = pq.read_table(mixed_data / "train.parquet").drop_columns(["target"])
    for name in ("manifest.json", "test.parquet"):
        (tmp_path / name).write_bytes((mixed_data / name).read_bytes())
    pq.write_table(table, tmp_path / "train.parquet")
    said = refused("train", recipe, f"data.train.path={tmp_path}", "--out", tmp_path / "run")
    assert "lacks the columns ['target']" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("job", ["train", "sft"])
def test_a_corrupt_picture_in_the_middle(
    refused: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    data = cut_short_after(1, tmp_path / "data")
    settings = [f"data.train.path={data}", f"data.eval.held_out.path={data}", "train.checkpoint_every=0"]
    said = refused(job, recipe, *settings, "--out", tmp_path / "run")
    assert "sample 'broken' has an image of 60 bytes that cannot be decoded" in said
    assert f"The run is saved up to step 1 in {tmp_path / 'run'}" in said
    run = RunDir.open(tmp_path / "run")
    saved = latest_checkpoint(run.checkpoints)
    assert saved
    assert read_state(saved)["cursor"] == {"position": 3, "refused": 0}
    # Once the picture is mended, the run goes on and ends as if nothing had been.
    for name, content in files(write_colours(tmp_path / "whole", [colour_sample(i) for i in range(12)])).items():
        (data / name).write_bytes(content)
    accepted(monkeypatch, job, recipe, *settings, "--out", run.path, "--resume")
    accepted(monkeypatch, job, recipe, *settings, "--out", tmp_path / "straight")
    assert run_files.weights(run) == run_files.weights(RunDir.open(tmp_path / "straight"))


@pytest.mark.parametrize("marks", [0, 2])
def test_marks_without_pictures(refused: Run, recipe: Path, tmp_path: Path, marks: int) -> None:
    """Written by another program, since this one refuses to."""
    data = tmp_path / "data"
    write_dataset({"train": [colour_sample(0)], "test": [colour_sample(1)]}, data, source="test", seed=0)
    table = pq.read_table(data / "train.parquet")
    row = table.to_pylist()[0]
    row["question"] = "<image>" * marks + "Which colour?"
    pq.write_table(type(table).from_pylist([row], schema=table.schema), data / "train.parquet")
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["splits"]["train"]["num_bytes"] = (data / "train.parquet").stat().st_size
    (data / "manifest.json").write_text(json.dumps(manifest))
    said = refused("train", recipe, f"data.train.path={data}", "--out", tmp_path / "run")
    assert f"sample 'colour0' has 1 images and {marks} marks <image>" in said


def test_a_warm_start_without_solutions(refused: Run, recipe: Path, tmp_path: Path) -> None:
    data = write_colours(tmp_path / "data", [replace(colour_sample(0), solution=None)])
    said = refused("sft", recipe, f"data.train.path={data}", "--out", tmp_path / "run")
    assert "sample 'colour0' has no worked solution" in said


def test_trap_10_a_solution_that_holds_a_placeholder(refused: Run, recipe: Path, tmp_path: Path) -> None:
    """The backbone would look for the picture that a placeholder in a completion stands for."""
    sample = replace(colour_sample(0), solution="\\boxed{<|image_pad|>}")
    data = write_colours(tmp_path / "data", [sample])
    said = refused("sft", recipe, f"data.train.path={data}", "--out", tmp_path / "run")
    assert "the worked solution of sample 'colour0' holds <|image_pad|>, which stands for a picture" in said


def test_an_output_folder_that_is_taken(refused: Run, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy", encoding="utf-8")
    said = refused("train", recipe, "--out", tmp_path)
    assert f"{tmp_path} is a folder that is not empty" in said
    assert files(tmp_path) == {"thesis.txt": b"the only copy"}


def test_resuming_nothing(refused: Run, recipe: Path, tmp_path: Path) -> None:
    assert "--resume needs the run directory" in refused("train", recipe, "--resume")
    assert "does not exist" in refused("train", recipe, "--resume", "--out", tmp_path / "run")
    assert "holds no config.json" in refused("train", recipe, "--resume", "--out", tmp_path)
    assert not files(tmp_path)


def test_a_checkpoint_of_another_config(
    refused: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    accepted(monkeypatch, "train", recipe, "train.num_steps=1", "--out", out)
    before = files(out)
    said = refused("train", recipe, "train.num_steps=2", "seed=7", "rollout.temperature=0.5", "--resume", "--out", out)
    assert f"{out} belongs to another configuration; it differs in" in said
    assert [line.strip() for line in said.splitlines()[1:4]] == [
        "rollout.temperature: 1.0 -> 0.5",
        "seed: 0 -> 7",
        "train.num_steps: 1 -> 2",
    ]
    assert files(out) == before


def test_a_run_of_another_job(refused: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    accepted(monkeypatch, "sft", recipe, "sft.num_steps=1", "--out", out)
    before = files(out)
    said = refused("train", recipe, "sft.num_steps=1", "--resume", "--out", out)
    assert f"{out} is a run of `mm-agrae sft`, so `mm-agrae train` cannot resume it" in said
    assert files(out) == before


def test_what_a_resumed_run_finds_changed(
    refused: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Problems made again with another seed, a checkpoint put there by hand, a config.json that ends early."""
    data = tmp_path / "data"

    def write(seed: int) -> None:
        shutil.rmtree(data, ignore_errors=True)
        families = ("counting/circles",)
        write_gym(data, num=12, held_out=2, seed=seed, families=families, size=64, num_processes=1)

    write(0)
    first = [sample.id for sample in open_dataset(data, "train")]
    words = ["sft", recipe, "sft.num_steps=1", "rollout.max_prompt_tokens=128", f"data.train.path={data}"]
    for name, setting in (("run", "seed=0"), ("other", "seed=7")):
        accepted(monkeypatch, *words, setting, "--out", tmp_path / name)
    resume = [*words, "seed=0", "--resume", "--out", tmp_path / "run"]

    write(1)
    now = [sample.id for sample in open_dataset(data, "train")]
    said = refused(*resume)
    assert "run was not made from what is there now:\n  data.train 12 samples, " in said
    assert f" {first[0]} to {first[-1]} -> 12 samples, {now[0]} to {now[-1]}\n" in said
    write(0)
    accepted(monkeypatch, *resume)

    step = Path("checkpoints") / "step_000001"
    shutil.copytree(tmp_path / "run", tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed" / step)
    shutil.copytree(tmp_path / "other" / step, tmp_path / "mixed" / step)
    said = refused(*resume[:-1], tmp_path / "mixed")
    assert f"checkpoint {tmp_path / 'mixed' / step} was saved under another configuration" in said
    assert "Remove" not in said

    saved = tmp_path / "run" / "config.json"
    saved.write_bytes(saved.read_bytes()[:100])
    assert f"{saved} is no configuration of this version, so the run cannot be resumed" in refused(*resume)


def test_an_output_folder_that_cannot_be_made(refused: Run, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    for out in (Path("/proc/nope"), tmp_path / "file" / "run"):
        said = refused("eval", recipe, "--out", out)
        assert str(out) in said
        assert "Name a path that can be used." in said


def test_a_full_disk(refused: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"

    def full_at_step_4(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if path.parent.name == ".step_000004.tmp":
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    with monkeypatch.context() as patched:
        patched.setattr("mm_agrae.train.saving.save_file", full_at_step_4)
        said = refused("train", recipe, "--out", out)
    assert "the disk is full" in said
    assert "earlier checkpoints are intact, the newest is step_000002" in said
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"step_000002"}
    read_state(out / "checkpoints" / "step_000002")
    accepted(monkeypatch, "train", recipe, "--out", out, "--resume")
    accepted(monkeypatch, "train", recipe, "--out", tmp_path / "straight")
    assert run_files.weights(RunDir.open(out)) == run_files.weights(RunDir.open(tmp_path / "straight"))
    assert run_files.metrics(RunDir.open(out)) == run_files.metrics(RunDir.open(tmp_path / "straight"))


def test_a_disk_that_is_full_for_everything_else(
    refused: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "rollouts")

    monkeypatch.setattr("mm_agrae.train.loop.write_lines", full)
    assert "the disk is full at rollouts. Free space" in refused("train", recipe, "--out", tmp_path / "run")


def test_nothing_to_measure(refused: Run, warm_model: Callable[[str], Path], mixed_data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    text = RECIPE.format(model=warm_model("qwen2_5_vl"), data=mixed_data)
    recipe.write_text(text.replace(f"eval: {{held_out: {{path: {mixed_data}, split: test}}}}", ""), encoding="utf-8")
    assert "data.eval names no set" in refused("eval", recipe, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    recipe.write_text(text, encoding="utf-8")
    said = refused("eval", recipe, "rollout.max_prompt_tokens=3", "--out", tmp_path / "run")
    assert "none of the first 6 problems can be used" in said
    assert "over rollout.max_prompt_tokens 3" in said
    said = refused(
        "eval", recipe, "rollout.max_prompt_tokens=3", "engine.on_mismatch=warn", "--out", tmp_path / "other"
    )
    assert "all 6 problems of set 'held_out' are over rollout.max_prompt_tokens 3" in said


def test_a_report_of_no_run(refused: Run, tmp_path: Path) -> None:
    assert "nowhere" in refused("report", tmp_path / "nowhere")


def test_the_real_command_line(recipe: Path, tmp_path: Path) -> None:
    """One process of its own: exit code, message, and no traceback."""
    ended = mm_agrae("train", recipe, "model.pat=x", "--out", tmp_path / "run")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "unknown key 'model.pat'. Did you mean 'path'?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_eval_and_report_commands(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(monkeypatch, "eval", recipe, "--out", tmp_path / "run")
    page = tmp_path / "run" / "report.html"
    page.unlink()
    accepted(monkeypatch, "report", tmp_path / "run")
    assert "held_out" in page.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run" / "eval" / "step_000000" / "held_out.json").read_text(encoding="utf-8"))
