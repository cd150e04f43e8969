"""One row of groups [prompt | completion 1 | ... | completion n]: prompt and image stand once for all completions.

A completion attends to its prompt and to itself, and its positions restart after the prompt, so every number equals the
one of [prompt | completion] alone. The gradient of the shared prompt is the sum over its completions, which is the sum
that separate copies would give. A row of one completion is the ordinary layout.

Models that cannot fork after a prompt (a window over the last tokens, a recurrent state) get one line
[prompt | completion] per completion, padded at its end, where no causal layer looks.

Shapes: B lines (1 of groups laid end to end), T tokens of a line, K (position, target) pairs, R position rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mm_agrae.policy.attention import no_mask
from mm_agrae.policy.grouped import AttentionPlan, plan_attention
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
        return len(self.prompt.token_ids) + self.num_targets

    @property
    def num_targets(self) -> int:
        return sum(map(len, self.completions))


def one_by_one(row: Row) -> list[Row]:
    """The same completions, each with a prompt of its own."""
    return [
        replace(row, completions=(completion,), first=place)
        for place, completion in enumerate(row.completions, start=row.first)
    ]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Rows as the tensors of one forward pass: end to end without padding, or one completion per line.

    Attributes:
        input_ids: [B, T].
        attention: Which tokens attend to which; of padded lines the mask [B, T], 1 at real tokens, for the model's own
            attention.
        position_ids: [3, B, T] for multimodal rotary positions, else [B, T].
        mm_token_type_ids: [B, T]; None for a text model.
        pictured: The prompts with images, in the order of the tokens.
        sources: [K] token whose hidden state predicts the target, counted through all lines.
        targets: [K] token ids of all completions, row by row, completion by completion.
    """

    input_ids: Int[Tensor, "B T"]
    attention: AttentionPlan | Int[Tensor, "B T"]
    position_ids: Tensor
    mm_token_type_ids: Int[Tensor, "B T"] | None
    pictured: tuple[RenderedPrompt, ...]
    sources: Int[Tensor, " K"]
    targets: Int[Tensor, " K"]

    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of the backbone, without the images."""
        inputs: dict[str, Any] = {"input_ids": self.input_ids, "position_ids": self.position_ids}
        if isinstance(self.attention, Tensor):
            inputs["attention_mask"] = self.attention
        else:
            inputs["attention_mask"] = no_mask(self.input_ids)
            inputs["attention"] = self.attention
        if self.mm_token_type_ids is not None:
            inputs["mm_token_type_ids"] = self.mm_token_type_ids
        return inputs

    def to(self, device: torch.device) -> Layout:
        """The same on a device; images are moved where they are encoded."""
        types = self.mm_token_type_ids
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention=self.attention.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            mm_token_type_ids=None if types is None else types.to(device, non_blocking=True),
            sources=self.sources.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
        )


def make_layout(rows: Sequence[Row]) -> Layout:
    """Lay rows end to end.

    Raises:
        ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("there are 0 rows, but a layout needs at least one.")
    ids, positions = zip(*map(_flatten, rows), strict=True)
    starts = [0, *accumulate(row.num_tokens for row in rows)]
    position_ids = torch.cat(positions, dim=1)[:, None]  # [R, 1, T]
    targets = [token for row in rows for completion in row.completions for token in completion]
    return Layout(
        input_ids=torch.cat(ids)[None],
        attention=plan_attention(
            [len(row.prompt.token_ids) for row in rows],
            [[len(completion) for completion in row.completions] for row in rows],
        ),
        position_ids=position_ids if len(position_ids) > 1 else position_ids[0],
        mm_token_type_ids=_types(rows),
        pictured=tuple(row.prompt for row in rows if row.prompt.pixel_values is not None),
        sources=torch.cat([_sources(row) + start for row, start in zip(rows, starts, strict=False)]),
        targets=torch.tensor(targets, dtype=torch.long),
    )


def make_padded_layout(rows: Sequence[Row]) -> Layout:
    """Every completion on a line of its own, with its own copy of the prompt and its images.

    Raises:
        ValueError: If there are no rows.
    """
    if not rows:
        raise ValueError("there are 0 rows, but a layout needs at least one.")
    lines = [line for row in rows for line in one_by_one(row)]
    ids, positions = zip(*map(_flatten, lines), strict=True)
    input_ids = pad_sequence(list(ids), batch_first=True)  # [B, T]
    position_ids = pad_sequence([position.T for position in positions], batch_first=True).permute(2, 0, 1)
    lengths = torch.tensor([line.num_tokens for line in lines])[:, None]
    starts = range(0, input_ids.numel(), input_ids.shape[1])
    types = [_types([line]) for line in lines]
    return Layout(
        input_ids=input_ids,
        attention=(torch.arange(input_ids.shape[1]) < lengths).long(),
        position_ids=position_ids if len(position_ids) > 1 else position_ids[0],
        mm_token_type_ids=None if types[0] is None else pad_sequence([t[0] for t in types if t is not None], True),
        pictured=tuple(line.prompt for line in lines if line.prompt.pixel_values is not None),
        sources=torch.cat([_sources(line) + start for line, start in zip(lines, starts, strict=True)]),
        targets=torch.tensor([token for line in lines for token in line.completions[0]], dtype=torch.long),
    )


def _flatten(row: Row) -> tuple[Tensor, Tensor]:
    """Ids [T] and positions [R, T] of a row."""
    prompt = row.prompt
    ids = list(prompt.token_ids)
    positions = [prompt.position_ids]
    for completion in row.completions:
        ids.extend(completion)
        steps = torch.arange(len(completion)) + prompt.next_position
        positions.append(steps.expand(prompt.position_ids.shape[0], -1))
    return torch.tensor(ids), torch.cat(positions, dim=1)


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


def _types(rows: Sequence[Row]) -> Tensor | None:
    if rows[0].prompt.mm_token_type_ids is None:
        return None
    types = []
    for row in rows:
        assert row.prompt.mm_token_type_ids is not None
        types.append(row.prompt.mm_token_type_ids)
        types.append(torch.zeros(row.num_tokens - len(row.prompt.token_ids), dtype=torch.long))
    return torch.cat(types)[None]
