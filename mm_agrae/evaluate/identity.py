"""Which model is measured: a digest of its weights and of everything that stands between a problem and its tokens."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import torch

from mm_agrae.policy.load import Policy


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
    ends = [sorted(policy.banned_token_ids), sorted(policy.eos_token_ids), policy.precision]
    digest.update(json.dumps(ends).encode())
    digest.update(policy.inner.config.to_json_string(use_diff=False).encode())
    with tempfile.TemporaryDirectory() as folder:
        policy.processor.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(folder).as_posix()}\x1f".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
