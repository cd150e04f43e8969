"""Are the engine that samples and the trainer that learns one model? What is compared, by what bounds, in what words.

Of the same tokens, engine and trainer state log-probabilities. They differ by rounding where both hold the same weights
and see the same prompt, and by far more where they do not:

    gap = |log p_engine(token) - log p_trainer(token)|

With grey pictures in the place of the real ones both must change their minds, or the engine does not see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mm_agrae.store.atomic import finite_or_none

FindingKind = Literal["malformed", "log-probs", "temperature", "greedy", "pictures"]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What rounding explains, in nats: the mean gap over many tokens, and the gap of a single token."""

    mean_nats: float
    token_nats: float

    def of_prompt(self, num_tokens: float) -> float:
        """Of the mean over few tokens: one of them may be off as far as a single token may."""
        return self.mean_nats + self.token_nats / num_tokens


# Measured with the embedded engine on a CPU over 128 tokens, Qwen2.5-VL and Qwen3 of 1 and 25 million random weights:
# fp32 on both sides differs by up to 7e-7 on average and 3e-6 at most, bf16 by 9e-3 and 3e-2, and an fp32 engine beside
# a bf16 trainer, which stands for other kernels, by 1.2e-2 and 4e-2. The bounds of bf16 are four and ten times
# the last; the mean of fp32 lies below the 2e-3 that an engine in bf16 makes at least, because that is another policy.
# Of 12 prompts with 32 tokens each, the mean of the worst is up to 1.6 times that of all, and with a head that is twice
# as sharp up to 3e-2 in bf16, where 6.6e-2 pass.
BOUNDS = {"fp32": Bound(mean_nats=1e-3, token_nats=1e-2), "bf16": Bound(mean_nats=5e-2, token_nats=5e-1)}


@dataclass(frozen=True, kw_only=True)
class PictureTwin:
    """What grey pictures change, over the tokens that the greedy completions with and without pictures share.

    Attributes:
        engine: Per token, the change of its log-probability in nats, as the engine states it.
        trainer: The same by the trainer.
        parted: The two completions go on differently, so the engine saw a difference.
    """

    engine: tuple[float, ...]
    trainer: tuple[float, ...]
    parted: bool


@dataclass(frozen=True, kw_only=True)
class PromptTwin:
    """One prompt, answered by the engine and scored by the trainer.

    Attributes:
        sample_id: Whose prompt.
        engine: Log-probabilities in nats that the engine states for the tokens that it sampled.
        trainer: Those of the trainer, at the temperature of the run.
        untempered: Those of the trainer at temperature 1.
        leads: Per token of the engine's greedy completion, by how many nats the trainer prefers its own best token; 0
            where it is the same.
        picture: None where the prompt has no picture.
        malformed: What makes a completion none, in words; its tokens are in no figure.
        rank: The process that asked.
    """

    sample_id: str
    engine: tuple[float, ...]
    trainer: tuple[float, ...]
    untempered: tuple[float, ...]
    leads: tuple[float, ...]
    picture: PictureTwin | None = None
    malformed: tuple[str, ...] = ()
    rank: int = 0

    def gap_mean_nats(self) -> float | None:
        """Of its sampled tokens; None where there is none."""
        return _mean(_gaps([self], lambda twin: twin.trainer))

    def excess(self, bound: Bound) -> float:
        """Mean gap over its bound: above 1 rounding does not explain it. Infinite where it is no number."""
        mean = self.gap_mean_nats()
        if mean is None:
            return 0.0
        share = mean / bound.of_prompt(len(self.engine))
        return math.inf if math.isnan(share) else share

    def place(self) -> str:
        return f"sample {self.sample_id!r} (rank {self.rank})"


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """A difference that rounding does not explain; `text` says what it is, what it means and what to do."""

    kind: FindingKind
    text: str


@dataclass(frozen=True, kw_only=True)
class TwinReport:
    """Figures over all prompts of all processes; None where there is nothing to take them over.

    Attributes:
        gap_mean_nats, gap_max_nats: Of the sampled tokens.
        gap_prompt_nats: Mean of the prompt whose gap is the largest share of its bound.
        worst: Which prompt that is.
        greedy_agreement: Share of the engine's greedy tokens that are the trainer's most probable ones, in [0, 1].
        greedy_lead_max_nats: By how much the trainer prefers another token, at most; at least 0.
        num_pictured: Prompts with pictures.
        num_parted: Those of them whose greedy completion is another one with grey pictures.
        picture_effect_engine_nats, picture_effect_trainer_nats: Mean change by grey pictures, over the same tokens.
        bound: What the figures were held against.
        findings: What is beyond it; empty when the two are twins.
        notes: What could not be told, and why.
    """

    num_prompts: int
    num_tokens: int
    gap_mean_nats: float | None
    gap_max_nats: float | None
    gap_prompt_nats: float | None
    worst: str | None
    num_greedy_tokens: int
    greedy_agreement: float | None
    greedy_lead_max_nats: float | None
    num_pictured: int
    num_parted: int
    picture_effect_engine_nats: float | None
    picture_effect_trainer_nats: float | None
    bound: Bound
    findings: tuple[Mismatch, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values; a figure that is not finite becomes None."""
        values = asdict(self) | {"findings": [asdict(one) for one in self.findings], "notes": list(self.notes)}
        return {key: finite_or_none(value) if isinstance(value, float) else value for key, value in values.items()}

    def line(self) -> str:
        """The figures in one line."""
        if self.gap_mean_nats is None or self.gap_max_nats is None or self.gap_prompt_nats is None:
            return "twin check: nothing to compare"
        parts = [
            f"twin check: over {self.num_tokens} tokens of {self.num_prompts} prompts engine and trainer differ by "
            f"{self.gap_mean_nats:.1e} nats (prompts by at most {self.gap_prompt_nats:.1e}, tokens by at most "
            f"{self.gap_max_nats:.1e}; bound of the mean {self.bound.mean_nats:.0e})"
        ]
        if self.greedy_agreement is not None:
            parts.append(f"{100 * self.greedy_agreement:.4g} % of greedy tokens agree")
        if self.num_pictured:
            parts.append(self._pictures())
        return "; ".join(parts)

    def _pictures(self) -> str:
        parted = f"{self.num_parted} of {self.num_pictured} greedy completions"
        if self.picture_effect_engine_nats is None or self.picture_effect_trainer_nats is None:
            return f"grey pictures change {parted}, from the first token on"
        return (
            f"grey pictures change {parted}, and the tokens before by {self.picture_effect_engine_nats:.1e} nats in "
            f"the engine and {self.picture_effect_trainer_nats:.1e} in the trainer"
        )


def bound_of(precision: str, mean_nats: float | None) -> Bound:
    """The bound of a precision, or one of the user's own with as many times that for a single token."""
    usual = BOUNDS[precision]
    if mean_nats is None:
        return usual
    return Bound(mean_nats=mean_nats, token_nats=mean_nats * usual.token_nats / usual.mean_nats)


def judge(twins: Sequence[PromptTwin], bound: Bound, *, temperature: float) -> TwinReport:
    """What the prompts of all processes say.

    Args:
        twins: At least one prompt.
        bound: What rounding explains.
        temperature: At which the tokens were sampled.
    """
    gaps = _gaps(twins, lambda twin: twin.trainer)
    leads = [lead for twin in twins for lead in twin.leads]
    pictured = [twin.picture for twin in twins if twin.picture]
    worst = max(twins, key=lambda twin: twin.excess(bound)) if gaps else None
    report = TwinReport(
        num_prompts=len(twins),
        num_tokens=len(gaps),
        gap_mean_nats=_mean(gaps),
        gap_max_nats=_largest(gaps),
        gap_prompt_nats=worst.gap_mean_nats() if worst else None,
        worst=worst.place() if worst else None,
        num_greedy_tokens=len(leads),
        greedy_agreement=_mean([float(lead == 0) for lead in leads]),
        greedy_lead_max_nats=_largest(leads),
        num_pictured=len(pictured),
        num_parted=sum(one.parted for one in pictured),
        picture_effect_engine_nats=_mean([abs(change) for one in pictured for change in one.engine]),
        picture_effect_trainer_nats=_mean([abs(change) for one in pictured for change in one.trainer]),
        bound=bound,
    )
    findings = [*_malformed(twins), *_gap(report, twins, temperature), *_greedy(report), *_blind(twins, bound)]
    return replace(report, findings=tuple(findings), notes=tuple(_untold(pictured, bound)))


def _gaps(twins: Sequence[PromptTwin], of: Callable[[PromptTwin], tuple[float, ...]]) -> list[float]:
    return [abs(one - other) for twin in twins for one, other in zip(twin.engine, of(twin), strict=True)]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _largest(values: Sequence[float]) -> float | None:
    """NaN where one is none: `max` would pass it over."""
    return None if not values else math.nan if any(map(math.isnan, values)) else max(values)


def _within(value: float | None, bound: float) -> bool:
    """NaN is within no bound."""
    return value is None or value <= bound


def _malformed(twins: Sequence[PromptTwin]) -> Iterator[Mismatch]:
    found = [f"{twin.place()}: {fault}" for twin in twins for fault in twin.malformed]
    if found:
        more = f" ({len(found)} completions in all)" if len(found) > 1 else ""
        yield Mismatch(
            kind="malformed",
            text=f"the engine's completions are broken{more}: {found[0]}. Use a version of the engine that is "
            "supported, and see that nothing between it and the trainer cuts its replies.",
        )


def _gap(report: TwinReport, twins: Sequence[PromptTwin], temperature: float) -> Iterator[Mismatch]:
    """Prompts by themselves, too: one wrong engine of many hardly moves the mean over all of them."""
    mean, bound = report.gap_mean_nats, report.bound
    off = [twin for twin in twins if twin.excess(bound) > 1]
    if _within(mean, bound.mean_nats) and not off:
        return
    said = f"engine and trainer differ by {mean:.3g} nats per token, but rounding explains {bound.mean_nats:g} at most"
    if off:
        worst = max(off, key=lambda twin: twin.excess(bound))
        said = (
            f"engine and trainer differ by {worst.gap_mean_nats():.3g} nats per token for {worst.place()}, but "
            f"rounding explains {bound.of_prompt(len(worst.engine)):.2g} at most; so it is for {len(off)} of "
            f"{len(twins)} prompts, and the mean over all is {mean:.3g}"
        )
    if temperature != 1.0 and _within(_mean(_gaps(off or twins, lambda twin: twin.untempered)), bound.mean_nats):
        yield Mismatch(
            kind="temperature",
            text=f"{said}. The engine's log-probabilities are those of temperature 1, not of rollout.temperature "
            f"{temperature:g}. Start the server with --logprobs-mode processed_logprobs.",
        )
        return
    yield Mismatch(
        kind="log-probs",
        text=f"{said}. The engine, or one of several, holds other weights, is given other prompts, or computes "
        "otherwise. See that it serves the model of model.path in the same precision; engine.max_logprob_gap_nats "
        "allows more, engine.on_mismatch=warn goes on.",
    )


def _greedy(report: TwinReport) -> Iterator[Mismatch]:
    # Two log-probabilities are compared, and each may be off by the bound of a token.
    lead, bound = report.greedy_lead_max_nats, 2 * report.bound.token_nats
    if _within(lead, bound):
        return
    yield Mismatch(
        kind="greedy",
        text=f"{100 * (report.greedy_agreement or 0):.4g} % of the engine's greedy tokens are the trainer's, and one "
        f"of the others is {lead:.3g} nats below it, more than a near tie ({bound:g}). The engine holds other "
        "weights, is given other prompts, or ignores temperature 0.",
    )


def _blind(twins: Sequence[PromptTwin], bound: Bound) -> Iterator[Mismatch]:
    """Prompts of which grey pictures change nothing in the engine, although they do in the trainer."""
    unseen = [twin.place() for twin in twins if twin.picture and _is_unseen(twin.picture, bound)]
    if unseen:
        yield Mismatch(
            kind="pictures",
            text=f"grey pictures in place of the real ones change the trainer's log-probabilities and not the "
            f"engine's, in {len(unseen)} prompts (first: {unseen[0]}). The engine does not see the pictures, "
            "or takes old ones from a cache. See that it serves the vision tower, and what its request holds.",
        )


def _is_unseen(picture: PictureTwin, bound: Bound) -> bool:
    if picture.parted or not picture.trainer:
        return False
    expected, found = (max(map(abs, changes)) for changes in (picture.trainer, picture.engine))
    return expected > bound.token_nats and not found > expected / 2


def _untold(pictured: Sequence[PictureTwin], bound: Bound) -> Iterator[str]:
    if not pictured:
        yield "no prompt of the check has a picture, so whether the engine sees pictures was not tested"
    elif not any(one.parted or max(map(abs, one.trainer), default=0.0) > bound.token_nats for one in pictured):
        yield (
            f"grey pictures change no token by more than {bound.token_nats:g} nats in the trainer itself, so whether "
            "the engine sees pictures cannot be told"
        )
