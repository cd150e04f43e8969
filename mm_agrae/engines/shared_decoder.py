"""Decoding with prompts that are computed and held once, however many completions they have.

Shapes: P prompts, L tokens of a prompt, R rows being decoded, H hidden width, K key and value heads, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.engines.wave import KeysAndValues, Wave
from mm_agrae.policy.attention import Recorder, no_mask
from mm_agrae.policy.forward import hidden_states
from mm_agrae.policy.grouped import AttentionPlan
from mm_agrae.policy.layout import Row, make_layout
from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt

# Every wave attends by itself, so many small ones would cost more than they fill. While there are so many, no prompt
# joins: rows stand empty until one wave has lost all of its own.
MAX_WAVES = 4
# Tokens of prompts in one forward pass: it fills an accelerator, and its activations are not those of all prompts.
PREFILL_TOKENS = 16384


class SharedDecoder:
    """See Decoder. Rows stand in the order of their waves."""

    def __init__(self, policy: Policy, *, max_tokens: int) -> None:
        self.policy = policy
        self.max_tokens = max_tokens
        self.waves: list[Wave] = []

    @property
    def accepts(self) -> bool:
        return len(self.waves) < MAX_WAVES

    def start(self, prompts: Sequence[RenderedPrompt], *, group: int) -> Float[Tensor, "R H"]:
        lengths = [len(prompt.token_ids) for prompt in prompts]
        store = _Store(lengths)
        ends = [self._prefill(piece, store) for piece in _pieces(prompts)]
        self.waves.append(Wave(store.layers, lengths, group=group, max_tokens=self.max_tokens))
        return torch.cat(ends).repeat_interleave(group, dim=0)

    def _prefill(self, prompts: Sequence[RenderedPrompt], store: _Store) -> Float[Tensor, "P H"]:
        """Last states of some prompts, whose keys and values go into the store."""
        layout = make_layout([Row(prompt=prompt, completions=()) for prompt in prompts]).to(self.policy.device)
        assert isinstance(layout.attention, AttentionPlan)
        lengths = [len(prompt.token_ids) for prompt in prompts]
        recorder = Recorder(layout.attention, lambda layer, key, value: store.put(layer, lengths, key[0], value[0]))
        states = hidden_states(self.policy, layout, recorder)
        store.filled += len(prompts)
        return states[0, torch.tensor(lengths, device=states.device).cumsum(0) - 1]

    def step(self, ids: Int[Tensor, " R"], positions: Int[Tensor, " R"]) -> Float[Tensor, "R H"]:
        for wave in self.waves:
            wave.begin_token()
        out = self.policy.backbone(
            input_ids=ids[:, None],
            attention_mask=no_mask(ids),
            position_ids=positions.expand(3, -1)[..., None] if self.policy.sees else positions[:, None],
            attention=self,
            use_cache=False,
        )
        return out.last_hidden_state[:, 0]

    def keep(self, rows: Sequence[int]) -> None:
        kept, start = [], 0
        for wave in self.waves:
            end = start + wave.num_rows
            chosen = [row - start for row in rows if start <= row < end]
            start = end
            if not chosen:
                continue
            if len(chosen) < wave.num_rows:
                wave.keep(chosen)
            kept.append(wave)
        self.waves = kept

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Attention; one new token in every row."""
        query, key, value = query.squeeze(2), key.squeeze(2), value.squeeze(2)
        with torch.autocast(query.device.type, enabled=False):  # products choose their own precision
            if len(self.waves) == 1:
                found = self.waves[0].attend(layer, query, key, value, scale)
            else:
                sizes = [wave.num_rows for wave in self.waves]
                parts = zip(query.split(sizes), key.split(sizes), value.split(sizes), strict=True)
                found = torch.cat(
                    [wave.attend(layer, q, k, v, scale) for wave, (q, k, v) in zip(self.waves, parts, strict=True)]
                )
        return found.to(query.dtype)[:, None]


class _Store:
    """Keys and values of prompts, [P, K, L, D] per layer; the first `filled` prompts are there."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)
        self.filled = 0
        self.layers: list[KeysAndValues] = []

    def put(self, layer: int, lengths: Sequence[int], keys: Tensor, values: Tensor) -> None:
        """Those of the next prompts, [K, T, D]."""
        if layer == len(self.layers):
            self.layers.append(KeysAndValues(self._empty(keys), self._empty(values)))
        for room, new in ((self.layers[layer].keys, keys), (self.layers[layer].values, values)):
            for place, prompt in zip(room[self.filled :], new.split(list(lengths), dim=1), strict=False):
                place[:, : prompt.shape[1]] = prompt

    def _empty(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(self.lengths), len(x), max(self.lengths), x.shape[-1])


def _pieces(prompts: Sequence[RenderedPrompt]) -> list[list[RenderedPrompt]]:
    """The prompts in their order, cut so that a piece has at most PREFILL_TOKENS tokens, or is a single prompt."""
    pieces: list[list[RenderedPrompt]] = []
    room = 0
    for prompt in prompts:
        length = len(prompt.token_ids)
        if not pieces or length > room:
            pieces.append([])
            room = PREFILL_TOKENS
        pieces[-1].append(prompt)
        room -= length
    return pieces
