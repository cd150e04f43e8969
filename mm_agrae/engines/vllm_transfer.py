"""Weights from the trainer's GPU to servers' GPUs, by the trainer side of vLLM's own transfer engines.

nccl: one broadcast to all workers of all servers. ipc: trainer and server share a GPU, and the server maps the
trainer's memory. Written against vLLM 0.32, vllm/distributed/weight_transfer (stateful trainer engine, since 0.28). The
servers are started with --weight-transfer-config naming the same backend.
"""

from __future__ import annotations

import base64
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from torch import Tensor

from mm_agrae.engines.vllm_contract import check_version
from mm_agrae.engines.vllm_sync import Part, engine_dtype, weight_shapes, weights_of
from mm_agrae.errors import ConfigError, EngineError
from mm_agrae.policy.load import Policy

# POST of one server: path and body -> answer.
Post = Callable[[str, Mapping[str, Any]], Any]


@dataclass(frozen=True, kw_only=True)
class WeightInfo:
    """One weight as it will be sent: what vLLM calls ParamMeta."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class WeightStream:
    """The policy's weights as vLLM's trainer engines take them: a WeightSource.

    Attributes:
        part: Which weights the next pass sends.
        under_way: What the last pass has not taken yet; None before it begins.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.begin("all")

    def begin(self, part: Part) -> None:
        """Get ready for a pass over a part."""
        self.part: Part = part
        self.under_way: Iterator[tuple[str, Tensor]] | None = None

    def metadata(self) -> list[WeightInfo]:
        """What iteration will yield; no meeting of processes."""
        dtype = engine_dtype(self.policy)
        shapes = weight_shapes(self.policy, self.part)
        return [WeightInfo(name=name, dtype=dtype, shape=shape) for name, shape in shapes.items()]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        device = self.policy.device
        self.under_way = gathered = weights_of(self.policy, self.part)
        return ((name, tensor.to(device)) for name, tensor in gathered)

    def drain(self) -> None:
        """Gather what is left of the pass, for nobody: under sharding the other processes wait in each weight."""
        for _ in self.under_way or self:
            pass


class Servers:
    """Several servers as the one client that a trainer engine drives: a VLLMWeightSyncClient.

    Attributes:
        label: Of the weights that the next update brings.
    """

    def __init__(self, posts: Sequence[Post], world_sizes: Sequence[int]) -> None:
        """Servers, and the number of workers that each of them has."""
        self.posts = list(posts)
        # The trainer is rank 0, and the workers of a server follow those of the servers before it.
        self.offsets = list(accumulate(world_sizes, initial=1))[:-1]
        self.label: str | None = None

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        infos = [
            init_info | {"rank_offset": offset} if "rank_offset" in init_info else init_info for offset in self.offsets
        ]
        self._all("/init_weight_transfer_engine", [{"init_info": info} for info in infos])

    def start_weight_update(self) -> None:
        self._all("/start_weight_update", [{}] * len(self.posts))

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self._all("/update_weights", [{"update_info": as_json(update_info)}] * len(self.posts))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._all("/finish_weight_update", [{"weight_version": weight_version or self.label}] * len(self.posts))

    def _all(self, path: str, bodies: Sequence[Mapping[str, Any]]) -> None:
        """At the same time: in a broadcast every worker waits for all others."""
        with ThreadPoolExecutor(max_workers=len(self.posts)) as pool:
            for done in [pool.submit(post, path, body) for post, body in zip(self.posts, bodies, strict=True)]:
                done.result()


class GpuTransfer:
    """Sends weights over NCCL or CUDA IPC. Every process of the run makes one and calls `send`; rank 0 sends."""

    def __init__(
        self, policy: Policy, servers: Servers, *, kind: Literal["nccl", "ipc"], rank: int, url: str, num_workers: int
    ) -> None:
        """Meet the servers; all of them must be up.

        Args:
            policy: On CUDA.
            servers: The servers; rank 0 alone talks to them.
            kind: How weights travel.
            rank: Of this process.
            url: A server, by which this machine finds the address that servers see it under.
            num_workers: Of all servers together.

        Raises:
            ConfigError: The policy is not on CUDA, or vLLM is not installed here.
        """
        if policy.device.type != "cuda":
            raise ConfigError(
                f"engine.sync is {kind}, but the policy is on {policy.device.type}, and this way goes from GPU to GPU. "
                "Set engine.sync=files."
            )
        trainer_init, init_info = _trainer_side(kind)
        self.stream = WeightStream(policy)
        self.servers = servers
        self.kind = kind
        if kind == "nccl":
            address, port = meeting_point(url) if rank == 0 else ("", 0)
            info = init_info(rank=rank, master_address=address, master_port=port, world_size=1 + num_workers)
        else:
            info = init_info(rank=rank, packed=True)
        self.engine = trainer_init(info, client=servers, source=self.stream)

    def send(self, part: Part, label: str) -> None:
        """One whole update of all servers: start, weights, finish.

        Raises:
            EngineError: They did not arrive.
        """
        self.stream.begin(part)
        self.servers.label = label
        try:
            self._send()
        except (EngineError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, OSError, ValueError) as error:  # NCCL, CUDA and sockets
            raise EngineError(
                f"new weights did not reach the servers from GPU to GPU: {error}. Start the servers anew and "
                "resume, or set engine.sync=files."
            ) from error

    def _send(self) -> None:
        try:
            self.engine.send_weights()
        except Exception:
            # With ipc the processes meet in vLLM's own exchange of handles too, which nobody can go through alone; the
            # deadline of the phase ends the others.
            if self.kind == "nccl":
                self.stream.drain()
            raise

    def close(self) -> None:
        self.engine.shutdown()


def _trainer_side(kind: Literal["nccl", "ipc"]) -> tuple[Any, Any]:
    try:
        import vllm
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
    except ImportError as error:
        raise ConfigError(
            f"engine.sync is {kind}, which needs vLLM beside the trainer too. Install it: "
            "pip install 'mm-agrae[vllm]', or set engine.sync=files."
        ) from error
    check_version(vllm.__version__)
    init_info = NCCLTrainerInitInfo if kind == "nccl" else IPCTrainerInitInfo
    return WeightTransferTrainerFactory.trainer_init, init_info


def meeting_point(url: str) -> tuple[str, int]:
    """The address by which a server sees this machine, and a free port on it."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as reached:
        address = reached.getsockname()[0]
    with socket.create_server((address, 0)) as free:
        return address, free.getsockname()[1]


def as_json(update_info: Mapping[str, Any]) -> dict[str, Any]:
    """What an update says, for a body. Handles of GPU memory have no JSON form; vLLM takes them pickled."""
    info = dict(update_info)
    handles = info.pop("ipc_handles", None)
    if handles is not None:
        info["ipc_handles_pickled"] = base64.b64encode(pickle.dumps(handles)).decode("ascii")
    return info
