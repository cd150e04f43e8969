"""The next token: every completion from a stream of random numbers of its own.

Shapes: R rows being decoded, H hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.policy.forward import logits_of
from mm_agrae.policy.load import Policy
from mm_agrae.records import Sampling


def uniforms_of(seeds: Sequence[int], sampling: Sampling) -> Float[Tensor, "R max_new_tokens"]:
    """Numbers in [0, 1), float64, each row from the stream of its seed."""
    rows = [np.random.Generator(np.random.Philox(seed)).random(sampling.max_new_tokens) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def draw(
    policy: Policy, hidden: Float[Tensor, "R H"], sampling: Sampling, uniforms: Float[Tensor, " R"]
) -> tuple[Int[Tensor, " R"], Float[Tensor, " R"]]:
    """Next ids and their log-probabilities (nats) at the sampling temperature, before any nucleus is cut.

    A row with a logit that is not a number has a log-probability that is none either.
    """
    logits = logits_of(policy, hidden, sampling.temperature or 1.0)
    log_softmax = logits.log_softmax(dim=-1)  # [R, V]
    if sampling.temperature == 0:
        ids = logits.argmax(dim=-1)
    else:
        # float64: over a large vocabulary a float32 running sum is off by more than rare tokens weigh.
        cumulative = _nucleus(log_softmax.exp(), sampling.top_p).cumsum(dim=-1, dtype=torch.float64)
        total = cumulative[:, -1:]
        # Strictly below the total, or rounding could land behind the last token of positive probability.
        target = torch.minimum(uniforms[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        ids = torch.searchsorted(cumulative, target, right=True)[:, 0]
        ids = ids.clamp(max=logits.shape[-1] - 1)  # what is not a number is found behind the last token
    return ids, log_softmax.gather(1, ids[:, None])[:, 0]


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero the tokens outside the smallest set whose probability reaches top_p."""
    if top_p >= 1:
        return probabilities
    ranked, order = probabilities.sort(dim=-1, descending=True)
    outside = ranked.cumsum(dim=-1, dtype=torch.float64) - ranked >= top_p
    return probabilities.masked_fill(outside.scatter(1, order, outside), 0.0)
