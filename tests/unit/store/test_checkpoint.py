import errno
import hashlib
import json
import os

import pytest

from mm_agrae.errors import CheckpointError
from mm_agrae.store import checkpoint
from mm_agrae.store.checkpoint import check_files, latest_checkpoint, prune, read_state, save_checkpoint


def weights(folder):
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(b"w" * 100)
    (folder / "optimiser.bin").write_bytes(b"o" * 10)


def save(root, step, write=weights):
    return save_checkpoint(root, step, write=write, state={"cursor": [step, 0.1]})


def names(root):
    return sorted(path.name for path in root.iterdir())


def test_saved_state_and_files_come_back(tmp_path):
    path = save(tmp_path / "checkpoints", 10)
    assert path.name == "step_000010"
    assert read_state(path) == {"cursor": [10, 0.1], "step": 10}
    assert (path / "model" / "weights.bin").read_bytes() == b"w" * 100
    assert names(path.parent) == ["step_000010"]


def test_latest_goes_by_number_and_ignores_unfinished(tmp_path):
    assert latest_checkpoint(tmp_path / "none") is None
    save(tmp_path, 999_999)
    newest = save(tmp_path, 1_000_000)
    (tmp_path / "step_2000000").mkdir()
    (tmp_path / ".step_3000000.tmp").mkdir()
    assert latest_checkpoint(tmp_path) == newest


def test_unfinished_folder_and_leftovers_are_replaced(tmp_path):
    (tmp_path / "step_000010").mkdir()
    (tmp_path / "step_000010" / "stale.bin").write_bytes(b"half")
    (tmp_path / ".step_000004.tmp").mkdir()
    (tmp_path / ".step_000010.tmp").mkdir()
    path = save(tmp_path, 10)
    assert names(tmp_path) == ["step_000010"]
    assert not (path / "stale.bin").exists()


def test_complete_checkpoint_is_never_overwritten(tmp_path):
    path = save(tmp_path, 10)
    with pytest.raises(CheckpointError, match="never overwritten"):
        save_checkpoint(tmp_path, 10, write=weights, state={"cursor": "other"})
    assert read_state(path)["cursor"] == [10, 0.1]


def full_disk_after_a_file(folder):
    weights(folder)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_in_native_code(folder):
    raise RuntimeError("I/O error: No space left on device (os error 28)")


def used_up_quota(folder):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


@pytest.mark.parametrize("write", [full_disk_after_a_file, full_disk_in_native_code, used_up_quota])
def test_full_disk_removes_the_new_and_keeps_the_old(tmp_path, write):
    old = save(tmp_path, 5)
    with pytest.raises(CheckpointError, match=r"disk is full.*step_000010.*newest is step_000005.*--resume") as caught:
        save(tmp_path, 10, write=write)
    assert caught.value.__cause__ is not None
    assert names(tmp_path) == ["step_000005"]
    assert latest_checkpoint(tmp_path) == old
    assert read_state(old)["step"] == 5


@pytest.mark.parametrize("stage", ["write_json", "fsync_tree", "fsync_directory", "_marks"])
def test_failure_at_any_later_stage_leaves_only_the_old(tmp_path, monkeypatch, stage):
    save(tmp_path, 5)

    def broken(*arguments):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(checkpoint, stage, broken)
    with pytest.raises(CheckpointError, match=r"broken disk.*Mend the cause"):
        save(tmp_path, 10)
    assert names(tmp_path) == ["step_000005"]


def test_state_without_json_form_is_refused_and_cleaned(tmp_path):
    with pytest.raises(CheckpointError, match="there is no earlier one"):
        save_checkpoint(tmp_path, 1, write=weights, state={"x": {1, 2}})
    assert names(tmp_path) == []


def test_interrupt_cleans_up_and_passes_through(tmp_path):
    def interrupted(folder):
        weights(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 10, write=interrupted)
    assert names(tmp_path) == []


class Killed(BaseException):
    """Stands for kill -9 in the tests below: no clean-up may run."""


KILL_POINTS = ["write", "write_json state", "fsync_tree", "rename", "fsync_directory", "write_json COMPLETE"]


@pytest.mark.parametrize("point", KILL_POINTS)
def test_kill_at_any_instant_leaves_the_old_one_latest_and_the_next_save_works(tmp_path, monkeypatch, point):
    old = save(tmp_path, 5)
    kill_in_child(tmp_path, point)
    assert latest_checkpoint(tmp_path) == old
    unfinished = tmp_path / "step_000010"
    if unfinished.exists():
        with pytest.raises(CheckpointError, match="no COMPLETE marker"):
            read_state(unfinished)
    else:
        assert (tmp_path / ".step_000010.tmp").exists()
    assert latest_checkpoint(tmp_path) == old
    assert read_state(save(tmp_path, 10))["step"] == 10
    assert names(tmp_path) == ["step_000005", "step_000010"]


def kill_in_child(root, point):
    """Run a save in a forked child that dies at `point` as under kill -9: nothing after it runs, no finally."""
    child = os.fork()
    if child == 0:
        name, _, which = point.partition(" ")
        write = weights
        if name == "write":

            def write(folder):
                weights(folder)
                os._exit(9)
        elif name == "rename":
            os.rename = lambda *paths: os._exit(9)
        else:
            real = getattr(checkpoint, name)

            def dying(first, *rest):
                if not which or which.lower() in first.name.lower():
                    os._exit(9)
                return real(first, *rest)

            setattr(checkpoint, name, dying)
        save(root, 10, write=write)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_read_state_refuses_what_is_missing_or_damaged(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_state(tmp_path / "step_000001")
    path = save(tmp_path, 10)
    (path / "optimiser.bin").write_bytes(b"o" * 9)
    with pytest.raises(CheckpointError, match=r"optimiser\.bin has 9 bytes, but had 10"):
        read_state(path)
    (path / "optimiser.bin").unlink()
    with pytest.raises(CheckpointError, match=r"optimiser\.bin is missing"):
        read_state(path)


@pytest.mark.parametrize(("text", "message"), [("{torn", "cannot be read"), ("[1, 2]", "must hold an object")])
def test_read_state_refuses_a_corrupt_state_file(tmp_path, text, message):
    path = save(tmp_path, 10)
    size = len((path / "state.json").read_bytes())
    (path / "state.json").write_text(text.ljust(size))
    with pytest.raises(CheckpointError, match=message):
        read_state(path)


def test_prune_keeps_the_newest_and_never_the_unfinished_instead(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "step_000004").mkdir()
    prune(tmp_path, 2)
    assert names(tmp_path) == ["step_000002", "step_000003", "step_000004"]
    prune(tmp_path, 1)
    prune(tmp_path, 1)
    assert latest_checkpoint(tmp_path) == tmp_path / "step_000003"
    with pytest.raises(ValueError, match="at least 1"):
        prune(tmp_path, 0)


def test_prune_spares_what_it_is_told_to(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    prune(tmp_path, 1, spare=(2, 7))
    assert names(tmp_path) == ["step_000002", "step_000004"]


def test_marker_lists_every_file(tmp_path):
    path = save(tmp_path, 10)
    marked = json.loads((path / "COMPLETE").read_text())["files"]
    assert set(marked) == {"model/weights.bin", "optimiser.bin", "state.json"}
    assert marked["optimiser.bin"] == {"bytes": 10, "sha256": hashlib.sha256(b"o" * 10).hexdigest()}


@pytest.mark.parametrize("name", ["model/weights.bin", "optimiser.bin", "state.json"])
def test_one_flipped_bit_is_found(tmp_path, name):
    path = save(tmp_path, 10)
    check_files(path)
    content = bytearray((path / name).read_bytes())
    content[5] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged.*move the checkpoint away"):
        check_files(path)


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path):
    path = save(tmp_path, 10)
    sizes = {name: mark["bytes"] for name, mark in json.loads((path / "COMPLETE").read_text())["files"].items()}
    (path / "COMPLETE").write_text(json.dumps({"files": sizes}))
    with pytest.raises(CheckpointError, match=r"earlier version.*version that saved it, or start a new run from"):
        read_state(path)


MARK = {"bytes": 1, "sha256": "0"}


@pytest.mark.parametrize(
    "marker",
    [
        {},
        {"filez": {"state.json": MARK}},
        {"files": {}},
        {"files": []},
        {"files": {"model.bin": MARK}},
        {"files": {"state.json": {"bytes": 1}}},
        {"files": {"state.json": {"sha256": "0"}}},
        {"files": {"state.json": {"bytes": "1", "sha256": "0"}}},
        {"files": {"state.json": MARK, "model.bin": 3}},
    ],
)
def test_a_marker_that_protects_nothing_is_refused(tmp_path, marker):
    path = save(tmp_path, 10)
    (path / "COMPLETE").write_text(json.dumps(marker))
    with pytest.raises(CheckpointError, match=r"COMPLETE must name state\.json and every other file .*move the"):
        check_files(path)
