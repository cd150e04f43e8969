"""Stand-ins for servers, and what engines for them are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mm_agrae.config.engine import EngineConfig
from mm_agrae.engines.vllm_requests import GENERATE
from mm_agrae.engines.vllm_server import VllmServerEngine
from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt, Sampling
from tests.unit.engines.fake_vllm import Alone, FakeVllm

SAMPLING = Sampling(num_completions=2, max_new_tokens=4)
KEY = "sk-very-secret"


class Setup:
    """Servers, and what engines for them are made of."""

    def __init__(self, folder: Path, policy: Policy, prompts: list[RenderedPrompt]) -> None:
        self.folder = folder
        self.policy = policy
        self.prompts = prompts
        self.fakes = [FakeVllm(key=KEY)]
        self.told: list[str] = []
        self.on_log: Callable[[str], None] = lambda line: None

    @property
    def fake(self) -> FakeVllm:
        return self.fakes[0]

    def log(self, line: str) -> None:
        self.told.append(line)
        self.on_log(line)

    def engine(self, *, recover_timeout_s: float = 30.0, request_timeout_s: float = 10.0) -> VllmServerEngine:
        settings = EngineConfig(
            kind="vllm_server",
            base_urls=tuple(fake.url for fake in self.fakes),
            recover_timeout_s=recover_timeout_s,
            request_timeout_s=request_timeout_s,
        )
        return VllmServerEngine(settings, self.policy, folder=self.folder, ranks=Alone(), log=self.log)

    def generate(self, engine: VllmServerEngine) -> list[list[Any]]:
        return engine.generate(self.prompts, SAMPLING, [[place, place + 100] for place in range(len(self.prompts))])


def asked(fake: FakeVllm) -> list[dict]:
    """The prompts that a server was asked, without the probes."""
    return [body for path, body in fake.seen if path == GENERATE and "allowed_token_ids" not in body["sampling_params"]]


class Shared:
    """Two processes, one after the other: what the first broadcasts the second reads."""

    def __init__(self, said: list[Any], *, rank: int) -> None:
        self.said = said
        self.rank = rank
        self.is_main = rank == 0

    def broadcast(self, value: Any) -> Any:
        if self.is_main:
            self.said.append(value)
            return value
        return self.said.pop(0)
