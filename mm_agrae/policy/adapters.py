"""Adapters of the peft package: fresh ones to train, and trained ones as a start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mm_agrae.config.schema import ModelConfig
from mm_agrae.errors import ConfigError


def from_the_base_up(path: str) -> list[str]:
    """A model, then the peft adapter folders upon it (checkpoints of LoRA runs), which end with `path`."""
    settings = Path(path) / "adapter_config.json"
    if not settings.is_file():
        return [path]
    return [*from_the_base_up(json.loads(settings.read_text(encoding="utf-8"))["base_model_name_or_path"]), path]


def merged(model: Any, adapters: str) -> Any:
    """The model with trained adapters folded into its weights: a start like any other.

    Raises:
        ConfigError: The folder holds none as safetensors.
    """
    if not (Path(adapters) / "adapter_model.safetensors").is_file():
        raise ConfigError(
            f"{adapters} has an adapter_config.json but no adapter_model.safetensors, and nothing is unpickled here. "
            "Save the adapters as safetensors, or name another folder."
        )
    whole = _peft().PeftModel.from_pretrained(model, adapters).merge_and_unload()
    whole.requires_grad_(True)  # peft froze what lies below the adapters
    whole.name_or_path = adapters  # new adapters name this as their base, not the model without the old ones
    return whole


def with_adapters(model: Any, config: ModelConfig, weights: Path | None) -> Any:
    """The model with fresh adapters in its language part, or with those of a checkpoint."""
    peft = _peft()
    assert config.lora is not None
    if weights is not None:
        return peft.PeftModel.from_pretrained(model, weights, is_trainable=True)
    names = "|".join(config.lora.target_modules)
    settings = peft.LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=0.0,
        # Only the language model: the vision tower has layers of the same names.
        target_modules=rf"^(?!.*visual).*\.({names})$",
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, settings)
    except ValueError as error:
        raise ConfigError(
            f"model.lora.target_modules is {list(config.lora.target_modules)}, but the language model has no such "
            "layers. Name linear layers of this model."
        ) from error


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("adapters need the peft package. Install it: pip install 'mm-agrae[peft]'.") from error
    return peft
