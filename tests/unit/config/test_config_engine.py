"""Settings of the engine that would do nothing are refused."""

import pytest
from pydantic import ValidationError

from mm_agrae.config.engine import EngineConfig

SERVED = {"kind": "vllm_server", "base_urls": ["http://127.0.0.1:8000"]}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kind": "vllm", "sync": "nccl"}, r"engine\.sync is set, but engine\.kind is vllm.*engine\.kind=vllm_server"),
        ({"sync_folder": "there"}, r"engine\.sync_folder is set, but engine\.kind is embedded"),
        (SERVED | {"sleeps": True}, r"engine\.sleeps is set, but engine\.kind is vllm_server.*engine\.kind=vllm\."),
    ],
)
def test_settings_of_another_engine_are_refused(settings: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        EngineConfig.model_validate(settings)


def test_settings_of_the_engine_are_taken() -> None:
    assert EngineConfig.model_validate({"kind": "vllm", "sleeps": True}).sleeps
    assert EngineConfig.model_validate(SERVED | {"sync": "ipc"}).sync == "ipc"
