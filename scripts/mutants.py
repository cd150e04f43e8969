"""The ways in which `mutation_check.py` breaks the estimators: one changed piece of text each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`old` occurs once in `file` and becomes `new`."""

    method: str
    file: str
    old: str
    new: str


def _of(method: str, file: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(method, file, old, new) for old, new in changes]


_A = "mm_agrae/algorithms/"

MUTANTS = [
    *_of(
        "group",
        _A + "advantages.py",
        ("is_mixed(scored_flags(correct, rewards)) & ~has_equal_rewards(rewards)", "~has_equal_rewards(rewards)"),
        (
            "is_mixed(scored_flags(correct, rewards)) & ~has_equal_rewards(rewards)",
            "is_mixed(scored_flags(correct, rewards))",
        ),
        ('(1 if std == "unbiased" else 0)', '(1 if std == "biased" else 0)'),
        ("scale = spread + std_eps", "scale = spread"),
        ("exact - means, 0.0), scored", "means - exact, 0.0), scored"),
        ("exact = rewards.to(torch.float64)", "exact = rewards.to(torch.float32)"),
        ("squares.sum() / scored.sum()", "squares.sum() / squares.numel()"),
    ),
    *_of(
        "leave_one_out",
        _A + "advantages.py",
        ("(num_scored / (num_scored - 1).clamp(min=1))", "((num_scored - 1) / num_scored.clamp(min=1))"),
        ("(num_scored / (num_scored - 1).clamp(min=1))", "(rewards.shape[1] / (rewards.shape[1] - 1))"),
    ),
    *_of(
        "signed",
        _A + "advantages.py",
        (
            "torch.where(correct, positive_weight, -negative_weight)",
            "torch.where(correct, positive_weight, negative_weight)",
        ),
        (
            "torch.where(correct, positive_weight, -negative_weight)",
            "torch.where(correct, negative_weight, -positive_weight)",
        ),
        ("values.masked_fill(rewards.isnan(), 0.0)", "values"),
    ),
    *_of(
        "agrae",
        _A + "agrae.py",
        (
            "batch_accuracy / (2 * hard) + (1 - batch_accuracy) / (2 * easy)",
            "(1 - batch_accuracy) / (2 * hard) + batch_accuracy / (2 * easy)",
        ),
        (
            "batch_accuracy / (2 * hard) + (1 - batch_accuracy) / (2 * easy)",
            "batch_accuracy / hard + (1 - batch_accuracy) / easy",
        ),
        ("hard, easy = rate.sqrt(), (1 - rate).sqrt()", "hard, easy = rate, (1 - rate)"),
        ("hard, easy = rate.sqrt(), (1 - rate).sqrt()", "hard, easy = rate.sqrt(), 1 - rate.sqrt()"),
        ("1 - rate.sqrt() + CODE_EPS", "(1 - rate).sqrt() + CODE_EPS"),
        ("CODE_EPS = 1e-6", "CODE_EPS = 1e-3"),
        ("min(1.0, batch_accuracy / alpha)", "batch_accuracy / alpha"),
        ("min(1.0, batch_accuracy / alpha)", "min(1.0, batch_accuracy)"),
        ("torch.where(weighted > 0, weighted * min", "torch.where(weighted < 0, weighted * min"),
        ("variant=variant, group_level=False)", "variant=variant)"),
        ("alpha=alpha, sample_level=False)", "alpha=alpha)"),
    ),
    *_of(
        "hadw",
        _A + "hadw.py",
        ("scale * torch.exp(anchor - rate)", "scale * torch.exp(rate - anchor)"),
        ("scale * torch.exp(rate - anchor)", "scale * torch.exp(anchor - rate)"),
        ("torch.where(exact > 0, of_positives, of_negatives)", "torch.where(exact > 0, of_positives, 1.0)"),
        ("scale: float = 1.3", "scale: float = 1.5"),
        ("averaged = seen if include_current or not state.history", "averaged = seen if True or not state.history"),
        ("averaged = seen if include_current or not state.history", "averaged = seen if not state.history"),
        ("seen = (*state.history, batch_accuracy)[-window:]", "seen = (*state.history, batch_accuracy)"),
        ("min(1.0, max(eta_min, eta * statistics.pstdev(beliefs)))", "min(1.0, eta * statistics.pstdev(beliefs))"),
        ("(1 - rate) * prior + rate * batch_accuracy", "rate * prior + (1 - rate) * batch_accuracy"),
        ("    prior = beliefs[-1]", "    prior = batch_accuracy"),
        ("+ rate * batch_accuracy)[-memory:])", "+ rate * batch_accuracy))"),
    ),
    *_of(
        "grpo_lead",
        _A + "grpo_lead.py",
        ("torch.where(exact > 0, _logistic(rate), _logistic(1 - rate))", "_logistic(rate)"),
        ("FLOOR + RISE", "FLOOR - RISE"),
        ("(rate - MIDDLE)", "(MIDDLE - rate)"),
    ),
    *_of(
        "ablations",
        _A + "ablations.py",
        ("torch.where(exact > 0, exact * factor, exact)", "torch.where(exact < 0, exact * factor, exact)"),
        ('1 / _checked("dominance", dominance)', '_checked("dominance", dominance)'),
        ("(1 - rate if of_failures else rate)", "(rate if of_failures else 1 - rate)"),
        ("torch.where(mixed, focus / ", "torch.where(mixed, 1 / "),
    ),
    *_of(
        "elastic",
        _A + "trust_region.py",
        ("torch.tanh(size - 1)", "torch.tanh(size)"),
        ("torch.tanh(size - 1)", "(size - 1)"),
        ("(8 * variance - 1)", "(4 * variance - 1)"),
        ("rate.isnan(), 0.125,", "rate.isnan(), 0.25,"),
        ("1 + clip_high * stretch", "1 + clip_high"),
        ("(clip_low * stretch)", "(clip_high * stretch)"),
        ("stretch.clamp(min=MIN_STRETCH)", "stretch"),
        ("clamp(max=max(clip_low, MAX_CLIP_LOW))", "clamp(max=clip_low)"),
    ),
    *_of(
        "fixed",
        _A + "trust_region.py",
        ("else 1 - clip_low),", "else 1 + clip_low),"),
        ("math.inf if clip_high is None else 1 + clip_high)", "1.0 if clip_high is None else 1 + clip_high)"),
    ),
    *_of(
        "clip",
        _A + "losses.py",
        ("negative & (raw < tokens.low)", "raw < tokens.low"),
        ("positive & (raw > tokens.high)", "raw > tokens.high"),
        ("loss=-bounded * tokens.advantages", "loss=bounded * tokens.advantages"),
        ("torch.where(clipped_dual, dual_clip, bounded)", "bounded"),
        ("clipped_dual = negative & (", "clipped_dual = (negative | True) & ("),
        (
            "sequence_mean_of(logs, tokens.sequences).clamp(max=MAX_LOG_RATIO).exp()",
            "logs.clamp(max=MAX_LOG_RATIO).exp()",
        ),
        ("torch.where(clipped_high, tokens.high.log(), log_ratio)", "log_ratio"),
    ),
    *_of(
        "ratios",
        _A + "ratios.py",
        ("logprobs - old_logprobs.detach()", "old_logprobs.detach() - logprobs"),
        (
            "sequence_sum(values, sequences) / sequence_sum(torch.ones_like(values), sequences)",
            "sequence_sum(values, sequences)",
        ),
        ("MAX_LOG_RATIO = 20.0", "MAX_LOG_RATIO = 1e9"),
    ),
    *_of(
        "cispo",
        _A + "losses.py",
        ("torch.minimum(raw, tokens.high)", "raw"),
        ("torch.minimum(raw, tokens.high)", "torch.maximum(raw, tokens.high)"),
        ("-capped * tokens.advantages * tokens.logprobs", "-capped * tokens.advantages"),
    ),
    *_of(
        "sapo",
        _A + "losses.py",
        ("(4 / taus)", "4"),
        ("taus * (raw - 1)", "taus * raw"),
        (
            "torch.where(tokens.advantages > 0, tau_positive, tau_negative)",
            "torch.where(tokens.advantages > 0, tau_negative, tau_positive)",
        ),
    ),
    *_of(
        "reinforce",
        _A + "losses.py",
        ("_unclipped(-tokens.advantages * tokens.logprobs", "_unclipped(-tokens.logprobs"),
    ),
    *_of(
        "k3",
        _A + "losses.py",
        ("torch.expm1(difference) - difference", "torch.expm1(difference) + difference"),
        ("(ref_logprobs.detach() - logprobs)", "(logprobs - ref_logprobs.detach())"),
    ),
    *_of(
        "aggregation",
        _A + "aggregation.py",
        (
            "lengths.clamp(min=1).to(torch.float64) * num_sequences",
            "torch.full_like(lengths, num_sequences, dtype=torch.float64)",
        ),
        ("max(num_tokens, 1), dtype", "max(num_sequences, 1), dtype"),
        ("num_sequences * max_length, dtype", "num_sequences, dtype"),
    ),
    *_of(
        "importance",
        _A + "importance.py",
        ("difference = old_logprobs - rollout_logprobs", "difference = rollout_logprobs - old_logprobs"),
        ("weights.clamp(max=cap)", "weights"),
        ("torch.where(weights <= cap, weights, 0.0)", "torch.where(weights <= cap, 1.0, 0.0)"),
        ("sequence_sum(difference, sequences)", "difference"),
    ),
    *_of(
        "overlong",
        _A + "overlong.py",
        ("max_length - buffer - lengths", "max_length - lengths"),
        (") / buffer)", ") / max_length)"),
        ("clamp(min=-1.0, max=0.0)", "clamp(max=0.0)"),
        ("clamp(min=-1.0, max=0.0)", "clamp(min=-1.0)"),
    ),
    *_of(
        "groups",
        _A + "groups.py",
        ("(rate > 0) & (rate < 1)", "rate > 0"),
        (".masked_fill(rewards.isnan(), math.nan)", ""),
    ),
    *_of(
        "estimator",
        "mm_agrae/estimator.py",
        (
            "algorithm.trust_region(advantages if algorithm.stretched_by_reweighted else base, flags)",
            "algorithm.trust_region(advantages, flags)",
        ),
        (
            "kept = ~outcomes.truncated if algorithm.drops_truncated",
            "kept = outcomes.truncated if algorithm.drops_truncated",
        ),
        ("return found, EstimatorState(anchor=next_anchor)", "return found, state"),
        ('"include_current": hadw.variant == "code"', '"include_current": False'),
        ("weigh(advantages, flags, anchor=batch.anchor)", "weigh(advantages, flags, anchor=batch.accuracy)"),
        ("for name in config.weighting),\n        trust", "for name in config.weighting[:1]),\n        trust"),
        ("advantages = weigh(advantages, flags, batch)", "advantages = weigh(base, flags, batch)"),
        ("rewards + overlong_penalty(", "rewards - overlong_penalty("),
    ),
    *_of(
        "training",
        "mm_agrae/train/update.py",
        ("losses * importance", "losses"),
        ("losses - algorithm.entropy_weight * scores.entropy", "losses + algorithm.entropy_weight * scores.entropy"),
        ("losses + algorithm.beta * divergence", "losses - algorithm.beta * divergence"),
        ("batch.lengths[minibatch] * batch.estimate.kept[minibatch]", "batch.lengths[minibatch]"),
        ("torch.arange(len(lengths)).repeat_interleave(lengths)", "torch.zeros(int(lengths.sum()), dtype=torch.long)"),
    ),
    *_of(
        "training",
        "mm_agrae/train/sampling.py",
        ("[*mixed, *others][:count]", "[*others, *mixed][:count]"),
        ("if len(mixed) >= count:", "if len(mixed) > count:"),
    ),
    *_of(
        "training",
        "mm_agrae/train/experience.py",
        ("batch_accuracy=batch_accuracy(facts.flags)", "batch_accuracy=batch_accuracy(facts.flags[kept])"),
    ),
]
