"""Settings of the engine that would do nothing are refused."""

import pytest
from pydantic import ValidationError

from mm_agrae.config import parse_config
from mm_agrae.config.engine import EngineConfig
from mm_agrae.errors import ConfigError

SERVED = {"kind": "vllm_server", "base_urls": ["http://127.0.0.1:8000"]}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kind": "vllm", "sync": "nccl"}, r"engine\.sync is set, but engine\.kind is vllm.*engine\.kind=vllm_server"),
        ({"sync_folder": "there"}, r"engine\.sync_folder is set, but engine\.kind is embedded"),
        (SERVED | {"memory_fraction": 0.3}, r"engine\.memory_fraction is set.*engine\.kind=vllm\."),
        ({"kind": "vllm", "request_timeout_s": 5}, r"engine\.request_timeout_s is set, but engine\.kind is vllm,"),
        ({"recover_timeout_s": 0}, r"engine\.recover_timeout_s is set, but engine\.kind is embedded"),
        ({"api_key_variable": "KEY"}, r"engine\.api_key_variable is set, but engine\.kind is embedded"),
        (SERVED | {"sync": "nccl", "sync_folder": "there"}, r"engine\.sync_folder is set, but engine\.sync is nccl"),
        (SERVED | {"base_urls": ["http://one:80", "http://ONE:80"]}, r"names http://one:80 twice"),
        (SERVED | {"sleeps": True}, r"engine\.sleeps is set, but engine\.kind is vllm_server.*engine\.kind=vllm\."),
    ],
)
def test_settings_of_another_engine_are_refused(settings: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        EngineConfig.model_validate(settings)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:80a", "http://one:70000", "http://one:0", "http://[::1:8000", "http://", "http://:80", ""),
        *("one:80", "ftp://one:80", "http://one/v1", "http://one:80/", "http://one?a=b", "http://one#a", "http://o ne"),
    ],
)
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="but must be http:// or https://, a host and a port") as caught:
        EngineConfig.model_validate(SERVED | {"base_urls": [url]})
    assert repr(url) in str(caught.value)


def test_a_password_in_an_address_is_refused_without_being_said() -> None:
    text = (
        "name: run\nmodel: {path: model}\ndata: {}\nengine: {kind: vllm_server, base_urls: ['http://user:pw@one:80']}"
    )
    with pytest.raises(ConfigError, match="is 'one:80' behind a user, but must be") as caught:
        parse_config(text)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "https://one.example", "http://[::1]:8000"])
def test_addresses_of_servers_are_taken(url: str) -> None:
    assert EngineConfig.model_validate(SERVED | {"base_urls": [url]}).base_urls == (url,)


def test_settings_of_the_engine_are_taken() -> None:
    assert EngineConfig.model_validate({"kind": "vllm", "sleeps": True, "memory_fraction": 0.3}).sleeps
    embedded = EngineConfig()
    assert EngineConfig.model_validate(embedded.model_dump()) == embedded  # as a run's record is read again
    assert EngineConfig.model_validate(SERVED | {"sync": "ipc"}).sync == "ipc"
