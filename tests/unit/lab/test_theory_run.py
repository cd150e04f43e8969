"""The whole command: files, verdicts, text."""

import json
import re

import pytest
import torch

from mm_agrae.errors import ConfigError
from mm_agrae.lab.theory import run as theory
from mm_agrae.lab.theory.claim import Case, Claim
from mm_agrae.lab.theory.page import value_text

RIGHT = Claim(
    id="A1",
    title="Right",
    statement="One is one.",
    formula="1 = 1",
    cases=(Case(parameters="only", closed=1.0, observe=lambda generator: torch.ones(1)),),
)
WRONG = Claim(
    id="A2",
    title="Wrong",
    statement="Half is <b>two</b>.",
    formula="½ = 2",
    caveat="It is not.",
    cases=(
        Case(parameters="half", closed=2.0, observe=lambda generator: torch.rand(100, generator=generator)),
        Case(parameters="whole", closed=1.0, observe=lambda generator: torch.ones(1)),
    ),
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    def call(*claims, folder="out"):
        monkeypatch.setattr(theory, "all_claims", lambda: list(claims))
        lines = []
        holds = theory.run_theory(tmp_path / folder, num_seeds=2, num_steps=3, log=lines.append)
        return holds, (tmp_path / folder / "theory.html").read_text("utf-8"), "\n".join(lines)

    return call


def test_claims_that_hold_give_true_a_page_and_a_table(run, tmp_path):
    holds, page, text = run(RIGHT)
    assert holds is True
    assert "1 of 1 cases pass." in text
    assert "FAIL" not in text
    assert "badge bad" not in page.split("Bandit against")[0]
    for words in ("One is one.", "1 = 1", "ETR here is a reconstruction", "A-GRAE, α = 0.5", "unseen correct mass"):
        assert words in page
    assert not re.findall(r"<script|https?://|url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    found = json.loads((tmp_path / "out" / "theory.json").read_text("utf-8"))
    assert found["claims"][0]["cases"][0]["passed"] is True
    assert set(found["bandit"]["same_rate"]) == set(found["bandit"]["equal_weight"])
    assert found["bandit"]["same_rate"]["HA-DW"]["final"]["pass_1"]["half_width"] > 0
    assert len(found["bandit"]["findings"]) == 3


def test_a_claim_that_fails_shows_everywhere_and_gives_false(run, tmp_path):
    holds, page, text = run(RIGHT, WRONG)
    assert holds is False
    assert "2 of 3 cases pass, 1 FAIL." in text
    assert "the interval misses the computed value" in text
    assert '<span class="badge bad">1 failed</span>' in page
    assert '<span class="badge bad">fail: the interval misses the computed value</span>' in page
    assert "Note. It is not." in page
    assert "<b>two</b>" not in page
    cases = json.loads((tmp_path / "out" / "theory.json").read_text("utf-8"))["claims"][1]["cases"]
    assert [case["passed"] for case in cases] == [False, True]
    # The same seed gives the same files.
    run(RIGHT, WRONG, folder="again")
    for name in ("theory.html", "theory.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("numbers", [{"num_seeds": 0}, {"num_steps": 0}])
def test_a_bandit_without_seeds_or_steps_is_refused(tmp_path, numbers):
    with pytest.raises(ConfigError, match="needs 1 or more of each"):
        theory.run_theory(tmp_path, **numbers)
    assert list(tmp_path.iterdir()) == []


def test_values_have_true_minus_signs_and_no_negative_zero():
    assert [value_text(value) for value in (None, -0.5, -1e-9, 0.123456)] == [
        "–",
        "\u22120.50000",
        "0.00000",
        "0.12346",
    ]
