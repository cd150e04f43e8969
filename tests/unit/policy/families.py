"""Tiny model folders of families that are not embedded, from their configurations."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

_WIDTHS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "bos_token_id": None,
}
_GATED_DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

# Family -> what its configuration needs besides widths. The window is shorter than the prompts of the tests.
SHARING: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen3_moe": _EXPERTS | {"output_router_logits": True, "router_aux_loss_coef": 1.0},
    "gpt_neox": {},
    "phi3": {},
    "olmo2": {},
}
REPEATING: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": {
        "final_logit_softcapping": None,
        "attn_logit_softcapping": 2.0,
        "query_pre_attn_scalar": 8,
        "layer_types": ["full_attention", "full_attention"],
    },
    "qwen3_next": _GATED_DELTA | _EXPERTS | {"shared_expert_intermediate_size": 16},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4},
    "gpt_oss": {"layer_types": ["full_attention"] * 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "stablelm": {},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 512},
}
REFUSED: dict[str, dict[str, Any]] = {
    # No hidden states from the call that training makes.
    "llama4_text": {
        "attention_chunk_size": 8,
        "layer_types": ["chunked_attention", "full_attention"],
        "num_local_experts": 2,
        "intermediate_size_mlp": 64,
    },
    # A state that is asked for by another name than past_key_values, which is swallowed.
    "mamba": {"state_size": 4},
    "mamba2": {"state_size": 4, "num_heads": 8, "n_groups": 1, "chunk_size": 8},
    "falcon_mamba": {"state_size": 4},
}


def build_family(out: Path, family: str, settings: dict[str, Any], *, words: Path, **overrides: Any) -> Path:
    """A model folder with random weights; its tokenizer is that of the folder `words`.

    Weights are large enough for attention to look at something: those of the usual size attend evenly.
    """
    shutil.copytree(words, out, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(words)
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = transformers.AutoConfig.for_model(family, **(_WIDTHS | ids | settings | overrides))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.save_pretrained(out)
    return out
