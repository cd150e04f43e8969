"""Attention of a decoding step over prompts that stand once and completions that stand apart.

A wave is the completions of some prompts that were started together, so all of them are equally long. The keys and
values of a prompt are held once, those of every completion in buffers with room to grow; the scores of a new token over
both meet in one softmax. Completions of one prompt and heads that share a key head are the rows of one matrix product,
so nothing is repeated.

Shapes: P prompts, L tokens of the longest prompt, R rows (completions that are still decoded), S slots (most rows of
one prompt), H query heads, K key and value heads (K divides H), D head width, M tokens of a completion so far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.policy.product import product

# Room for so many completion tokens at first; it doubles whenever it is full, up to the longest completion.
FIRST_ROOM = 64


@dataclass(frozen=True)
class KeysAndValues:
    """Of one layer."""

    keys: Tensor
    values: Tensor

    def index_select(self, index: Tensor) -> KeysAndValues:
        return KeysAndValues(self.keys.index_select(0, index), self.values.index_select(0, index))


@dataclass(frozen=True)
class Slots:
    """Rows as a rectangle [P, S]: where prompts have different numbers of rows, some slots repeat a row."""

    row_of_slot: Int[Tensor, " P*S"]
    slot_of_row: Int[Tensor, " R"]


class Wave:
    """Keys and values of a wave, layer by layer."""

    def __init__(
        self, prompts: Sequence[KeysAndValues], lengths: Sequence[int], *, group: int, max_tokens: int
    ) -> None:
        """Start `group` rows for every prompt.

        Args:
            prompts: Per layer [P, K, L, D], anything finite behind the end of a shorter prompt.
            lengths: Tokens of every prompt.
            group: Rows of every prompt, next to each other.
            max_tokens: Tokens of the longest completion; at least 1.
        """
        self.prompts = list(prompts)
        self.lengths = list(lengths)
        self.prompt_of = [prompt for prompt in range(len(lengths)) for _ in range(group)]
        self.length = 0
        self.max_tokens = max_tokens
        rows, room = len(self.prompt_of), min(FIRST_ROOM, max_tokens)
        self.own = [
            KeysAndValues(_room(layer.keys, rows, room), _room(layer.values, rows, room)) for layer in self.prompts
        ]
        self._arrange()

    @property
    def num_rows(self) -> int:
        return len(self.prompt_of)

    def begin_token(self) -> None:
        """Make room for one more token in every row; `attend` then writes it.

        Rows that are as long as can be may stay a while beside other waves. Nothing is drawn from them any more, so
        their last token is overwritten.
        """
        if self.length == self.max_tokens:
            return
        room = self.own[0].keys.shape[2]
        if self.length == room:
            longer = min(2 * room, self.max_tokens)
            for layer, own in enumerate(self.own):  # one by one: two sizes of every layer would be three times the room
                self.own[layer] = KeysAndValues(_longer(own.keys, longer), _longer(own.values, longer))
        self.length += 1

    def attend(
        self, layer: int, query: Float[Tensor, "R H D"], key: Tensor, value: Tensor, scale: float
    ) -> Float[Tensor, "R H D"]:
        """Store key and value [R, K, D] of the new tokens, then attend to prompt and completion."""
        own, prompt = self.own[layer], self.prompts[layer]
        own.keys[:, :, self.length - 1] = key
        own.values[:, :, self.length - 1] = value
        rows, heads, width = len(query), own.keys.shape[1], own.keys.shape[3]
        query = query.to(own.keys.dtype).view(rows, heads, -1, width)
        own_keys = own.keys[:, :, : self.length].flatten(0, 1)  # [R * K, M, D]
        own_values = own.values[:, :, : self.length].flatten(0, 1)
        scores = torch.cat(
            [
                product(self._by_prompt(query), prompt.keys.flatten(0, 1).mT),
                self._by_prompt(product(query.flatten(0, 1), own_keys.mT).view(rows, heads, -1, self.length)),
            ],
            dim=-1,
        ).mul_(scale)  # [P * K, S * H / K, L + M]
        if self.hidden is not None:
            scores[..., : self.hidden.shape[-1]].masked_fill_(self.hidden, float("-inf"))
        weights = scores.softmax(dim=-1).to(own.keys.dtype)
        of_prompt, of_own = weights.split([prompt.keys.shape[2], self.length], dim=-1)
        found = self._by_row(product(of_prompt, prompt.values.flatten(0, 1)), heads)
        found = found + product(self._by_row(of_own, heads).flatten(0, 1), own_values).view(found.shape)
        return found.flatten(1, 2)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows, and prompts without rows.

        Args:
            rows: Ascending.
        """
        index = torch.tensor(rows, device=self.prompts[0].keys.device)
        for layer in range(len(self.own)):  # one by one, as above
            self.own[layer] = self.own[layer].index_select(index)
        prompt_of = [self.prompt_of[row] for row in rows]
        used = sorted(set(prompt_of))
        if len(used) < len(self.lengths):
            self.lengths = [self.lengths[prompt] for prompt in used]
            longest = max(self.lengths)
            index = torch.tensor(used, device=index.device)
            for layer, prompt in enumerate(self.prompts):
                self.prompts[layer] = KeysAndValues(prompt.keys[index, :, :longest], prompt.values[index, :, :longest])
        place = {old: new for new, old in enumerate(used)}
        self.prompt_of = [place[old] for old in prompt_of]
        self._arrange()

    def _arrange(self) -> None:
        device = self.prompts[0].keys.device
        rows_of = Counter(self.prompt_of)
        counts = [rows_of[prompt] for prompt in range(len(self.lengths))]
        self.width = max(counts)
        self.slots = None if min(counts) == self.width else _slots(counts, device)
        self.hidden = None
        if len(set(self.lengths)) > 1:
            steps = torch.arange(max(self.lengths), device=device)
            behind = steps >= torch.tensor(self.lengths, device=device)[:, None]  # [P, L]
            heads = self.prompts[0].keys.shape[1]
            self.hidden = behind.repeat_interleave(heads, dim=0)[:, None]  # [P * K, 1, L]

    def _by_prompt(self, x: Tensor) -> Tensor:
        """[R, K, H / K, N] -> [P * K, S * H / K, N]."""
        if self.slots is not None:
            x = x.index_select(0, self.slots.row_of_slot)
        return x.unflatten(0, (-1, self.width)).transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def _by_row(self, x: Tensor, heads: int) -> Tensor:
        """[P * K, S * H / K, N] -> [R, K, H / K, N]."""
        x = x.unflatten(0, (-1, heads)).unflatten(2, (self.width, -1)).transpose(1, 2).flatten(0, 1)
        return x if self.slots is None else x.index_select(0, self.slots.slot_of_row)


def _slots(counts: Sequence[int], device: torch.device) -> Slots:
    width = max(counts)
    row_of_slot = [
        end - count + min(slot, count - 1)
        for end, count in zip(accumulate(counts), counts, strict=True)
        for slot in range(width)
    ]
    slot_of_row = [number * width + slot for number, count in enumerate(counts) for slot in range(count)]
    return Slots(torch.tensor(row_of_slot, device=device), torch.tensor(slot_of_row, device=device))


def _room(prompts: Tensor, rows: int, room: int) -> Tensor:
    return prompts.new_empty(rows, prompts.shape[1], room, prompts.shape[3])


def _longer(x: Tensor, room: int) -> Tensor:
    longer = x.new_empty(*x.shape[:2], room, x.shape[3])
    longer[:, :, : x.shape[2]] = x
    return longer
