"""Rows of [prompt | completion 1 | ... | completion n]: the prompt and its image stand once for all its completions.

A completion attends to its prompt and to itself, and its positions restart after the prompt, so every number equals the
one of [prompt | completion] alone. The gradient of the shared prompt is the sum over its completions, which is the sum
that separate copies would give. A row of one completion is the ordinary layout.

Shapes: B rows, T tokens of the longest row, K (position, target) pairs, R position rows, N patches, I images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mm_agrae.records import RenderedPrompt


@dataclass(frozen=True, kw_only=True)
class Row:
    """One prompt with some of its completions.

    Attributes:
        prompt: Stands once, in front.
        completions: Token ids of each completion.
        group: The caller's number of the group.
        first: Place of the first of these completions in its group.
    """

    prompt: RenderedPrompt
    completions: tuple[tuple[int, ...], ...]
    group: int = 0
    first: int = 0

    @property
    def num_tokens(self) -> int:
        return len(self.prompt.token_ids) + sum(map(len, self.completions))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Rows as the tensors of one forward pass.

    Attributes:
        input_ids: [B, T].
        mask: [B, 1, T, T], True where the first position may attend to the second.
        position_ids: [3, B, T] for multimodal rotary positions, else [B, T].
        mm_token_type_ids: [B, T]; None for a text model.
        pixel_values, image_grid_thw: Of all images of the rows, each once; None without images.
        sources: [K] index into the flattened [B * T] whose hidden state predicts the target.
        targets: [K] token ids of all completions, row by row, completion by completion.
    """

    input_ids: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B 1 T T"]
    position_ids: Tensor
    mm_token_type_ids: Int[Tensor, "B T"] | None
    pixel_values: Float[Tensor, "N D"] | None
    image_grid_thw: Int[Tensor, "I 3"] | None
    sources: Int[Tensor, " K"]
    targets: Int[Tensor, " K"]

    def to(self, device: torch.device) -> Layout:
        moved = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return Layout(**moved)


def make_layout(rows: Sequence[Row]) -> Layout:
    """Lay rows out side by side, padded on the right with id 0: nothing attends to padding, and nobody reads it.

    Raises:
        ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("there are 0 rows, but a layout needs at least one.")
    width = max(row.num_tokens for row in rows)
    num_position_rows = rows[0].prompt.position_ids.shape[0]
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    position_ids = torch.zeros(num_position_rows, len(rows), width, dtype=torch.long)
    segments = torch.full((len(rows), width), -1)
    sources: list[Tensor] = []
    for index, row in enumerate(rows):
        ids, positions, segment = _flatten(row)
        input_ids[index, : len(ids)] = ids
        position_ids[:, index, : len(ids)] = positions
        segments[index, : len(ids)] = segment
        sources.append(_sources(row) + index * width)
    targets = [token for row in rows for completion in row.completions for token in completion]
    return Layout(
        input_ids=input_ids,
        mask=_mask(segments),
        position_ids=position_ids if num_position_rows > 1 else position_ids[0],
        mm_token_type_ids=_types(rows, width),
        pixel_values=_concatenate([row.prompt.pixel_values for row in rows]),
        image_grid_thw=_concatenate([row.prompt.image_grid_thw for row in rows]),
        sources=torch.cat(sources),
        targets=torch.tensor(targets, dtype=torch.long),
    )


def _flatten(row: Row) -> tuple[Tensor, Tensor, Tensor]:
    """Ids [T], positions [R, T] and segments [T] of a row; segment 0 is the prompt."""
    prompt = row.prompt
    ids = list(prompt.token_ids)
    segments = [0] * len(ids)
    positions = [prompt.position_ids]
    for number, completion in enumerate(row.completions, start=1):
        ids.extend(completion)
        segments.extend([number] * len(completion))
        steps = torch.arange(len(completion)) + prompt.next_position
        positions.append(steps.expand(prompt.position_ids.shape[0], -1))
    return torch.tensor(ids), torch.cat(positions, dim=1), torch.tensor(segments)


def _sources(row: Row) -> Tensor:
    """The first token of every completion is predicted by the prompt's last state, the others by their predecessor."""
    prompt_end = len(row.prompt.token_ids) - 1
    start = prompt_end + 1
    pieces = [torch.empty(0, dtype=torch.long)]
    for completion in row.completions:
        piece = torch.arange(start - 1, start - 1 + len(completion))
        piece[:1] = prompt_end
        pieces.append(piece)
        start += len(completion)
    return torch.cat(pieces)


def _mask(segments: Tensor) -> Tensor:
    """[B, T] segments -> [B, 1, T, T]: earlier positions of the prompt and of the own completion."""
    query, key = segments[:, :, None], segments[:, None, :]
    earlier = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool).tril()
    allowed = earlier & ((key == 0) | (key == query)) & (key >= 0)
    # Softmax over nothing is not a number; padding attends to itself, and nobody reads it.
    return (allowed | torch.eye(segments.shape[1], dtype=torch.bool))[:, None]


def _types(rows: Sequence[Row], width: int) -> Tensor | None:
    if rows[0].prompt.mm_token_type_ids is None:
        return None
    types = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        assert row.prompt.mm_token_type_ids is not None
        types[index, : len(row.prompt.token_ids)] = row.prompt.mm_token_type_ids
    return types


def _concatenate(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None
