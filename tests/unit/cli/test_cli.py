"""The command line before any job: help without torch, sources of problems."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mm_agrae.cli.load import load_samples
from mm_agrae.config.schema import DataSource
from mm_agrae.errors import DataError


def test_help_imports_no_heavy_library() -> None:
    program = (
        "import sys\n"
        "sys.argv = ['mm-agrae', '--help']\n"
        "from mm_agrae.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'matplotlib', 'wandb', 'sympy'}\n"
        "    print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "HEAVY []" in ended.stdout
    for command in ("train", "sft", "eval", "report", "data", "model"):
        assert command in ended.stdout


def test_a_source_keeps_what_it_asks_for(gym_folder: Path) -> None:
    everything = load_samples(DataSource(path=str(gym_folder)))
    assert len(everything) == 64
    charts = load_samples(DataSource(path=str(gym_folder), families=("charts",)))
    assert {sample.family for sample in charts} == {"charts/tallest_bar"}
    exact = load_samples(DataSource(path=str(gym_folder), families=("charts/tallest_bar",)))
    assert [sample.id for sample in exact] == [sample.id for sample in charts]
    assert 0 < len(charts) < 64
    hard = load_samples(DataSource(path=str(gym_folder), difficulties=(4, 5), limit=3))
    assert len(hard) == 3
    assert {sample.difficulty for sample in hard} <= {4, 5}
    assert [s.id for s in hard] == [s.id for s in everything if s.difficulty in (4, 5)][:3]


def test_a_name_that_only_begins_alike_is_another_family(gym_folder: Path) -> None:
    with pytest.raises(DataError, match=r"no problem of families \['chart'\]"):
        load_samples(DataSource(path=str(gym_folder), families=("chart",)))
