"""Answer keys: would the verifier reward a completion that states the target?"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from mm_agrae.preflight.findings import Findings, Place
from mm_agrae.records import IMAGE_MARK, Sample
from mm_agrae.verify import Question, VerifierPool
from mm_agrae.verify.profiles import Source, profile_named
from mm_agrae.verify.verifier import is_formatted

PLACEHOLDERS = ("", "none", "null", "nan", "?")
NUMERIC = ("integer", "decimal", "fraction", "percent", "year", "time", "quantity")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# How a target is stated where a profile looks for it; the box comes first because it is what prompts ask for.
_STATED: Mapping[Source, str] = {
    "box_or_tag": "\\boxed{{{}}}",
    "box": "\\boxed{{{}}}",
    "hashes": "#### {}",
    "strict_hashes": "#### {}",
    "answer_line": "Answer: {}",
    "phrase": "The answer is {}",
}


def check_answers(
    rows: Sequence[tuple[Place, Sample]], *, profile: str, pool: VerifierPool, findings: Findings
) -> None:
    """Check the targets of some rows of one data set.

    Args:
        rows: Samples with their places.
        profile: Scoring profile of the set.
        pool: Judges; its deadline bounds what a malformed target can cost.
        findings: Receives placeholder_target, kind_mismatch, letter_beyond_options, ambiguous_target,
            duplicate_options and unverified_target. A placeholder and a letter without an option are not judged on top.
    """
    judged = []
    for place, sample in rows:
        found = list(_read(sample))
        for kind, note in found:
            findings.add(kind, place, note)
        if not {"placeholder_target", "letter_beyond_options"} & {kind for kind, _ in found}:
            judged.append((place, sample))
    texts = [stated(sample.target, profile) for _, sample in judged]
    verdicts = pool.verify_all(texts, [Question.of(sample, profile=profile) for _, sample in judged])
    for (place, sample), verdict in zip(judged, verdicts, strict=True):
        key = f"target {_shown(sample.target)}, kind {sample.answer_kind}"
        if not verdict.correct:
            findings.add("unverified_target", place, f"{key}: {verdict.status} by rule {verdict.rule}")
        # An equal text is always right, so a key whose braces break the box would pass unseen.
        elif not is_formatted(f"\\boxed{{{sample.target}}}"):
            findings.add("unverified_target", place, f"{key}: \\boxed{{...}} around it does not close where it should")


def stated(target: str, profile: str) -> str:
    """A completion that states the target where the profile looks for answers; the bare target if nowhere special."""
    sources = profile_named(profile).sources
    form = next((form for source, form in _STATED.items() if source in sources), "{}")
    return form.format(target)


def _read(sample: Sample) -> Iterator[tuple[str, str]]:
    """What can be seen without a verifier, as kind and note."""
    if sample.target.strip().casefold() in PLACEHOLDERS:
        yield "placeholder_target", f"target {_shown(sample.target)}"
        return
    if not _is_of_kind(sample):
        yield "kind_mismatch", f"target {_shown(sample.target)}, kind {sample.answer_kind}"
    if sample.answer_kind not in ("choice", "choices") or not sample.options:
        return
    letters = LETTERS[: len(sample.options)]
    right = [letter.strip().upper() for letter in sample.target.split(",")]
    if missing := [letter for letter in right if len(letter) != 1 or letter not in letters]:
        note = f"target {', '.join(map(_shown, missing))}, options {letters[0]} to {letters[-1]}"
        yield "letter_beyond_options", note
        return
    for text, alike in _same_options(sample.options).items():
        kind = "ambiguous_target" if set(alike) & set(right) and not set(alike) <= set(right) else "duplicate_options"
        yield kind, f"options {', '.join(alike)} are all {_shown(text)}, target {sample.target}"


def _is_of_kind(sample: Sample) -> bool:
    """Whether the target can be what its kind says; equal texts are judged correct whatever they are."""
    if sample.answer_kind == "yes_no":
        return sample.target.strip().casefold() in ("yes", "no")
    return sample.answer_kind not in NUMERIC or any(char.isdigit() for char in sample.target)


def _same_options(options: Sequence[str]) -> dict[str, list[str]]:
    """Texts that stand under several letters. Options that are pictures are not compared."""
    letters_of: dict[str, list[str]] = {}
    for letter, option in zip(LETTERS, options, strict=False):
        # Not casefolded and not NFKC: "Aa" is not "AA", and x² is not x2.
        letters_of.setdefault(" ".join(unicodedata.normalize("NFC", option).split()), []).append(letter)
    return {text: letters for text, letters in letters_of.items() if len(letters) > 1 and text != IMAGE_MARK}


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
