"""The benchmarks' peer is what its name says: its inputs, its recomputation, and the same numbers as ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

import bench_equality as equality
import bench_inputs
import bench_peer
import bench_step

POINT = bench_inputs.Point(visual=16, text=24, completion=6, group=2, prompts=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A model, and another to stay close to."""
    root = tmp_path_factory.mktemp("bench")
    return [bench_inputs.build(root / str(seed), architecture="qwen2_5_vl", size="tiny", seed=seed) for seed in (0, 1)]


def test_prompts_are_padded_on_the_left_and_completions_on_the_right(folders: list[Path]) -> None:
    prompt = bench_step.groups_of(bench_inputs.policy_of(folders[0]), POINT, ragged=True)[0].prompt
    long, short = (
        replace(
            prompt,
            token_ids=ids,
            mm_token_type_ids=torch.tensor(types),
            pixel_values=torch.full((4, 2), float(len(ids))),
            image_grid_thw=torch.tensor([[1, 2, 2]]),
        )
        for ids, types in (((5, 6, 7), (0, 1, 0)), ((8, 4), (1, 0)))
    )
    found = bench_peer.loss_inputs([(long, (1,), 0.5), (short, (2, 3), -0.5)], pad_token_id=9)
    pixels, lists = found.pop("pixel_values"), {name: torch.as_tensor(value).tolist() for name, value in found.items()}
    assert pixels[:, 0].tolist() == [3.0] * 4 + [2.0] * 4
    assert lists == {
        "prompt_ids": [[5, 6, 7], [9, 8, 4]],
        "prompt_mask": [[1, 1, 1], [0, 1, 1]],
        "completion_ids": [[1, 9], [2, 3]],
        "completion_mask": [[1, 0], [1, 1]],
        "advantages": [0.5, -0.5],
        "image_grid_thw": [[1, 2, 2], [1, 2, 2]],
        "num_images": [1, 1],
        "mm_token_type_ids": [[0, 1, 0, 0, 0], [0, 1, 0, 0, 0]],
    }
    texts = [replace(one, pixel_values=None, image_grid_thw=None) for one in (long, short)]
    assert "num_images" not in bench_peer.loss_inputs([(one, (1,), 0.0) for one in texts], pad_token_id=9)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_stock_computes_every_layer_twice_and_the_rest_once(folders: list[Path], checkpointing: bool) -> None:
    _, batch = bench_step.prepared(folders[0], POINT, sharing=True)
    peer = bench_peer.PeerUpdate(folders[0], batch, rows=4, checkpointing=checkpointing, lr=1e-4, settings={})
    calls: list[Any] = []
    model = peer.trainer.model.model
    # What a layer calls: a hook on the layer itself is outside of what is recomputed.
    for part in (model.language_model.layers[0].mlp, model.visual.blocks[0].mlp):
        part.register_forward_pre_hook(lambda module, _: calls.append(module))
    peer.update()
    assert len(calls) == (4 if checkpointing else 2)


@pytest.mark.parametrize(
    "setting", [equality.Setting(), equality.Setting(loss="cispo", beta=0.04, temperature=0.7)], ids=str
)
def test_it_computes_what_we_compute(folders: list[Path], setting: equality.Setting) -> None:
    groups = bench_step.groups_of(bench_inputs.policy_of(folders[0]), POINT, ragged=True)
    entries = equality.compare(
        folders[0], groups, [setting], length=POINT.completion, reference=folders[1], with_peer=True
    )
    assert equality.equal(entries), equality.lines_of(entries)
    assert "gradients, trl" in entries


def test_every_way_computes_the_same_on_what_is_timed(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_step, "PEER_ROWS", (2,))
    found = bench_step.measure_times(folders[0], POINT, rounds=1, with_peer=True)
    assert set(found["seconds"]) == {"ours", "repeated", "trl stock", "trl 2"}
    assert found["peer_best"] == "trl 2"
    assert "gradients, trl stock" in found["equality"]
    assert torch.tensor([entry["value"] for entry in found["equality"].values()]).isfinite().all()
