"""The weights and moments of a policy as full tensors under names: what checkpoints and engines are given.

Names are those of the transformers model (`Policy.inner`), whatever is wrapped around it and however many processes
hold it. Where weights are sharded, gathering one is a meeting of all processes: every one of them goes to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from mm_agrae.errors import CheckpointError
from mm_agrae.policy.fsdp import piece_like, whole
from mm_agrae.policy.load import Policy
from mm_agrae.policy.masters import master_of

ADAPTER = "default"  # the name that peft gives to the only one


def named_weights(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the model, one at a time, with adapters added to the weights that they adapt.

    W + scaling · B A     LoRA, arXiv:2106.09685

    Yields:
        Name and fp32 values: the master of a trained weight where there is one, else what is stored, widened. A tensor
        may be the model's own, so write to none. Tied weights come once.
    """
    held = dict(policy.inner.named_parameters())
    full = _reader(policy)
    for name, parameter in held.items():
        if ".lora_" in name:
            continue
        prefix, adapted, kind = name.partition(".base_layer.")
        weight = full(parameter)
        if adapted and kind == "weight":
            layer = policy.inner.get_submodule(prefix)
            down, up = (full(held[f"{prefix}.lora_{side}.{ADAPTER}.weight"]).to(weight.device) for side in "AB")
            delta = layer.scaling[ADAPTER] * (up @ down)
            weight = weight + (delta.T if layer.fan_in_fan_out else delta)
        yield (f"{prefix}.{kind}" if adapted else name), weight


def optimizer_tensors(policy: Policy, optimizer: torch.optim.Optimizer, *, keep: bool = True) -> dict[str, Tensor]:
    """What an optimiser remembers of every trained weight.

    Args:
        policy: Whose weights it moves.
        optimizer: AdamW.
        keep: False on a process that only takes part in gathering; it gets nothing.

    Returns:
        "exp_avg/<weight name>", "exp_avg_sq/<weight name>", "step/<weight name>": full, on the CPU. Empty before the
        first step.
    """
    tensors = {}
    for name, moved in _moved(policy):
        for key, value in optimizer.state.get(moved, {}).items():
            full = whole(value.detach())
            if keep:
                tensors[f"{key}/{name}"] = full.cpu()
    return tensors


def restore_optimizer(policy: Policy, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what `optimizer_tensors` took; its settings stay its own.

    Raises:
        CheckpointError: The tensors are not those of the weights that this policy trains.
    """
    saved: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition("/")
        saved.setdefault(name, {})[key] = tensor
    moved = dict(_moved(policy))
    if saved and saved.keys() != moved.keys():
        name = min(saved.keys() ^ moved.keys())
        raise CheckpointError(
            f"the optimiser's state was saved for {len(saved)} weights, but {len(moved)} are trained; {name} is "
            f"{'no longer trained' if name in saved else 'new'}. Resume with the model and the settings it began with."
        )
    for name, values in saved.items():
        for key, tensor in values.items():
            if tensor.ndim and tensor.shape != moved[name].shape:
                raise CheckpointError(
                    f"{key} of {name} has shape {tuple(tensor.shape)}, but the weight has "
                    f"{tuple(moved[name].shape)}. Resume with the model it began with."
                )
    names = {id(tensor): name for name, tensor in moved.items()}
    order = [names[id(tensor)] for group in optimizer.param_groups for tensor in group["params"]]
    state = {
        number: {key: piece_like(moved[name], tensor) for key, tensor in saved[name].items()}
        for number, name in enumerate(order)
        if name in saved
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def model_tensors(policy: Policy, *, keep: bool = True) -> dict[str, Tensor]:
    """What a model folder holds of the policy; of a LoRA run the adapters alone.

    Args:
        policy: The model.
        keep: False on a process that only takes part in gathering; it gets nothing.

    Returns:
        Trained adapters under the names that peft knows, or all weights and saved buffers; fp32.
    """
    pairs: Iterable[tuple[str, Tensor]] = named_weights(policy)
    if is_adapted(policy):
        full = _reader(policy)
        pairs = ((name, full(p)) for name, p in policy.model.named_parameters() if p.requires_grad)
    tensors = {}
    for name, tensor in pairs:
        if keep:  # a gathered weight leaves the device, which may have no room for all of them
            tensors[name] = tensor.cpu() if policy.shards else tensor
    if keep and not is_adapted(policy):
        saved = policy.model.state_dict()
        tensors |= {name: buffer for name, buffer in policy.model.named_buffers() if name in saved}
    return tensors


def write_model(policy: Policy, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write what `model_tensors` gathered as an ordinary model folder that any program loads.

    Of a LoRA run it is an ordinary peft adapter folder.
    """
    policy.model.save_pretrained(folder, state_dict=dict(tensors))  # type: ignore[operator]
    if not is_adapted(policy):
        # transformers writes down what the model computes with, but the tensors are fp32.
        written = deepcopy(policy.inner.config)
        written.dtype = "float32"
        written.save_pretrained(folder)
    policy.processor.save_pretrained(folder)


def save_weights(policy: Policy, folder: Path) -> None:
    """Write the model folder of a policy that one process holds whole; see `write_model`."""
    write_model(policy, model_tensors(policy), folder)


def is_adapted(policy: Policy) -> bool:
    """Whether adapters are trained, and not the model itself."""
    return policy.inner is not policy.model


def _moved(policy: Policy) -> Iterator[tuple[str, Tensor]]:
    """The name of every trained weight, and what the optimiser moves: its master where there is one."""
    masters = master_of(policy.masters)
    for name, parameter in policy.inner.named_parameters():
        if parameter.requires_grad:
            yield name, masters.get(parameter, parameter)


def _reader(policy: Policy) -> Callable[[nn.Parameter], Tensor]:
    """Parameter -> its fp32 values."""
    masters = master_of(policy.masters)

    def full(parameter: nn.Parameter) -> Tensor:
        if parameter in masters:
            return masters[parameter].detach()
        weight = whole(parameter.detach())
        # In host memory: a device that holds a frozen model in bf16 may have no room for it in fp32.
        return weight if weight.dtype == torch.float32 else weight.cpu().float()

    return full
