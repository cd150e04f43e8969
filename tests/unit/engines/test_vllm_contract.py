"""The stand-in for a vLLM server answers as the real one did when tests/vllm/test_contract.py recorded it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mm_agrae.engines.vllm_contract import file_digest
from mm_agrae.engines.vllm_http import Server
from mm_agrae.errors import EngineError
from tests.unit.engines.fake_vllm import FakeVllm

CONTRACT = Path(__file__).parents[2] / "golden/vllm_contract.json"
KEY = "sk-very-secret"


def shape(value: Any) -> Any:
    """Names and types, without values; a list is what its first item is."""
    if isinstance(value, dict):
        return {key: shape(content) for key, content in value.items()}
    if isinstance(value, list):
        return [shape(content) for content in value[:1]]
    return type(value).__name__


@pytest.fixture
def fake() -> Iterator[FakeVllm]:
    server = FakeVllm(key=KEY)
    yield server
    server.stop()


def test_the_stand_in_answers_as_the_real_server_did(fake: FakeVllm, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    here = {"path": str(tmp_path / "weights.safetensors"), "digest": file_digest(tmp_path / "weights.safetensors")}
    server = Server(fake.url, api_key=KEY, timeout_s=10)
    said = json.loads(CONTRACT.read_text(encoding="utf-8"))
    answered = [entry for entry in said if "refused" not in entry]
    assert {entry["path"].partition("?")[0].strip("/") for entry in answered} == {
        "version", "weight_info", "pause", "collective_rpc", "start_weight_update", "update_weights",
        "finish_weight_update", "reset_prefix_cache", "reset_encoder_cache", "update_weight_version", "resume",
        "inference/v1/generate",
    }  # fmt: skip
    for entry in answered:
        body = entry["body"] | ({"update_info": here} if "update_info" in entry["body"] else {})
        answer = server.get(entry["path"]) if entry["method"] == "GET" else server.post(entry["path"], body)
        assert shape(answer) == shape(entry["answer"]), entry["path"]


def test_the_stand_in_refuses_with_the_same_status(fake: FakeVllm) -> None:
    refused = [entry for entry in json.loads(CONTRACT.read_text(encoding="utf-8")) if "refused" in entry]
    assert [entry["refused"] for entry in refused] == ["400", "401", "404"]
    for entry, key in zip(refused, (KEY, None, KEY), strict=True):
        with pytest.raises(EngineError, match=f"status {entry['refused']}"):
            Server(fake.url, api_key=key, timeout_s=10).post(entry["path"], entry["body"])
