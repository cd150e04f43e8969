"""What several tests of the engines start from."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mm_agrae.engines import vllm_fleet
from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt
from tests.unit.engines.serving import KEY, Setup

Rendered = Callable[..., RenderedPrompt]


@pytest.fixture
def setup(
    tmp_path: Path, policy_of: Callable[[str], Policy], rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Setup]:
    monkeypatch.setenv("MM_AGRAE_VLLM_API_KEY", KEY)
    monkeypatch.setattr(vllm_fleet, "FIRST_WAIT_S", 0.01)
    policy = policy_of("qwen2_5_vl")
    made = Setup(tmp_path, policy, [rendered(policy, (64, 48), seed=seed) for seed in range(4)])
    yield made
    for fake in made.fakes:
        fake.stop()
