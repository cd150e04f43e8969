import json
import shutil
from datetime import datetime

import pytest

from mm_agrae.errors import CheckpointError
from mm_agrae.store.atomic import write_json, write_text
from mm_agrae.store.provenance import environment
from mm_agrae.store.run_dir import RunDir, step_name, step_of

NOON = datetime(2031, 2, 3, 12, 0, 5)


def test_create_names_by_time_and_numbers_collisions(tmp_path):
    paths = [RunDir.create(tmp_path, "gym", now=NOON).path for _ in range(3)]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "gym/20310203-120005",
        "gym/20310203-120005-2",
        "gym/20310203-120005-3",
    ]


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_create_refuses_names_that_leave_the_root(tmp_path, name):
    with pytest.raises(ValueError, match="single folder name"):
        RunDir.create(tmp_path, name, now=NOON)
    assert list(tmp_path.iterdir()) == []


def test_create_at_takes_a_missing_and_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "deep/missing"):
        run = RunDir.create_at(tmp_path / name)
        assert run.checkpoints.is_dir()
        assert run.thumbnails.is_dir()


def test_create_at_refuses_a_used_folder_and_touches_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match=r"not empty.*--resume.*another folder") as caught:
        RunDir.create_at(tmp_path)
    assert isinstance(caught.value, FileExistsError)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(FileExistsError, match="is a file"):
        RunDir.create_at(tmp_path / "mine.txt")


def test_create_at_takes_what_a_kill_left_of_its_own(tmp_path):
    run = RunDir.create_at(tmp_path / "run")
    run.write_recipe("mine")
    for name in (".recipe.yaml.31.tmp", ".config.json.31.tmp"):
        (run.path / name).write_text("half")
    shutil.rmtree(run.logs)  # killed while folders were made: there is no recipe yet
    (run.path / "recipe.yaml").unlink()
    assert RunDir.create_at(run.path) == run
    run.write_recipe("mine")
    assert RunDir.create_at(run.path) == run
    assert sorted(path.name for path in run.path.iterdir() if path.is_file()) == ["recipe.yaml"]


@pytest.mark.parametrize("name", ["recipe.yaml", "config.json", "logs/mine", "checkpoints"])
def test_create_at_refuses_what_could_be_somebodys(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("keep")
    with pytest.raises(CheckpointError, match="not empty"):
        RunDir.create_at(tmp_path)
    assert path.read_text() == "keep"
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


def test_create_at_refuses_a_run_that_has_begun(tmp_path):
    run = RunDir.create_at(tmp_path / "run")
    run.write_recipe("mine")
    (run.checkpoints / "step_000001").mkdir()
    with pytest.raises(CheckpointError, match="not empty"):
        RunDir.create_at(run.path)


def test_open_needs_a_run(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        RunDir.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        RunDir.open(tmp_path)
    made = RunDir.create_at(tmp_path / "run")
    made.write_config({"seed": 3})
    assert RunDir.open(tmp_path / "run") == made
    assert json.loads(made.config.read_text()) == {"seed": 3}


def test_recipe_is_stored_byte_for_byte(tmp_path):
    run = RunDir.create_at(tmp_path / "run")
    run.write_recipe("seed: 1  # π\r\n")
    assert run.recipe.read_bytes() == "seed: 1  # π\r\n".encode()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    write_text(tmp_path / "a.json", "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mm_agrae.store.atomic.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a.json", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.json": "old"}


def test_a_reader_of_the_old_file_never_sees_half_of_the_new_one(tmp_path):
    write_text(tmp_path / "a.json", "old")
    with (tmp_path / "a.json").open() as reader:
        write_text(tmp_path / "a.json", "new")
        assert reader.read() == "old"


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_environment_is_json_and_names_what_matters(tmp_path):
    facts = environment("cpu")
    run = RunDir.create_at(tmp_path / "run")
    run.write_environment(facts)
    stored = json.loads((run.path / "environment.json").read_text())
    assert stored == facts
    assert facts["device"] == "cpu"
    assert facts["version"] == "0.1.0"
    assert facts["packages"]["pillow"]
    run.write_environment({**facts, "device": "other"}, step=12)
    assert json.loads(run.environment.read_text()) == facts
    assert json.loads((run.path / "environment_resumed_000012.json").read_text())["device"] == "other"
    assert "vllm" not in facts["packages"] or facts["packages"]["vllm"]


@pytest.mark.parametrize("step", [0, 10, 1234567])
def test_step_names_round_trip(step):
    assert step_of(step_name(step)) == step
    assert step_of(step_name(step) + ".jsonl") == step


@pytest.mark.parametrize("name", ["step_", "step_x", ".step_000010.tmp", "steps_3", "step_³", "notes"])
def test_other_names_are_no_steps(name):
    assert step_of(name) is None
