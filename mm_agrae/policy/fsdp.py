"""Weights in pieces (FSDP2): each process keeps a part of every layer, and a layer is whole only while it computes.

Whole on every process stay the head with an embedding that is tied to it, and a frozen vision tower: its features are
cached, so each process calls it for other pictures. A pass through pieces needs every process: where a trained tower is
shared out, every process calls it in every pass, with an empty picture where it has none.

A piece of a trained weight is fp32 and what the optimiser moves; layers compute with its precision, so pieces of bf16
weights are their own masters (mixed precision of torch's fully_shard).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from mm_agrae.errors import ConfigError
from mm_agrae.policy.masters import Masters, master_of
from mm_agrae.policy.sharing import probe_states, same_states
from mm_agrae.policy.vision import takes_features, tower_is_frozen

if TYPE_CHECKING:
    from mm_agrae.policy.load import Policy


@dataclass(kw_only=True, eq=False)
class Shards:
    """The parts of a model that are shared out.

    Attributes:
        units: Modules whose own weights are gathered and let go together.
        with_tower: Whether the vision tower is among them.
        gathered: Whether all of them are whole at present.
    """

    units: tuple[FSDPModule, ...]
    with_tower: bool
    gathered: bool = False

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """All weights whole on every process, for as many passes as each wants.

        Every process must enter. Inside, forward passes wait for no other process; backward passes do.
        """
        if self.gathered:
            yield
            return
        self._keep(True)
        for unit in self.units:
            unit.unshard()
        self.gathered = True
        try:
            yield
        finally:
            self.gathered = False
            for unit in self.units:
                unit.reshard()
            self._keep(False)

    def _keep(self, whole: bool) -> None:
        for unit in self.units:
            unit.set_reshard_after_forward(not whole, recurse=False)
            unit.set_reshard_after_backward(not whole, recurse=False)


def shard(policy: Policy, mesh: DeviceMesh) -> Policy:
    """Share a policy's weights out; its modules are changed in place.

    Args:
        policy: Whole, and the same on every process.
        mesh: The processes.

    Returns:
        The policy with `shards`, and with masters of those trained weights only that stay whole.

    Raises:
        ConfigError: The language model is frozen, or what came out is not shared out, or computes something else.
    """
    if policy.trainable() and not any(weight.requires_grad for weight in policy.inner.get_decoder().parameters()):
        raise ConfigError(
            "train.sharding shares the language model out, but model.freeze holds language, so processes without "
            "pictures would miss the backward passes of the others. Set train.sharding=none."
        )
    before = probe_states(policy)
    shares_tower = policy.sees and not tower_is_frozen(policy) and takes_features(policy.backbone)
    tied = policy.head.weight is policy.inner.get_input_embeddings().weight
    stay = set(policy.head.parameters()) if tied else set()
    if policy.sees and not shares_tower:
        stay |= set(policy.backbone.visual.parameters())
    maker = _Maker(policy, mesh, stay)
    for block in _blocks(policy.backbone.visual, policy) if shares_tower else ():
        maker.unit(block)
    if shares_tower:
        maker.unit(policy.backbone.visual)
    for layer in _blocks(policy.inner.get_decoder(), policy):
        maker.unit(layer)
    maker.unit(policy.backbone)
    if not tied:
        maker.unit(policy.head)
        register_fsdp_forward_method(policy.head, "score")  # what the trainer calls in the place of forward
    _check_pieces(policy, mesh, stay)
    shards = Shards(units=tuple(maker.units), with_tower=shares_tower)
    policy = replace(policy, shards=shards, masters=maker.masters_left())
    # This is also the first pass. It makes the backbone the root: a tower called before would take itself for one.
    if not same_states(policy, before, probe_states(policy)):
        raise ConfigError(
            f"sharded weights of model type {policy.inner.config.model_type!r} compute something else than whole ones. "
            "Set train.sharding=none."
        )
    return policy


def is_piece(tensor: Tensor) -> bool:
    """Whether other processes hold the rest of a tensor."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its pieces; a meeting of all processes where there are any."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def piece_like(held: Tensor, full: Tensor) -> Tensor:
    """This process's piece of a whole tensor, cut as `held` is; itself where that is whole."""
    if not isinstance(held, DTensor) or not full.ndim:
        return full
    # Every process has the same one, so nothing is sent.
    return distribute_tensor(full.to(held.device), held.device_mesh, held.placements, src_data_rank=None)


class _Maker:
    """Makes modules into units, from the inside out."""

    def __init__(self, policy: Policy, mesh: DeviceMesh, stay: set[nn.Parameter]) -> None:
        self.mesh = mesh
        self.stay = stay
        self.masters = master_of(policy.masters)
        narrow = policy.stored_weights != "fp32"
        self.precision = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if narrow else None,
            reduce_dtype=torch.float32 if narrow else None,
            cast_forward_inputs=False,  # the model casts what it wants cast
        )
        self.units: list[FSDPModule] = []

    def unit(self, module: Any) -> None:
        """Share out the weights of a module that belong to no unit yet; there may be none."""
        for parameter in module.parameters():
            if parameter in self.masters and parameter not in self.stay:
                # One unit at a time: the whole model in fp32 may be larger than the device.
                parameter.data = self.masters.pop(parameter)
        made = fully_shard(
            module, mesh=self.mesh, mp_policy=self.precision, reshard_after_forward=True, ignored_params=self.stay
        )
        made.set_gradient_divide_factor(1.0)  # the loss is a sum over ranks
        made.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        self.units.append(made)

    def masters_left(self) -> Masters | None:
        """Masters of the trained weights that stay whole."""
        if not self.masters:
            return None
        fp32 = tuple(master.to(weight.device) for weight, master in self.masters.items())
        return Masters(weights=tuple(self.masters), fp32=fp32)


def _blocks(part: nn.Module, policy: Policy) -> list[nn.Module]:
    """The layers of a part, by the classes that transformers never cuts."""
    return [module for module in part.modules() if type(module).__name__ in policy.inner._no_split_modules]


def _check_pieces(policy: Policy, mesh: DeviceMesh, stay: set[nn.Parameter]) -> None:
    """torch and its launchers have been seen to answer a wish for pieces with whole weights, and to say nothing."""
    for name, parameter in policy.model.named_parameters():
        if parameter in stay:
            continue
        if not isinstance(parameter, DTensor) or parameter.device_mesh.size() != mesh.size():
            raise ConfigError(
                f"train.sharding should cut {name} into {mesh.size()} pieces, but it came out as "
                f"{type(parameter).__name__}. Set train.sharding=none."
            )
