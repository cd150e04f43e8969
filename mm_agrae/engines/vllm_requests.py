"""RenderedPrompt -> what vLLM is asked; what it answers -> Completion. Shared by the server and the engine in process.

Nothing that comes back is taken on trust: the prompt must be the one that was asked for, id by id, and every
completion must be one that this policy can give.

With a nucleus (top_p < 1) vLLM's log-probabilities are those of the nucleus; training samples without one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mm_agrae.engines.vllm_pixels import features, pictures_of
from mm_agrae.errors import EngineError
from mm_agrae.policy.load import Policy
from mm_agrae.records import Completion, RenderedPrompt, Sampling
from mm_agrae.seeding import seed_for

# vLLM raises lower temperatures to this one, and the log-probabilities would be of another policy than was asked for.
MIN_TEMPERATURE = 0.01
BAN = -100.0  # the strongest bias that vLLM takes
MISSING = -9999.0  # what a server says in place of a log-probability that is missing or no number
GENERATE = "/inference/v1/generate"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One answer to a prompt.

    Attributes:
        token_ids: Sampled ids.
        logprobs: Log-probabilities (nats) of them as the sampler saw them; shorter when some are missing.
        finish_reason: vLLM's word for why it ended.
        weights: (label, start, end) of every stretch of tokens that was sampled by the weights of that label.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str | None
    weights: tuple[tuple[str, int, int], ...]


def weights_label(run: str, version: int) -> str:
    """What an engine is told to call a run's weights behind that many updates."""
    return f"{run}.{version}"


def strange_weights(choices: Sequence[Choice], labels: Collection[str]) -> str | None:
    """A label of other weights that some token was sampled by; None where there is none."""
    return min((label for choice in choices for label, _, _ in choice.weights if label not in labels), default=None)


def sampling_params(policy: Policy, sampling: Sampling, seeds: Sequence[int]) -> dict[str, Any]:
    """vLLM's sampling parameters for all completions of one prompt.

    A request has one seed, and vLLM counts on from it for its completions, so it is made from all seeds of the row: a
    completion depends on the seeds of its whole group. A greedy request asks for one completion, which is the same for
    all.

    Args:
        policy: Whose placeholders are banned and whose end-of-text ids end a completion.
        sampling: Settings.
        seeds: [G].

    Raises:
        EngineError: The temperature is one that vLLM would change.
    """
    if 0 < sampling.temperature < MIN_TEMPERATURE:
        raise EngineError(
            f"the sampling temperature is {sampling.temperature}, but vLLM samples at {MIN_TEMPERATURE} or more. Set "
            "it to 0, which takes the most probable token, or higher."
        )
    return {
        "n": 1 if sampling.temperature == 0 else sampling.num_completions,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": seed_for(0, "vllm request", *seeds) >> 1,  # room for vLLM to count on
        "logprobs": 0,  # of the sampled token alone
        "logit_bias": dict.fromkeys(policy.banned_token_ids, BAN),
        # A completion ends where the embedded engine's does, whatever the server's copy of the model says.
        "ignore_eos": True,
        "stop_token_ids": list(policy.eos_token_ids),
        "detokenize": False,
    }


def request_body(policy: Policy, prompt: RenderedPrompt, params: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request to a server: our ids, our patches."""
    body = {"token_ids": list(prompt.token_ids), "sampling_params": dict(params), "return_token_ids": True}
    pictures = pictures_of(policy, prompt)
    return body | {"features": features(pictures)} if pictures else body


def read_reply(policy: Policy, prompt: RenderedPrompt, reply: Mapping[str, Any]) -> list[Choice]:
    """The choices of a server's reply, in order.

    Raises:
        EngineError: It answers another prompt, or lacks a part.
    """
    try:
        ids = reply["prompt_token_ids"] or []
        ranges = [(one["offset"], one["length"]) for one in (reply["mm_placeholders"] or {}).get("image", [])]
        choices = [_choice(choice) for choice in sorted(reply["choices"], key=lambda choice: choice["index"])]
    except (KeyError, TypeError) as error:
        raise EngineError(
            f"the server's answer to sample {prompt.sample.id!r} lacks {error}. Serve with a vLLM that this engine "
            "knows (README, vLLM servers)."
        ) from error
    check_prompt(policy, prompt, ids)
    expected = [(picture.offset, picture.length) for picture in pictures_of(policy, prompt)]
    if ranges != expected:
        raise EngineError(
            f"sample {prompt.sample.id!r}: the server's pictures stand at (offset, length) {ranges}, but must stand at "
            f"{expected}. The server does not run this model."
        )
    return choices


def _choice(choice: Mapping[str, Any]) -> Choice:
    content = (choice["logprobs"] or {}).get("content") or []
    ids = tuple(choice["token_ids"] or ())
    if any(one["token_id"] != token for one, token in zip(content, ids, strict=False)):
        raise EngineError("the server's log-probabilities are of other tokens than it sampled.")
    return Choice(
        token_ids=ids,
        logprobs=tuple(one["logprob"] for one in content),
        finish_reason=choice["finish_reason"],
        weights=tuple((span["version"], span["start"], span["end"]) for span in choice["weight_versions"] or ()),
    )


def check_prompt(policy: Policy, prompt: RenderedPrompt, token_ids: Sequence[int]) -> None:
    """Compare the prompt that vLLM computed with against ours.

    Raises:
        EngineError: They differ; names the sample and the first difference.
    """
    ours, theirs = list(prompt.token_ids), list(token_ids)
    if ours == theirs:
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    pads = [sum(token == policy.image_token_id for token in ids) for ids in (ours, theirs)]
    told = " Image placeholders were expanded twice." if pads[1] > pads[0] else ""
    raise EngineError(
        f"sample {prompt.sample.id!r}: vLLM answered another prompt than it was asked. Position {at} is "
        f"{_id_at(theirs, at)}, but must be {_id_at(ours, at)}; it has {len(theirs)} tokens and must have "
        f"{len(ours)}.{told} Serve the model of this run, from the same folder."
    )


def _id_at(ids: Sequence[int], at: int) -> str:
    return f"token {ids[at]}" if at < len(ids) else "the end"


def to_completions(
    policy: Policy,
    prompt: RenderedPrompt,
    sampling: Sampling,
    choices: Sequence[Choice],
    *,
    versions: Mapping[str, int],
) -> list[Completion]:
    """[G] completions; a greedy choice counts for all of them.

    Args:
        policy: Whose tokenizer decodes.
        prompt: What was answered, for messages.
        sampling: As asked.
        choices: The answers.
        versions: Label of weights -> updates behind them, for every label that may occur.

    Returns:
        Completions that name the weights of every token.

    Raises:
        EngineError: A completion could not have come from this policy.
    """
    expected = 1 if sampling.temperature == 0 else sampling.num_completions
    if len(choices) != expected:
        raise EngineError(f"sample {prompt.sample.id!r}: vLLM gave {len(choices)} completions of {expected}.")
    made = []
    for choice in choices:
        each = tuple(versions[label] for label, start, end in choice.weights for _ in range(start, end))
        made.append(_completion(policy, prompt, sampling, choice, each))
        if len(each) != len(choice.token_ids):
            raise EngineError(
                f"sample {prompt.sample.id!r}: vLLM names the weights of {len(each)} tokens of a completion of "
                f"{len(choice.token_ids)}. Use a vLLM that this engine knows."
            )
    return made if expected == sampling.num_completions else made * sampling.num_completions


def drop_present_versions(groups: Sequence[Sequence[Completion]], present: int) -> list[list[Completion]]:
    """The completions; one that the present weights alone sampled names no versions, because its group does."""
    return [
        [replace(one, weights_versions=()) if set(one.weights_versions) <= {present} else one for one in group]
        for group in groups
    ]


def _completion(
    policy: Policy, prompt: RenderedPrompt, sampling: Sampling, choice: Choice, weights_versions: tuple[int, ...]
) -> Completion:
    ids, name = choice.token_ids, prompt.sample.id
    known = [value for value in choice.logprobs if value > MISSING]  # false for what is not a number
    if len(known) != len(ids):
        raise EngineError(
            f"sample {name!r}: vLLM sampled {len(ids)} tokens and knows {len(known)} log-probabilities of them. The "
            "weights may hold numbers that are not finite. Begin a new run from the model/ folder of the last "
            "checkpoint (model.path) with a lower learning rate."
        )
    if banned := set(ids) & set(policy.banned_token_ids):
        raise EngineError(
            f"sample {name!r}: vLLM sampled the placeholder ids {sorted(banned)}, which are banned. Its logit_bias "
            "does not work: use a vLLM that this engine knows."
        )
    ended = bool(ids) and ids[-1] in policy.eos_token_ids
    if not ended and len(ids) != sampling.max_new_tokens:
        raise EngineError(
            f"sample {name!r}: a completion stops after {len(ids)} tokens ({choice.finish_reason}), but must end with "
            f"an end-of-text token or after {sampling.max_new_tokens}. Give the server a --max-model-len of at least "
            f"{len(prompt.token_ids) + sampling.max_new_tokens}."
        )
    return Completion(
        token_ids=ids,
        logprobs=choice.logprobs,
        text=policy.tokenizer.decode(list(ids), skip_special_tokens=True),
        stop_reason="eos" if ended else "length",
        weights_versions=weights_versions,
    )
