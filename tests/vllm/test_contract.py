"""Requests and answers of a real server, kept as tests/golden/vllm_contract.json for the default suite's stand-in.

RECORD_VLLM_CONTRACT=1 writes the file anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_agrae.config.engine import EngineConfig
from mm_agrae.engines.vllm_http import Server
from mm_agrae.engines.vllm_requests import GENERATE
from mm_agrae.engines.vllm_server import VllmServerEngine
from mm_agrae.errors import EngineError
from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt, Sampling
from tests.unit.engines.fake_vllm import Alone
from tests.unit.engines.test_vllm_contract import CONTRACT, shape
from tests.vllm.conftest import KEY, RealServer

ASK = Server._ask
SHORT = {"kwargs_data": "...", "path": "...", "model": "...", "shapes": {}, "created": 0}


def exchanges(
    policy: Policy, prompts: list[RenderedPrompt], url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """What is said between engine and server, from the start to an update, and three refusals."""
    said: list[dict[str, Any]] = []

    def ask(server: Server, method: str, path: str, body: bytes | None, timeout_s: float) -> Any:
        entry: dict[str, Any] = {"method": method, "path": path, "body": brief(json.loads(body or b"{}"))}
        said.append(entry)
        try:
            entry["answer"] = brief(ASK(server, method, path, body, timeout_s))
        except EngineError as error:
            entry["refused"] = str(error).partition("status ")[2][:3]
            raise
        return entry["answer"]

    monkeypatch.setattr(Server, "_ask", ask)
    settings = EngineConfig(kind="vllm_server", base_urls=(url,))
    engine = VllmServerEngine(settings, policy, folder=folder, ranks=Alone(), log=print)
    engine.generate(prompts, Sampling(num_completions=2, max_new_tokens=3), [[0, 1]] * len(prompts))
    engine.sync_weights(policy, version=1)
    engine.close()
    too_long = {"token_ids": [1] * 1100, "sampling_params": {"max_tokens": 1}}
    for key, path, body in ((KEY, GENERATE, too_long), (None, GENERATE, too_long), (KEY, "/no_such_route", {})):
        with pytest.raises(EngineError):
            Server(url, api_key=key, timeout_s=60).post(path, body)
    return said


def brief(value: Any) -> Any:
    """Without what is long, or differs from day to day."""
    if isinstance(value, dict):
        return {key: SHORT.get(key, brief(content)) for key, content in value.items()}
    return value


def test_the_recorded_contract_holds(
    serve: Callable[[Path], RealServer],
    model_folder: Callable[[str], Path],
    policy_of: Callable[[str], Policy],
    rendered: Callable[..., RenderedPrompt],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve(model_folder("qwen2_5_vl"))
    policy = policy_of("qwen2_5_vl")
    said = exchanges(policy, [rendered(policy, (32, 32)), rendered(policy)], server.url, tmp_path, monkeypatch)
    # Two requests under way at once answer in any order.
    said.sort(key=lambda entry: entry["path"] == GENERATE and not {"features", "refused"} & {*entry, *entry["body"]})
    if os.environ.get("RECORD_VLLM_CONTRACT"):
        CONTRACT.write_text("[\n" + ",\n".join(map(json.dumps, said)) + "\n]\n", encoding="utf-8")
    recorded = json.loads(CONTRACT.read_text(encoding="utf-8"))
    assert [shape(entry) for entry in said] == [shape(entry) for entry in recorded]
