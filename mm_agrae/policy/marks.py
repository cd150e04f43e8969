"""Short marks by which a model is known again: a path or a name does not tell what lies there today."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from mm_agrae.policy.hugging_face import transformers
from mm_agrae.policy.load import Policy

# Elements that are widened to 64 bits at a time.
STRETCH = 16 * 1024 * 1024
# What transformers notes of the place that a tokenizer was loaded from, and of HF_HUB_OFFLINE.
CIRCUMSTANCES = ("is_local", "local_files_only")


def weights_mark(weights: Iterable[tuple[str, Tensor]]) -> str:
    """A mark of weights, with names, shapes and formats: equal weights have equal marks, on every device.

    Σ i · bits of element i, modulo 2^64, of each stretch of each tensor: a GPU needs little time for billions of
    weights. It is made to notice another model, another revision or a broken copy, not somebody who deceives it.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in weights:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        bits = tensor.detach().contiguous().reshape(-1).view(_INTEGERS[tensor.element_size()])
        for stretch in bits.split(STRETCH):
            places = torch.arange(1, len(stretch) + 1, device=stretch.device)
            digest.update(f" {int((stretch * places).sum())}".encode())
    return digest.hexdigest()[:16]


def processor_facts(policy: Policy) -> dict[str, str]:
    """The mark of a policy's processor, by a name that says which version wrote it down: others use other words."""
    return {f"processor of model.path, as transformers {transformers.__version__} has it": processor_mark(policy)}


def processor_mark(policy: Policy) -> str:
    """A mark of what stands between a problem and its tokens: tokenizer, chat template, image processor, special ids.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([sorted(policy.banned_token_ids), sorted(policy.eos_token_ids)]).encode())
    with tempfile.TemporaryDirectory() as folder:
        policy.processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(folder).as_posix()}\x1f".encode())
                digest.update(_without_circumstances(path))
    return digest.hexdigest()


def _without_circumstances(path: Path) -> bytes:
    """A file of a processor without how it happened to be loaded."""
    if path.name != "tokenizer_config.json":
        return path.read_bytes()
    settings = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps({name: value for name, value in settings.items() if name not in CIRCUMSTANCES}).encode()


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
