"""Settings of the rollout engine: who samples completions, and how it gets new weights."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from mm_agrae.config.section import NonNegativeFloat, PositiveFloat, Section

# Settings that one kind of engine alone looks at.
ONLY_OF: dict[str, tuple[str, ...]] = {
    "vllm": ("memory_fraction", "sleeps"),
    "vllm_server": ("sync", "sync_folder", "request_timeout_s", "recover_timeout_s", "api_key_variable"),
}


def _base_url(url: str) -> str:
    """A server's address, to which paths are added."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and not any(character.isspace() for character in url)
        usable = usable and parts.scheme in ("http", "https") and url == f"{parts.scheme}://{parts.netloc}"
    except ValueError:  # a port that is no number or too large, or a bracket that is not closed
        usable = False
    _, at, address = url.rpartition("@")
    if not usable or at:
        raise ValueError(
            f"a server's address is {address!r}{' behind a user' if at else ''}, but must be http:// or https://, a "
            "host and a port, and nothing else, such as http://127.0.0.1:8000. The API key is named by "
            "engine.api_key_variable."
        )
    return url


BaseUrl = Annotated[str, AfterValidator(_base_url)]


class EngineConfig(Section):
    """Who samples completions during training and evaluation."""

    kind: Literal["embedded", "vllm", "vllm_server"] = Field(
        default="embedded",
        description="embedded: the trainer's own model. vllm: a vLLM engine in every training process, on its device. "
        "vllm_server: servers that run `vllm serve`, named by base_urls.",
    )
    base_urls: tuple[BaseUrl, ...] = Field(
        default=(), description="Servers, such as http://127.0.0.1:8000; prompts are dealt out over them."
    )
    api_key_variable: str = Field(
        default="MM_AGRAE_VLLM_API_KEY",
        description="Environment variable that holds the servers' API key; the key itself is never written down.",
    )
    sync: Literal["files", "nccl", "ipc"] = Field(
        default="files",
        description="How new weights reach servers. files: safetensors files that trainer and servers both see. nccl: "
        "from GPU to GPU. ipc: within a GPU that trainer and server share. An engine in process is handed them in "
        "memory.",
    )
    sync_folder: str | None = Field(
        default=None,
        description="Where files are handed over, visible to trainer and servers; null takes the run folder.",
    )
    request_timeout_s: PositiveFloat = Field(
        default=600.0, description="Seconds after which a request to a server has failed."
    )
    recover_timeout_s: NonNegativeFloat = Field(
        default=600.0,
        description="Seconds that a server which does not answer is waited for, over all tries; 0 fails at once.",
    )
    memory_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.45, description="Share of the device that a vLLM engine in process takes for weights and cache."
    )
    sleeps: bool = Field(
        default=False,
        description="A vLLM engine in process puts its weights into host memory and drops its cache whenever it does "
        "not sample.",
    )
    on_mismatch: Literal["refuse", "warn"] = Field(
        default="refuse",
        description="What happens when the engine's log-probabilities of the first prompts, or of the tokens of a "
        "step, differ from the trainer's by more than max_logprob_gap_nats, or the check at the start finds another "
        "fault: a completion that cannot come from the policy, greedy completions or pictures that differ. warn says "
        "so and goes on in all these cases.",
    )
    max_logprob_gap_nats: PositiveFloat | None = Field(
        default=None,
        description="Largest mean difference that passes; null takes the bound of the precision.",
    )

    @model_validator(mode="after")
    def _servers_are_named(self) -> EngineConfig:
        if self.kind == "vllm_server" and not self.base_urls:
            raise ValueError(
                "engine.kind is vllm_server, but engine.base_urls names no server. Start one with `vllm serve` and "
                "set engine.base_urls=[http://127.0.0.1:8000]."
            )
        if self.kind != "vllm_server" and self.base_urls:
            raise ValueError(
                f"engine.base_urls names {len(self.base_urls)} servers, but engine.kind is {self.kind}. Set "
                "engine.kind=vllm_server, or remove the servers."
            )
        known = [url.lower() for url in self.base_urls]
        twice = [url for place, url in enumerate(known) if url in known[:place]]
        if twice:
            raise ValueError(f"engine.base_urls names {twice[0]} twice, but every server must be named once.")
        return self

    @model_validator(mode="after")
    def _means_something(self) -> EngineConfig:
        # By value: a run's own record names every setting, also those that were never touched.
        fields = type(self).model_fields
        changed = {name for name, value in self.model_dump().items() if value != fields[name].default}
        for kind, names in ONLY_OF.items():
            idle = [name for name in names if name in changed and self.kind != kind]
            if idle:
                raise ValueError(
                    f"engine.{idle[0]} is set, but engine.kind is {self.kind}, which has no use for "
                    f"it. Remove it, or set engine.kind={kind}."
                )
        if self.sync_folder is not None and self.sync != "files":
            raise ValueError(
                f"engine.sync_folder is set, but engine.sync is {self.sync}, which writes no files. Remove it, or set "
                "engine.sync=files."
            )
        return self
