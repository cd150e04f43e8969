"""The page of `mm-agrae lab theory`: claims with their cases, and what the bandit showed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm_agrae.lab.bandit.figures import (
    Race,
    charts,
    difference_table,
    expectation_table,
    final_table,
    findings,
)
from mm_agrae.lab.bandit.level import level_table
from mm_agrae.lab.bandit.run import (
    COLLAPSED,
    CONFIDENT,
    GROUP_SIZE,
    LEARNING_RATE,
    NUM_CORRECT,
    NUM_TRAJECTORIES,
    SUCCESS,
)
from mm_agrae.lab.theory.claim import AGREEMENT, FALSE_ALARM, ROUNDING, Claim, Row
from mm_agrae.report.page import Badge, Section, Table, write_page

CLAIM_HEADERS = ("Case", "Closed form", "Enumerated", "Observed", "Interval", "Draws", "Verdict")
LEAD = (
    "What group-relative estimators do, as claims with a formula. Every value is computed in plain arithmetic and "
    "observed by passing drawn groups through the functions that training uses. H1 to H5 are facts of sampling: of "
    "the library they need only its success rate and its idea of a mixed group. Beside it, a small softmax bandit that "
    "every estimator learns."
)
SYMBOLS = (
    ("G, k, p̂", "rollouts of a group, the correct ones among them, its success rate k / G"),
    ("p, S, Z", "success probability of one rollout; a group is mixed, 0 < k < G; probability that it is"),
    ("Â, A", "base advantage (r - mean) / std of the group, Dr.GRPO without std; the advantage after weighting"),
    ("ω, α, w", "accuracy of the batch, A-GRAE's threshold for it, min(1, ω / α)"),
    ("π_b, Δ", "probability of trajectory b under a softmax over trajectories; change by a gradient step of length 1"),
    ("C, λ", "HA-DW's anchor, what is expected of a batch, and its scale"),
    ("ρ, ε", "policy ratio and how far it may leave 1"),
)
LEVEL = 0.6
AT_LEVEL = (
    "After a fixed number of steps a fast learner has spent more entropy than a slow one. This table stops every "
    "method at the same pass@1 instead, with the same learning rate."
)
BANDIT_CAVEATS = (
    "Prompts share no parameters: nothing is learnt on one that helps on another, and only the batch accuracy and "
    "the anchor tie them together. Nor do trajectories: a wrong one never rises for being like a correct one. What a "
    "language model does with these estimators can differ in size and in order.",
    "ETR here is a reconstruction: the paper's equations were not available. Intervals are 95 % t-intervals over "
    "seeds, differences are paired by seed; with this many of them, a few exclude 0 by chance. A badge marks a "
    "difference whose interval excludes 0.",
)


def write_theory_page(
    path: Path, claims: Sequence[Claim], rows: Sequence[Row], plain: Race, leveled: Race, *, sizes: str
) -> None:
    """The page as one HTML file; `sizes` says how many seeds and steps the races had."""
    sections = [_summary(claims, rows), *claim_sections(claims, rows), *_bandit_sections(plain, leveled, sizes)]
    write_page(path, "What the algorithms do", LEAD, sections)


def claim_sections(claims: Sequence[Claim], rows: Sequence[Row]) -> list[Section]:
    """One section per claim."""
    sections = []
    for claim in claims:
        cases = [
            (
                row.parameters,
                value_text(row.closed),
                value_text(row.enumerated),
                value_text(row.observed),
                interval_text(row),
                f"{row.num_observations:,}" if row.num_observations > 1 else "exact",
                verdict(row),
            )
            for row in rows
            if row.claim == claim.id
        ]
        paragraphs = [claim.statement, claim.formula, *([f"Note. {claim.caveat}"] if claim.caveat else [])]
        table = Table(CLAIM_HEADERS, cases, numeric=range(1, 6))
        sections.append(Section(f"{claim.id}. {claim.title}", paragraphs, (table,)))
    return sections


def verdict(row: Row) -> Badge:
    """pass, or fail with its reason."""
    return Badge("pass", "good") if row.passed else Badge(f"fail: {row.reason}", "bad")


def _summary(claims: Sequence[Claim], rows: Sequence[Row]) -> Section:
    overview = []
    for claim in claims:
        own = [row for row in rows if row.claim == claim.id]
        num_failed = sum(not row.passed for row in own)
        badge = Badge(f"{num_failed} failed", "bad") if num_failed else Badge("pass", "good")
        overview.append((claim.id, claim.title, str(len(own)), badge))
    num_sampled = sum(row.num_observations > 1 for row in rows)
    return Section(
        "Claims",
        (
            count(rows),
            "Closed form and enumeration over all outcomes of a group are computed in float64 without the library, and "
            f"must agree to {AGREEMENT:g}. What is observed goes through the library. {num_sampled} values are means "
            f"over random draws: a case passes if its interval covers what was computed, and the intervals are so wide "
            f"that, if every formula is right, at most one table in {round(1 / FALSE_ALARM)} has a false alarm. The "
            f"others are free of chance and must agree within float32 rounding ({ROUNDING:g} unless the interval says "
            "otherwise).",
        ),
        (
            Table(("Id", "Claim", "Cases", "Verdict"), overview, caption="Overview", numeric={2}),
            Table(("Symbol", "Meaning"), SYMBOLS, caption="Symbols"),
        ),
    )


def _bandit_sections(plain: Race, leveled: Race, sizes: str) -> list[Section]:
    world = (
        f"{len(SUCCESS) * len(CONFIDENT)} prompts with {NUM_TRAJECTORIES} trajectories each, {NUM_CORRECT} of them "
        f"correct and each rarer than the one before. A sample is correct with probability {SUCCESS[0]} to "
        f"{SUCCESS[-1]} at first; in half of the prompts one wrong trajectory has nearly all of the rest. Every step "
        f"draws {GROUP_SIZE} rollouts per prompt and takes gradient steps of rate {LEARNING_RATE} on the logits. All "
        "methods start alike and use the same random numbers."
    )
    meaning = (
        "Discovered: fraction of all correct trajectories sampled at least once. Unseen correct mass: probability of "
        "those that never were. Collapsed: fraction of prompts with more than "
        f"{COLLAPSED} on one wrong trajectory. All figures are exact for the policy of the moment; means over prompts."
    )
    modes = (
        "Same rate: every method takes the same learning rate, so one that scales advantages up also steps further, "
        "which an optimiser that normalises its steps, as Adam does, would largely undo. Equal weight: every batch's "
        "advantages are scaled to the Σ|A| of plain GRPO, so methods differ only in where they put weight; this takes "
        "away positive dominance's larger steps and HA-DW's λ."
    )
    return [
        Section("Bandit", (f"{sizes}. {world}", meaning, modes, *findings(plain, leveled), *BANDIT_CAVEATS)),
        Section("Bandit against the papers", (), (expectation_table(plain, leveled),)),
        Section("Bandit at equal success", (AT_LEVEL,), (level_table(plain, level=LEVEL),)),
        Section(
            "Bandit, same rate",
            (),
            (
                final_table(plain, caption=f"At the end, mean ± 95 % t-interval, {sizes}"),
                difference_table(plain, caption="Paired differences to GRPO"),
            ),
            charts(plain, slug="rate", num_updates=(1, 4)),
        ),
        Section(
            "Bandit, equal weight",
            (),
            (
                final_table(leveled, caption=f"At the end, mean ± 95 % t-interval, {sizes}"),
                difference_table(leveled, caption="Paired differences to GRPO"),
            ),
            # Methods with four updates have no weighting: equal weight leaves them as they are.
            charts(leveled, slug="weight", num_updates=(1,)),
        ),
    ]


def count(rows: Sequence[Row]) -> str:
    num_failed = sum(not row.passed for row in rows)
    return f"{len(rows) - num_failed} of {len(rows)} cases pass" + (f", {num_failed} FAIL." if num_failed else ".")


def value_text(value: float | None) -> str:
    if value is None:
        return "–"
    # Adding 0 takes the sign off what rounds to -0.
    return f"{round(value, 5) + 0.0:.5f}".replace("-", "\u2212")


def interval_text(row: Row) -> str:
    half_width = (row.high - row.low) / 2
    if row.num_observations == 1 or half_width < 1e-5:
        return f"± {half_width:.1g}"
    return f"[{value_text(row.low)}, {value_text(row.high)}]"
