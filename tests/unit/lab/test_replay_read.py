import math

import pytest
from replay_logs import group, write_steps

from mm_agrae.errors import DataError
from mm_agrae.lab.replay.read import read_line, read_log


def file_of(run, step):
    return run / "rollouts" / f"step_{step:06d}.jsonl"


def test_every_fact_becomes_a_matrix(tmp_path):
    first = group("Cw?", lengths=[1, 8, 2], family="charts", difficulty=3, sample_id="a")
    run = write_steps(
        tmp_path, {1: [first, group("cWw", sample_id="b")]}, advantages={1: [[1.5, -1.5, 0.0], [1.0, -0.5, math.nan]]}
    )
    log = read_log(run)
    assert log.rewards[:, :2].tolist() == [[1.0, 0.0], [0.9, 0.1]]
    assert log.rewards[:, 2].isnan().tolist() == [True, False]
    assert log.correct.tolist() == [[True, False, False], [True, False, False]]
    assert log.formatted.tolist() == [[True, False, False], [False, True, False]]
    assert log.truncated.tolist() == [[False, True, False], [False, False, False]]
    assert log.lengths.tolist() == [[1, 8, 2], [3, 3, 3]]
    assert log.recorded.nan_to_num(-9).tolist() == [[1.5, -1.5, 0.0], [1.0, -0.5, -9]]
    assert (log.sample_ids, log.families, log.difficulties) == (("a", "b"), ("charts", ""), (3, None))
    assert log.notes == ()


def test_steps_stand_in_the_order_of_their_numbers(tmp_path):
    run = write_steps(tmp_path, {10: ["Cw"], 2: ["ww", "CC"], 1: ["cw"]})
    file_of(run, 10).rename(run / "rollouts" / "step_10.jsonl")  # sorts by name before step_000002
    file_of(run, 2).rename(run / "rollouts" / "step_2.jsonl")
    log = read_log(run)
    assert [(step.number, step.first, step.last) for step in log.steps] == [(1, 0, 1), (2, 1, 3), (10, 3, 4)]
    assert log.rewards.tolist() == [[0.9, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0]]


def test_a_group_can_be_read_again_whole(tmp_path):
    run = write_steps(tmp_path, {1: [group("Cw", text="π\u2028"), group("wC", text="second \ud800", sample_id="b")]})
    log = read_log(run)
    line = read_line(log.places[1])
    assert line["sample_id"] == "b"
    assert line["rollouts"][0]["text"] == "It is 4 second \ud800"


def test_a_single_file_is_a_log(tmp_path):
    run = write_steps(tmp_path, {3: ["Cw", "ww"]}, accuracies={3: 0.9})
    log = read_log(file_of(run, 3))
    assert log.rewards.shape == (2, 2)
    assert log.accuracies == {}


def test_a_file_that_was_cut_keeps_its_whole_lines_and_says_so(tmp_path):
    run = write_steps(tmp_path, {1: ["Cw", "ww", "CC"], 2: ["Cw"]})
    path = file_of(run, 1)
    path.write_bytes(path.read_bytes()[:-30])
    log = read_log(run)
    assert log.rewards.tolist() == [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    assert log.notes == ("step_000001.jsonl ends in the middle of line 3: the 2 groups before it are used.",)


def test_damage_before_the_end_is_an_error_with_file_and_line(tmp_path):
    run = write_steps(tmp_path, {1: ["Cw", "ww", "CC"]})
    path = file_of(run, 1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:-30] + b"\n" + lines[2])
    with pytest.raises(DataError, match=r"line 2 of .*step_000001\.jsonl: .*Restore or remove"):
        read_log(run)
    # A line that is whole and no group is damage too, at the end of a file or before it.
    for text in (b"[]\n", b"[]"):
        path.write_bytes(lines[0] + text)
        with pytest.raises(DataError, match=r"line 2 of .*the line: Input should be an object"):
            read_log(run)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"reward": 1.0', '"reward": "1.0"', r"rollouts\.0\.reward: Input should be a valid number"),
        ('"status": "correct"', '"status": "fine"', r"rollouts\.0\.verdict\.status"),
        ('"token_ids": [0, 1, 2]', '"token_ids": 3', r"rollouts\.0\.token_ids: Value error, must be a list"),
        ('"family"', '"kin"', r"family: Field required"),
        # The same by way of Python's reader, which a lone surrogate asks for.
        ('"reward": 1.0', '"stray": "\\\\ud800", "reward": "high"', r"rollouts\.0\.reward: Input should be a valid"),
    ],
)
def test_a_field_that_does_not_fit_is_named(tmp_path, old, new, told):
    run = write_steps(tmp_path, {1: ["Cw"]})
    path = file_of(run, 1)
    text = path.read_text().replace(old, new.replace("\\\\", "\\"), 1)
    path.write_text(text)
    with pytest.raises(DataError, match=r"line 1 of .*" + told):
        read_log(run)


def test_not_a_number_is_a_rollout_without_a_reward_and_infinity_an_error(tmp_path):
    run = write_steps(tmp_path, {1: ["Cw"]})
    path = file_of(run, 1)
    text = path.read_text()
    path.write_text(text.replace('"reward": 1.0', '"reward": NaN'))
    assert read_log(run).rewards.isnan().tolist() == [[True, False]]
    path.write_text(text.replace('"reward": 1.0', '"reward": -Infinity'))
    with pytest.raises(DataError, match=r"line 1 of .* has an infinite reward"):
        read_log(run)


def test_groups_of_unequal_sizes_are_named_both(tmp_path):
    run = write_steps(tmp_path, {1: ["Cw", "ww"], 2: ["Cw", "Cww"]})
    with pytest.raises(
        DataError,
        match=r"line 2 of .*step_000002\.jsonl holds a group of 3, but line 1 of .*step_000001\.jsonl one of 2",
    ):
        read_log(run)


def test_one_rollout_is_no_group(tmp_path):
    with pytest.raises(DataError, match=r"line 1 of .* holds 1 rollouts, .* at least 2"):
        read_log(write_steps(tmp_path, {1: ["C"]}))


def test_empty_files_and_unscored_steps_are_told(tmp_path):
    run = write_steps(tmp_path, {1: [], 2: ["Cw"], 3: ["??", "??"]})
    log = read_log(run)
    assert [step.number for step in log.steps] == [2]
    assert log.rewards.shape == (1, 2)
    assert log.notes[0] == "step_000001.jsonl holds no group and counts as a step that was not logged."
    assert log.notes[1] == "Step 3 has no rollout with a reward and is left out."
    file_of(run, 2).write_text("")
    with pytest.raises(DataError, match="holds no group with a reward"):
        read_log(run)


def test_a_file_must_be_named_after_its_step(tmp_path):
    run = write_steps(tmp_path, {4: ["Cw"]})
    file_of(run, 4).rename(file_of(run, 5))
    with pytest.raises(DataError, match=r"line 1 of .*step_000005\.jsonl is of step 4, .* named after step 5"):
        read_log(run)


def test_what_is_no_step_is_told_not_lost(tmp_path):
    run = write_steps(tmp_path, {1: ["Cw"]})
    (run / "rollouts" / "step_last.jsonl").write_text("")
    assert read_log(run).notes == ("step_last.jsonl is not named after a step and is left out.",)


def test_missing_steps_are_told_with_what_an_anchor_sees(tmp_path):
    run = write_steps(tmp_path / "bare", {1: ["Cw"], 4: ["Cw"]})
    (note,) = read_log(run).notes
    assert "2 of the steps 1 to 4 were not logged" in note
    assert "For 2 of them no batch accuracy is known" in note
    run = write_steps(tmp_path / "known", {1: ["Cw"], 4: ["Cw"]}, accuracies={1: 0.5, 2: 0.25, 3: 0.75, 4: 0.5})
    log = read_log(run)
    assert "an anchor sees every step" in log.notes[0]
    assert log.accuracies == {1: 0.5, 2: 0.25, 3: 0.75, 4: 0.5}


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_log(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no rollouts/step_\*\.jsonl"):
        read_log(tmp_path)
