"""New weights for vLLM: which are sent, how files carry them, and what the engine must forget afterwards.

Names are those of the transformers model; vLLM's own model class maps them to its fused layers. Adapters are sent
merged into the weights that they adapt, so vLLM serves an ordinary model. At the start everything is sent, whatever the
engine was started from; later only what can have changed. Nothing here imports vLLM.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mm_agrae.engines.vllm_contract import BACKEND, file_digest
from mm_agrae.errors import EngineError
from mm_agrae.policy.load import Policy
from mm_agrae.policy.snapshot import named_weights
from mm_agrae.policy.vision import tower_is_frozen
from mm_agrae.store.atomic import fsync_directory

Part = Literal["all", "frozen", "trained"]
Cache = Literal["prefix", "encoder"]


def weight_shapes(policy: Policy, part: Part = "all") -> dict[str, tuple[int, ...]]:
    """Names of the weights of a part, in order, with their shapes; no meeting of processes even when sharded.

    Args:
        policy: The model.
        part: "trained" is every block (decoder layer, tower block, single layer) that holds a trained weight, with its
            frozen ones: vLLM fuses weights within a block, and loads a fused layer whole or not at all. "frozen" is
            the rest.
    """
    held = dict(policy.inner.named_parameters())
    trained = {_block(_plain(name)) for name, parameter in held.items() if parameter.requires_grad}
    shapes = {_plain(name): tuple(parameter.shape) for name, parameter in held.items() if ".lora_" not in name}
    return {name: shape for name, shape in shapes.items() if part in ("all", _part(_block(name) in trained))}


def weights_of(policy: Policy, part: Part = "all") -> Iterator[tuple[str, Tensor]]:
    """The weights named by `weight_shapes`, in the format that the engine computes in, one at a time.

    Under sharding every process must iterate to the end.
    """
    sent, dtype = weight_shapes(policy, part), engine_dtype(policy)
    for name, tensor in named_weights(policy):
        if name in sent:
            yield name, tensor.to(dtype)


def engine_dtype(policy: Policy) -> torch.dtype:
    """What vLLM must be started with to compute as the policy does."""
    return torch.bfloat16 if policy.precision == "bf16" else torch.float32


def caches_to_reset(policy: Policy, part: Part) -> tuple[Cache, ...]:
    """What an engine remembers of the old weights.

    Args:
        policy: Whose weights were sent.
        part: Which of them; "all" goes to an engine that may remember another run.

    Returns:
        "prefix": keys and values, always. "encoder": features of pictures, where the vision tower or its merger may
        have changed. Processed pixels know nothing of weights and stay.
    """
    return ("prefix", "encoder") if policy.sees and (part == "all" or not tower_is_frozen(policy)) else ("prefix",)


MISMATCHES = {
    "unknown": "has no place for",
    "missing": "has weights that the policy does not send:",
    "cut": "would cut the weights that go to its smaller",
    "misfit": "has layers of other sizes than the policy's:",
}
# How a server is started to take weights by a backend.
STARTED_BY = {
    BACKEND: f'--weight-transfer-config \'{{"backend": "{BACKEND}"}}\', as scripts/serve_vllm.sh does',
    "nccl": '--weight-transfer-config \'{"backend": "nccl"}\'',
    "ipc": '--weight-transfer-config \'{"backend": "ipc"}\', and with VLLM_ALLOW_INSECURE_SERIALIZATION=1 in its '
    "environment, by which whoever reaches the port can run code there: keep the port on this machine",
}
REPLIED = {*MISMATCHES, "normalizes", "backend", "tokens_needed"}


def check_match(replies: Sequence[Mapping[str, Any]], *, backend: str = BACKEND) -> None:
    """Judge what the workers said of themselves and of all weights, before anything is sent.

    Args:
        replies: Of the workers, WeightExtension.mm_agrae_match. Of several replicas within a server (data parallel)
            vLLM tells what the first one said.
        backend: By which weights will go.

    Raises:
        EngineError: A name is unknown, or a weight is missing or of another size; lists them. Or patches, which come
            normalised, would be normalised once more, or the engine was started for another backend, or for batches
            that it dies of.
    """
    if not replies or any(REPLIED - reply.keys() for reply in replies):
        raise EngineError(
            f"vLLM's workers say {', '.join(map(str, map(sorted, replies))) or 'nothing'} of themselves, but must say "
            f"{', '.join(sorted(REPLIED))}. Serve with this version of mm-agrae."
        )
    for kind, told in MISMATCHES.items():
        named = [set(reply[kind]) for reply in replies]
        # Of a pipeline's stages each has a place for its own layers alone.
        names = set.intersection(*named) if kind == "unknown" else set.union(*named)
        if names:
            raise EngineError(
                f"vLLM {told} {', '.join(sorted(names))}. Serve the model of this run, from the same folder."
            )
    _check_start(replies, backend)


def _check_start(replies: Sequence[Mapping[str, Any]], backend: str) -> None:
    """Judge how the engine was started."""
    for found in {reply["backend"] for reply in replies} - {backend}:
        raise EngineError(
            f"vLLM was started to take weights by {found}, but engine.sync sends them by {backend}. Start it with "
            f"{STARTED_BY[backend]}."
        )
    if needed := max(reply["tokens_needed"] for reply in replies):
        raise EngineError(
            "vLLM may cut a prompt in two, of which it dies on a CPU: the tokens of a batch must be --max-num-seqs "
            f"times --max-model-len. Start it with --max-num-batched-tokens {needed}, or make one of the two smaller."
        )
    if any(reply["normalizes"] for reply in replies):
        raise EngineError(
            "vLLM would normalise pictures, which come normalised. Start it with --no-mm-device-do-normalize, as "
            "scripts/serve_vllm.sh does."
        )


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """Weights on their way to an engine.

    Attributes:
        path: A safetensors file that trainer and engine both see.
        digest: Of the file.
        num_weights: How many it holds.
    """

    path: Path
    digest: str
    num_weights: int

    def update_info(self) -> dict[str, Any]:
        """For the engine's update_weights."""
        return {"path": str(self.path), "digest": self.digest}


def write_weights(policy: Policy, folder: Path, *, part: Part, label: str, is_main: bool) -> WeightFile | None:
    """Gather a part of the weights and write it to a file, which appears whole or not at all. Every process calls it.

    Args:
        policy: The model.
        folder: Where to; made if missing.
        part: Which weights.
        label: RUN.VERSION, which names the file; RUN is what no other run has.
        is_main: Whether this process writes.

    Returns:
        The file; None on the other processes, and where the part is empty.

    Raises:
        EngineError: The disk does not take it.
    """
    tensors = {}
    for name, tensor in weights_of(policy, part):
        if is_main:
            tensors[name] = tensor.cpu().contiguous()
    if not tensors:
        return None
    path = folder.absolute() / f"{part}-{label}.safetensors"
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary)
        digest = file_digest(temporary)
        os.replace(temporary, path)
        fsync_directory(path.parent)
    except (OSError, SafetensorError) as error:
        raise EngineError(
            f"new weights cannot be written to {folder}: {error}. Free space there, or name another folder that "
            "trainer and servers see: engine.sync_folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return WeightFile(path=path, digest=digest, num_weights=len(tensors))


def remove_older(present: WeightFile) -> None:
    """Delete the files of the same part and run beside it, once every engine has confirmed it."""
    run = present.path.stem.rpartition(".")[0]
    for path in present.path.parent.glob(f"{run}.*.safetensors"):
        if path != present.path:
            path.unlink(missing_ok=True)


def check_received(sent: Sequence[WeightFile], replies: Sequence[Mapping[str, Any]]) -> None:
    """Judge what the workers said of the update just finished.

    Args:
        sent: Its files, in order.
        replies: Of the workers, as in check_match. "digests": of the files that were read; "num_weights": how many
            weights were loaded.

    Raises:
        EngineError: A worker read other files, or loaded fewer weights than they hold.
    """
    digests, num_weights = [file.digest for file in sent], sum(file.num_weights for file in sent)
    for reply in replies:
        if list(reply["digests"]) != digests or reply["num_weights"] != num_weights:
            raise EngineError(
                f"an engine loaded {reply['num_weights']} weights from files that hash to {list(reply['digests'])}, "
                f"but {num_weights} from {digests} were sent. Let one run alone use the server."
            )


def _part(trained: bool) -> Part:
    return "trained" if trained else "frozen"


def _plain(name: str) -> str:
    """The name without adapters: of the weight itself, or of the weight that an adapter is added to."""
    adapted, adapter, _ = name.partition(".lora_")
    return f"{adapted}.weight" if adapter else name.replace(".base_layer.", ".")


def _block(name: str) -> str:
    """The name up to its first number; without one, the layer that holds the weight."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1] if numbers else parts[:-1])
