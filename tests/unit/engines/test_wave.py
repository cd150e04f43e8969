"""Attention of a wave against plain attention of every row alone."""

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mm_agrae.engines import wave as wave_module
from mm_agrae.engines.wave import KeysAndValues, Wave

HEADS, KEY_HEADS, WIDTH = 6, 2, 4
SCALE = 0.3


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wave_module, "FIRST_ROOM", 2)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class Alone:
    """Every row with keys and values of its own."""

    def __init__(self, prompts: KeysAndValues, lengths: list[int], group: int) -> None:
        self.rows = [
            (keys[:, :length], values[:, :length])
            for keys, values, length in zip(prompts.keys, prompts.values, lengths, strict=True)
            for _ in range(group)
        ]

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Iterator[Tensor]:
        for number, (keys, values) in enumerate(self.rows):
            keys, values = torch.cat([keys, key[number, :, None]], 1), torch.cat([values, value[number, :, None]], 1)
            self.rows[number] = keys, values
            repeated = [x.repeat_interleave(HEADS // KEY_HEADS, dim=0) for x in (keys, values)]
            scores = torch.einsum("hd,hld->hl", query[number], repeated[0]) * SCALE
            yield torch.einsum("hl,hld->hd", scores.softmax(-1), repeated[1])


def steps(wave: Wave, alone: Alone, count: int) -> None:
    for _ in range(count):
        query, key, value = (drawn(wave.num_rows, heads, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
        wave.begin_token()
        found = wave.attend(0, query, key, value, SCALE)
        torch.testing.assert_close(found, torch.stack(list(alone.attend(query, key, value))), rtol=0, atol=1e-12)


def keep(wave: Wave, alone: Alone, rows: list[int]) -> None:
    wave.keep(rows)
    alone.rows = [alone.rows[row] for row in rows]


@pytest.mark.parametrize("lengths", [[3, 3, 3], [3, 5, 2], [4]])
def test_it_attends_as_every_row_alone_while_rows_and_prompts_leave(lengths: list[int]) -> None:
    torch.manual_seed(0)
    shape = len(lengths), KEY_HEADS, max(lengths), WIDTH
    layer = KeysAndValues(drawn(*shape), drawn(*shape))
    wave, alone = Wave([layer], lengths, group=4, max_tokens=100), Alone(layer, lengths, 4)
    steps(wave, alone, 3)
    uneven = [row for row in range(wave.num_rows) if row not in (1, 4, 5)]
    keep(wave, alone, uneven)
    steps(wave, alone, 3)
    last = [row for row in range(wave.num_rows) if wave.prompt_of[row] == len(lengths) - 1]
    keep(wave, alone, last)
    assert wave.prompts[0].keys.shape == (1, KEY_HEADS, lengths[-1], WIDTH), "prompts without rows leave"
    steps(wave, alone, 4)


def made_wave(*, layers: int = 1, max_tokens: int = 100) -> Wave:
    prompts = [KeysAndValues(drawn(2, KEY_HEADS, 5, WIDTH), drawn(2, KEY_HEADS, 5, WIDTH)) for _ in range(layers)]
    wave = Wave(prompts, [5, 5], group=8, max_tokens=max_tokens)
    assert all(kept.keys is layer.keys for kept, layer in zip(wave.prompts, prompts, strict=True)), "not repeated"
    return wave


@pytest.mark.parametrize(
    ("max_tokens", "expected"), [(100, [2, 2, 4, 4, 8, 8]), (5, [2, 2, 4, 4, 5, 5]), (1, [1, 1, 1, 1, 1, 1])]
)
def test_room_doubles_up_to_the_longest_completion(max_tokens: int, expected: list[int]) -> None:
    wave = made_wave(max_tokens=max_tokens)
    rooms = []
    for _ in expected:
        wave.begin_token()
        rooms.append(wave.own[0].keys.shape[2])
    assert rooms == expected
    assert wave.length == min(len(expected), max_tokens)


def test_rows_that_are_as_long_as_can_be_still_take_a_token() -> None:
    wave = made_wave(max_tokens=3)
    for _ in range(5):
        wave.begin_token()
        query, key, value = (drawn(wave.num_rows, heads, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
        assert wave.attend(0, query, key, value, SCALE).isfinite().all()
    assert wave.length == 3


@pytest.mark.parametrize("change", ["begin_token", "keep"])
def test_one_layer_at_a_time_is_held_twice(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    wave = made_wave(layers=6)
    for _ in range(2):
        wave.begin_token()
    old = [weakref.ref(tensor) for layer in (*wave.own, *wave.prompts) for tensor in (layer.keys, layer.values)]
    alive: list[int] = []

    def counted(keys: Tensor, values: Tensor) -> KeysAndValues:
        alive.append(sum(tensor() is not None for tensor in old))
        return KeysAndValues(keys, values)

    monkeypatch.setattr(wave_module, "KeysAndValues", counted)
    if change == "begin_token":
        wave.begin_token()
        # The layers to come, the one that is replaced, and the prompts, which stay.
        assert alive == [24, 22, 20, 18, 16, 14]
    else:
        wave.keep(range(8))
        assert alive == [24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2]
