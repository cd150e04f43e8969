"""What tells algorithms apart on the same rollouts, as pure functions of matrices.

Shapes: P groups, G completions per group, B bins. A is the advantage that multiplies the gradient of every token of a
rollout, so that |A| is the weight of the rollout and Σ|A| the whole weight, up to aggregation and clipping. Flags are
1.0 correct, 0.0 wrong, NaN without a reward, as `algorithms.groups.scored_flags` makes them; rollouts without a reward
count nowhere. A figure that has nothing to count is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.algorithms.groups import is_mixed, success_rate
from mm_agrae.algorithms.trust_region import ClipBounds

SUCCESS_BINS = ("0", "(0, ¼]", "(¼, ½]", "(½, ¾]", "(¾, 1)", "1")


@dataclass(frozen=True, kw_only=True)
class Signs:
    """How the signs of one algorithm's advantages differ from another's.

    Attributes:
        flipped_frac: Of the rollouts with an advantage in both, those whose signs differ.
        only_here_frac: Of all scored rollouts, those with an advantage here and none there.
        only_there_frac: Of all scored rollouts, those with an advantage there and none here.
    """

    flipped_frac: float
    only_here_frac: float
    only_there_frac: float


def success_bins(flags: Float[Tensor, "P G"]) -> Int[Tensor, " P"]:
    """Bin of the success rate p of each group: 0, (0, ¼], (¼, ½], (½, ¾], (¾, 1), 1.

    Returns:
        Index into SUCCESS_BINS; -1 for a group without a scored rollout.
    """
    rate = success_rate(flags)
    edges = torch.tensor([0.0, 0.25, 0.5, 0.75], dtype=torch.float64)
    bins = torch.bucketize(rate, edges) + (rate == 1).long()
    return torch.where(rate.isnan(), -1, bins)


def weight_shares(advantages: Float[Tensor, "P G"], bins: Int[Tensor, " P"], *, num_bins: int) -> list[float]:
    """Share of the whole weight in every bin of groups.

    share_b = Σ_{p in b} Σ_g |A_pg| / Σ |A|

    Args:
        advantages: A of every rollout, 0 where it has none.
        bins: Bin of each group; a negative one counts nowhere.
        num_bins: B.

    Returns:
        [B] in [0, 1] with sum 1; all NaN where no rollout has an advantage.
    """
    weight = advantages.double().abs().sum(dim=1)
    known = bins >= 0
    sums = torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins[known], weight[known])
    return [_ratio(value, float(sums.sum())) for value in sums.tolist()]


def effective_frac(advantages: Float[Tensor, "P G"], flags: Float[Tensor, "P G"]) -> float:
    """Effective sample size of the weights |A|, as a fraction of the scored rollouts (Kish 1965).

    (Σ|A|)² / (n · ΣA²),   n scored rollouts

    Returns:
        In (0, 1]: 1 where all weights are equal, 1/n where one rollout has all the weight.
    """
    weight = advantages.double().abs()
    return _ratio(float(weight.sum()) ** 2, _num_scored(flags) * float(weight.square().sum()))


def sum_per_rollout(advantages: Float[Tensor, "P G"], flags: Float[Tensor, "P G"]) -> float:
    """C / n = ΣA / n: what is left of the advantages when all n scored rollouts are added.

    In a softmax over whole trajectories the logit of a trajectory b that was not sampled moves by -η · C · π_b: it
    rises for C < 0, falls for C > 0, and stays for the zero sum of a group-relative advantage (A-GRAE, arXiv
    2602.05548).
    """
    return _ratio(float(advantages.double().sum()), _num_scored(flags))


def against_flag_frac(advantages: Float[Tensor, "P G"], flags: Float[Tensor, "P G"]) -> float:
    """Of the rollouts with an advantage, those that are correct with A < 0 or wrong with A > 0.

    A reward that is not the flag alone can do this: at 0.9 for a correct answer and 0.1 for its form, a wrong rollout
    in the right form lies above the mean of a group of 11 or more with one unformatted correct answer.
    """
    against = ((flags == 1) & (advantages < 0)) | ((flags == 0) & (advantages > 0))
    return _ratio(int(against.sum()), int((advantages != 0).sum()))


def compare_signs(here: Float[Tensor, "P G"], there: Float[Tensor, "P G"], flags: Float[Tensor, "P G"]) -> Signs:
    """Signs of one algorithm's advantages against those of another on the same rollouts; see `Signs`."""
    both = (here != 0) & (there != 0)
    num_scored = _num_scored(flags)
    return Signs(
        flipped_frac=_ratio(int((both & (here.sign() != there.sign())).sum()), int(both.sum())),
        only_here_frac=_ratio(int(((here != 0) & (there == 0)).sum()), num_scored),
        only_there_frac=_ratio(int(((here == 0) & (there != 0)).sum()), num_scored),
    )


def form_share(advantages: Float[Tensor, "P G"], flags: Float[Tensor, "P G"]) -> float:
    """Share of the squared advantages that correctness does not explain: it tells apart rollouts with one flag.

    Σ (A - Ā)² / Σ A²,   Ā the mean A of the rollouts of the same group with the same flag

    The two parts add up, Σ A² = Σ Ā² + Σ (A - Ā)², as in an analysis of variance. With a reward of correctness and form
    the second is what the form alone moves (with overlong shaping: what the length moves as well); it is 0 where the
    advantage depends on flag and group only, and 1 where all weight is in groups whose flags are equal and whose
    advantages sum to 0.

    Returns:
        In [0, 1].
    """
    exact = advantages.double()
    explained = torch.zeros_like(exact)
    for flag in (0.0, 1.0):
        members = flags == flag
        means = (exact * members).sum(dim=1, keepdim=True) / members.sum(dim=1, keepdim=True).clamp(min=1)
        explained = torch.where(members, means, explained)
    counted = ~flags.isnan()
    return _ratio(float(((exact - explained)[counted]).square().sum()), float(exact[counted].square().sum()))


def equal_flag_share(advantages: Float[Tensor, "P G"], flags: Float[Tensor, "P G"]) -> float:
    """Share of the whole weight in groups where every rollout is correct or every one is wrong.

    Σ_{groups with equal flags} |A| / Σ|A|
    """
    weight = advantages.double().abs()
    return _ratio(float(weight[~is_mixed(flags)].sum()), float(weight.sum()))


def clip_budgets(
    advantages: Float[Tensor, "P G"], bounds: ClipBounds, bins: Int[Tensor, " P"], *, num_bins: int
) -> tuple[list[float], list[float]]:
    """Mean room that the policy ratio has in the direction in which its rollout pushes, per bin of groups.

    ε_low = mean of 1 - low over A < 0,   ε_high = mean of high - 1 over A > 0

    Only these act: the clipped surrogate bounds a falling ratio where A < 0 and a rising one where A > 0.

    Returns:
        ([B] ε_low, [B] ε_high); NaN for a bin without such rollouts, 1 and infinity for no bound.
    """
    rows = bins[:, None].expand(advantages.shape)
    low = [_mean_where(1 - bounds.low.double(), (advantages < 0) & (rows == b)) for b in range(num_bins)]
    high = [_mean_where(bounds.high.double() - 1, (advantages > 0) & (rows == b)) for b in range(num_bins)]
    return low, high


def disagreement(advantages: Sequence[Float[Tensor, "P G"]]) -> Float[Tensor, " P"]:
    """How much algorithms differ on each group, whatever their scale.

    D_p = mean_g std_m ( A^m_pg / mean|A^m| ),   mean|A^m| over the rollouts of the whole log, std biased

    Args:
        advantages: One matrix per algorithm m; an algorithm without any advantage counts as zeros.
    """
    scaled = []
    for matrix in advantages:
        exact = matrix.double()
        scale = float(exact.abs().mean())
        scaled.append(exact / scale if scale > 0 else exact)
    return torch.stack(scaled).std(dim=0, correction=0).mean(dim=1)


def most_telling(scores: Float[Tensor, " P"], kinds: Sequence[object], *, num: int) -> list[int]:
    """Rows with the highest scores, the best of every kind first, so that one case is not shown over and over.

    Args:
        scores: Rows of 0 are never chosen.
        kinds: What makes two rows the same case, one per row.
        num: At most so many.

    Returns:
        Rows, those of new kinds first, each part from the highest score down; ties by row.
    """
    ranked = [row for row in torch.sort(scores, descending=True, stable=True).indices.tolist() if scores[row] > 0]
    seen: set[object] = set()
    new: list[int] = []
    more: list[int] = []
    for row in ranked:
        (more if kinds[row] in seen else new).append(row)
        seen.add(kinds[row])
    return [*new, *more][:num]


def _num_scored(flags: Tensor) -> int:
    return int((~flags.isnan()).sum())


def _mean_where(values: Tensor, mask: Tensor) -> float:
    return float(values[mask].mean()) if bool(mask.any()) else math.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
