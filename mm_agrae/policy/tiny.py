"""The embedded models: real Qwen architectures built from a configuration, with a tokenizer trained on the spot.

They are ordinary Hugging Face model folders, small enough to learn on two processor cores; the larger sizes keep a GPU
busy. Weights are random: a warm start teaches them the format and a first, imperfect skill.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mm_agrae.errors import ConfigError
from mm_agrae.policy.hugging_face import transformers
from mm_agrae.prompts.texts import INSTRUCTIONS
from mm_agrae.records import Sample

ARCHITECTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2", "qwen3")

IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
END_OF_TURN, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"
SPECIAL_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    END_OF_TURN,
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    VISION_START,
    VISION_END,
    "<|vision_pad|>",
    IMAGE_PAD,
    VIDEO_PAD,
)
# Words, single digits, runs of punctuation and white space, as the Qwen tokenizers split text.
SPLIT_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
).replace("\n{%-", "{{ '\\n' }}{%-")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Widths and depths. `patch` is in pixels; 2 x 2 patches make one visual token."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int
    patch: int
    vocab: int


SIZES: dict[str, Size] = {
    # About 1 M parameters: learns to count and to read simple bar charts at 64 x 64 pixels within minutes on a CPU.
    "tiny": Size(
        hidden=128,
        layers=2,
        heads=4,
        kv_heads=2,
        ffn=256,
        vision_hidden=128,
        vision_layers=2,
        vision_heads=4,
        patch=8,
        vocab=512,
    ),
    # About 25 M parameters.
    "small": Size(
        hidden=384,
        layers=8,
        heads=6,
        kv_heads=2,
        ffn=1152,
        vision_hidden=384,
        vision_layers=6,
        vision_heads=6,
        patch=14,
        vocab=2048,
    ),
    # About 280 M parameters, for one GPU.
    "medium": Size(
        hidden=1024,
        layers=16,
        heads=16,
        kv_heads=4,
        ffn=3072,
        vision_hidden=768,
        vision_layers=12,
        vision_heads=12,
        patch=14,
        vocab=4096,
    ),
}


def corpus_of(samples: Iterable[Sample]) -> list[str]:
    """The texts that an embedded tokenizer learns its words from: questions, solutions and two instructions."""
    corpus = [f"{sample.question}\n{sample.solution or ''}" for sample in samples]
    # These two only: with every further text it would learn other words, and the same seed end elsewhere.
    return corpus + [text for name in ("boxed", "think_boxed") if (text := INSTRUCTIONS[name])]


def build_model_folder(out: Path, *, architecture: str, size: str, corpus: Iterable[str], seed: int) -> int:
    """Build an embedded model and save it as an ordinary model folder.

    Args:
        out: Folder to make; must not exist or be empty.
        architecture: Which transformers model class.
        size: A name in SIZES.
        corpus: Texts to train the tokenizer on; the words of questions and solutions become single tokens.
        seed: Decides the random weights.

    Returns:
        The number of parameters.

    Raises:
        ConfigError: The architecture or size is unknown, or the folder is taken.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"architecture is {architecture!r}, but must be one of {', '.join(ARCHITECTURES)}.")
    if size not in SIZES:
        raise ConfigError(f"model size is {size!r}, but must be one of {', '.join(SIZES)}.")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError(f"model folder {out} exists and is not empty. Choose another folder or remove it.")
    tokenizer = train_tokenizer(corpus, vocab_size=SIZES[size].vocab)
    config = model_config(architecture, SIZES[size], tokenizer)
    multimodal = architecture.endswith("_vl")
    auto = transformers.AutoModelForImageTextToText if multimodal else transformers.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    if multimodal:
        _processor(architecture, SIZES[size], tokenizer).save_pretrained(out)
    else:
        tokenizer.save_pretrained(out)
    return sum(parameter.numel() for parameter in model.parameters())


def train_tokenizer(corpus: Iterable[str], *, vocab_size: int) -> transformers.PreTrainedTokenizerBase:
    """Byte-level BPE with Qwen's special tokens, splitting rule, single digits and chat layout."""
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        additional_special_tokens=list(SPECIAL_TOKENS),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def model_config(architecture: str, size: Size, tokenizer: Any) -> transformers.PretrainedConfig:
    """The transformers configuration of an embedded model."""
    head_dim = size.hidden // size.heads
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "intermediate_size": size.ffn,
        "max_position_embeddings": 32768,
        # The usual 0.02 leaves so small a model on a plateau for long.
        "initializer_range": 0.04,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    if architecture in ("qwen3", "qwen3_vl"):
        text["head_dim"] = head_dim
    if architecture in ("qwen2", "qwen3"):
        return transformers.AutoConfig.for_model(architecture, **text)
    text["rope_parameters"] = {**text["rope_parameters"], "mrope_section": _mrope_section(head_dim)}
    if architecture == "qwen3_vl":
        text["rope_parameters"]["mrope_interleaved"] = True
    ids = {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in (
            ("image_token_id", IMAGE_PAD),
            ("video_token_id", VIDEO_PAD),
            ("vision_start_token_id", VISION_START),
            ("vision_end_token_id", VISION_END),
        )
    }
    vision = _vision_config(architecture, size)
    return transformers.AutoConfig.for_model(
        architecture, text_config=text, vision_config=vision, tie_word_embeddings=True, **ids
    )


def _mrope_section(head_dim: int) -> list[int]:
    """Rotary frequencies for time, height and width; they must add up to half the head dimension."""
    half = head_dim // 2
    spatial = half * 3 // 8
    return [half - 2 * spatial, spatial, spatial]


def _vision_config(architecture: str, size: Size) -> dict[str, Any]:
    shared: dict[str, Any] = {"depth": size.vision_layers, "num_heads": size.vision_heads, "patch_size": size.patch}
    shared |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3, "initializer_range": 0.04}
    if architecture == "qwen2_vl":
        return shared | {"embed_dim": size.vision_hidden, "hidden_size": size.hidden, "mlp_ratio": 2}
    shared |= {"hidden_size": size.vision_hidden, "out_hidden_size": size.hidden}
    shared |= {"intermediate_size": 2 * size.vision_hidden, "hidden_act": "silu"}
    if architecture == "qwen2_5_vl":
        every_block = list(range(size.vision_layers))
        return shared | {"fullatt_block_indexes": every_block, "window_size": 8 * size.patch, "in_chans": 3}
    return shared | {"num_position_embeddings": 256, "deepstack_visual_indexes": [0]}


def _processor(architecture: str, size: Size, tokenizer: Any) -> Any:
    factor = 2 * size.patch
    # Only for other programs that load the folder; this trainer resizes by its own pixel budget.
    budget = {"shortest_edge": 4 * factor * factor, "longest_edge": 1024 * factor * factor}
    patches = {"patch_size": size.patch, "temporal_patch_size": 2, "merge_size": 2}
    image = transformers.Qwen2VLImageProcessor(size=budget, **patches)
    kind, video = {
        "qwen2_vl": (transformers.Qwen2VLProcessor, transformers.Qwen2VLVideoProcessor),
        "qwen2_5_vl": (transformers.Qwen2_5_VLProcessor, transformers.Qwen2VLVideoProcessor),
        "qwen3_vl": (transformers.Qwen3VLProcessor, transformers.Qwen3VLVideoProcessor),
    }[architecture]
    return kind(image, tokenizer, video(**patches), chat_template=CHAT_TEMPLATE)
