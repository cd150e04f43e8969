"""Whether the completions of a group can be computed beside one copy of their prompt: read, then measured.

A fork after the prompt is a matter of attention only: every layer has to reach past tokens through attention to all of
them. A window counts tokens of the row, which are more than those of [prompt | completion]; a recurrent state runs on
from one completion into the next. Neither raises an error. So the configuration is read first, and what it does not say
is found by comparing a shared row with the same completions alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mm_agrae.errors import ConfigError
from mm_agrae.policy.attention import LANGUAGE_ATTENTION
from mm_agrae.policy.cached import CachedLines
from mm_agrae.policy.layout import Layout, Row, make_layout, make_padded_layout, one_by_one
from mm_agrae.policy.logits import check_logits
from mm_agrae.records import Prompt, RenderedPrompt, Sample

if TYPE_CHECKING:
    from mm_agrae.policy.load import Policy

# The families whose vision layout (one placeholder per merged patch, three rotary rows) this code speaks.
VISION_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
# An error on a shared row of these is one of the code here.
PROMISED_FAMILIES = (*VISION_FAMILIES, "qwen2", "qwen3", "llama")
# Relative differences of hidden states, by precision. Against another kernel, random models of 2 to 24 layers differ by
# up to 4e-6 in fp32; one that is attended to wrongly by 1e-2 and more. In bf16 rounding may send a token to other
# experts, so there only a kernel that does not work is found.
OTHER_KERNEL = {"fp32": 1e-3, "bf16": 5e-1}
# The same kernels on the same shapes differ by nothing, so a state that leaks from a neighbour shows when it is small.
SAME_KERNEL = {"fp32": 1e-5, "bf16": 5e-1}
# The same weights, cut or whole: no difference on a CPU. On a GPU, where memory lies may choose another kernel, whose
# sums are rounded in another order; 3e-2 is several roundings of bf16, and far from other weights.
SAME_WEIGHTS = {"fp32": 1e-5, "bf16": 3e-2}
PROMPT_TOKENS, COMPLETION_TOKENS, CACHED_STEPS = 40, (9, 6), 2


def reason_in_config(config: Any) -> str | None:
    """Why a model of this configuration cannot share prompts; None when the configuration names no reason."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if not kinds and getattr(text, "sliding_window", None) is not None:  # families older than layer_types
        kinds = {"sliding_attention"}
    if other := sorted(kinds - {"full_attention"}):
        return f"it has layers of kind {', '.join(other)}"
    if getattr(text, "alibi", False):
        return "it has no positions of its own (alibi)"
    if _caps_scores(config):
        return "it caps its attention scores"
    return None


def language_attention_of(config: Any) -> str | None:
    """How the language layers of a new model attend, as transformers names it; None leaves the choice to it."""
    return LANGUAGE_ATTENTION if reason_in_config(config) is None else _own_attention(config)


def with_layout(policy: Policy, log: Callable[[str], None]) -> Policy:
    """The policy, once it is known whether its completions share a prompt.

    Args:
        policy: In fp32, which decides what the model does. One that shares is tried once more in the precision that it
            will run in, where the kernel of shared rows may fail.
        log: Is told why, if they do not.

    Raises:
        ConfigError: The model computes something else even with a line for every completion, or with its cache, or its
            states are not finite, or its logits are not those of its head.
    """
    config = policy.inner.config
    reason = reason_in_config(config) or measured_reason(policy)
    if reason is None:
        _check_logits(policy)
        return policy
    if _attends_by(policy) == LANGUAGE_ATTENTION:
        _attend_by(policy, _own_attention(config))
    _check_lines(policy)
    _check_cache(policy)
    _check_logits(policy)
    log(
        f"the completions of a group cannot share their prompt in a model of type {config.model_type!r}: {reason}. "
        "Each is computed with a copy of the prompt and its images: the same numbers, for up to G times the work. "
        "A model whose layers all attend to everything is faster."
    )
    return replace(policy, shares_prompts=False)


def measured_reason(policy: Policy) -> str | None:
    """Why this model cannot share prompts, by its numbers; None when it can.

    Two completions beside one prompt must have the hidden states that each has alone under the model's eager attention,
    which is the one that every model defines itself; and another first completion must not change the second.
    """
    if _attends_by(policy) != LANGUAGE_ATTENTION:
        return "its code fixes how its layers attend"
    row, other = _probes(policy)
    try:
        alone = _alone(policy, row)
        states, beside_other = (_states(policy, make_layout([probe])) for probe in (row, other))
    except (torch.OutOfMemoryError, ConfigError):
        raise
    except Exception as error:  # whatever the code of the model raises
        if policy.inner.config.model_type in PROMISED_FAMILIES:
            raise
        return f"its layers do not take a shared row ({_first_line(error)})"
    second = slice(COMPLETION_TOKENS[0], None)
    leak = _gap(beside_other[second], states[second])
    if not leak <= SAME_KERNEL[policy.precision]:
        return f"a completion changes the one beside it (hidden states by {leak:.0e} relative)"
    gap = _gap(states, alone)
    if not gap <= OTHER_KERNEL[policy.precision]:
        return f"a shared prompt changes its numbers (hidden states by {gap:.0e} relative)"
    return None


def probe_states(policy: Policy) -> Tensor:
    """[K, H] hidden states of an arbitrary row, by which a policy can be compared with itself."""
    row, _ = _probes(policy)
    return _states(policy, make_layout([row]) if policy.shares_prompts else make_padded_layout([row]))


def same_states(policy: Policy, found: Tensor, expected: Tensor) -> bool:
    """Whether two `probe_states` come from the same weights and kernels."""
    return _gap(found, expected) <= SAME_WEIGHTS[policy.precision]


def _check_lines(policy: Policy) -> None:
    """A completion on a padded line of a batch must have the hidden states that it has alone."""
    kind = policy.inner.config.model_type
    row, _ = _probes(policy)
    try:
        padded = _states(policy, make_padded_layout([row]))
        alone = _alone(policy, row)
    except (torch.OutOfMemoryError, ConfigError):
        raise
    except Exception as error:  # whatever the code of the model raises
        raise ConfigError(
            f"model type {kind!r} does not compute hidden states from ids, positions and a mask "
            f"({_first_line(error)}). Choose a decoder of another family."
        ) from error
    gap = _gap(padded, alone)
    if not gap <= OTHER_KERNEL[policy.precision]:
        raise ConfigError(
            f"model type {kind!r} computes other numbers beside a longer line (hidden states by {gap:.0e} relative), "
            "so completions of several lengths cannot be computed together. Choose a model of another family."
        )


def _check_cache(policy: Policy) -> None:
    """Tokens decoded one by one beside a longer line must have the hidden states of the whole line."""
    kind = policy.inner.config.model_type
    row, _ = _probes(policy)
    prompts = [row.prompt, _first_tokens(row.prompt, PROMPT_TOKENS - COMPLETION_TOKENS[0])]
    decoded = row.completions[0][:CACHED_STEPS]
    lines = [Row(prompt=prompt, completions=((*decoded, 0),)) for prompt in prompts]  # the last id is only a target
    whole = torch.stack([_states(policy, make_padded_layout([line])) for line in lines])
    try:
        cached = _cached_states(policy, prompts, decoded)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the code of the model raises
        raise ConfigError(
            f"model type {kind!r} does not decode with a cache of keys and values ({_first_line(error)}), so it cannot "
            "be sampled. Choose a model of another family."
        ) from error
    gap = _gap(cached, whole)
    if not gap <= OTHER_KERNEL[policy.precision]:
        raise ConfigError(
            f"model type {kind!r} computes other numbers when it decodes token by token (hidden states by {gap:.0e} "
            "relative): it forgets what came before, so what is sampled would not come from the policy. Choose a "
            "model of another family."
        )


def _check_logits(policy: Policy) -> None:
    if policy.precision == "fp32":
        row, _ = _probes(policy)
        check_logits(policy, make_padded_layout([row]))


def _caps_scores(config: Any) -> bool:
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


def _own_attention(config: Any) -> str | None:
    # transformers would choose sdpa for capped scores too, which leaves them uncapped and says nothing.
    return "eager" if _caps_scores(config) else None


def _attends_by(policy: Policy) -> str:
    return policy.inner.config.get_text_config()._attn_implementation


def _attend_by(policy: Policy, language: str | None) -> None:
    policy.inner.set_attn_implementation({"": language, "text_config": language})


@contextlib.contextmanager
def _eager(policy: Policy) -> Iterator[None]:
    """Attention as the model writes it out itself, where it can be chosen."""
    if not policy.inner._can_set_attn_implementation():
        yield
        return
    before = _attends_by(policy)
    _attend_by(policy, "eager")
    try:
        yield
    finally:
        _attend_by(policy, before)


def _probes(policy: Policy) -> tuple[Row, Row]:
    """Two groups of arbitrary text ids that differ in their first completion."""
    prompt, first, second, other = _arbitrary_ids(policy, (PROMPT_TOKENS, *COMPLETION_TOKENS, COMPLETION_TOKENS[0]))
    rendered = RenderedPrompt(
        prompt=Prompt(sample=Sample(id="probe", question="", target=""), messages=()),
        token_ids=prompt,
        unexpanded_token_ids=prompt,
        position_ids=torch.arange(PROMPT_TOKENS).expand(3 if policy.sees else 1, -1),
        next_position=PROMPT_TOKENS,
        mm_token_type_ids=torch.zeros(PROMPT_TOKENS, dtype=torch.long) if policy.sees else None,
        pixel_values=None,
        image_grid_thw=None,
        content_hash="",
    )
    row = Row(prompt=rendered, completions=(first, second))
    return row, replace(row, completions=(other, second))


def _arbitrary_ids(policy: Policy, lengths: tuple[int, ...]) -> list[tuple[int, ...]]:
    size = policy.inner.get_input_embeddings().weight.shape[0]
    allowed = torch.tensor([number for number in range(size) if number not in policy.banned_token_ids])
    drawn = torch.randint(len(allowed), (sum(lengths),), generator=torch.Generator().manual_seed(0))
    ids = allowed[drawn].tolist()
    return [tuple(ids[start:end]) for start, end in pairwise(accumulate(lengths, initial=0))]


@torch.no_grad()
def _states(policy: Policy, layout: Layout) -> Tensor:
    """[K, H] hidden state that predicts each target."""
    layout = layout.to(policy.device)
    with policy.arithmetic():
        hidden = policy.backbone(**layout.inputs(), use_cache=False).last_hidden_state
    return hidden.flatten(0, 1)[layout.sources].float()


def _alone(policy: Policy, row: Row) -> Tensor:
    """The same of each completion without any other, by the model's own eager attention."""
    with _eager(policy):
        states = torch.cat([_states(policy, make_padded_layout([line])) for line in one_by_one(row)])
    if not states.isfinite().all():
        raise ConfigError(
            f"the hidden states of this model of type {policy.inner.config.model_type!r} are not finite: its weights "
            "hold NaN or infinity, or overflow. Load an earlier checkpoint of it."
        )
    return states


@torch.no_grad()
def _cached_states(policy: Policy, prompts: list[RenderedPrompt], decoded: tuple[int, ...]) -> Tensor:
    """[P, 1 + steps, H] last hidden state of each prompt, then those of the same tokens after each."""
    nexts = torch.tensor([prompt.next_position for prompt in prompts], device=policy.device)
    with policy.arithmetic():
        lines = CachedLines(policy, prompts, {})
        states = [lines.last]
        states += [lines.step(torch.full_like(nexts, token), nexts + number) for number, token in enumerate(decoded)]
    return torch.stack(states, dim=1).float()


def _first_tokens(prompt: RenderedPrompt, length: int) -> RenderedPrompt:
    types = prompt.mm_token_type_ids
    return replace(
        prompt,
        token_ids=prompt.token_ids[:length],
        unexpanded_token_ids=prompt.token_ids[:length],
        position_ids=prompt.position_ids[:, :length],
        next_position=length,
        mm_token_type_ids=None if types is None else types[:length],
    )


def _gap(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
