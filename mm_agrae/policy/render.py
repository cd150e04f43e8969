"""Prompt -> RenderedPrompt: the one place where an image becomes patches and placeholders.

Rollout, training and evaluation consume the result unchanged, so an image has one size, one token count and one set of
positions in the whole run. Every count is checked here, before any model sees the prompt.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mm_agrae.config.schema import ImageConfig
from mm_agrae.data.images import image_size, open_image
from mm_agrae.errors import ConfigError, DataError
from mm_agrae.policy.hugging_face import smart_resize
from mm_agrae.policy.load import Policy
from mm_agrae.records import Prompt, RenderedPrompt


def render(policy: Policy, prompt: Prompt, images: ImageConfig) -> RenderedPrompt:
    """Tokenise a prompt and turn its images into patches.

    Args:
        policy: Whose tokenizer, image processor and positions are used.
        prompt: Chat messages with image parts.
        images: The pixel budget.

    Raises:
        DataError: An image cannot be decoded, or the text holds placeholder tokens of its own.
        ConfigError: The prompt has images and the model takes none.
    """
    sample = prompt.sample
    if sample.images:
        _factor(policy, images)  # refuses images for a text model before its template does
    unexpanded = _tokenise(policy, prompt)
    if not sample.images:
        positions = torch.arange(len(unexpanded))[None].expand(3 if policy.sees else 1, -1)
        types = torch.zeros(len(unexpanded), dtype=torch.long) if policy.sees else None
        return _record(prompt, unexpanded, unexpanded, positions, len(unexpanded), types, None, None)
    pixel_values, grid = _patches(policy, prompt, images)
    counts = (grid.prod(dim=1) // policy.image_processor.merge_size**2).tolist()  # type: ignore[union-attr]
    token_ids = _expand(unexpanded, policy.image_token_id, counts)
    types = torch.tensor([int(token == policy.image_token_id) for token in token_ids])
    positions, delta = policy.backbone.get_rope_index(
        torch.tensor([token_ids]), mm_token_type_ids=types[None], image_grid_thw=grid
    )
    next_position = len(token_ids) + int(delta)
    return _record(prompt, token_ids, unexpanded, positions[:, 0], next_position, types, pixel_values, grid)


def count_tokens(policy: Policy, prompt: Prompt, images: ImageConfig) -> int:
    """Length of the rendered prompt, from image headers alone: what the token budget is checked against.

    Raises:
        DataError: As render does; a file that is no image is found here, one that is cut short only there.
    """
    return sum(count_text_and_visual(policy, prompt, images))


def count_text_and_visual(policy: Policy, prompt: Prompt, images: ImageConfig) -> tuple[int, int]:
    """The two parts of `count_tokens`: text tokens, and visual tokens."""
    factor = _factor(policy, images) if prompt.sample.images else 1
    sizes = [image_size(data, prompt.sample.id) for data in prompt.sample.images]
    fitted = [_fitted_size(width, height, factor, images, prompt.sample.id) for width, height in sizes]
    visual = sum(width * height // (factor * factor) for width, height in fitted)
    return len(_tokenise(policy, prompt)) - len(sizes), visual


def _tokenise(policy: Policy, prompt: Prompt) -> list[int]:
    messages: list[Any] = [dict(message) for message in prompt.messages]
    if not policy.sees:  # the templates of text models take strings
        for message in messages:
            message["content"] = "".join(part["text"] for part in message["content"])
    text = policy.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = policy.tokenizer.encode(text, add_special_tokens=False)
    expected = len(prompt.sample.images)
    if policy.image_token_id is not None and ids.count(policy.image_token_id) != expected:
        raise DataError(
            f"sample {prompt.sample.id!r} has {expected} images, but its rendered text holds "
            f"{ids.count(policy.image_token_id)} image placeholders: the question contains the placeholder token "
            "itself, or the chat template drops images. Mend the question or the template."
        )
    return ids


def _patches(policy: Policy, prompt: Prompt, images: ImageConfig) -> tuple[Tensor, Tensor]:
    factor = _factor(policy, images)
    pictures = [
        _fit(open_image(data, prompt.sample.id), factor, images, prompt.sample.id) for data in prompt.sample.images
    ]
    made = policy.image_processor(images=pictures, do_resize=False, return_tensors="pt")  # type: ignore[misc]
    return made["pixel_values"].float(), made["image_grid_thw"]


def _factor(policy: Policy, images: ImageConfig) -> int:
    """Side in pixels of one visual token."""
    processor = policy.image_processor
    if processor is None:
        raise ConfigError(
            "the data has images, but the model takes text only. Choose a vision-language model, or data without any."
        )
    factor = processor.patch_size * processor.merge_size
    if images.max_pixels < factor * factor:
        raise ConfigError(
            f"images.max_pixels is {images.max_pixels}, but one visual token of this model covers {factor}x{factor} "
            f"pixels. Set it to at least {factor * factor}."
        )
    return factor


def _fit(picture: Image.Image, factor: int, images: ImageConfig, sample_id: str) -> Image.Image:
    size = _fitted_size(picture.width, picture.height, factor, images, sample_id)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)


def _fitted_size(width: int, height: int, factor: int, images: ImageConfig, sample_id: str) -> tuple[int, int]:
    try:
        fitted_height, fitted_width = smart_resize(
            height, width, factor, min_pixels=images.min_pixels, max_pixels=images.max_pixels
        )
    except ValueError as error:
        raise DataError(
            f"sample {sample_id!r} has an image of {width}x{height} pixels: {error}. Crop it or remove the sample."
        ) from error
    # The rule rounds the short side of a long, thin picture down to nothing. It gets one visual token, and the long
    # side what the budget leaves.
    longest = images.max_pixels // factor // factor * factor
    if fitted_width == 0 or fitted_height == 0:
        return min(max(fitted_width, factor), longest), min(max(fitted_height, factor), longest)
    return fitted_width, fitted_height


def _expand(token_ids: list[int], image_token_id: int | None, counts: list[int]) -> list[int]:
    """One placeholder per image -> one per visual token."""
    remaining = iter(counts)
    expanded: list[int] = []
    for token in token_ids:
        expanded.extend([token] * next(remaining) if token == image_token_id else [token])
    return expanded


def _record(
    prompt: Prompt,
    token_ids: list[int],
    unexpanded: list[int],
    positions: Tensor,
    next_position: int,
    types: Tensor | None,
    pixel_values: Tensor | None,
    grid: Tensor | None,
) -> RenderedPrompt:
    pictures = _picture_hashes(pixel_values, grid)
    return RenderedPrompt(
        prompt=prompt,
        token_ids=tuple(token_ids),
        unexpanded_token_ids=tuple(unexpanded),
        position_ids=positions.contiguous(),
        next_position=next_position,
        mm_token_type_ids=types,
        pixel_values=pixel_values,
        image_grid_thw=grid,
        content_hash=_hash(torch.tensor(token_ids), positions, pictures=pictures),
        picture_hashes=pictures,
    )


def _picture_hashes(pixel_values: Tensor | None, grid: Tensor | None) -> tuple[str, ...]:
    if pixel_values is None or grid is None:
        return ()
    patches = pixel_values.split(grid.prod(dim=1).tolist())
    return tuple(_hash(values, sides) for values, sides in zip(patches, grid, strict=True))


def _hash(*tensors: Tensor, pictures: tuple[str, ...] = ()) -> str:
    digest = hashlib.blake2b("".join(pictures).encode(), digest_size=16)
    for tensor in tensors:
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
