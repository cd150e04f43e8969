"""What goes wrong without an error when a group is computed once: numbered, and each number with a test of that name.

`test_trap_NN_...` anywhere below tests/ belongs to number NN, and its docstring says the trap in a sentence.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import mm_agrae

TESTS = Path(__file__).parents[1]
PACKAGE = Path(mm_agrae.__file__).parent

TRAPS = {
    1: "Positions that run on through the group instead of starting again after the prompt.",
    2: "A mask that the library infers from positions, which cuts completions off their prompt.",
    3: "A causal diagonal that starts in the wrong corner where there are fewer queries than keys.",
    4: "Two attentions merged by their log-sum-exp under autograd, whose kernels drop the gradient of the log-sum-exp.",
    5: "Shared keys and values copied by an index, whose gradient adds up in low precision and in no fixed order.",
    6: "A recurrent layer that reads completions side by side as one sequence.",
    7: "A recurrent cache that overwrites a state which the backward pass still needs.",
    8: "A setting in a global that is gone when a layer is computed again during the backward pass.",
    9: "Arguments of the language model's attention that reach the vision tower.",
    10: "A placeholder of an image among the tokens of a completion.",
    11: "Offsets of positions that are left over from an earlier call.",
    12: "Features of a picture that outlive the vision weights they were computed with.",
    13: "An engine that goes on with encoded pictures after the vision tower has changed.",
    14: "A mean over a micro-batch, a rank or the groups that are left, instead of over the whole batch.",
    15: "Ranks that make different numbers of forward passes while parameters are sharded.",
    16: "A head that is called outside of the module that gathers its parameters.",
    17: "Old and new log-probabilities from two layouts, whose rounding looks like a ratio.",
    18: "Compiled masks: made without gradients, made anew for every length, without a backward pass on a CPU.",
    19: "A shuffle that tears groups apart, so that nothing is shared.",
    20: "Log-probabilities of training at another temperature than those of sampling.",
    21: "Dropout, whose one mask over a shared prompt is not the masks of its copies.",
    22: "A load-balancing loss over experts, which counts a shared prompt once.",
    23: "Hidden states that a wrapper turns into fp32 for the whole batch.",
    24: "Two trainers compared while they store their weights in different precision.",
    25: "A relative error of a gradient that is zero but for rounding.",
    26: "Empty completions, and prompts, completions and groups of one; prompts padded in front.",
}

# Number -> why nothing here can fall into it; a test of this file holds the reason.
NOT_HERE = {
    18: "No mask is compiled: attention is computed in parts, and no part needs one.",
}


@cache
def named() -> dict[int, list[tuple[str, str | None]]]:
    """Name and docstring of the tests of every number."""
    found: dict[int, list[tuple[str, str | None]]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (match := re.match(r"test_trap_(\d\d)_", node.name)):
                place = f"{path.relative_to(TESTS)}::{node.name}"
                found.setdefault(int(match[1]), []).append((place, ast.get_docstring(node)))
    return found


@pytest.mark.parametrize("number", TRAPS, ids=lambda number: f"{number:02}")
def test_every_number_has_a_test_or_a_reason(number: int) -> None:
    assert (number in named()) != (number in NOT_HERE), TRAPS[number]


def test_no_test_has_a_number_without_words() -> None:
    assert set(named()) <= set(TRAPS)
    assert set(NOT_HERE) <= set(TRAPS)
    assert sorted(TRAPS) == list(range(1, 27))


def test_every_test_of_a_trap_says_what_it_is() -> None:
    silent = [place for tests in named().values() for place, words in tests if not words]
    assert not silent


def test_no_mask_is_compiled() -> None:
    """The reason of number 18."""
    users = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"flex_attention|BlockMask|create_block_mask|torch\.compile", path.read_text(encoding="utf-8"))
    ]
    assert not users
