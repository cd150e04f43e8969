"""What the fault table says of rows that were not tried or not measured, and of faults that never happened."""

from __future__ import annotations

import json
import os
import sys
from unittest.mock import patch

import pytest

with patch.dict(os.environ):  # the script settles the environment of its processes
    import fault_rows_services as services
    import fault_table

from fault_rows import Row
from faults import Ended

HOLDS = Row(fault="a", ended="goes on", lost="nothing", repeated=0, recover_s=1.0, holds=True)
FAILS = Row(fault="b", ended="goes on", lost="weights differ", repeated=0, recover_s=None, holds=False)
UNTRIED = Row(fault="c", ended="not tried", lost="not measured", repeated=0, recover_s=None, holds=None)


def run(monkeypatch: pytest.MonkeyPatch, *words: str, found: list[Row]) -> int:
    """The script, with these rows for what it measures."""
    monkeypatch.setattr(fault_table, "table", lambda folder, names: iter(found))
    monkeypatch.setattr(fault_table, "seconds_to_start", lambda: 0.0)
    monkeypatch.setattr(sys, "argv", ["fault_table.py", *words])
    return fault_table.main()


@pytest.mark.parametrize(
    ("found", "status", "holds"),
    [([HOLDS], 0, True), ([HOLDS, UNTRIED], 3, None), ([UNTRIED, FAILS], 1, False)],
)
def test_what_was_not_tried_is_no_success(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: list[Row],
    status: int,
    holds: bool | None,
) -> None:
    assert run(monkeypatch, "--json", found=found) == status
    assert json.loads(capsys.readouterr().out)["holds"] is holds


def test_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, found=[HOLDS, FAILS, UNTRIED])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("; 1.0 s; goes on")
    assert lines[1].endswith("; not measured; goes on  DOES NOT HOLD")
    assert lines[2].endswith("NOT TRIED")


def test_a_word_that_names_no_row_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--only", "memory", "--only", "typo", found=[])
    assert ended.value.code == 2
    assert "no row's name holds typo. Rows: killed in the rollout, " in capsys.readouterr().err
    assert fault_table.named(["memory", "once"]) == ["out of memory in the update", "gradient NaN once"]


@pytest.mark.parametrize(
    ("said", "holds"), [("It is waited for, 60 s at most. server answers again.", True), ("all went well", False)]
)
def test_a_fault_that_never_reached_the_run_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, said: str, holds: bool
) -> None:
    monkeypatch.setattr(services, "left_alone", lambda bench: (None, 1.0, None))
    monkeypatch.setattr(services, "served", lambda *given: (None, 3.5, Ended(status=0, said=said)))
    monkeypatch.setattr(services, "difference", lambda run, straight: "")
    monkeypatch.setattr(services.same_run, "groups", lambda run: {})
    row = services.server_row(None, "server", lambda server, start: server)  # type: ignore[arg-type]
    assert (row.holds, row.recover_s, row.lost) == (holds, 2.5, "nothing")
