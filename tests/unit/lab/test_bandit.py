"""The softmax bandit: exact steps, seeds that do not touch each other, figures by hand."""

import math

import pytest
import torch

from mm_agrae.algorithms import ADVANTAGES
from mm_agrae.lab.bandit.figures import (
    EXPECTATIONS,
    FIGURES,
    Expectation,
    Race,
    difference_table,
    expectation_table,
    findings,
    outcome,
    run_race,
    written,
)
from mm_agrae.lab.bandit.level import level_table, reaching
from mm_agrae.lab.bandit.run import (
    CONFIDENT,
    CONTESTANTS,
    GROUP_SIZE,
    LEARNING_RATE,
    NUM_CORRECT,
    SUCCESS,
    Contestant,
    Measured,
    World,
    make_world,
    measure,
    run_bandit,
    sample,
)
from mm_agrae.lab.seed_statistics import estimate
from mm_agrae.report.page import Badge

NAMES = [one.name for one in CONTESTANTS]


def course(contestant, world, **numbers):
    return run_bandit(contestant, world, **({"seed": 0, "num_steps": 12} | numbers))


def ends(found):
    return {figure: values.tolist() for figure, values in vars(found[max(found)]).items()}


def measured(**values):
    return Measured(**{figure: torch.tensor(values.get(figure, [0.0, 0.0])) for figure in FIGURES})


def race_of(**ends_of):
    """A race of methods that end with these values of pass@1; their names have no spaces."""
    return Race(
        {name.replace("_", " "): {0: measured(), 5: measured(pass_1=list(end))} for name, end in ends_of.items()}
    )


def test_worlds_start_as_said_and_differ_by_seed_alone():
    world = make_world(seed=0, num_seeds=400)
    assert world.correct.sum(dim=1).tolist() == [NUM_CORRECT] * len(SUCCESS) * len(CONFIDENT)
    mean = world.logits.mean(dim=0).softmax(dim=1)
    success = (mean * world.correct).sum(dim=1)
    assert success.tolist() == pytest.approx([p for p in SUCCESS for _ in CONFIDENT], rel=0.1)
    confident = (mean * ~world.correct).amax(dim=1) / (1 - success)
    assert confident.tolist() == pytest.approx(list(CONFIDENT) * len(SUCCESS), rel=0.05)
    assert torch.equal(make_world(seed=0, num_seeds=2).logits, world.logits[:2])
    assert not torch.equal(world.logits[0], world.logits[1])
    assert not torch.equal(make_world(seed=1, num_seeds=1).logits[0], world.logits[0])


def test_one_step_of_grpo_is_the_policy_gradient():
    world = make_world(seed=0, num_seeds=1)
    draws = torch.Generator().manual_seed(1)
    trajectories = sample(world.logits, [draws])[0]
    flags = world.correct.gather(1, trajectories)
    advantages = ADVANTAGES["group"](flags.double(), flags).double()
    assert bool((advantages != 0).any())
    # Δlogit = rate / G · Σ_g A_g (one-hot of the trajectory - π)
    one_hot = torch.nn.functional.one_hot(trajectories, world.logits.shape[2])
    mass = world.logits[0].softmax(dim=1)[:, None]
    expected = world.logits[0] + LEARNING_RATE / GROUP_SIZE * (advantages[..., None] * (one_hot - mass)).sum(dim=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mm_agrae.lab.bandit.run._generator", lambda *given: torch.Generator().manual_seed(1))
        found = course(Contestant("GRPO", {}), world, num_steps=1)
    assert ends(found) == {
        figure: pytest.approx(values.tolist(), abs=1e-12)
        for figure, values in vars(measure(expected[None], _seen(world, trajectories), world.correct)).items()
    }


def _seen(world, trajectories):
    return torch.zeros(world.logits.shape, dtype=torch.bool).scatter(2, trajectories[None], True)


@pytest.mark.parametrize("contestant", [CONTESTANTS[NAMES.index(name)] for name in ("A-GRAE, α = 1", "HA-DW")])
def test_seeds_computed_side_by_side_are_runs_of_their_own(contestant):
    together = ends(course(contestant, make_world(seed=0, num_seeds=3)))
    alone = ends(course(contestant, make_world(seed=0, num_seeds=1)))
    for figure, values in alone.items():
        assert values == pytest.approx(together[figure][:1], abs=1e-12)
    assert len(set(together["pass_1"])) == 3


def test_the_same_seed_gives_the_same_run_and_measures_at_start_and_end():
    world = make_world(seed=0, num_seeds=2)
    first, again, other = (course(CONTESTANTS[0], world, seed=seed) for seed in (0, 0, 1))
    assert list(first) == [0, 10, 12]
    assert ends(first) == ends(again)
    assert ends(first) != ends(other)


def test_what_was_discovered_stays_discovered():
    found = course(CONTESTANTS[0], make_world(seed=0, num_seeds=4), num_steps=60)
    shares = torch.stack([one.discovered for one in found.values()])
    assert shares[0].tolist() == [0.0] * 4
    assert bool((shares.diff(dim=0) >= 0).all())


def test_elastic_bounds_matter_from_the_second_update_on():
    world = make_world(seed=0, num_seeds=2)
    elastic = {"trust_region": "elastic"}
    once = [ends(course(Contestant("", settings), world)) for settings in ({}, elastic)]
    often = [ends(course(Contestant("", settings, 4), world)) for settings in ({}, elastic)]
    assert once[0] == once[1]
    assert often[0] != often[1]
    assert often[0] != once[0]


def test_equal_weight_takes_away_a_factor_and_nothing_else():
    world = make_world(seed=0, num_seeds=2)
    scaled = [Contestant("", {"weighting": ["hadw"], "hadw": {"scale": scale}}) for scale in (1.0, 2.0)]
    plain = [ends(course(one, world)) for one in scaled]
    leveled = [ends(course(one, world, equal_weight=True)) for one in scaled]
    assert plain[0] != plain[1]
    for figure, values in leveled[0].items():
        assert values == pytest.approx(leveled[1][figure], abs=1e-6)
    assert leveled[0] != ends(course(CONTESTANTS[0], world, equal_weight=True))


def test_samples_follow_the_policy():
    mass = torch.tensor([0.7, 0.0, 0.3], dtype=torch.float64)
    drawn = sample(mass.log().expand(1, 3000, 3), [torch.Generator().manual_seed(0)])
    assert drawn.shape == (1, 3000, GROUP_SIZE)
    counts = drawn.flatten().bincount(minlength=3) / drawn.numel()
    # 24,000 draws: one standard error is 0.003.
    assert counts.tolist() == pytest.approx(mass.tolist(), abs=0.012)
    assert int(counts[1]) == 0


def test_figures_by_hand():
    # Two prompts: (1/2, 1/4 | 1/4) with the first trajectory seen, and one that is 0.995 sure of a wrong answer.
    mass = torch.tensor([[[0.5, 0.25, 0.25], [0.004, 0.001, 0.995]]], dtype=torch.float64)
    correct = torch.tensor([[True, True, False], [True, True, False]])
    seen = torch.tensor([[[True, False, True], [False, False, True]]])
    found = measure(mass.log(), seen, correct)
    first = 0.5 * math.log(2) + 0.5 * math.log(4)
    second = -sum(p * math.log(p) for p in (0.004, 0.001, 0.995))
    assert found.entropy.tolist() == pytest.approx([(first + second) / 2])
    assert found.discovered.tolist() == [0.25]
    assert found.unseen.tolist() == pytest.approx([(0.25 + 0.005) / 2])
    assert found.pass_1.tolist() == pytest.approx([(0.75 + 0.005) / 2])
    assert found.pass_k.tolist() == pytest.approx([(1 - 0.25**16 + 1 - 0.995**16) / 2])
    assert found.collapsed.tolist() == [0.5]


def test_a_right_answer_that_is_certain_is_no_collapse():
    world = World(torch.tensor([[[9.0, 0.0]]], dtype=torch.float64), torch.tensor([[True, False]]))
    assert measure(world.logits, torch.zeros(1, 1, 2, dtype=torch.bool), world.correct).collapsed.tolist() == [0.0]


def test_every_expectation_is_about_a_method_and_a_figure_that_exist():
    for one in EXPECTATIONS:
        assert {one.method, one.other} <= set(NAMES)
        assert one.figure in FIGURES


@pytest.mark.parametrize(
    ("mine", "sign", "words"),
    [
        ((0.61, 0.72), +1, "as expected"),
        ((0.61, 0.72), -1, "opposite"),
        ((0.4, 0.9), +1, "not separated"),
        ((0.5, 0.6), +1, "equal"),
        # With two seeds t is 12.7: differences of 0.1 and 0.12 are 0.11 ± 0.127.
        ((0.6, 0.72), +1, "not separated"),
    ],
)
def test_outcomes_are_told_from_the_interval(mine, sign, words):
    race = race_of(GRPO=(0.5, 0.6), mine=mine)
    assert outcome(race, Expectation("paper", "mine", "pass_1", sign)) == words


def test_one_seed_allows_no_verdict():
    race = Race({name: {0: measured(pass_1=[value])} for name, value in (("GRPO", 0.5), ("mine", 0.9))})
    assert outcome(race, Expectation("paper", "mine", "pass_1", +1)) == "one seed: no interval"


def test_findings_are_written_from_the_numbers():
    low, high = race_of(GRPO=(0.5, 0.6), **{"HA-DW": (0.1, 0.2)}), race_of(GRPO=(0.5, 0.6), **{"HA-DW": (0.8, 0.9)})
    # Four updates go furthest, and are not compared with one.
    full = dict.fromkeys(NAMES, low.courses["GRPO"]) | {
        "ETR (reconstructed), 4 updates": {5: measured(pass_1=[1.0, 1.0])}
    }
    sentences = findings(Race(full | low.courses), Race(full | high.courses))
    assert "4 updates" not in "".join(sentences)
    assert "lowest with HA-DW (0.150)" in sentences[0]
    assert "pass@1 ends highest with HA-DW (0.850)" in sentences[1]
    assert "1 opposite" in sentences[0]
    assert "1 as expected" in sentences[1]
    assert sentences[2].startswith("No prompt of any method collapsed")
    fallen = {5: measured(collapsed=[0.0, 0.5])}
    assert findings(Race(full), Race(full | {"HA-DW": fallen}))[2].endswith("wrong trajectory) with: HA-DW.")


def test_tables_show_signed_differences_and_mark_those_that_exclude_zero():
    race = race_of(GRPO=(0.5, 0.6), apart=(0.4, 0.5), near=(0.4, 0.9))
    table = difference_table(race, caption="")
    cells = {row[0]: row[1] for row in table.rows}
    assert cells["apart"] == Badge("\u22120.100 ± 0.000")
    assert isinstance(cells["near"], str)
    assert "GRPO" not in cells
    full = Race(dict.fromkeys(NAMES, race.courses["GRPO"]))
    assert len(expectation_table(full, full).rows) == len(EXPECTATIONS)
    assert written(estimate([0.0000123]), "unseen") == "0.000012"


def test_equal_success_is_read_between_measurements():
    # pass@1 goes 0.2 -> 0.6 over 10 steps: 0.5 is three quarters on, at entropy 2 - 0.75.
    ran = {0: measured(pass_1=[0.2], entropy=[2.0]), 10: measured(pass_1=[0.6], entropy=[1.0])}
    found = reaching(ran, 0, level=0.5)
    assert (found["steps"], found["entropy"]) == (pytest.approx(7.5), pytest.approx(1.25))
    assert reaching(ran, 0, level=0.1)["steps"] == 0
    assert reaching(ran, 0, level=0.7) is None
    (row,) = level_table(Race({"GRPO": ran}), level=0.7).rows
    assert row[:3] == ("GRPO", "0 of 1", "–")


def test_a_race_starts_everyone_alike():
    race = run_race(seed=0, num_seeds=2, num_steps=2, equal_weight=False, contestants=CONTESTANTS[:3])
    starts = [vars(found[0])["pass_1"].tolist() for found in race.courses.values()]
    assert starts[0] == starts[1] == starts[2]
    assert list(race.courses) == NAMES[:3]
