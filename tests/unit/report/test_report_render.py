import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from mm_agrae.errors import CheckpointError
from mm_agrae.report.read import read_run
from mm_agrae.report.render import number, percent, points, seconds, write_report
from mm_agrae.store.run_dir import RunDir

ATTACKS = ["<script>alert(1)</script>", '"><img onerror=alert(1) src=x>', "{{ 7 * 7 }}", "</pre></style>&amp;"]


class Page(HTMLParser):
    """Elements, attributes and marked texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes, self.marked, self.data = [], [], [], []
        self._in_mark = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._in_mark = tag == "mark"

    def handle_endtag(self, tag):
        self._in_mark = False

    def handle_data(self, data):
        self.data.append(data)
        if self._in_mark:
            self.marked.append(data)


def page_of(run):
    return Page(write_report(run.path).read_text(encoding="utf-8"))


def rollout(text, span=None, status="wrong"):
    return {
        "text": text, "token_ids": [1], "logprobs": [-0.1], "stop_reason": "eos", "reward": 0.1, "advantage": -1.0,
        "verdict": {
            "status": status, "answer": text[slice(*span)] if span else None, "span": span, "answer_form": None,
            "target_form": None, "kind": "math", "rule": "integer", "formatted": False, "seconds": 0.0,
        },
    }  # fmt: skip


def line(step, rollouts, **changes):
    return {
        "step": step, "sample_id": "g-1", "family": "counting", "difficulty": 1, "question": "<image>How many?",
        "target": "4", "options": [], "images": [], "prompt_hash": "c", "num_prompt_tokens": 3, "weights_version": 0,
        "rollouts": rollouts,
    } | changes  # fmt: skip


def summary(step, value, name="held_out"):
    figures = {"pass@1": {"value": value, "low": value - 0.05, "high": value + 0.05}}
    part = {"num_problems": 8, **figures}
    return {
        "set": name, "step": step, "num_problems": 8, "num_samples": 4, "overall": figures,
        "by_family": {"counting": part}, "by_difficulty": {"1": part},
    }  # fmt: skip


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def evaluated(run, *values):
    for step, value in enumerate(values):
        write_lines(run.eval_at(step) / "held_out.json", [summary(step, value)])


@pytest.fixture
def run(tmp_path):
    return RunDir.create_at(tmp_path / "gym" / "20310203-120005")


def text_of(run):
    return re.sub(r"\s+", " ", " ".join(page_of(run).data))


def test_an_empty_run_gives_a_page_that_says_what_is_missing(run):
    text = text_of(run)
    for words in ("config.json is missing", "No evaluation yet", "No step has been logged", "No rollouts were saved"):
        assert words in text


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("attack", ATTACKS)
def test_foreign_text_is_shown_and_never_becomes_markup(run, attack):
    run.write_config({"name": attack})
    run.write_environment({"device": attack})
    run.write_recipe(attack)
    groups = [
        line(0, [rollout("4", (0, 1), "correct")]),
        line(
            1, [rollout(attack, (0, len(attack))), rollout("4", (0, 1), "correct")], question=attack, target=attack,
            options=[attack], family=attack, sample_id=attack,
        ),
    ]  # fmt: skip
    write_lines(run.rollouts_at(1), groups)
    evil = summary(0, 0.5, name="set")
    evil["by_family"] = {attack: evil["by_family"]["counting"]}
    write_lines(run.eval_at(0) / "set.json", [evil])
    found = page_of(run)
    assert "script" not in found.elements
    assert "img" not in found.elements
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert attack in found.marked
    # recipe, config, environment, question, target, option, family twice, id, answer, text
    assert "".join(found.data).count(attack) >= 10


def test_the_answer_is_marked_at_its_span_among_special_characters(run):
    text = 'é😀 <b>1 < 2</b> & "so" \\boxed{π < 4 & 5}.'
    start = text.index("π")
    write_lines(run.rollouts_at(3), [line(3, [rollout(text, (start, start + 9)), rollout("4", (0, 1), "correct")])])
    found = page_of(run)
    assert "π < 4 & 5" in found.marked
    assert text in "".join(found.data)


def test_lone_surrogates_do_not_stop_the_report(run):
    write_lines(run.rollouts_at(0), [line(0, [rollout("a\ud800b"), rollout("4", None, "correct")])])
    assert "a?b" in text_of(run)


def test_pictures_are_inside_the_page_and_described(run):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, format="PNG")
    (run.thumbnails / "abc.png").write_bytes(buffer.getvalue())
    (run.path / "secret.png").write_bytes(buffer.getvalue())
    images = ["abc.png", "gone.png", "../secret.png"]
    write_lines(run.rollouts_at(0), [line(0, [rollout("4", None, "correct"), rollout("5")], images=images)])
    found = page_of(run)
    assert found.elements.count("img") == 1
    sources = [value for tag, name, value in found.attributes if (tag, name) == ("img", "src")]
    alts = [value for tag, name, value in found.attributes if (tag, name) == ("img", "alt")]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert alts == ["Picture 1 of problem g-1: How many?"]


def test_the_page_asks_for_nothing_from_outside(run):
    write_lines(run.metrics, [{"step": step, "reward/mean": 0.1, "time/rollout_s": 1.0} for step in range(3)])
    evaluated(run, 0.2, 0.9)
    found = page_of(run)
    assert not {"script", "link", "iframe", "object"} & set(found.elements)
    for _, name, value in found.attributes:
        if name in {"src", "href", "xlink:href"}:
            assert value.startswith(("data:", "#"))
    page = run.report.read_text()
    assert not re.findall(r"https?://|@import|url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_headline_says_whether_the_intervals_are_apart(run):
    evaluated(run, 0.2, 0.9)
    text = text_of(run)
    assert "20.0 %" in text
    assert "90.0 %" in text
    assert "+70.0" in text
    assert "separated, higher" in text
    assert "not separated" not in text


def test_headline_says_not_separated_when_they_overlap(run):
    evaluated(run, 0.5, 0.9, 0.55)
    text = text_of(run)
    assert "not separated" in text
    assert "separated, " not in text
    assert "90.0" not in text


def test_one_evaluation_says_that_there_is_nothing_to_compare(run):
    evaluated(run, 0.5)
    assert "nothing to compare yet" in text_of(run)


def test_the_same_problem_is_shown_before_and_after(run):
    evaluated(run, 0.2, 0.9)
    write_lines(run.eval_at(0) / "held_out.jsonl", [line(0, [rollout("early words")])])
    write_lines(run.eval_at(1) / "held_out.jsonl", [line(1, [rollout("late words", None, "correct")])])
    text = text_of(run)
    assert "Step 0: 0 of 1 correct" in text
    assert "Step 1: 1 of 1 correct" in text
    assert text.index("early words") < text.index("late words")


def test_broken_files_become_notes_and_the_rest_is_shown(run):
    run.config.write_text("{torn")
    run.metrics.write_text('{"step": 0}\nbroken\n{"step": 2}\n')
    run.rollouts_at(0).write_text('{"torn')
    evaluated(run, 0.5)
    write_lines(run.eval_at(0) / "other.json", [{"set": "other"}])
    notes = read_run(run.path).notes
    for name in ("config.json", "metrics.jsonl", "rollouts/step_000000.jsonl", "eval/step_000000/other.json"):
        assert any(note.startswith(name) for note in notes), name
    text = text_of(run)
    assert "held_out" in text
    assert "line 2 of" in text


def test_metrics_of_one_step_are_merged_and_nulls_left_out(run):
    lines = [{"step": 1, "reward/mean": 1, "reward/std": None}, {"step": 1, "time/step_s": 2}, {"step": 0}]
    write_lines(run.metrics, lines)
    assert read_run(run.path).metrics == {0: {}, 1: {"reward/mean": 1.0, "time/step_s": 2.0}}


def test_the_same_run_gives_the_same_page(run):
    write_lines(run.metrics, [{"step": step, "reward/mean": 0.1 * step} for step in range(3)])
    pages = [write_report(run.path).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]


def test_numbers_in_words():
    assert percent(0.9414) == "94.1\u00a0%"
    assert (points(0.771), points(-0.1)) == ("+77.1", "\u221210.0")
    assert (number(-0.529), number(None)) == ("\u22120.53", "–")
    assert [seconds(value) for value in (0.012, 3.14, 73.4, 3720)] == ["12 ms", "3.1 s", "1 min 13 s", "1 h 2 min"]
