import json
import sys

import pytest

from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.store.tracker import Tracker, read_metrics, truncate_after


def tracker(tmp_path, mode="off", run_id=None):
    return Tracker(
        tmp_path / "metrics.jsonl", wandb_mode=mode, project="mm-agrae", name="test", config={"seed": 0},
        run_id=run_id, directory=tmp_path,
    )  # fmt: skip


def test_lines_are_readable_while_the_run_goes_on(tmp_path):
    with tracker(tmp_path) as open_tracker:
        open_tracker.log(0, {"reward/mean": 0.1})
        assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "reward/mean": 0.1}]
        open_tracker.log(1, {"reward/mean": 1 / 3})
        assert open_tracker.run_id is None
    assert read_metrics(tmp_path / "metrics.jsonl")[1]["reward/mean"] == 1 / 3


def test_numbers_that_json_lacks_become_null(tmp_path):
    with tracker(tmp_path) as open_tracker:
        open_tracker.log(3, {"reward/mean": float("nan"), "reward/std": float("inf"), "policy/loss": 1})
    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert line == {"step": 3, "reward/mean": None, "reward/std": None, "policy/loss": 1}


def test_a_key_without_an_entry_in_the_catalogue_is_an_error(tmp_path):
    with tracker(tmp_path) as open_tracker, pytest.raises(KeyError, match="nearest is"):
        open_tracker.log(0, {"reward/mean": 1.0, "reward/meen": 1.0})
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_without_wandb_nothing_imports_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with tracker(tmp_path) as open_tracker:
        open_tracker.log(0, {"reward/mean": 1.0})


TORN = ['{"step": 2, "a"', '{"step": 2}trash', "\x00\x00\x00", '{"a": 2}', '{"step": 2, "a"\n']


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_last_line_is_dropped_and_appending_goes_on(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "a": 0.0}\n{"step": 1, "a": 1.0}\n' + torn)
    assert [line["step"] for line in read_metrics(path)] == [0, 1]
    with tracker(tmp_path) as open_tracker:
        open_tracker.log(2, {"reward/mean": 2.0})
    assert [line["step"] for line in read_metrics(path)] == [0, 1, 2]


def test_a_line_whose_newline_is_missing_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}')
    with tracker(tmp_path) as open_tracker:
        open_tracker.log(2, {})
    assert [line["step"] for line in read_metrics(path)] == [0, 1, 2]


def test_truncate_keeps_what_the_checkpoint_knows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps({"step": step, "a": step / 7}) + "\n" for step in range(5))
    path.write_text(whole + '{"step": 5, "a')
    truncate_after(path, 2)
    assert path.read_text() == "".join(whole.splitlines(keepends=True)[:3])
    truncate_after(tmp_path / "missing.jsonl", 2)
    assert not (tmp_path / "missing.jsonl").exists()


@pytest.mark.parametrize("broken", ['{"step": 1, "a"', "", "[1]", '{"step": "1"}'])
def test_a_broken_line_in_the_middle_is_refused_untouched(tmp_path, broken):
    path = tmp_path / "metrics.jsonl"
    text = f'{{"step": 0}}\n{broken}\n{{"step": 2}}\n'
    path.write_text(text)
    for attempt in (lambda: truncate_after(path, 1), lambda: tracker(tmp_path)):
        with pytest.raises(CheckpointError, match=r"line 2 of .* is broken"):
            attempt()
    assert path.read_text() == text


def test_wandb_offline_writes_a_run_beside_the_metrics(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    with tracker(tmp_path, "offline") as open_tracker:
        run_id = open_tracker.run_id
        open_tracker.log(0, {"reward/mean": 0.1})
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert run_id
    assert folder.name.endswith(run_id)
    assert (folder / f"run-{run_id}.wandb").stat().st_size > 0
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "reward/mean": 0.1}]
    with tracker(tmp_path, "offline", run_id) as resumed:
        assert resumed.run_id == run_id


def test_wandb_that_does_not_start_is_a_setting_to_mend(tmp_path, monkeypatch):
    import wandb

    def refused(**settings):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refused)
    with pytest.raises(ConfigError, match=r"No API key.*wandb login.*tracker.wandb to offline"):
        tracker(tmp_path, "online")
