"""The records that flow through a run, in the order of the flow. All frozen; a batch never travels back.

sample -> prompt -> rendered prompt -> completion -> verdict -> rollout -> rollout group

This module imports no heavy library: tensors are named in annotations only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

AnswerKind = Literal[
    "math", "integer", "decimal", "fraction", "percent", "expression", "equation", "interval", "set", "tuple", "list",
    "matrix", "coordinate", "quantity", "choice", "choices", "yes_no", "year", "time", "text",
]  # fmt: skip
StopReason = Literal["eos", "length"]
VerdictStatus = Literal["correct", "wrong", "unparsed", "timeout"]

IMAGE_MARK = "<image>"


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far an answer may be from its target.

    Attributes:
        kind: "round" accepts what rounds to the target, "absolute" a difference, "relative" a share of the target.
        value: Decimals for "round" (a whole number), else the largest difference or share; at least 0.
    """

    kind: Literal["round", "absolute", "relative"]
    value: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One problem with its reference answer.

    Attributes:
        id: Unique within a data set.
        question: Text with one "<image>" per image, in order.
        target: Reference answer in plain text or LaTeX, without a box; for a choice the letter ("B"), for several
            choices the letters ("A,C"), for yes_no "yes" or "no".
        answer_kind: How answers are compared; "math" leaves it to the verifier.
        images: The images as encoded files (PNG, JPEG ...), in the order of their marks. Empty for text.
        options: Texts of the options of a choice, in order A, B, C ...; empty otherwise.
        tolerance: How exact an answer must be ("rounded to 1 decimal"); None when nothing is said.
        own_prompt: The data set's own wording of question and instruction, with the marks of the question; None when
            it has none.
        group: What belongs together and is scored together (the variants of one seed question); "" when nothing does.
        solution: Short worked solution that ends in the boxed target; None when the data set has none.
        family: Kind of problem, for per-family figures.
        difficulty: Level of difficulty; None when the data set has none.
        source: Data set the sample came from.
        metadata: Whatever else is known; JSON values only.
    """

    id: str
    question: str
    target: str
    answer_kind: AnswerKind = "math"
    images: tuple[bytes, ...] = ()
    options: tuple[str, ...] = ()
    tolerance: Tolerance | None = None
    own_prompt: str | None = None
    group: str = ""
    solution: str | None = None
    family: str = ""
    difficulty: int | None = None
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A sample as chat messages; image parts are {"type": "image"} and stand for the sample's images in order."""

    sample: Sample
    messages: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class RenderedPrompt:
    """What the model sees, made once per sample and used unchanged by rollout, training and evaluation.

    Shapes: T prompt tokens, N image patches, I images, R position rows (3 for multimodal rotary positions, else 1).

    Attributes:
        prompt: Where it came from.
        token_ids: [T], every image placeholder expanded to one id per visual token.
        unexpanded_token_ids: The same with one placeholder per image, as servers that expand themselves want it.
        position_ids: [R, T] int64.
        next_position: Position of the first completion token, on every row.
        mm_token_type_ids: [T] int64, 0 for text and 1 for image tokens; None for a text model.
        pixel_values: [N, patch size] float32; None without images.
        image_grid_thw: [I, 3] int64; None without images.
        content_hash: Hash over everything above that a model computes with.
        picture_hashes: [I] hash of each image's patches and grid.
    """

    prompt: Prompt
    token_ids: tuple[int, ...]
    unexpanded_token_ids: tuple[int, ...]
    position_ids: Tensor
    next_position: int
    mm_token_type_ids: Tensor | None
    pixel_values: Tensor | None
    image_grid_thw: Tensor | None
    content_hash: str
    picture_hashes: tuple[str, ...] = ()

    @property
    def sample(self) -> Sample:
        return self.prompt.sample


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are drawn.

    Attributes:
        num_completions: Completions per prompt (the group size G).
        max_new_tokens: Upper bound on completion tokens, the end-of-text token included.
        temperature: 0 takes the most probable token; otherwise logits are divided by it.
        top_p: Smallest set of tokens with at least this probability; 1 keeps all.
    """

    num_completions: int
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What the model answered.

    Attributes:
        token_ids: Sampled ids, with the end-of-text id when it was sampled. Never a placeholder id.
        logprobs: Log-probability (nats) of each sampled id at the sampling temperature, placeholder ids excluded.
        text: Decoded text without special tokens.
        stop_reason: "eos", or "length" when max_new_tokens was reached first.
        weights_versions: Of each token the number of updates behind the weights that sampled it, where they changed on
            the way; empty when all are of the version that its rollout group names.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    stop_reason: StopReason
    weights_versions: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the verifier says of one completion.

    Attributes:
        status: "unparsed" when no answer was found, "timeout" when comparing took too long.
        answer: The extracted answer; None when there is none.
        span: Start and end of the answer in the completion's text; None when there is none.
        answer_form: Normal form of the answer that was compared; None when it was not needed or not made.
        target_form: Normal form of the target.
        kind: Kind of answer compared.
        rule: Name of the rule that decided.
        formatted: The completion ends in exactly the form that was asked for (a closed, non-empty box).
        seconds: Time that the comparison took.
    """

    status: VerdictStatus
    answer: str | None
    span: tuple[int, int] | None
    answer_form: str | None
    target_form: str | None
    kind: AnswerKind
    rule: str
    formatted: bool
    seconds: float

    @property
    def correct(self) -> bool:
        return self.status == "correct"


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One completion, judged. `reward` has the range that the reward function states."""

    completion: Completion
    verdict: Verdict
    reward: float


@dataclass(frozen=True, kw_only=True)
class RolloutGroup:
    """The G rollouts of one prompt: the unit of every batch.

    `weights_version` is the number of updates behind the weights that sampled them.
    """

    prompt: RenderedPrompt
    rollouts: tuple[Rollout, ...]
    weights_version: int
