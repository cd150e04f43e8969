"""The processes of a run: who does what, and the few numbers they share. The only door to accelerate.

Gradients are summed explicitly, once per optimiser step, after all micro-batches. The loss weights come from global
counts, so that sum is the gradient of the whole batch however the groups were dealt out; ranks may run different
numbers of micro-batches, with or without images, and never wait for each other in between.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from socket import gethostname
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.distributed import DistError, Store, all_to_all_single, is_initialized, rendezvous
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from mm_agrae.errors import CheckpointError, ConfigError, DataError, EngineError, LostProcessError
from mm_agrae.policy.load import pick_device
from mm_agrae.train.launch import HOW_TO_LAUNCH, num_launched

T = TypeVar("T")

# How long the first process waits for the last one to start. Their imports may take minutes on a cold, shared disk.
START_S = 600.0
# One flat buffer per this many elements keeps the number of collectives small and the copy bounded.
BUCKET_ELEMENTS = 32 * 1024 * 1024
# What ends a run with a message.
PASSED_ON = (ConfigError, DataError, EngineError, CheckpointError, OSError)


class World:
    """All processes of the run, seen from one of them."""

    def __init__(self, *, device: str, timeout_s: float | None = None) -> None:
        """Join the other processes, if a launcher started any.

        Args:
            device: model.device of the config; "cpu" keeps every process off the GPUs.
            timeout_s: How long a process waits for the others in one collective; None takes torch's own bound, which
                a slow disk or an uneven rollout can outlast.

        Raises:
            ConfigError: The device is not there, or the launcher started another number of processes than found each
                other, or the launch asks for what this trainer does not do.
            LostProcessError: Another process did not start within START_S.
        """
        on_cpu = pick_device(device).type == "cpu"
        launched = num_launched(os.environ)
        if on_cpu and launched > 1:
            os.environ["ACCELERATE_USE_CPU"] = "true"  # without it accelerate starts as many lone processes
        patience = [] if timeout_s is None else [InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_s))]
        met = _meet(launched)  # held until the group is made, which reaches the others by the same store
        self.accelerator = Accelerator(cpu=on_cpu, kwargs_handlers=patience)
        del met
        if self.accelerator.num_processes != launched:
            raise ConfigError(
                f"the launcher started {launched} processes, but {self.accelerator.num_processes} found each other: "
                f"each would train alone. {HOW_TO_LAUNCH}"
            )

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def size(self) -> int:
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's part of a global list: every size-th item, so any stretch of the list is dealt out evenly."""
        return list(items[self.rank :: self.size])

    def collect(self, mine: Sequence[T]) -> list[T]:
        """The inverse of share: the parts of all ranks as one list in global order, on every rank."""
        if self.size == 1:
            return list(mine)
        with self._meeting():
            parts: list[list[T]] = gather_object([list(mine)])
        total = sum(map(len, parts))
        return [parts[index % self.size][index // self.size] for index in range(total)]

    def merge(self, mine: Mapping[int, T]) -> list[T]:
        """The numbered items of all ranks as one list by number, on every rank, however unevenly they are held."""
        parts = self.collect([dict(mine)])
        return [item for _, item in sorted((pair for part in parts for pair in part.items()), key=lambda pair: pair[0])]

    def exchange(self, parcels: Mapping[int, Sequence[T]]) -> list[T]:
        """Send items to the ranks that they are addressed to, and take what comes here, in the order of the senders.

        Every rank must call it, also one that sends nothing.
        """
        outgoing = [pickle.dumps(list(parcels.get(rank, ()))) for rank in range(self.size)]
        sent = torch.tensor([len(parcel) for parcel in outgoing], device=self.device)
        coming = torch.empty_like(sent)
        with self._meeting():
            all_to_all_single(coming, sent)
        lengths = coming.tolist()
        arrived = torch.empty(sum(lengths), dtype=torch.uint8, device=self.device)
        packed = torch.frombuffer(bytearray(b"".join(outgoing)), dtype=torch.uint8).to(self.device)
        with self._meeting():
            all_to_all_single(arrived, packed, lengths, sent.tolist())
        return [item for part in arrived.cpu().split(lengths) for item in pickle.loads(part.numpy().tobytes())]

    def broadcast(self, value: T) -> T:
        """The main process's value, on every rank."""
        box: list[Any] = [value]
        if self.size > 1:
            with self._meeting():
                broadcast_object_list(box)
        return box[0]

    def sum(self, value: Tensor) -> Tensor:
        """Elementwise sum over ranks."""
        with self._meeting():
            return self.accelerator.reduce(value, reduction="sum")

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over ranks; a rank without one contributes zeros.

        Sharded parameters are left alone: their backward pass has summed their gradients.
        """
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter, dtype=parameter.grad_dtype)
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        for parameter in (one for one in parameters if not isinstance(one, DTensor)):
            assert parameter.grad is not None
            if bucket and sum(g.numel() for g in bucket) + parameter.grad.numel() > BUCKET_ELEMENTS:
                self._sum_bucket(bucket)
                bucket = []
            bucket.append(parameter.grad)
        if bucket:
            self._sum_bucket(bucket)

    def mesh(self) -> DeviceMesh:
        """All processes in a row, for what is cut into pieces."""
        return init_device_mesh(self.device.type, (self.size,))

    def keeps_step(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether every rank must make the same forward passes: parameters are sharded over them."""
        return any(isinstance(parameter, DTensor) for parameter in parameters)

    def in_step(
        self, batches: Sequence[T], spare: Sequence[T], parameters: Sequence[nn.Parameter]
    ) -> list[tuple[T, bool]]:
        """Micro-batches, and whether they count, as many on every rank as on the busiest where ranks must keep step.

        A forward pass through sharded parameters is a meeting of all ranks, so a rank with fewer repeats what must not
        count. Without sharding every rank goes at its own pace.

        Args:
            batches: This rank's micro-batches.
            spare: What else it can compute, cheapest first, for a rank without any.
            parameters: Of the model.

        Raises:
            ConfigError: Parameters are sharded, and a rank has nothing at all to compute; raised on every rank, because
                the others would wait for it.
        """
        counted = [(batch, True) for batch in batches]
        if not self.keeps_step(parameters):
            return counted
        fillers = [*batches[-1:], *spare]
        everyone = self.collect([(len(counted), bool(fillers))])
        busiest = max(count for count, _ in everyone)
        idle = [rank for rank, (_, has_filler) in enumerate(everyone) if not has_filler]
        if busiest and idle:
            raise ConfigError(
                f"rank {idle[0]} of {self.size} has no group, but with sharded weights every rank must compute in "
                "every update. Set rollout.num_prompts (for a warm start: sft.batch_size) to at least the number of "
                "processes."
            )
        return counted + [(fillers[0], False) for _ in range(busiest - len(counted))]

    def everywhere(self, act: Callable[[], T]) -> T:
        """Let every process act for itself, and go on when all of them could.

        Returns:
            What this process made.

        Raises:
            ConfigError, DataError, EngineError, CheckpointError, OSError: What any of them raised, on every rank; a
                rank that was told of it names the one that it is from.
        """
        made, problem = _attempt(act)
        told = [_message(problem, f"rank {self.rank} on {gethostname()}: ")] if problem else []
        everyone = self.collect([told])
        if problem is not None:
            raise problem
        for kind, arguments in chain.from_iterable(everyone):
            raise kind(*arguments)
        return made[0]

    def on_main(self, act: Callable[[], T]) -> T:
        """Let the main process act while the others wait for it.

        Returns:
            What it made, on every rank; it must pickle.

        Raises:
            ConfigError, DataError, EngineError, CheckpointError, OSError: What it raised, on every rank: the others
                would wait for what comes next.
        """
        made, problem = _attempt(act) if self.is_main else (list[T](), None)
        told = _message(problem) if problem else None
        made, told = self.broadcast((made, told))
        if problem is not None:
            raise problem
        if told is not None:
            kind, arguments = told
            raise kind(*arguments)
        return made[0]

    def barrier(self) -> None:
        with self._meeting():
            self.accelerator.wait_for_everyone()

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Say in words what a collective means that fails: of well-formed ones, the others are not there any more."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise LostProcessError(
                f"rank {self.rank} of {self.size} cannot reach the other processes ({str(error).splitlines()[0]}). "
                "One of them has ended, or its machine or the network is gone: what the other processes said last "
                "tells which. Start all of them again, with --resume to go on."
            ) from error

    def _sum_bucket(self, gradients: Sequence[Tensor]) -> None:
        flat = self.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))


def _meet(launched: int) -> Store | None:
    """Wait until every process has started, much more briefly than a collective may take."""
    if launched == 1 or is_initialized():
        return None
    patience, names = timedelta(seconds=START_S), [f"mm_agrae/started/{rank}" for rank in range(launched)]
    try:
        store, rank, _ = next(rendezvous("env://", timeout=patience))
        store.set(names[rank], "")
        store.wait(names, patience)
    except DistError as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise LostProcessError(
            f"rank {os.environ['RANK']} on {gethostname()} waited {START_S:g} s at {address} for {launched} "
            f"processes to start ({str(error).splitlines()[0]}). Look at what the other machines say: one may have "
            "refused its recipe, or not have been started, or not reach that address. Start all of them again."
        ) from error
    return store


def _attempt(act: Callable[[], T]) -> tuple[list[T], Exception | None]:
    """What was made, alone in a list, or what ends the run."""
    try:
        return [act()], None
    except PASSED_ON as error:
        return [], error


def _message(problem: Exception, who: str = "") -> tuple[type[Exception], tuple[Any, ...]]:
    """What other processes make the same error from, with whose it is; an error of a library may not be sent itself."""
    if isinstance(problem, OSError) and problem.errno is not None:
        return OSError, (problem.errno, f"{who}{problem.strerror}", problem.filename)
    return next(kind for kind in PASSED_ON if isinstance(problem, kind)), (f"{who}{problem}",)
