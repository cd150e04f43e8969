"""What a forward pass and an update must compute, in floating-point operations, from sizes alone.

A matrix product costs 2 operations per weight and token, attention 4 · heads · width per pair of a query and a key that
it sees (scores and mixture). Norms, rotations and activation functions are left out: under 1 % in models of real size.
A backward pass costs another forward for the gradients of the inputs and another for those of trained weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mm_agrae.policy.load import Policy
from mm_agrae.policy.vision import keeps_features
from mm_agrae.records import RenderedPrompt


@dataclass(frozen=True, kw_only=True)
class GroupShape:
    """The sizes of a group.

    Attributes:
        prompt: Prompt tokens, visual ones included.
        completions: Tokens of each completion.
        grids: Frames, rows and columns of patches of each picture of the prompt.
    """

    prompt: int
    completions: tuple[int, ...]
    grids: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class VisionShape:
    """What of a vision tower decides its cost.

    Attributes:
        patch_weights: Weights that every patch is multiplied with.
        token_weights: Weights that every visual token is multiplied with (the mergers).
        width: Heads times head width.
        full_layers: Layers that attend to the whole picture.
        windowed_layers: Layers that attend within windows.
        window: Side of a window in visual tokens; 0 where no layer has windows.
        merge: Side of a visual token in patches.
        trained: Share of its weights that is trained.
        cached: Whether an update finds the features that the rollout left.
    """

    patch_weights: int
    token_weights: int
    width: int
    full_layers: int
    windowed_layers: int
    window: int
    merge: int
    trained: float
    cached: bool


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What of a model decides its cost.

    Attributes:
        weights: Weights of the language model that every token is multiplied with; embeddings and head are not.
        width: Query heads times head width.
        layers: Layers that attend. One with a sliding window counts as if it saw everything.
        head: Weights of the language-model head.
        trained: Share of `weights` that is trained.
        head_trained: Whether the head is.
        vision: The tower; None for a text model.
    """

    weights: float
    width: int
    layers: int
    head: int
    trained: float
    head_trained: bool
    vision: VisionShape | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Floating-point operations by part: linear layers and attention of the language model, its head, the tower."""

    language: float = 0.0
    attention: float = 0.0
    head: float = 0.0
    vision: float = 0.0

    @property
    def total(self) -> float:
        return self.language + self.attention + self.head + self.vision

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            language=self.language + other.language,
            attention=self.attention + other.attention,
            head=self.head + other.head,
            vision=self.vision + other.vision,
        )


def shape_of(prompt: RenderedPrompt, completions: Iterable[Sequence[int]]) -> GroupShape:
    """The sizes of a prompt with completions (token ids)."""
    grids = [] if prompt.image_grid_thw is None else prompt.image_grid_thw.tolist()
    return GroupShape(
        prompt=len(prompt.token_ids),
        completions=tuple(map(len, completions)),
        grids=tuple((frames, rows, columns) for frames, rows, columns in grids),
    )


def model_shape(policy: Policy) -> ModelShape:
    """Measure a policy's model. Adapters count as weights; of a mixture of experts, those that a token meets."""
    text = policy.inner.config.get_text_config()
    settings = text.to_dict()
    decoder = policy.inner.get_decoder()
    lookups = {id(table.weight) for table in decoder.modules() if isinstance(table, nn.Embedding)}
    per_token: int | None = settings.get("num_experts_per_tok")
    weights, trained = 0.0, 0.0
    for parameter in decoder.parameters():
        if parameter.dim() < 2 or id(parameter) in lookups:
            continue
        experts = parameter.shape[0] if per_token and parameter.dim() == 3 else 0
        met = parameter.numel() * per_token / experts if per_token and experts else parameter.numel()
        weights += met
        trained += met * parameter.requires_grad
    heads = getattr(text, "num_attention_heads", None) or 0  # no setting where every layer is recurrent
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    head: Any = policy.head
    return ModelShape(
        weights=weights,
        width=heads * (settings.get("head_dim") or text.hidden_size // max(1, heads)),
        layers=sum(map(_attends, kinds)),
        head=head.weight.numel(),
        trained=trained / weights,
        head_trained=head.weight.requires_grad,
        vision=_vision_shape(policy) if policy.sees else None,
    )


def forward_cost(model: ModelShape, group: GroupShape, *, shared: bool) -> Cost:
    """One forward pass over a group.

    Args:
        model: The model.
        group: The group.
        shared: True where prompt and pictures are computed once for all completions; False where each completion comes
            with a copy of both.
    """
    copies = 1 if shared else len(group.completions)
    answers = sum(group.completions)
    pairs = copies * _causal(group.prompt) + sum(n * group.prompt + _causal(n) for n in group.completions)
    return Cost(
        language=2.0 * model.weights * (copies * group.prompt + answers),
        attention=4.0 * model.layers * model.width * pairs,
        head=2.0 * model.head * answers,
        vision=copies * _vision_cost(model.vision, group.grids),
    )


def update_cost(model: ModelShape, group: GroupShape, *, shared: bool) -> Cost:
    """Forward and backward pass of an update over a group, without recomputation.

    Shared, this is the least that the update needs: its useful operations. A frozen tower costs one forward pass, and
    nothing where the rollout left its features in the cache.
    """
    once = forward_cost(model, group, shared=shared)
    tower = model.vision
    passes = 0.0 if tower is None or tower.cached else 1 + 2 * tower.trained
    return Cost(
        language=once.language * (2 + model.trained),
        attention=once.attention * 3,
        head=once.head * (2 + model.head_trained),
        vision=once.vision * passes,
    )


def _attends(kind: str) -> bool:
    """Whether layers of this kind, as transformers names it, attend; convolutions and recurrent states do not."""
    return kind.startswith("hybrid") or (kind.endswith("attention") and kind != "linear_attention")


def _vision_shape(policy: Policy) -> VisionShape:
    tower: Any = policy.backbone.visual
    settings = policy.inner.config.vision_config.to_dict()
    patch, token, trained = 0, 0, 0
    for name, parameter in tower.named_parameters():
        if parameter.dim() < 2 or name.startswith("pos_embed"):  # a table of positions is looked up, not multiplied
            continue
        patch += 0 if "merger" in name else parameter.numel()
        token += parameter.numel() if "merger" in name else 0
        trained += parameter.numel() * parameter.requires_grad
    layers, merge = settings["depth"], settings["spatial_merge_size"]
    whole = settings.get("fullatt_block_indexes")
    full_layers = layers if whole is None else len(whole)
    window = 0 if whole is None else settings["window_size"] // settings["patch_size"] // merge
    return VisionShape(
        patch_weights=patch,
        token_weights=token,
        width=tower.patch_embed.embed_dim,
        full_layers=full_layers,
        windowed_layers=layers - full_layers,
        window=window,
        merge=merge,
        trained=trained / (patch + token),
        cached=keeps_features(policy),
    )


def _vision_cost(vision: VisionShape | None, grids: Sequence[tuple[int, int, int]]) -> float:
    if vision is None:
        return 0.0
    cost = 0.0
    for frames, rows, columns in grids:
        patches = rows * columns
        pairs = vision.full_layers * patches**2
        if vision.windowed_layers:
            heights, widths = (_tiles(side // vision.merge, vision.window) for side in (rows, columns))
            inside = vision.merge**4 * sum(n**2 for n in heights) * sum(n**2 for n in widths)
            pairs += vision.windowed_layers * inside
        linear = vision.patch_weights * patches + vision.token_weights * patches // vision.merge**2
        cost += frames * (2.0 * linear + 4.0 * vision.width * pairs)
    return cost


def _tiles(length: int, size: int) -> list[int]:
    """A length cut into stretches of a size, the last one shorter."""
    return [min(size, length - start) for start in range(0, length, size)]


def _causal(length: int) -> int:
    """Pairs of a token and those up to it."""
    return length * (length + 1) // 2
