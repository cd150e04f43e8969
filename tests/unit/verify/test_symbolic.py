import json
from dataclasses import asdict, replace

import pytest

from mm_agrae.records import Tolerance
from mm_agrae.verify import symbolic
from mm_agrae.verify.outcome import Comparison, Outcome
from mm_agrae.verify.symbolic import compare

NEAR = Tolerance(kind="absolute", value=0.05)


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("\\sqrt{12}", "2\\sqrt{3}"),
        ("x^{2}+2x+1", "(x+1)^2"),
        ("y=1+2x", "y=2x+1"),
        ("\\frac{\\pi}{2}", "\\pi/2"),
        ("5\\gex", "x\\le5"),
        ("-5i+6", "6-5i"),
    ],
)
def test_equal_by_algebra(answer, target):
    assert compare(Comparison(answer=answer, target=target)).equal


@pytest.mark.parametrize(
    ("answer", "target"), [("\\sqrt{12}", "3\\sqrt{2}"), ("x+1", "x+2"), ("x^2-y^2=1", "x^2+y^2=1"), ("f(y)", "f(x)")]
)
def test_different_by_algebra(answer, target):
    assert not compare(Comparison(answer=answer, target=target)).equal


def test_constants_of_different_value_are_not_simplified():
    stubborn = Comparison(answer="\\sqrt{3.5\\sqrt{\\sqrt{2}}}", target="\\ln(7)")  # simplify was not done in 30 s
    assert compare(stubborn).rule == "value"
    assert compare(Comparison(answer="1.41421356", target="\\sqrt{2}")).equal
    assert not compare(Comparison(answer="1.414", target="\\sqrt{2}")).equal


def test_a_tolerance_compares_values():
    assert compare(Comparison(answer="5\\sqrt{2}", target="7.1", tolerance=NEAR)).equal
    assert not compare(Comparison(answer="5\\sqrt{3}", target="7.1", tolerance=NEAR)).equal


def test_failures_are_outcomes_with_a_rule():
    assert compare(Comparison(answer="\\frac{", target="5")).rule == "unreadable_answer"
    assert compare(Comparison(answer="5", target="\\frac{")).rule == "unreadable_target"
    assert compare(Comparison(answer="x", target="5", tolerance=NEAR)) == Outcome(equal=False, rule="algebra")


def test_small_constants_are_compared_by_their_share():
    assert not compare(Comparison(answer="\\frac{1}{2^{99}}", target="\\frac{1}{2^{98}}")).equal
    assert compare(Comparison(answer="\\frac{2}{2^{99}}", target="\\frac{1}{2^{98}}")).equal
    assert not compare(Comparison(answer="0.001414", target="\\frac{\\sqrt{2}}{1000}")).equal
    assert compare(Comparison(answer="0.0014142136", target="\\frac{\\sqrt{2}}{1000}")).equal
    assert not compare(Comparison(answer="\\sqrt{2^{100}+1}", target="2^{50}")).equal  # exact: no share is forgiven
    assert compare(Comparison(answer="\\sqrt{8}-2\\sqrt{2}", target="0")).equal
    assert compare(Comparison(answer="0", target="\\sqrt{8}-2\\sqrt{2}")).equal
    assert not compare(Comparison(answer="0", target="\\sqrt{2}\\cdot10^{-9}")).equal


def test_lists_without_order_match_one_to_one():
    roots = Comparison(answer="\\sqrt{9},2,\\sqrt{4}", target="2,2,3", unordered=True)
    assert compare(roots) == Outcome(equal=True, rule="same_parts")
    assert not compare(replace(roots, answer="\\sqrt{9},2,\\sqrt{9}")).equal
    assert not compare(replace(roots, answer="\\sqrt{9},2,2,2")).equal


def test_an_alternative_is_tried_when_the_first_is_wrong():
    other = Comparison(answer="2\\sqrt{3}", target="\\sqrt{12}")
    assert compare(Comparison(answer="2\\sqrt{3}", target="3", otherwise=other)).equal
    assert not compare(Comparison(answer="2\\sqrt{3}", target="3", otherwise=replace(other, answer="3"))).equal
    sent = replace(other, tolerance=NEAR, otherwise=other)
    assert Comparison.of(json.loads(json.dumps(asdict(sent)))) == sent


def test_a_lack_of_memory_is_passed_on(monkeypatch):
    def no_memory(form, rule):
        raise MemoryError

    monkeypatch.setattr(symbolic, "_read", no_memory)
    with pytest.raises(MemoryError):
        compare(Comparison(answer="x", target="y"))


def test_text_is_never_evaluated_as_code(tmp_path):
    mark = tmp_path / "mark"
    for code in (
        f'__import__("pathlib").Path("{mark}").touch()',
        f'open("{mark}","w")',
        f'exec(\'open("{mark}","w")\')',
    ):
        assert not compare(Comparison(answer=code, target="5")).equal
        assert not compare(Comparison(answer=f"\\text{{{code}}}", target="5")).equal
    assert not mark.exists()
