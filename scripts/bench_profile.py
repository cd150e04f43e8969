"""Where time goes: the shares of vision tower, attention, linear layers, head, optimiser and Python in what is run.

Times are of the processor's threads that launch operations, by torch.profiler, which itself makes every operation a few
microseconds slower: the share of Python and of small operations reads too high, not too low.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from mm_agrae.policy.load import Policy

VISION = "bench: vision"
PHASE = "bench: phase "
KINDS = ("vision", "attention", "linear", "head", "optimiser", "other operations", "python")
_PRODUCTS = (
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::mkldnn_linear",
    "mkldnn::_linear_pointwise",
)
_ATTENTION = ("flash_attention", "scaled_dot_product", "grouped")


def table(policy: Policy, run: Callable[[], Any]) -> str:
    """Seconds and shares of every phase (as marked by `phase`; the rest is the phase "rest"), as text."""
    with _marked(policy), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        started = time.perf_counter()
        run()
        total = time.perf_counter() - started
    seconds, whole = _seconds(list(profiler.events()), vocabulary=policy.head.weight.shape[0])  # type: ignore[union-attr, arg-type]
    whole["rest"] = total - sum(whole.values())
    lines = [f"{'':10}{'seconds':>9}  " + "".join(f"{kind:>18}" for kind in KINDS)]
    for name, spent in whole.items():
        shares = Counter({kind: value for (of, kind), value in seconds.items() if of == name})
        shares["python"] = max(0.0, spent - shares.total())
        cells = "".join(f"{shares[kind] / spent if spent else 0:17.1%} " for kind in KINDS)
        lines.append(f"{name:10}{spent:9.3f}  {cells}")
    return "\n".join(lines)


def phase(name: str) -> record_function:
    """Marks what runs inside as one line of the table."""
    return record_function(PHASE + name)


@contextmanager
def _marked(policy: Policy) -> Iterator[None]:
    """The vision tower's forward passes carry a mark; their backward passes are found by sequence numbers."""
    open_marks: list[record_function] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        open_marks.append(record_function(VISION))
        open_marks[-1].__enter__()

    def leave(module: nn.Module, inputs: Any, outputs: Any) -> None:
        open_marks.pop().__exit__(None, None, None)

    tower = policy.backbone.visual if policy.sees else None
    handles = [] if tower is None else [tower.register_forward_pre_hook(enter), tower.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _seconds(events: list[Any], *, vocabulary: int) -> tuple[Counter[tuple[str, str]], dict[str, float]]:
    """Seconds by (phase, kind), and of whole phases."""
    of_vision = {
        event.sequence_nr: any(parent.name == VISION for parent in _chain(event))
        for event in events
        if event.sequence_nr >= 0 and event.name.startswith("aten::")
    }
    found: Counter[tuple[str, str]] = Counter()
    whole: Counter[str] = Counter()
    for event in events:
        if event.name.startswith(PHASE):
            whole[event.name.removeprefix(PHASE)] += event.cpu_time_total / 1e6
            continue
        chain = _chain(event)
        names = [one.name for one in chain]
        if not any(name.startswith("aten::") or "Backward" in name for name in names[:1]) and "::" not in event.name:
            continue
        within = next((name.removeprefix(PHASE) for name in names if name.startswith(PHASE)), "rest")
        is_vision = VISION in names or any(
            one.name.startswith("autograd::engine") and of_vision.get(one.sequence_nr, False) for one in chain
        )
        kind = "vision" if is_vision else _kind(names, event.input_shapes, vocabulary)
        found[within, kind] += event.self_cpu_time_total / 1e6
    return found, dict(whole)


def _chain(event: Any) -> list[Any]:
    """The event and everything around it, from the inside."""
    found = [event]
    while found[-1].cpu_parent is not None:
        found.append(found[-1].cpu_parent)
    return found


def _kind(names: list[str], shapes: Any, vocabulary: int) -> str:
    if any(name.startswith("Optimizer.step") for name in names) or "_foreach_" in names[0]:
        return "optimiser"
    if any(part in name for name in names for part in _ATTENTION):
        return "attention"
    if any(isinstance(shape, list | tuple) and vocabulary in shape for shape in shapes or ()):
        return "head"
    return "linear" if names[0] in _PRODUCTS else "other operations"
