import json

import pytest
from typer.testing import CliRunner

from mm_agrae.cli.main import app
from mm_agrae.errors import DataError

RIGHT = {"id": "right", "prediction": "\\boxed{\\sqrt{12}}", "gold": "2\\sqrt{3}", "answer_type": "math"}
WRONG = {"id": "wrong", "prediction": "\\boxed{6}", "gold": "5", "answer_type": "integer", "category": "number"}
# Passes the guards, and computer algebra does not come back from it.
BOMB = {"id": "bomb", "prediction": "\\boxed{x\\sqrt{3.5\\sqrt{\\sqrt{2}}}}", "gold": "x\\ln(7)", "answer_type": "math"}


@pytest.fixture
def run(tmp_path):
    def invoke(*records, options=()):
        file = tmp_path / "cases.jsonl"
        file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        return CliRunner().invoke(app, ["verify", str(file), *options])

    return invoke


def test_agreement_ends_with_code_0(run):
    result = run({**RIGHT, "expected": True}, {**WRONG, "expected": False})
    assert result.exit_code == 0
    assert result.output.endswith("2 of 2 agree\n")


def test_a_disagreement_is_shown_and_ends_with_code_1(run):
    result = run({**WRONG, "expected": True})
    assert result.exit_code == 1
    assert "wrong (generic, number): wrong, but labelled correct" in result.output
    assert "  answer      '6'" in result.output
    assert result.output.endswith("0 of 1 agree\n")


def test_json_and_nothing_else_on_standard_output_with_a_bomb_in_the_file(run):
    result = run(
        {**RIGHT, "expected": True},
        {**BOMB, "expected": True},
        {**WRONG, "expected": False},
        options=("--json", "--timeout-s", "0.5", "--workers", "1"),
    )
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert (shown["total"], shown["agree"]) == (3, 2)
    assert [(one["id"], one["status"], one["rule"]) for one in shown["disagreements"]] == [
        ("bomb", "timeout", "box/timeout")
    ]


def test_a_bad_line_is_an_error_of_the_file(run):
    result = run({**RIGHT, "expected": True}, WRONG)
    assert isinstance(result.exception, DataError)
    assert 'cases.jsonl, line 2 has no "expected"' in str(result.exception)
    assert result.stdout == ""


def test_an_empty_file_has_no_disagreement(run):
    result = run(options=("--json",))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["total"] == 0


def test_the_help_tells_the_exit_codes():
    result = CliRunner().invoke(app, ["verify", "--help"])
    assert "1 when some do not" in " ".join(result.output.split())
