import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from mm_agrae.errors import DataError
from mm_agrae.records import Completion, Prompt, RenderedPrompt, Rollout, RolloutGroup, Sample, Tolerance, Verdict
from mm_agrae.store.rollout_log import group_lines, read_groups, write_lines


def picture(size, colour, mode="RGB", exif=None):
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, format="PNG", **({"exif": exif} if exif else {}))
    return buffer.getvalue()


def group(images=(), texts=("It is \\boxed{4}", "no"), logprob=-0.25):
    sample = Sample(
        id="g-1", question="<image>How many?", target="4", options=("3", "4"), images=images, family="counting",
        difficulty=2, answer_kind="integer", tolerance=Tolerance(kind="absolute", value=0.5), group="g",
        metadata={"variant": 3},
    )  # fmt: skip
    prompt = RenderedPrompt(
        prompt=Prompt(sample=sample, messages=()), token_ids=(1, 2, 3), unexpanded_token_ids=(1, 3),
        position_ids=None, next_position=3, mm_token_type_ids=None, pixel_values=None, image_grid_thw=None,
        content_hash="c0ffee",
    )  # fmt: skip
    verdict = Verdict(
        status="correct", answer="4", span=(13, 14), answer_form="4", target_form="4", kind="math", rule="integer",
        formatted=True, seconds=0.01,
    )  # fmt: skip
    rollouts = tuple(
        Rollout(
            completion=Completion(token_ids=(7, 8), logprobs=(logprob, 0.0), text=text, stop_reason="eos"),
            verdict=verdict,
            reward=1.0,
        )
        for text in texts
    )
    return RolloutGroup(prompt=prompt, rollouts=rollouts, weights_version=6)


def write(tmp_path, groups, advantages=None):
    path = tmp_path / "rollouts" / "step_000007.jsonl"
    write_lines(path, group_lines(groups, step=7, advantages=advantages, thumbnails=tmp_path / "thumbnails"))
    return path


def test_a_group_is_one_line_with_all_fields(tmp_path):
    path = write(tmp_path, [group()], [[0.5, -0.5]])
    assert len(path.read_text().splitlines()) == 1
    (line,) = read_groups(path)
    rollouts = line.pop("rollouts")
    assert line == {
        "step": 7, "sample_id": "g-1", "family": "counting", "difficulty": 2, "question": "<image>How many?",
        "target": "4", "answer_kind": "integer", "options": ["3", "4"],
        "tolerance": {"kind": "absolute", "value": 0.5}, "group": "g", "metadata": {"variant": 3}, "images": [],
        "prompt_hash": "c0ffee", "num_prompt_tokens": 3, "weights_version": 6,
    }  # fmt: skip
    assert [rollout["advantage"] for rollout in rollouts] == [0.5, -0.5]
    assert rollouts[0] == {
        "text": "It is \\boxed{4}", "token_ids": [7, 8], "logprobs": [-0.25, 0.0], "stop_reason": "eos",
        "verdict": {
            "status": "correct", "answer": "4", "span": [13, 14], "answer_form": "4", "target_form": "4",
            "kind": "math", "rule": "integer", "formatted": True, "seconds": 0.01,
        },
        "reward": 1.0, "advantage": 0.5,
    }  # fmt: skip


def test_evaluation_has_no_advantages(tmp_path):
    (line,) = read_groups(write(tmp_path, [group()]))
    assert [rollout["advantage"] for rollout in line["rollouts"]] == [None, None]


@pytest.mark.parametrize("advantages", [[], [[0.1]], [[0.1, 0.2, 0.3]]])
def test_advantages_must_fit_the_groups(tmp_path, advantages):
    with pytest.raises(ValueError, match="advantages have rows"):
        write(tmp_path, [group()], advantages)
    assert not (tmp_path / "rollouts").exists()


def test_weights_that_changed_on_the_way_are_written(tmp_path):
    two = group()
    moved = replace(two.rollouts[0], completion=replace(two.rollouts[0].completion, weights_versions=(5, 6)))
    (line,) = read_groups(write(tmp_path, [replace(two, rollouts=(moved, two.rollouts[1]))]))
    assert line["rollouts"][0]["weights_versions"] == [5, 6]
    assert "weights_versions" not in line["rollouts"][1]


def test_any_text_survives_as_one_line(tmp_path):
    text = "a\nb\r\nc\u2028d\x85e\x0bf\ud800g"
    (line,) = read_groups(write(tmp_path, [group(texts=(text,))]))
    assert line["rollouts"][0]["text"] == text


def test_numbers_that_json_lacks_become_null(tmp_path):
    path = write(tmp_path, [group(logprob=float("-inf"))], [[float("nan"), 0.0]])
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))
    (line,) = read_groups(path)
    assert line["rollouts"][0]["logprobs"] == [None, 0.0]
    assert line["rollouts"][0]["advantage"] is None


def test_thumbnails_are_small_and_written_once(tmp_path):
    large, small = picture((640, 400), "red"), picture((20, 10), "blue")
    (line, _) = read_groups(write(tmp_path, [group((large, small)), group((large,))]))
    folder = tmp_path / "thumbnails"
    assert sorted(path.name for path in folder.iterdir()) == sorted(line["images"])
    sizes = [Image.open(folder / name).size for name in line["images"]]
    assert sizes == [(320, 200), (20, 10)]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    write(tmp_path, [group((large, small))])
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_thumbnail_is_upright_and_on_white(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, clear = picture((40, 20), "red", exif=exif), picture((4, 4), (0, 0, 0, 0), mode="RGBA")
    (line,) = read_groups(write(tmp_path, [group((turned, clear))]))
    first, second = (Image.open(tmp_path / "thumbnails" / name) for name in line["images"])
    assert first.size == (20, 40)
    assert second.getpixel((0, 0)) == (255, 255, 255)


def test_a_torn_file_is_named_with_its_line(tmp_path):
    path = write(tmp_path, [group(), group()])
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"line 2 of .*step_000007"):
        list(read_groups(path))
    path.write_text("[]\n")
    with pytest.raises(DataError, match="must be an object"):
        list(read_groups(path))
