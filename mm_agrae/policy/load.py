"""Load a model folder or hub id into a Policy: model, tokenizer, image processor, and the ids that matter."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mm_agrae.config.schema import ModelConfig
from mm_agrae.errors import ConfigError
from mm_agrae.policy.adapters import from_the_base_up, merged, with_adapters
from mm_agrae.policy.attention import LANGUAGE_ATTENTION, vision_attention_of
from mm_agrae.policy.folder import banned_token_ids, check_family, load_processor, read_config
from mm_agrae.policy.head import Head
from mm_agrae.policy.hugging_face import transformers
from mm_agrae.policy.masters import Masters, Storage, pick_storage, store_in_bf16
from mm_agrae.policy.rope import keep_below_long_rope
from mm_agrae.policy.sharing import language_attention_of, with_layout
from mm_agrae.policy.vision_cache import VisionCache

if TYPE_CHECKING:
    from mm_agrae.policy.fsdp import Shards


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A model with everything needed to render prompts for it, sample from it and train it.

    Attributes:
        model: The transformers (or peft) model, on its device.
        processor: Processor (of a text model: tokenizer) as it was loaded, to be saved beside the weights.
        tokenizer: Its tokenizer.
        image_processor: Its image processor; None for a text model.
        image_token_id: Placeholder of one visual token; None for a text model.
        banned_token_ids: Ids that are never sampled and have probability 0 in training too.
        eos_token_ids: Ids that end a completion.
        precision: Arithmetic of forward and backward, "fp32" or "bf16".
        shares_prompts: Whether the completions of a group can be computed beside one copy of their prompt. A model that
            cannot is given every completion with a prompt of its own.
        stored_weights: What the weights of the model are kept in; buffers are fp32 either way.
        masters: fp32 copies of the trained weights, where those of the model are bf16.
        vision_cache: Features of pictures, where the vision tower is frozen.
        shards: How the weights are shared out to several processes; None where each holds them whole.
    """

    model: nn.Module
    processor: Any
    tokenizer: Any
    image_processor: Any | None
    image_token_id: int | None
    banned_token_ids: tuple[int, ...]
    eos_token_ids: tuple[int, ...]
    precision: str
    shares_prompts: bool = True
    stored_weights: Storage = "fp32"
    masters: Masters | None = None
    vision_cache: VisionCache = field(default_factory=VisionCache)
    shards: Shards | None = None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def sees(self) -> bool:
        """Whether the model takes images."""
        return self.image_processor is not None

    @property
    def inner(self) -> Any:
        """The transformers model, adapters inside."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model  # type: ignore[operator]

    @property
    def backbone(self) -> Any:
        """Everything before the language-model head."""
        return self.inner.base_model

    @property
    def head(self) -> Head:
        return self.inner.get_output_embeddings()

    def trainable(self) -> list[nn.Parameter]:
        """The weights that are trained; their gradients are fp32, whatever the weights are stored in."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def whole(self) -> contextlib.AbstractContextManager[None]:
        """Inside, passes without a gradient are no meeting of processes; every process must enter."""
        return self.shards.whole() if self.shards else contextlib.nullcontext()

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The precision of forward passes: weights that are stored in it need no cast."""
        if self.precision == "bf16" and self.stored_weights == "fp32":
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                yield
        else:
            yield

    @contextlib.contextmanager
    def recomputing(self) -> Iterator[None]:
        """Gradient checkpointing, where it is switched on and a gradient is wanted.

        transformers recomputes only in layers that are in training mode. Those layers alone get it, for one forward
        pass: their parts stay in evaluation mode, so dropout stays off, and generation keeps its cache.
        """
        layers = [
            module
            for module in self.backbone.modules()
            if torch.is_grad_enabled() and getattr(module, "gradient_checkpointing", False)
        ]
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.training = False

    @contextlib.contextmanager
    def without_adapters(self) -> Iterator[None]:
        """The initial policy of a LoRA run: the same model with its adapters off."""
        with self.model.disable_adapter():  # type: ignore[operator]
            yield


def pick_device(name: str) -> torch.device:
    """The device a setting means.

    Raises:
        ConfigError: If CUDA is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "model.device is cuda, but torch sees no CUDA device. Install a CUDA build of torch and a driver, or set "
            "model.device=cpu."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """The arithmetic a setting means on a device.

    A CPU computes in bf16 too, slowly: it is for trying out what will run on a GPU.
    """
    if name == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return name


def load_policy(
    config: ModelConfig,
    device: torch.device | None = None,
    *,
    weights: Path | None = None,
    trained: bool = True,
    to_be_sharded: bool = False,
    log: Callable[[str], None] = warnings.warn,
) -> Policy:
    """Load a policy.

    Args:
        config: Which model, and how.
        device: Where to; None picks it by the config.
        weights: Folder of a checkpoint whose weights replace those of config.path; tokenizer and processor stay.
        trained: Whether it will be trained; false freezes every weight, keeps no masters and recomputes nothing.
        to_be_sharded: Keep masters in host memory, from where pieces of them will go to the device.
        log: Is told when the model cannot share prompts between completions, and why.

    Raises:
        ConfigError: The folder is no model, or one this trainer cannot serve; the message says which and what to do.
    """
    device = device or pick_device(config.device)
    precision = pick_precision(config.precision, device)
    stored_weights = pick_storage(config.stored_weights, precision=precision, device=device)
    base, *_ = from_the_base_up(config.path)
    model_config = read_config(base)
    sees = hasattr(model_config, "vision_config")
    check_family(model_config, sees)
    model = _start_of(config, model_config, device, weights)
    processor = load_processor(config.path, sees)
    tokenizer = processor.tokenizer if sees else processor
    model = _choose_trained(model, config, weights, sees)
    if not trained:
        model.requires_grad_(False)
    elif config.gradient_checkpointing:
        _check_dropout(model_config, sees)
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if stored_weights == "fp32":  # elsewhere it may fit the device in bf16 alone
        model.to(device)
    model.eval()  # no dropout: rollout and update must see the same function
    policy = Policy(
        model=model,
        processor=processor,
        tokenizer=tokenizer,
        image_processor=processor.image_processor if sees else None,
        image_token_id=getattr(model_config, "image_token_id", None) if sees else None,
        banned_token_ids=banned_token_ids(tokenizer),
        eos_token_ids=_eos(model, tokenizer),
        precision="fp32",
        vision_cache=VisionCache(int(config.vision_cache_gib * 2**30)),
    )
    keep_below_long_rope(policy.backbone, model_config)
    policy = with_layout(policy, log)
    if precision == "fp32":
        return policy
    masters = None
    if stored_weights != "fp32":
        masters = store_in_bf16(model, device, masters_on=torch.device("cpu") if to_be_sharded else device)
    model.to(device)
    policy = replace(policy, precision=precision, stored_weights=stored_weights, masters=masters)
    return with_layout(policy, log) if policy.shares_prompts else policy


def load_renderer(path: str) -> Policy:
    """A policy without weights: it counts the tokens of prompts (`count_tokens`), and can do nothing else.

    Args:
        path: Local model folder or hub id.

    Raises:
        ConfigError: As `load_policy`, but the weights may be missing.
    """
    base, *_ = from_the_base_up(path)
    model_config = read_config(base)
    sees = hasattr(model_config, "vision_config")
    check_family(model_config, sees)
    processor = load_processor(path, sees)
    tokenizer = processor.tokenizer if sees else processor
    return Policy(
        model=nn.Module(),
        processor=processor,
        tokenizer=tokenizer,
        image_processor=processor.image_processor if sees else None,
        image_token_id=model_config.image_token_id if sees else None,
        banned_token_ids=banned_token_ids(tokenizer),
        eos_token_ids=(),
        precision="fp32",
    )


def _check_dropout(config: Any, sees: bool) -> None:
    """transformers recomputes layers in training mode only, which switches on the dropout that a layer itself does."""
    for part in (config.get_text_config(), *([config.vision_config] if sees else [])):
        for name, value in part.to_dict().items():
            if "drop" in name and isinstance(value, float) and value > 0:
                raise ConfigError(
                    f"model type {config.model_type!r} has {name}={value}, which gradient checkpointing can switch on, "
                    "and rollout and update must compute the same. Set it to 0 in the model's config.json, or set "
                    "model.gradient_checkpointing=false, which keeps dropout off."
                )


def _start_of(config: ModelConfig, model_config: Any, device: torch.device, weights: Path | None) -> Any:
    """The model before anything is chosen to be trained: a checkpoint, or the base with all adapters merged into it."""
    language = language_attention_of(model_config)
    vision = vision_attention_of(device) if hasattr(model_config, "vision_config") else None
    if weights is not None and not config.lora:
        return _load_model(str(weights), language, vision)
    base, *adapters = from_the_base_up(config.path)
    model = _load_model(base, language, vision)
    for folder in adapters:
        model = merged(model, folder)
    return model


def _load_model(path: str, language: str | None, vision: str | None) -> Any:
    auto = transformers.AutoModelForImageTextToText if vision else transformers.AutoModelForCausalLM
    try:
        model = auto.from_pretrained(
            path,
            use_safetensors=True,  # nothing of a stranger's is unpickled
            dtype=torch.float32,
            attn_implementation={"": language, "text_config": language, "vision_config": "sdpa"},
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path {path!r} has a configuration but no model that can be loaded: {error}\n"
            "Give a folder with the weights of a language model or a vision-language model, as safetensors."
        ) from error
    except KeyError as error:
        if error.args != (LANGUAGE_ATTENTION,):
            raise
        # A family that knows a few kinds of attention by name, and no others.
        return _load_model(path, None, vision)
    if vision:
        # Not above: while a model is made, transformers looks for a kernel of every name that holds "flash".
        model.set_attn_implementation({"vision_config": vision})
    model.set_output_embeddings(Head(model.get_output_embeddings()))
    return model


def _choose_trained(model: Any, config: ModelConfig, weights: Path | None, sees: bool) -> Any:
    """The model with its frozen parts frozen and, of a LoRA run, its adapters."""
    _freeze(model, config.freeze, sees)
    if config.lora:
        if "language" in config.freeze:
            raise ConfigError(
                "model.freeze holds language, but model.lora trains adapters in the language model. Drop one of them."
            )
        model = with_adapters(model, config, weights)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model.freeze {list(config.freeze)} leaves nothing to train. Free at least one part.")
    return model


def _freeze(model: Any, parts: tuple[str, ...], sees: bool) -> None:
    if not sees and {"vision", "connector"} & set(parts):
        raise ConfigError(f"model.freeze is {list(parts)}, but a text model has no vision part. Remove it.")
    for part in parts:
        for name, parameter in model.named_parameters():
            if _part_of(name, sees) == part:
                parameter.requires_grad_(False)


def _part_of(name: str, sees: bool) -> str:
    if not sees or ".visual." not in f".{name}":
        return "language"
    return "connector" if "merger" in name else "vision"


def _eos(model: Any, tokenizer: Any) -> tuple[int, ...]:
    stated = model.generation_config.eos_token_id
    ids = set(stated if isinstance(stated, list) else [stated]) | {tokenizer.eos_token_id}
    ids.discard(None)
    if not ids:
        raise ConfigError("the model names no end-of-text token. Set eos_token_id in its generation_config.json.")
    return tuple(sorted(ids))
