"""Rotary positions whose frequencies hang on the longest line of a call.

transformers computes some frequencies anew from the largest position that it meets, so that a long completion changes
the numbers of those computed with it:

    dynamic (NTK-aware)    base grows with the largest position beyond what the model was trained with
    longrope               other factors for every position, once the largest reaches the original length

A policy must give a completion the same probability whatever lies beside it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from mm_agrae.errors import ConfigError


def check_rope(config: Any) -> None:
    """Refuse frequencies that change with every new longest line.

    Args:
        config: Of a transformers model.

    Raises:
        ConfigError: The rotary embedding is dynamic.
    """
    for rope in _ropes(config):
        if "dynamic" in rope["rope_type"]:
            raise ConfigError(
                f"model type {config.model_type!r} has rope_type {rope['rope_type']!r}, which computes every position "
                "by the longest line of a batch, so completions would change each other. Set rope_type to 'default' in "
                "the model's config.json and keep to the length it was trained with, or choose another model."
            )


def keep_below_long_rope(backbone: nn.Module, config: Any) -> None:
    """Stop a model with longrope where a position would reach the length from which its factors are others.

    Args:
        backbone: What is called with `position_ids`.
        config: Of the whole model.
    """
    ropes = [rope for rope in _ropes(config) if rope["rope_type"] == "longrope"]
    lengths = [
        rope["original_max_position_embeddings"] for rope in ropes if rope["short_factor"] != rope["long_factor"]
    ]
    if not lengths:
        return
    length = min(lengths)

    def refuse(_module: nn.Module, _inputs: tuple, keywords: dict[str, Any]) -> None:
        longest = int(keywords["position_ids"].max()) + 1
        if longest > length:
            raise ConfigError(
                f"a prompt with its completion has {longest} tokens, but model type {config.model_type!r} computes "
                f"every position otherwise once a line beside it is longer than {length} (rope_type 'longrope'). Set "
                "rollout.max_completion_tokens or rollout.max_prompt_tokens lower, or choose another model."
            )

    backbone.register_forward_pre_hook(refuse, with_kwargs=True)


def _ropes(config: Any) -> list[dict[str, Any]]:
    """The rotary parameters of the language layers, one per kind of layer where those differ."""
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if "rope_type" in parameters:
        return [parameters]
    return [rope for rope in parameters.values() if isinstance(rope, dict) and "rope_type" in rope]
