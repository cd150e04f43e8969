"""Which model is measured: a digest of its weights and of everything that stands between a problem and its tokens."""

from __future__ import annotations

import hashlib
import json

import torch

from mm_agrae.policy.load import Policy
from mm_agrae.policy.marks import processor_mark


def model_digest(policy: Policy) -> str:
    """Hash of the weights as they were loaded, the configuration, the tokenizer and the image processor.

    A folder can be written again at the same path, so its name does not tell which model was measured.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    digest.update(f"{processor_mark(policy)} {policy.precision}".encode())
    digest.update(policy.inner.config.to_json_string(use_diff=False).encode())
    return digest.hexdigest()
