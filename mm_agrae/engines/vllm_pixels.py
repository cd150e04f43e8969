"""The pictures of a prompt as vLLM takes them ready-made, so that trainer and engine compute with the same numbers.

A server takes one entry per picture: base64 of a msgpack map from the model's argument to its data and to the rule by
which the data of several pictures are put together. A tensor is [dtype, shape, bytes]. Learnt from vLLM 0.32
(vllm/entrypoints/scale_out/token_in_token_out, vllm/v1/serial_utils.py); msgpack: github.com/msgpack/msgpack, spec.md.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt

RAW_TENSOR = 3  # vLLM's code for the bytes of a tensor


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a prompt.

    Attributes:
        offset, length: Where its placeholders stand in the expanded ids.
        name: Hash of its patches and grid: the key of vLLM's caches.
        patches: [N, patch size] float32.
        grid: [3] int64, patches in time, height and width.
    """

    offset: int
    length: int
    name: str
    patches: Tensor
    grid: Tensor


def pictures_of(policy: Policy, prompt: RenderedPrompt) -> list[Picture]:
    """The pictures of a prompt in their order; none for text."""
    if prompt.pixel_values is None or prompt.image_grid_thw is None:
        return []
    merged = policy.image_processor.merge_size**2  # type: ignore[union-attr]
    counts = prompt.image_grid_thw.prod(dim=1).tolist()
    found, start = [], 0
    parts = zip(prompt.picture_hashes, prompt.pixel_values.split(counts), prompt.image_grid_thw, strict=True)
    for name, patches, grid in parts:
        offset = prompt.token_ids.index(policy.image_token_id, start)
        start = offset + len(patches) // merged
        found.append(Picture(offset=offset, length=start - offset, name=name, patches=patches, grid=grid))
    return found


def features(pictures: Sequence[Picture]) -> dict[str, Any]:
    """The `features` of a request to /inference/v1/generate."""
    return {
        "mm_hashes": {"image": [picture.name for picture in pictures]},
        "mm_placeholders": {"image": [{"offset": one.offset, "length": one.length} for one in pictures]},
        "kwargs_data": {"image": [base64.b64encode(_item(picture)).decode("ascii") for picture in pictures]},
    }


def _item(picture: Picture) -> bytes:
    patches = {"keep_on_cpu": False, "slices": [[0, len(picture.patches), None]], "dim": 0}
    return pack(
        {
            "pixel_values": {"data": _tensor(picture.patches), "field": ["flat", patches]},
            "image_grid_thw": {"data": _tensor(picture.grid), "field": ["batched", {"keep_on_cpu": True}]},
        }
    )


def _tensor(tensor: Tensor) -> list[Any]:
    content = tensor.contiguous().numpy().tobytes()
    return [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), Raw(content=content)]


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Bytes of a tensor."""

    content: bytes


def pack(value: Any) -> bytes:
    """msgpack of None, booleans, whole numbers from 0 on, text, raw tensors, and lists and maps of them.

    Raises:
        TypeError: It holds something else.
    """
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int) and value >= 0:
        return bytes([value]) if value < 128 else struct.pack(">BQ", 0xCF, value)
    if isinstance(value, str):
        text = value.encode()
        return struct.pack(">BI", 0xDB, len(text)) + text
    if isinstance(value, Raw):
        return struct.pack(">BIB", 0xC9, len(value.content), RAW_TENSOR) + value.content
    if isinstance(value, list):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value))
    if isinstance(value, Mapping):
        pairs = b"".join(pack(key) + pack(content) for key, content in value.items())
        return struct.pack(">BI", 0xDF, len(value)) + pairs
    raise TypeError(f"{value!r} has no msgpack form here")
