import json
import subprocess
import sys
from dataclasses import fields

import pytest
from replay_logs import LIMIT, group, write_steps

from mm_agrae.errors import ConfigError, DataError
from mm_agrae.lab.replay.algorithms import DEFAULT_NAMES
from mm_agrae.lab.replay.figures import Signs
from mm_agrae.lab.replay.run import replay, run_replay
from mm_agrae.lab.replay.summary import MEANINGS, Figures, GroupView, Kinds, Opinion, Summary, to_json
from mm_agrae.lab.replay.tables import bound_table, clip_table, percent, shortened, signed

GRPO = {1: [[1, 1, -1, -1], [0, 0, 0, 0]], 2: [[3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)]]}


@pytest.fixture
def run(tmp_path):
    """Two steps of a grpo run: p = 1/2 and a group told apart by form only, then p = 1/4."""
    steps = {
        1: [group("CCww", family="charts", difficulty=1), group("WWww", family="counting")],
        2: [group("Cwww", family="charts", difficulty=2)],
    }
    return write_steps(tmp_path / "run", steps, advantages=GRPO, algorithm={"preset": "grpo"})


def figures(run, *names, num_groups=12):
    return to_json(replay(run, algorithms=names, num_groups=num_groups))


def page_of(run, *names, num_groups=12):
    return run_replay(run, algorithms=names, num_groups=num_groups, log=lambda line: None).read_text()


def test_the_page_and_the_figures_stand_in_the_run(run):
    page = run_replay(run, algorithms=["grpo"], log=lambda line: None)
    assert page == run / "replay" / "replay.html"
    assert sorted(file.name for file in page.parent.iterdir()) == ["replay.html", "replay.json"]
    found = json.loads((run / "replay" / "replay.json").read_text())
    assert found.pop("meanings") == MEANINGS
    assert found == figures(run, "grpo")
    elsewhere = run.parent / "elsewhere"
    assert run_replay(run, algorithms=["grpo"], out=elsewhere, log=lambda line: None) == elsewhere / "replay.html"
    alone = run_replay(run / "rollouts" / "step_000002.jsonl", algorithms=["grpo"], log=lambda line: None)
    assert alone == run / "rollouts" / "step_000002_replay" / "replay.html"


def test_the_default_is_the_run_and_the_usual_ones(run):
    assert tuple(figures(run)["algorithms"]) == DEFAULT_NAMES


def test_figures_of_a_small_log(run):
    found = figures(run, "run", "dr_grpo", "nsr")
    assert found["steps"] == [1, 2]
    assert found["batch_accuracy"] == [0.25, 0.25]
    assert (found["num_groups"], found["group_size"], found["num_unscored"]) == (3, 4, 0)
    assert (found["equal_flag_groups"], found["told_apart_by_form"]) == (1, 1)
    rates = found["kinds"]["success rate"]
    assert rates["names"] == ["0", "(0, ¼]", "(¼, ½]", "(½, ¾]", "(¾, 1)", "1"]
    assert rates["rollout_shares"] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0, 0])
    assert found["kinds"]["difficulty"]["names"] == ["1", "2", "none"]
    assert found["kinds"]["family"]["names"] == ["charts", "counting"]
    # Σ|A|: 4 at p = 1/2, 2 · 4 · sqrt(3/16) = 2 sqrt(3) at p = 1/4, nothing at p = 0.
    own, plain, negative = (found["algorithms"][name] for name in ("run", "dr_grpo", "nsr"))
    total = 4 + 2 * 3**0.5
    shares = [0, 2 * 3**0.5 / total, 4 / total, 0, 0, 0]
    assert own["weight_shares"]["success rate"] == pytest.approx(shares)
    assert own["weight_shares"]["difficulty"] == pytest.approx([4 / total, 2 * 3**0.5 / total, 0])
    assert own["weight_shares"]["family"] == pytest.approx([1, 0])
    # ΣA² = 4 + 3 + 3/3 = 8.
    assert own["effective_frac"] == pytest.approx(total**2 / (12 * 8))
    assert own["sum_per_rollout_by_step"] == pytest.approx([0, 0], abs=1e-7)
    # Without the guard the second group has four times ±1, all of it form: 4 of 12.
    assert own["form_share"] == pytest.approx(0, abs=1e-12)
    assert own["unguarded_form_share"] == pytest.approx(4 / 12)
    assert own["unguarded_equal_flag_share"] == pytest.approx(4 / (total + 4))
    # r - mean: ±1/2, and 3/4, -1/4: Σ|A| 2 and 3/2; the form then moves four times .05.
    assert plain["weight_shares"]["success rate"] == pytest.approx([0, 1.5 / 3.5, 2 / 3.5, 0, 0, 0])
    assert plain["unguarded_equal_flag_share"] == pytest.approx(0.2 / 3.7)
    # -1 for each of the 2 + 4 + 3 wrong ones; grpo gives the middle group and 3 correct ones something else.
    assert negative["sum_per_rollout"] == pytest.approx(-9 / 12)
    assert negative["sum_per_rollout_by_step"] == pytest.approx([-6 / 8, -3 / 4])
    assert negative["signs"] == {"flipped_frac": 0, "only_here_frac": 4 / 12, "only_there_frac": 3 / 12}
    assert negative["unguarded_form_share"] is None


def test_clip_budgets_of_elastic_beside_fixed(run):
    found = figures(run, "grpo", "grpo+elastic", "sapo")
    # p = 1/2, |A| = 1: micro factor 1, macro factor 1 + 1/4 (8/4 - 1) = 1.25.
    assert found["algorithms"]["grpo"]["clip_low"][2] == pytest.approx(0.2)
    assert found["algorithms"]["grpo+elastic"]["clip_low"][2] == pytest.approx(0.25)
    assert found["algorithms"]["grpo+elastic"]["clip_high"][2] == pytest.approx(0.25)
    assert found["algorithms"]["sapo"]["clip_high"] == [None] * 6


def test_the_bound_that_acts_is_shown_or_a_dash(run):
    summary = replay(run, algorithms=["grpo", "sapo", "nsr"])
    view = next(view for view in summary.groups if view.step == 2)
    # One correct rollout, three wrong ones; sapo has no bounds, and nsr no advantage for the correct one.
    wrong = ["≥ 0.8", "–", "≥ 0.8"]
    assert [row[1:] for row in bound_table(view).rows] == [["≤ 1.2", "–", "–"], wrong, wrong, wrong]
    # By success rate 0, (0, ¼], (¼, ½] and none above; only nsr has an advantage at 0.
    rooms = {row[0]: row[1:] for row in clip_table(summary).rows}
    assert rooms["grpo"] == ["– / –", "0.2 / 0.2", "0.2 / 0.2", "– / –", "– / –", "– / –"]
    assert rooms["sapo"] == ["– / –"] * 6
    assert rooms["nsr"][:3] == ["0.2 / –"] * 3


def test_kinds_that_tell_nothing_apart_are_left_out(tmp_path):
    groups = [group("Cw", family="charts"), group("cw", family="charts"), group("??", family="charts")]
    assert list(figures(write_steps(tmp_path, {1: groups}), "grpo")["kinds"]) == ["success rate"]


def test_a_rollout_left_out_of_the_loss_is_no_difference(tmp_path):
    groups = [group("CCww", lengths=[3, LIMIT, 3, 3])]
    recorded = {1: [[1, 1, -1, -1]]}
    run = write_steps(tmp_path, {1: groups}, advantages=recorded, algorithm={"overlong": "mask"})
    assert figures(run, "run")["recorded_difference"] == 0


def test_anchors_are_traced(run):
    found = figures(run, "grpo", "grpo+hadw")
    assert found["algorithms"]["grpo"]["anchor_by_step"] is None
    assert found["algorithms"]["grpo+hadw"]["anchor_by_step"] == [0.25, 0.25]
    assert "Anchor and batch accuracy by step" in page_of(run, "grpo", "grpo+hadw")
    assert "Anchor and batch accuracy by step" not in page_of(run, "grpo")


def test_the_runs_own_algorithm_gives_what_was_recorded(run):
    assert figures(run, "run")["recorded_difference"] < 1e-6
    assert "gives the advantages in the log to within" in page_of(run, "run")
    exact = write_steps(run / "exact", {1: ["CCww"]}, advantages={1: [[1, 1, -1, -1]]}, algorithm={})
    assert "gives the advantages in the log exactly" in page_of(exact, "run")
    assert figures(run, "grpo")["recorded_difference"] is None


def test_a_log_of_other_advantages_is_told(tmp_path):
    run = write_steps(tmp_path, {1: ["CCww"]}, advantages={1: [[1, 1, -1, -1.5]]}, algorithm={})
    assert figures(run, "run")["recorded_difference"] == pytest.approx(0.5)
    assert "differs from the advantages in the log by up to 0.5" in page_of(run, "run")


def test_groups_are_shown_with_rollouts_and_every_opinion(run):
    found = figures(run, "grpo", "nsr")
    # Scaled to mean|A| = 1 the opinions differ in every group; the first step's groups come from the same file.
    assert sorted((view["step"], len(view["rewards"])) for view in found["groups"]) == [(1, 4), (1, 4), (2, 4)]
    view = next(view for view in found["groups"] if view["step"] == 2)
    assert (view["rewards"], view["lengths"], view["target"]) == ([1, 0, 0, 0], [3, 3, 3, 3], "4")
    assert view["verdicts"] == ["correct", "wrong", "wrong", "wrong"]
    assert view["opinions"]["grpo"]["advantages"] == pytest.approx(GRPO[2][0])
    assert view["opinions"]["nsr"]["advantages"] == [0, -1, -1, -1]
    assert view["opinions"]["grpo"]["high"] == pytest.approx([1.2] * 4)
    assert len(figures(run, "grpo", "nsr", num_groups=1)["groups"]) == 1
    page = page_of(run, "grpo", "nsr")
    assert page.count("<details>") == 3
    assert "step 2, 1 of 4 correct" in page


def test_one_algorithm_shows_no_group(run):
    assert figures(run, "grpo")["groups"] == []
    assert "none is judged apart" in page_of(run, "grpo")


def test_text_of_models_and_data_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>\ud800"
    groups = [group("CCww", text=evil, family=evil, sample_id=evil), group("Cwww", text=evil, family="other")]
    run = write_steps(tmp_path, {1: groups})
    page = page_of(run, "grpo", "dr_grpo")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 10
    assert figures(run, "grpo", "dr_grpo")["groups"][0]["answers"][0] == "4<script>alert(1)</script>?"


def test_long_text_is_shortened_on_the_page(tmp_path):
    run = write_steps(tmp_path, {1: [group("CCww", text="long " * 1000), "Cwww"]})
    page = page_of(run, "grpo", "dr_grpo")
    assert page.count("long ") < 400
    assert "…" in page


def test_algorithms_that_agree_share_a_curve(run):
    page = page_of(run, "grpo", "gspo", "nsr")
    assert "<b>grpo, gspo</b>" in page
    assert "<b>nsr</b>" in page


def test_what_was_left_out_is_on_the_page_and_in_the_log(tmp_path):
    run = write_steps(tmp_path, {1: ["CCw?"], 3: ["Cwww"]})
    said = []
    page = run_replay(run, log=said.append).read_text()
    assert "run" not in figures(run)["algorithms"]
    notes = [line for line in said if line.startswith("note: ")]
    for note, told in zip(
        notes,
        (
            "1 of the steps 1 to 3 were not logged",
            "The run's own algorithm is left out: there is no config.json",
            "dapo prices long answers as if it were 3, the longest in the log",
            "dapo would sample again",
        ),
        strict=True,
    ):
        assert told in note
        assert note.removeprefix("note: ").replace("'", "&#39;") in page
    assert "1 rollouts have no reward" in page


def test_a_run_that_dropped_groups_says_so(tmp_path):
    run = write_steps(tmp_path, {1: ["CCww"]}, accuracies={1: 0.25}, algorithm={"preset": "dapo"})
    notes = figures(run, "run", "run+hadw", "dapo")["notes"]
    assert notes[0].endswith("Batch accuracies count them all the same.")
    assert notes[1] == "dapo would sample again in place of groups with equal flags; a log cannot."


def test_the_bound_on_completions_comes_from_the_run(tmp_path):
    # 7 of 8 tokens cost 1/2; of the longest in the log, 7, they would cost 1.
    run = write_steps(tmp_path, {1: [group("CCww", lengths=[7, 3, 3, 3])]}, algorithm={"preset": "dapo"})
    found = figures(run, "run", "grpo")
    advantages = found["groups"][0]["opinions"]["run"]["advantages"]
    assert LIMIT == 8
    assert advantages[0] > 0  # 1 - 1/2 is above the mean 3/8; 1 - 1 would be below


def test_the_table_is_logged_in_columns(run):
    said = []
    run_replay(run, algorithms=["grpo", "grpo+agrae"], log=said.append)
    assert [line.split()[0] for line in said] == ["Algorithm", "grpo", "grpo+agrae"]
    assert len({len(line) for line in said}) == 1


def test_every_key_is_explained():
    records = (Summary, Kinds, Figures, Signs, GroupView, Opinion)
    assert set(MEANINGS) == {field.name for record in records for field in fields(record)}


def test_bad_requests_are_told(run):
    with pytest.raises(ConfigError, match="named twice"):
        figures(run, "grpo", "grpo")
    with pytest.raises(ConfigError, match="num_groups is -1"):
        figures(run, num_groups=-1)
    with pytest.raises(ConfigError, match="no preset"):
        figures(run, "gropo")
    with pytest.raises(DataError, match="does not exist"):
        figures(run / "nowhere", "grpo")


def test_numbers_in_words():
    assert [percent(value) for value in (0.0, 4e-4, 0.9414, float("nan"))] == ["0 %", "< 0.1 %", "94.1 %", "–"]
    assert [signed(value) for value in (1e-9, -0.5, 2.0, float("nan"))] == ["0", "−0.500", "+2.000", "–"]
    assert (shortened("abcd", 4), shortened("abcde", 4)) == ("abcd", "abc…")
    assert to_json({"a": (float("inf"), "\ud800", None, True)}) == {"a": [None, "?", None, True]}


def test_no_model_library_is_loaded(run):
    program = (
        "import sys; from pathlib import Path; from mm_agrae.lab.replay.run import run_replay\n"
        "run_replay(Path(sys.argv[1]), algorithms=['grpo+hadw'], log=lambda line: None)\n"
        "print(sorted({'transformers', 'accelerate', 'peft', 'datasets', 'sympy', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
