"""Images of prompts -> what the backbone is given of them.

A tower that is trained encodes the pictures of a pass together, with gradient. A frozen one encodes each picture alone,
without: its features then depend on the picture and the weights only, so one that comes out of the cache is bit for
bit the one that would be computed, whatever else is in the batch.

Before 5.18, backbones of transformers take pixels only. There every pass encodes its pictures, frozen tower or not, and
nothing is cached.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from mm_agrae.policy.load import Policy
from mm_agrae.policy.vision_cache import PictureFeatures
from mm_agrae.records import RenderedPrompt


@dataclass(frozen=True, kw_only=True)
class _EncoderOutput:
    """The two fields that a backbone reads of its encoder's output; the inner sequences are one tensor per picture."""

    pooler_output: list[Tensor]
    deepstack_features: list[tuple[Tensor, ...]]


def image_inputs(policy: Policy, pictured: Sequence[RenderedPrompt]) -> dict[str, Any]:
    """Keyword arguments of the backbone for the images of these prompts, in their order; none without prompts.

    Call it where the backbone is called: in the policy's arithmetic, with or without gradient, recomputing or not.
    """
    if not pictured:
        return _no_picture(policy) if _others_wait_for_tower(policy) else {}
    if not takes_features(policy.backbone):  # transformers before 5.18: the backbone calls its encoder itself
        return {name: tensor.to(policy.device, non_blocking=True) for name, tensor in _pixels(pictured).items()}
    return _given(
        _frozen_features(policy, pictured) if tower_is_frozen(policy) else _encode(policy, **_pixels(pictured))
    )


def tower_is_frozen(policy: Policy) -> bool:
    """Whether no weight of the vision tower and its merger, adapters included, is trained."""
    return not any(parameter.requires_grad for parameter in policy.backbone.visual.parameters())


def keeps_features(policy: Policy) -> bool:
    """Whether a picture that was encoded once is not encoded again, as long as there is room for its features."""
    return tower_is_frozen(policy) and takes_features(policy.backbone) and policy.vision_cache.max_bytes > 0


def share_tower(copy: Policy, owner: Policy) -> Policy:
    """The copy of a policy with its owner's vision tower and cache, where that tower never changes."""
    if not owner.sees or not tower_is_frozen(owner):
        return copy
    copy.backbone.visual = owner.backbone.visual
    return replace(copy, vision_cache=owner.vision_cache)


def takes_features(backbone: Any) -> bool:
    """Whether a backbone can be given what its tower has made of pictures."""
    return "mm_encoder_outputs" in inspect.signature(backbone.forward).parameters


def _given(features: Sequence[PictureFeatures]) -> dict[str, Any]:
    output = _EncoderOutput(
        pooler_output=[picture.embeddings for picture in features],
        deepstack_features=list(zip(*[picture.deepstack for picture in features], strict=True)),
    )
    return {"mm_encoder_outputs": {"image": output}}


def _others_wait_for_tower(policy: Policy) -> bool:
    """Whether a pass without pictures must call the tower, because the weights of it that others gather are here."""
    shards = policy.shards
    return shards is not None and shards.with_tower and (torch.is_grad_enabled() or not shards.gathered)


def _no_picture(policy: Policy) -> dict[str, Any]:
    """The features of a black picture without its tokens.

    Nothing of it is seen, but forward and backward pass of the tower stand where those of real pictures stand: passes
    through pieces are meetings, and a process that makes them in another order waits for ever.
    """
    tower = policy.backbone.visual
    merged = tower.spatial_merge_size
    patch = math.prod(tower.patch_embed.proj.weight.shape[1:])
    (black,) = _encode(
        policy,
        pixel_values=torch.zeros(merged * merged, patch),
        image_grid_thw=torch.tensor([[1, merged, merged]]),
    )
    return _given([PictureFeatures(embeddings=black.embeddings[:0], deepstack=tuple(x[:0] for x in black.deepstack))])


def _pixels(pictured: Sequence[RenderedPrompt]) -> dict[str, Tensor]:
    pixels = [prompt.pixel_values for prompt in pictured if prompt.pixel_values is not None]
    grids = [prompt.image_grid_thw for prompt in pictured if prompt.image_grid_thw is not None]
    return {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.cat(grids)}


@torch.no_grad()
def _frozen_features(policy: Policy, pictured: Sequence[RenderedPrompt]) -> list[PictureFeatures]:
    cache = policy.vision_cache
    cache.bind(policy.backbone.visual, policy.precision)
    features = []
    for prompt in pictured:
        assert prompt.pixel_values is not None
        assert prompt.image_grid_thw is not None
        pixels = prompt.pixel_values.split(prompt.image_grid_thw.prod(dim=1).tolist())
        for name, patches, grid in zip(prompt.picture_hashes, pixels, prompt.image_grid_thw, strict=True):
            found = cache.get(name)
            if found is None:
                (found,) = _encode(policy, pixel_values=patches, image_grid_thw=grid[None])
                cache.put(name, found)
            features.append(found.on(policy.device))
    return features


def _encode(policy: Policy, *, pixel_values: Tensor, image_grid_thw: Tensor) -> list[PictureFeatures]:
    """The tower's features, picture by picture."""
    made = policy.backbone.get_image_features(
        pixel_values.to(policy.device, non_blocking=True),
        image_grid_thw.to(policy.device, non_blocking=True),
        return_dict=True,
    )
    layers = made.get("deepstack_features")
    deepstack = zip(*layers, strict=True) if layers else repeat(())
    return [
        PictureFeatures(embeddings=embeddings, deepstack=levels)
        for embeddings, levels in zip(made.pooler_output, deepstack, strict=False)
    ]
