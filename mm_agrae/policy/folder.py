"""What a model folder holds besides weights: its configuration, and its processor or tokenizer."""

from __future__ import annotations

from typing import Any

from mm_agrae.errors import ConfigError
from mm_agrae.policy.hugging_face import transformers
from mm_agrae.policy.rope import check_rope
from mm_agrae.policy.sharing import VISION_FAMILIES

# None of these may be sampled: a sampled placeholder would be taken for an image that is not there.
PLACEHOLDERS = (
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
)


def read_config(path: str) -> Any:
    """The configuration of a local model folder or hub id.

    Raises:
        ConfigError: There is none that can be loaded.
    """
    try:
        return transformers.AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path {path!r} is no model that can be loaded: {error}\n"
            "Give a local model folder with a config.json, or a Hugging Face hub id that this machine can reach."
        ) from error


def check_family(config: Any, sees: bool) -> None:
    """Refuse a model whose pictures, positions or logits would be computed otherwise here.

    Raises:
        ConfigError: It is of no family that this trainer knows pictures of, or changes its logits.
    """
    if sees and config.model_type not in VISION_FAMILIES:
        raise ConfigError(
            f"model type is {config.model_type!r}, but images are supported for {', '.join(VISION_FAMILIES)}. "
            "Choose a model of these families, or a text model for text problems."
        )
    check_rope(config)
    text = config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(text, name, None) not in (None, 1, 1.0):
            raise ConfigError(
                f"model type {config.model_type!r} changes its logits ({name}={getattr(text, name)}), which the "
                "log-probabilities here would miss. Choose a model without it."
            )


def load_processor(path: str, sees: bool) -> Any:
    """The processor of a model that sees, the tokenizer of one that does not.

    Raises:
        ConfigError: It is not there, knows no text, or has no chat template.
    """
    auto = transformers.AutoProcessor if sees else transformers.AutoTokenizer
    try:
        processor = auto.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path {path!r} has no {'processor' if sees else 'tokenizer'} that can be loaded: {error}\n"
            "Add its files (tokenizer.json and, for images, processor_config.json) to the folder."
        ) from error
    tokenizer = processor.tokenizer if sees else processor
    if not tokenizer.encode("1", add_special_tokens=False):  # without its files some classes come up empty
        raise ConfigError(
            f"model.path {path!r} has no tokenizer that can be loaded: it knows no text. Add its tokenizer.json."
        )
    if not processor.chat_template:
        raise ConfigError(
            f"model.path {path!r} has no chat template, which turns a problem into a prompt. "
            "Choose a model that was tuned to chat, or add a chat_template.jinja to the folder."
        )
    return processor


def banned_token_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids of the placeholders that a tokenizer knows, in order."""
    vocabulary = tokenizer.get_vocab()
    return tuple(sorted(vocabulary[token] for token in PLACEHOLDERS if token in vocabulary))
