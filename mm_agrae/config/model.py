"""Settings of the model, and of the pixels it sees."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mm_agrae.config.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section


class LoraConfig(Section):
    """Low-rank adapters (peft) on the language model instead of full fine-tuning."""

    rank: PositiveInt = Field(default=16, description="Rank of the adapter matrices.")
    alpha: PositiveFloat = Field(default=32.0, description="Adapter scale; updates are multiplied by alpha / rank.")
    target_modules: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Names of the linear layers that get an adapter.",
    )


class ModelConfig(Section):
    """Which model, and how it is held in memory."""

    path: str = Field(description="Local model folder or Hugging Face hub id.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes CUDA where there is one.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Arithmetic of forward and backward; auto is bf16 on CUDA and fp32 on a CPU.",
    )
    stored_weights: Literal["auto", "fp32", "bf16_with_fp32_masters"] = Field(
        default="auto",
        description="What a forward pass reads. bf16_with_fp32_masters: bf16 weights, and an fp32 copy of the trained "
        "ones that the optimiser moves; needs bf16 arithmetic. fp32: fp32 weights, cast in every pass where the "
        "arithmetic is bf16. Gradients and the two moments of AdamW are fp32 either way, so a trained weight takes 18 "
        "bytes with masters (2 + 4 + 4 + 8) and 16 without, a frozen one 2 and 4. auto is bf16_with_fp32_masters for "
        "bf16 on CUDA, else fp32. Runs that store differently learn differently: never compare them.",
    )
    freeze: tuple[Literal["vision", "connector", "language"], ...] = Field(
        default=(),
        description="Parts that are not trained: vision tower, its merger into the language model, language model.",
    )
    lora: LoraConfig | None = Field(
        default=None, description="Train adapters only; null trains the weights themselves."
    )
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations in the backward pass.")
    vision_cache_gib: NonNegativeFloat = Field(
        default=4.0,
        description="Host memory, per process, for the features of pictures under a frozen vision tower: rollout, "
        "update and evaluation then encode a picture once. 0 encodes it in every pass, and so does transformers before "
        "5.18; the numbers are the same.",
    )


class ImageConfig(Section):
    """The one pixel budget that rollout, training and evaluation share (qwen-vl-utils' resize rule)."""

    min_pixels: PositiveInt = Field(
        default=3136, description="Smaller images are enlarged to at least this many pixels."
    )
    max_pixels: PositiveInt = Field(
        default=602112, description="Larger images are reduced to at most this many pixels."
    )

    @model_validator(mode="after")
    def _ordered(self) -> ImageConfig:
        if self.min_pixels > self.max_pixels:
            raise ValueError(
                f"min_pixels is {self.min_pixels}, above max_pixels {self.max_pixels}. Change one of them."
            )
        return self
