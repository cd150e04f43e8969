"""The benchmarks' own claims: what they compare would differ if it differed, and what they print has its form."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench_equality as equality
import bench_inputs
import bench_plot
import bench_profile
import bench_runs
import bench_step
import bench_whole_step as whole
import numpy as np
import pytest
import torch

from mm_agrae.train.update import update

POINT = bench_inputs.Point(visual=16, text=24, completion=6, group=3, prompts=2)
SETTING = equality.Setting(loss="cispo", beta=0.04, temperature=0.7)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model, and another to stay close to."""
    root = tmp_path_factory.mktemp("bench")
    return [bench_inputs.build(root / str(seed), architecture="qwen2_5_vl", size="tiny", seed=seed) for seed in (0, 1)]


def compare(folders: list[Path], settings: list[equality.Setting]) -> equality.Entries:
    groups = bench_step.groups_of(bench_inputs.policy_of(folders[0]), POINT, ragged=True)
    return equality.compare(
        folders[0], groups, settings, length=POINT.completion, reference=folders[1], with_peer=False
    )


def side(folders: list[Path], setting: equality.Setting) -> equality.Found:
    groups = bench_step.groups_of(bench_inputs.policy_of(folders[0]), POINT, ragged=True)
    return equality.our_side(folders[0], groups, setting, length=POINT.completion, reference=folders[1], sharing=True)[
        0
    ]


def test_our_two_layouts_compute_the_same(folders: list[Path]) -> None:
    entries = compare(folders, [equality.Setting(), SETTING])
    assert equality.equal(entries), equality.lines_of(entries)
    assert {name.split(",")[0] for name in entries} == {
        "logprobs", "entropy", "loss", "gradients", "gradient norm", "weights after a step",
    }  # fmt: skip


def test_a_comparison_in_which_no_ratio_is_clipped_is_refused(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equality, "MOVE", 0.0)
    entries = compare(folders, [equality.Setting()])
    assert not equality.equal(entries)
    assert "nothing clipped, grpo, beta 0, temperature 1" in entries


def test_every_kind_of_difference_is_seen(folders: list[Path]) -> None:
    found = side(folders, SETTING)
    assert equality.equal(equality.differences(found, found))
    last = [gradient.clone() for gradient in found.gradients[-1]]
    largest = max(range(len(last)), key=lambda number: float(last[number].norm()))
    last[largest] *= 1 + 1e-4
    moved = [weight + equality.LR * 0.1 for weight in found.weights]
    changed = {
        "logprobs": replace(found, logprobs=found.logprobs + 1e-5),
        "entropy": replace(found, entropy=found.entropy + 1e-5),
        "loss": replace(found, loss=found.loss * (1 + 1e-4)),
        "gradients": replace(found, gradients=[found.gradients[0], last]),
        "gradient norm": replace(found, grad_norm=found.grad_norm * (1 + 1e-4)),
        "weights after a step": replace(found, weights=moved),
    }
    for name, other in changed.items():
        entries = equality.differences(other, found)
        assert [key for key, entry in entries.items() if entry["value"] > entry["limit"]] == [name]


def test_a_number_that_is_not_one_is_no_equality() -> None:
    assert not equality.equal({"loss": {"value": math.nan, "limit": 1.0}})


@pytest.mark.parametrize("fault", [math.nan, 0.3])
def test_a_failing_setting_is_not_hidden_by_a_later_one(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, fault: float
) -> None:
    differences, seen = equality.differences, iter([fault, 0.0])

    def faulty(ours: equality.Found, other: equality.Found) -> equality.Entries:
        # The second setting differs more, within a limit that is wider: losses are compared relative to their size.
        value = next(seen)
        return differences(ours, other) | {"loss": {"value": value or 0.4, "limit": 0.1 if value else 0.5}}

    monkeypatch.setattr(equality, "differences", faulty)
    entries = compare(folders, [equality.Setting(), SETTING])
    assert not equality.equal(entries)
    assert entries["loss, repeated"]["limit"] == 0.1


def test_of_two_equal_settings_the_nearer_to_its_limit_is_shown() -> None:
    near, far = {"value": 0.1, "limit": 0.2}, {"value": 0.3, "limit": 1.0}
    assert equality.merged({"loss": far}, {"loss": near}) == {"loss": near}
    assert equality.merged({"loss": near}, {"loss": far}) == {"loss": near}
    exact = {"value": 0.0, "limit": 0.0}
    assert equality.merged({"loss": exact}, {"loss": near, "pixels": exact}) == {"loss": near, "pixels": exact}


def test_a_gradient_that_is_no_number_is_no_equality(folders: list[Path]) -> None:
    found = side(folders, SETTING)
    for number in (0, len(found.gradients[0]) - 1):
        broken = [gradient.clone() for gradient in found.gradients[0]]
        broken[number].view(-1)[0] = math.nan
        entries = equality.updates_apart(replace(found, gradients=[broken, found.gradients[1]]), found)
        assert math.isnan(entries["gradients"]["value"])


def test_every_loss_changes_the_second_update(folders: list[Path]) -> None:
    norms = {
        str(setting): side(folders, setting).grad_norm
        for setting in (equality.Setting(loss="dr_grpo"), equality.Setting(loss="dapo"), SETTING)
    }
    assert len(set(norms.values())) == 3


def test_the_shortest_completion_has_one_token(folders: list[Path]) -> None:
    policy = bench_inputs.policy_of(folders[0])
    rng = np.random.default_rng(0)
    lengths = sorted(map(len, bench_inputs.make_completions(policy, POINT, rng, ragged=True)))
    assert (lengths[0], lengths[-1]) == (1, POINT.completion)


def test_theory_is_1_for_a_single_completion(folders: list[Path]) -> None:
    policy = bench_inputs.policy_of(folders[0])
    prompt = bench_step.groups_of(policy, POINT, ragged=False)[0].prompt
    assert bench_inputs.theory(policy, [(prompt, [(0,) * 6])]) == 1.0
    assert 1.0 < bench_inputs.theory(policy, [(prompt, [(0,) * 6] * 4)]) < 4.0


class Directly:
    """Measures in this process."""

    def __init__(self, script: Path, journal: Path | None, threads: int) -> None:
        self.threads = threads

    def measure(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(bench_step.measure_one({**arguments, "threads": self.threads})))


def test_the_table_of_the_update_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_step, "Runs", Directly)
    monkeypatch.setattr(bench_step, "QUICK", (replace(POINT, group=2),))
    monkeypatch.setattr(bench_step, "QUICK_SETTINGS", (equality.Setting(),))
    arguments = ["--quick", "--json", "--without-peer", "--size", "tiny", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_step.py", *arguments])
    assert bench_step.main() == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["equal"] is True
    (point,) = printed["points"]
    assert {key: point[key] for key in ("P", "visual", "C", "G", "prompts", "ratio_to_peer")} == {
        "P": 40, "visual": 16, "C": 6, "G": 2, "prompts": 2, "ratio_to_peer": None,
    }  # fmt: skip
    assert point["ratio_to_repeated"] == point["seconds"]["repeated"] / point["seconds"]["ours"]
    assert point["theory"] > 1
    assert set(point["peak_bytes"]) == {"ours", "repeated"}
    assert set(point["equality"]) == {"loss, repeated", "gradients, repeated", "gradient norm, repeated"}


def test_ways_that_differ_on_the_timed_tensors_have_no_times(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_way = bench_step.way_of

    def faulty(folder: Path, point: bench_inputs.Point, name: str) -> bench_step.Way:
        way = whole_way(folder, point, name)
        if name == "repeated":
            way.optimizer.param_groups[0]["params"][3].register_hook(lambda gradient: gradient * 1.01)
        return way

    monkeypatch.setattr(bench_step, "way_of", faulty)
    found = bench_step.measure_times(folders[0], POINT, rounds=1, with_peer=False)
    assert set(found) == {"equality"}
    assert not equality.equal(found["equality"])


def test_what_is_timed_keeps_no_gradients(folders: list[Path]) -> None:
    way = bench_step.way_of(folders[0], POINT, "ours")
    assert type(way.optimizer) is torch.optim.AdamW
    first = bench_step.warmed_up(way)
    assert len(first.gradients[0]) == len(way.optimizer.param_groups[0]["params"])
    kept = [gradient.clone() for gradient in first.gradients[0]]
    way.run()
    assert len(first.gradients[0]) == len(kept)


@pytest.mark.parametrize("script", [bench_step, whole])
def test_a_profile_is_not_printed_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "--profile", "--json"])
    with pytest.raises(SystemExit):
        script.main()
    assert "--profile prints text for people" in capsys.readouterr().err


@pytest.mark.parametrize("script", [bench_step, whole])
def test_without_trl_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, script: Any) -> None:
    monkeypatch.setattr(bench_runs.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(script, "Runs", None)  # nothing is measured before
    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick"])
    with pytest.raises(SystemExit, match=r"TRL is not installed: pip install -e '\.\[bench\]'"):
        script.main()


def test_a_point_is_not_timed_where_the_numbers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    class Different(Directly):
        def measure(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
            assert arguments["kind"] == "equality"
            return {"loss, repeated": {"value": 1.0, "limit": 1e-6}}

    monkeypatch.setattr(bench_step, "Runs", Different)
    monkeypatch.setattr(sys, "argv", ["bench_step.py", "--quick", "--json", "--without-peer"])
    assert bench_step.main() == 1


def test_what_stands_in_the_journal_is_not_measured_again(tmp_path: Path) -> None:
    script, counter = tmp_path / "script.py", tmp_path / "counter"
    script.write_text(
        f"import json, sys\nopen({str(counter)!r}, 'a').write('x')\n"
        "print('words'); print(json.dumps({'seen': json.loads(sys.argv[2])}))\n"
    )
    runs = bench_runs.Runs(script=script, journal=tmp_path / "journal.jsonl", threads=1)
    first = runs.measure({"way": "ours"})
    assert first == {"seen": {"way": "ours", "threads": 1}}
    assert runs.measure({"way": "ours"}) == first
    assert counter.read_text() == "x"
    runs.measure({"way": "repeated"})
    assert counter.read_text() == "xx"
    runs.measure({"way": "ours"})
    assert counter.read_text() == "xx"
    lines = runs.journal.read_text().splitlines()
    assert set(json.loads(lines[0])["made_by"]) == {"revision", "dirty", "torch", "transformers", "trl"}
    runs.journal.write_text(lines[1] + "\n" + lines[0][:-9])  # it was stopped while it wrote
    runs.measure({"way": "ours"})
    assert counter.read_text() == "xxx"
    assert [line in lines for line in runs.journal.read_text().splitlines()] == [True, False, True]
    runs.measure({"way": "ours"})
    runs.measure({"way": "repeated"})
    assert counter.read_text() == "xxx"


def test_what_other_code_measured_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('{}')\n")
    runs = bench_runs.Runs(script=script, journal=tmp_path / "journal.jsonl", threads=1)
    made_by = bench_runs.provenance()
    assert made_by["torch"] == torch.__version__
    for changed in ({}, {"revision": "other"}, {"dirty": "other"}, {"transformers": "0.1"}, {}):
        monkeypatch.setattr(bench_runs, "provenance", lambda changed=changed: made_by | changed)
        runs.measure({"way": "ours"})
    assert len(runs.journal.read_text().splitlines()) == 4


def test_a_failed_measurement_stops_with_its_error(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise ValueError('no such way')\n")
    with pytest.raises(SystemExit, match="no such way"):
        bench_runs.Runs(script=script, journal=None, threads=1).measure({"way": "x"})


def test_the_table_shows_every_point_and_only_what_was_measured(tmp_path: Path) -> None:
    point = {"visual": 64, "P": 128, "C": 32, "G": 8, "theory": 3.5, "ratio_to_repeated": 3.0, "ratio_to_peer": None}
    losing = point | {"C": 512, "ratio_to_repeated": 0.98, "peer_best": None, "seconds": {"ours": 1.25}, "ends": 64}
    found = {"repeated": "all anew", "peer": "another", "points": [point, losing]}
    head, _, first, second = bench_plot.table(found).splitlines()
    assert head == "| visual + text, C, G | theory | times all anew | ours, s |"
    assert first == "| 64 + 64, 32, 8 | 3.50 | 3.00 | - |"
    assert second == "| 64 + 64, 512, 8, ends 1/64 | 3.50 | 0.98 | 1.25 |"
    compared = point | {"ratio_to_peer": 2.0, "peer_best": "b", "peak_bytes": {"ours": 2**20, "b": 2**21}}
    head, _, only = bench_plot.table(found | {"points": [compared]}).splitlines()
    assert head == "| visual + text, C, G | theory | times all anew | times another | ours, MiB | another, MiB |"
    assert only == "| 64 + 64, 32, 8 | 3.50 | 3.00 | 2.00 | 1 | 2 |"
    bench_plot.draw(found, tmp_path / "points.png")
    assert (tmp_path / "points.png").stat().st_size > 1000


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_a_peak_counts_what_is_freed_again() -> None:
    size = 2**26
    assert bench_runs.with_peak(lambda: torch.ones(size // 4).sum()) > 0.9 * size


def test_a_whole_step_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROMPTS": 2, "GROUP": 2, "LENGTH": 5, "WARM_UP": 1}.items():
        monkeypatch.setattr(whole, name, value)
    case = whole.Case(
        architecture="qwen3_vl", size="tiny", visual=16, steps=2, way="ours", visit=0, threads=torch.get_num_threads()
    )
    bench = whole.build(case)
    generation = bench.model / "generation_config.json"
    every_token = {"eos_token_id": list(range(400))}
    generation.write_text(json.dumps(json.loads(generation.read_text()) | every_token))
    found = whole.measure_ours(bench, case)  # which asserts that no completion ends early and no group is skipped
    assert len(found["seconds"]) == 2
    assert found["prompt_tokens"] > 16
    assert sum(found["phases"].values()) == pytest.approx(float(np.median(found["seconds"])))


def test_a_profile_finds_every_part(folders: list[Path]) -> None:
    learner, batch = bench_step.prepared(folders[0], POINT, sharing=True)
    table = bench_profile.table(learner.policy, lambda: update(learner, batch, step=0))
    header, line = table.splitlines()
    kinds = header.split("seconds")[1].replace("other operations", "other").split()
    shares = dict(zip(kinds, (float(cell.rstrip("%")) for cell in line.split()[2:]), strict=True))
    assert all(shares[kind] > 0 for kind in ("vision", "attention", "linear", "head", "optimiser"))
    assert sum(shares.values()) == pytest.approx(100, abs=1)
