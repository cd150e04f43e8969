"""Throw arbitrary and half-sensible texts at the verifier: nothing may raise, hang or contradict itself.

    pip install -e '.[fuzz]'
    python scripts/fuzz_verifier.py                      ten minutes, one process
    python scripts/fuzz_verifier.py --seconds 60 --seed 1

Coverage guides the inputs (atheris, libFuzzer). What needs no computer algebra runs in this process; half of the time
at most is spent on algebra, in a pool. Looked for, each kind of finding shown once:

- an exception, or more than a second of processor time for at most 20,000 characters;
- an answer that does not stand in the text where its span says;
- a target that is not equal to itself, and a comparison that depends on its direction (profile generic);
- a worker that dies, and a pool that answers later than its deadline and a second.

Ends with code 1 when something was found. An input that never ends is written to a file "timeout-..." by libFuzzer.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import atheris

# Without the hook for regular expressions: under it a pattern takes no start offset.
with atheris.instrument_imports(include=["mm_agrae.verify"]):
    from mm_agrae.records import AnswerKind, Tolerance, Verdict
    from mm_agrae.verify.agreement import Case, read_cases
    from mm_agrae.verify.outcome import Outcome
    from mm_agrae.verify.pool import VerifierPool
    from mm_agrae.verify.profiles import PROFILES
    from mm_agrae.verify.question import Question
    from mm_agrae.verify.verifier import Pending, begin, compare_answer

CASES = Path(__file__).parent.parent / "tests" / "data" / "verifier_cases.jsonl"
MAX_BYTES, MAX_CHARS = 1024, 20_000
SLOW_S, DEADLINE_S = 1.0, 1.0
KINDS = get_args(AnswerKind)
NAMES = tuple(PROFILES)
TOLERANCES = (
    None, None, None, Tolerance(kind="round", value=2), Tolerance(kind="absolute", value=0.001),
    Tolerance(kind="relative", value=0.05),
)  # fmt: skip
OPTIONS = ((), ("3/11", "8/11", "6/11", "3/5"), ("A", "B", "C", "D", "E"), ("yes", "no"), ("50°", "60°", "", "50°"))
SYMMETRIC = {
    "math", "integer", "decimal", "fraction", "expression", "interval", "set", "tuple", "list", "matrix", "coordinate",
    "text", "yes_no",
}  # fmt: skip
# A byte stands for one of these in half of the inputs, so that mutations make formulas and not only noise.
TOKENS = (
    "",  # the zero byte parts text and target
    *"0123456789+-*/=^_(){}[]<>|,.;:!?$%&#°√π×÷≤≥≠≈∞·−①②③④⑤掳米度厘",
    *"abcdeixyzABCDE \n", "\\boxed{", "\\fbox{", "\\boxed ", "\\frac{", "\\frac", "\\dfrac{", "\\sqrt{", "\\sqrt[3]{",
    "\\pi", "^{\\circ}", "^\\circ", "\\%", "\\text{", "\\mathrm{ cm}", "\\left(", "\\right)", "\\left[", "\\right\\}",
    "\\{", "\\}", "\\(", "\\)", "\\[", "\\]", "\\pm", "\\cup", "\\in", "\\infty", "\\le", "\\ge", "\\ne", "\\times",
    "\\cdot", "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "\\log_", "\\ln", "\\sin", "\\,", "\\!", "{,}", "e5", "10^",
    "^{", "_{", "1,000", "1 000", "0.5", "3.14159", "12:30", "2010", "99999999999999999999", "<answer>", "</answer>",
    "####", "Answer: ", "The answer is ", "answer", "答案是", "故选", "(A)", "(B)", "**C**", "A, C", "A and B", "yes",
    "No", "None", "nan", "inf", "million", " cm", " meters", " miles", " kg", "dollars", "years", '{"short answer": "',
    '"}', "[1, 2]", "x=", "x \\in ", "or", "and", "is", "not", "because", "\x0c", "\u00a0", "\u3000", "！", "，", "。",
)  # fmt: skip


def decoded(data: bytes) -> tuple[str, Question]:
    """A text and its question: five bytes of choices, then the text and the target with a zero byte between them."""
    head = data[:5].ljust(5, b"\0")
    prediction, _, gold = data[5:].partition(b"\0")
    times = 1 << (head[4] // 32)
    question = Question(
        target=_text(gold, head[3]) or "5",
        answer_kind=KINDS[head[1] % len(KINDS)],
        options=OPTIONS[head[2] % len(OPTIONS)],
        tolerance=TOLERANCES[head[3] // 2 % len(TOLERANCES)],
        profile=NAMES[head[0] % len(NAMES)],
    )
    return (_text(prediction, head[3]) * times)[:MAX_CHARS], question


def _text(data: bytes, mode: int) -> str:
    if mode % 2:
        return "".join(TOKENS[byte % len(TOKENS)] for byte in data)
    return data.decode("utf-8", errors="surrogateescape")


def encoded(case: Case, *, as_tokens: bool) -> bytes:
    """A labelled case as a first input."""
    question = case.question
    head = bytes(
        [NAMES.index(question.profile), KINDS.index(question.answer_kind), bool(question.options), as_tokens, 0]
    )
    texts = (case.prediction, question.target)
    return head + b"\0".join(_tokenised(text) if as_tokens else text.encode() for text in texts)


def _tokenised(text: str) -> bytes:
    """The longest token at every place, as bytes; what no token covers is left out."""
    found, place = bytearray(), 0
    while place < len(text):
        token = max((token for token in TOKENS[1:] if text.startswith(token, place)), key=len, default="")
        if token:
            found.append(TOKENS.index(token))
        place += len(token) or 1
    return bytes(found)


class Fuzzer:
    """Judges inputs, and keeps the first input of every kind of finding."""

    def __init__(self, pool: VerifierPool, *, seconds: float) -> None:
        self.pool = pool
        self.counts: Counter[str] = Counter()
        self.findings: dict[str, str] = {}
        self.slowest_s = 0.0
        self.algebra_s = 0.0
        self.begun = time.monotonic()
        self.end = self.begun + seconds

    def __call__(self, data: bytes) -> None:
        if time.monotonic() >= self.end:
            self.finish()
        text, question = decoded(data)
        self.counts["inputs"] += 1
        before = time.process_time()
        try:
            first = self.check(text, question)
        except Exception as error:  # a finding of any type
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.find(f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {error}", text, question)
            return
        spent = time.process_time() - before
        self.slowest_s = max(self.slowest_s, spent)
        if spent > SLOW_S:
            self.find(f"slow in profile {question.profile}, kind {question.answer_kind}", text, question)
        if isinstance(first, Pending):
            self.counts["need algebra"] += 1
            if self.algebra_s < (time.monotonic() - self.begun) / 2:
                self.compute(text, question)

    def check(self, text: str, question: Question) -> Verdict | Pending:
        """Everything that needs no algebra."""
        first = begin(text, question)
        if isinstance(first, Verdict):
            self.counts[first.status] += 1
            found = first.answer, first.span
        else:
            found = first.extraction.answer, first.extraction.span
        answer, span = found
        if answer is not None and (span is None or text[slice(*span)] != answer):
            self.find(f"span in profile {question.profile}", text, question)
        if question.profile == "generic" and answer is not None:
            self.check_relation(answer, text, question)
        return first

    def check_relation(self, answer: str, text: str, question: Question) -> None:
        target = question.target
        if target.strip():
            itself = compare_answer(target, question)
            if isinstance(itself, Outcome) and not itself.equal:
                self.find(f"unequal to itself as {question.answer_kind} by {itself.rule}", text, question)
        if question.answer_kind in SYMMETRIC and question.tolerance is None:
            plain = Question(target=target, answer_kind=question.answer_kind)
            there = compare_answer(answer, plain)
            back = compare_answer(target, Question(target=answer, answer_kind=question.answer_kind))
            if isinstance(there, Outcome) and isinstance(back, Outcome) and there.equal != back.equal:
                rules = " and ".join(sorted({there.rule, back.rule}))
                self.find(f"one-sided as {question.answer_kind} by {rules}", text, question)

    def compute(self, text: str, question: Question) -> None:
        """Algebra, in the pool."""
        begun = time.monotonic()
        (verdict,) = self.pool.verify_all([text], [question])
        spent = time.monotonic() - begun
        self.algebra_s += spent
        self.counts["algebra"] += 1
        self.counts[f"algebra {verdict.status}"] += 1
        if verdict.rule.endswith(("worker_died", "memory")):
            self.find(verdict.rule.rpartition("/")[2], text, question)
        if verdict.seconds > DEADLINE_S + 1:
            self.find("later than the deadline and a second", text, question)
        if verdict.status == "timeout":
            self.find("timeout", text, question, is_fault=False)

    def find(self, what: str, text: str, question: Question, *, is_fault: bool = True) -> None:
        self.counts[f"{'FINDING' if is_fault else 'seen'} {what}"] += 1
        if what not in self.findings:
            shown = text if len(text) <= 600 else text[:600] + f"... ({len(text)} characters)"
            self.findings[what] = f"{shown!r}\n    {question!r}"
            print(f"{'FINDING' if is_fault else 'seen'}: {what}\n    {self.findings[what]}", flush=True)

    def finish(self) -> None:
        """Print the counts and end the process; libFuzzer would go on."""
        self.pool.close()
        print(f"\n{time.monotonic() - self.begun:.0f} s; slowest without algebra {self.slowest_s:.2f} s")
        for name, count in self.counts.items():
            print(f"{count:10,}  {name}")
        sys.stdout.flush()
        os._exit(any(name.startswith("FINDING") for name in self.counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long")
    parser.add_argument("--seed", type=int, default=1, help="decides the mutations")
    chosen = parser.parse_args()
    pool = VerifierPool(num_workers=1, timeout_s=DEADLINE_S)
    # Workers start, and import the algebra, before the clock does.
    pool.verify_all(["\\boxed{\\sqrt{12}}"], [Question(target="2\\sqrt{3}", answer_kind="expression")])
    fuzzer = Fuzzer(pool, seconds=chosen.seconds)
    with TemporaryDirectory() as corpus:
        with CASES.open("rb") as lines:
            for number, case in enumerate(read_cases(lines, source=CASES.name)):
                (Path(corpus) / f"{number}").write_bytes(encoded(case, as_tokens=False))
                (Path(corpus) / f"{number}_tokens").write_bytes(encoded(case, as_tokens=True))
        limits = [f"-max_len={MAX_BYTES}", "-timeout=30", "-rss_limit_mb=4096", f"-seed={chosen.seed}", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *limits, corpus], fuzzer)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
