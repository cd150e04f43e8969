"""Memory that ran out: in which phase, and three settings that help there, with their present values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from mm_agrae.config import RunConfig
from mm_agrae.config.load import DECIDES_NO_NUMBER
from mm_agrae.config.supervision import Phase
from mm_agrae.errors import ShortOfMemoryError

# Of the host's allocator, of CUDA outside of torch's own, and of the libraries on top of it.
_WORDS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
_SHOWN = 3
_MAX_CHARACTERS = 300
_NEW_RUN = "in a new run"


@dataclass(frozen=True, kw_only=True)
class _Remedy:
    """A setting, what to do with it, and where it can help."""

    setting: str
    what: str
    helps: Callable[[RunConfig], bool] = lambda config: True


_PIXELS = _Remedy(setting="images.max_pixels", what="lower")
_ROWS = _Remedy(setting="rollout.batch_rows", what="lower", helps=lambda config: config.engine.kind == "embedded")
_ENGINE = _Remedy(setting="engine.memory_fraction", what="lower", helps=lambda config: config.engine.kind == "vllm")
_SLEEP = _Remedy(
    setting="engine.sleeps",
    what="switch on",
    helps=lambda config: config.engine.kind == "vllm" and not config.engine.sleeps,
)
_COMPLETIONS = _Remedy(setting="rollout.max_completion_tokens", what="lower")
_TOKENS = _Remedy(setting="train.micro_batch_tokens", what="lower")
_TARGETS = _Remedy(setting="train.micro_batch_targets", what="set or lower")
_RECOMPUTE = _Remedy(
    setting="model.gradient_checkpointing",
    what="switch on",
    helps=lambda config: not config.model.gradient_checkpointing,
)
_RECOMPUTE_ALL = _Remedy(
    setting="train.recompute_above_tokens", what="lower", helps=lambda config: config.train.recompute_above_tokens > 0
)
_ADAPTERS = _Remedy(setting="model.lora", what="train adapters by", helps=lambda config: config.model.lora is None)
_FREEZE = _Remedy(setting="model.freeze", what="train fewer parts by")
_SHARDING = _Remedy(
    setting="train.sharding",
    what="spread the weights over several processes by",
    helps=lambda config: config.train.sharding == "none",
)
_PROMPTS = _Remedy(setting="rollout.num_prompts", what="lower")
_VISION_CACHE = _Remedy(setting="model.vision_cache_gib", what="lower")
_WORKERS = _Remedy(setting="verifier.num_workers", what="lower")

# In the order in which they are tried; those that cannot help are passed over.
_REMEDIES: dict[Phase | Literal["load"], tuple[_Remedy, ...]] = {
    "load": (_SHARDING, _ADAPTERS, _ENGINE, _Remedy(setting="model.path", what="take a smaller model by"), _FREEZE),
    "render": (_PIXELS, _PROMPTS, _VISION_CACHE),
    "rollout": (_ENGINE, _SLEEP, _ROWS, _COMPLETIONS, _PIXELS),
    "verify": (_WORKERS, _COMPLETIONS, _PROMPTS),
    "log-probs": (_TOKENS, _TARGETS, _PIXELS),
    "update": (_SLEEP, _TOKENS, _RECOMPUTE, _TARGETS, _RECOMPUTE_ALL, _ADAPTERS, _SHARDING),
    "sync": (_ENGINE, _SLEEP, _ADAPTERS, _SHARDING, _FREEZE),
    "save": (_VISION_CACHE, _ADAPTERS, _FREEZE),
    "evaluate": (
        _ENGINE,
        _ROWS,
        _Remedy(setting="evaluate.max_completion_tokens", what="lower"),
        _PIXELS,
        _Remedy(setting="evaluate.num_samples", what="lower"),
    ),
}


def is_shortage(error: BaseException) -> bool:
    """Whether memory ran out. On a device torch raises a class of its own, on the host it says so in words only."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def advice(phase: Phase | Literal["load"], config: RunConfig) -> list[str]:
    """Up to three settings that lower what a phase needs, with their present values; nothing that is set already."""
    values = config.model_dump(mode="json")
    return [
        f"{remedy.what} {remedy.setting} (now {_shown(values, remedy.setting)}; {_taken(remedy.setting)})"
        for remedy in _REMEDIES[phase]
        if remedy.helps(config)
    ][:_SHOWN]


@contextmanager
def shortage_told(phase: Phase | Literal["load"], config: RunConfig, where: Callable[[], str]) -> Iterator[None]:
    """Turn an error that says that memory ran out into one that says what to do.

    Args:
        phase: What goes on inside.
        config: Whose settings are named.
        where: Place of the error in words, asked for when there is one.

    Raises:
        ShortOfMemoryError: Memory ran out inside.
    """
    try:
        yield
    except ShortOfMemoryError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        reason = " ".join(str(error).split())[:_MAX_CHARACTERS].rstrip(".")
        remedies = "; ".join(advice(phase, config))
        begin = " A new run begins from the model/ folder of the last checkpoint (model.path) if there is one."
        raise ShortOfMemoryError(
            f"out of memory {where()}: {reason}.\nWhat helps there: {remedies}.{begin if _NEW_RUN in remedies else ''}"
        ) from error


def _shown(values: Any, setting: str) -> str:
    for part in setting.split("."):
        values = values[part]
    return "null" if values is None else str(values).lower() if isinstance(values, bool) else str(values)


def _taken(setting: str) -> str:
    """When a run takes another value of a setting."""
    allowed: Any = DECIDES_NO_NUMBER
    for part in setting.split("."):
        if allowed is True:
            break
        if part not in allowed:
            return _NEW_RUN
        allowed = allowed[part] if isinstance(allowed, Mapping) else True
    return "with --resume"
