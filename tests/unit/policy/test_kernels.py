"""Kernels over stretches: the CPU route against softmax written out, the CUDA route against stand-ins and a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mm_agrae.policy.call import Call
from mm_agrae.policy.grouped import _Attention, attend, plan_attention
from mm_agrae.policy.kernels import Stretches, joined
from tests.unit.policy.exact_attention import (
    backward_kernel,
    forward_kernel,
    group_mask,
    masked_attention,
    stretch_mask,
)

CPU = torch.device("cpu")
# Prompts and completions of two groups with a gap between their completions, one of them longer than a kernel's row.
GROUPS = (5, 3), ((2, 4, 0, 4), (40, 1))
# Stretches of one query or one key.
SINGLE_TOKENS = (((7,), ((1,),)), ((1, 1), ((1,), (1,))))
SCALE = 0.3


def row_of(groups: tuple[Any, Any], *, heads: tuple[int, int] = (4, 2), dtype: torch.dtype) -> list[Tensor]:
    """query [T, H, D], key and value [T, K, D], output gradient [T, H, D]."""
    num = sum(groups[0]) + sum(map(sum, groups[1]))
    draw = torch.Generator().manual_seed(0)
    sizes = (heads[0], heads[1], heads[1], heads[0])
    return [torch.randn(num, size, 16, generator=draw, dtype=torch.float64).to(dtype) for size in sizes]


def packed_calls(groups: tuple[Any, Any], device: torch.device) -> tuple[Call, ...]:
    plan = plan_attention(*groups)
    return tuple(part.packed(device) for part in (plan.own, joined(plan.shared)))


def with_gradients(row: list[Tensor], calls: tuple[Call, ...]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in row[:3]]
    out = attend(*leaves, calls, SCALE)
    return [out.detach(), *torch.autograd.grad(out, leaves, row[3])]


def exact(row: list[Tensor], mask: Tensor) -> list[Tensor]:
    leaves = [x.detach().double().requires_grad_() for x in row[:3]]
    out = masked_attention(*leaves, mask.to(leaves[0].device), SCALE)
    return [out.detach(), *torch.autograd.grad(out, leaves, row[3].double())]


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


TOLERANCES = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (6, 1)])
def test_the_cpu_route_is_softmax_over_the_union(dtype: torch.dtype, heads: tuple[int, int]) -> None:
    row = row_of(GROUPS, heads=heads, dtype=dtype)
    found = with_gradients(row, plan_attention(*GROUPS).calls)
    assert [x.dtype for x in found] == [dtype] * 4
    assert worst(found, exact(row, group_mask(*GROUPS))) < TOLERANCES[dtype]


def test_the_gradient_of_a_key_that_many_heads_share_is_summed_in_one_go() -> None:
    """Added one by one in bf16, the shares of 64 heads leave errors of 1e-2."""
    groups = (24,), ((),)
    row = row_of(groups, heads=(64, 1), dtype=torch.bfloat16)
    found = with_gradients(row, plan_attention(*groups).calls)
    assert worst(found[2:], exact(row, group_mask(*groups))[2:]) < 5e-3


def test_neighbours_of_equal_size_share_a_call_where_no_heads_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = counted(monkeypatch, "_scaled_dot_product_flash_attention_for_cpu")
    sizes = tuple(range(start, start + 3) for start in range(0, 12, 3))
    call = Stretches(queries=(*sizes, range(12, 17)), keys=(*sizes, range(12, 17)), causal=True).blocks()
    row = row_of(((17,), ((),)), heads=(4, 4), dtype=torch.float64)
    found = with_gradients(row, (call,))
    assert counts["_scaled_dot_product_flash_attention_for_cpu"] == 2
    ends = torch.tensor([0, 3, 6, 9, 12, 17])
    assert worst(found, exact(row, stretch_mask(ends, ends, causal=True))) < 1e-14


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> Counter[str]:
    """Calls of an operator from now on."""
    counts: Counter[str] = Counter()
    operator = getattr(torch.ops.aten, name)

    def counting(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return operator(*args, **kwargs)

    monkeypatch.setattr(torch.ops.aten, name, counting)
    return counts


class StandIns:
    """CPU kernels under the names of CUDA's: torch checks every argument against the operator's own signature."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def flash(self, q, k, v, ends_q, ends_k, max_q, max_k, dropout, causal, debug, *, scale, **_rest):  # type: ignore[no-untyped-def]
        self.counts["flash"] += 1
        self.check(ends_q, ends_k, max_q, max_k)
        out, lse = forward_kernel(q, k, v, stretch_mask(ends_q, ends_k, causal=causal), scale)
        nothing = q.new_empty(0)
        return out, lse, nothing, nothing, nothing

    def flash_backward(self, g, q, k, v, out, lse, ends_q, ends_k, max_q, max_k, p, causal, _s, _u, *, scale, **_rest):  # type: ignore[no-untyped-def]
        self.check(ends_q, ends_k, max_q, max_k)
        # The kernel reads these two by address.
        assert lse.is_contiguous()
        assert lse.shape == (q.shape[1], len(q))
        return backward_kernel(g, (q, k, v), out, lse, stretch_mask(ends_q, ends_k, causal=causal), scale)

    def efficient(self, q, k, v, bias, ends_q, ends_k, max_q, max_k, p, mask, with_lse, *, scale, **_rest):  # type: ignore[no-untyped-def]
        self.counts["efficient"] += 1
        self.check(ends_q, ends_k, max_q, max_k)
        assert with_lse
        assert bias is None
        assert q.shape[2] == k.shape[2]
        out, lse = forward_kernel(q[0], k[0], v[0], stretch_mask(ends_q, ends_k, causal=bool(mask)), scale)
        padded = torch.full((len(ends_q) - 1, q.shape[2], -(-max_q // 32) * 32), float("nan"))
        for b in range(len(ends_q) - 1):
            padded[b, :, : ends_q[b + 1] - ends_q[b]] = lse[:, ends_q[b] : ends_q[b + 1]]
        nothing = torch.empty(0)
        return out[None], padded, nothing, nothing, max_q, max_k

    def efficient_backward(
        self, g, q, k, v, bias, out, ends_q, ends_k, max_q, max_k, lse, p, _s, _o, mask, bias_grad, *, scale, **_rest
    ):  # type: ignore[no-untyped-def]
        self.check(ends_q, ends_k, max_q, max_k)
        assert lse.is_contiguous()
        assert lse.shape == (len(ends_q) - 1, q.shape[2], -(-max_q // 32) * 32)
        assert g.is_contiguous()
        assert out.is_contiguous()
        sizes = ends_q.diff()
        for b, size in enumerate(sizes.tolist()):
            assert torch.isposinf(lse[b, :, size:]).all()
        flat = torch.cat([lse[b, :, :size] for b, size in enumerate(sizes.tolist())], dim=1)
        mask = stretch_mask(ends_q, ends_k, causal=bool(mask))
        grads = backward_kernel(g[0], (q[0], k[0], v[0]), out[0], flat, mask, scale)
        return *(grad[None] for grad in grads), torch.empty(0)

    def check(self, ends_q: Tensor, ends_k: Tensor, max_q: int, max_k: int) -> None:
        assert ends_q.dtype == ends_k.dtype == torch.int32
        assert (int(ends_q.diff().max()), int(ends_k.diff().max())) == (max_q, max_k)


@pytest.fixture
def stand_ins() -> Iterator[StandIns]:
    made = StandIns()
    library = torch.library.Library("aten", "IMPL", "CPU")
    library.impl("_flash_attention_forward", made.flash)
    library.impl("_flash_attention_backward", made.flash_backward)
    library.impl("_efficient_attention_forward", made.efficient)
    library.impl("_efficient_attention_backward", made.efficient_backward)
    yield made
    library._destroy()


@pytest.mark.parametrize(("dtype", "kernel"), [(torch.bfloat16, "flash"), (torch.float32, "efficient")])
@pytest.mark.parametrize("groups", [GROUPS, ((5,), ((2, 4, 33),)), ((4, 2, 3), ((3,), (0,), (1, 1))), *SINGLE_TOKENS])
def test_the_cuda_route_is_softmax_over_the_union_in_two_calls(
    stand_ins: StandIns, groups: tuple[Any, Any], dtype: torch.dtype, kernel: str
) -> None:
    row = row_of(groups, dtype=dtype)
    found = with_gradients(row, packed_calls(groups, CPU))
    assert stand_ins.counts == {kernel: 2}
    assert [x.dtype for x in found] == [dtype] * 4
    assert worst(found, exact(row, group_mask(*groups))) < TOLERANCES[dtype]


def test_a_row_of_one_group_is_not_gathered() -> None:
    own, shared = packed_calls(((5,), ((2, 4),)), CPU)
    assert (own.queries, own.keys) == (slice(0, 11), slice(0, 11))
    assert (shared.queries, shared.keys) == (slice(5, 11), slice(0, 5))


class Context:
    """What autograd gives to a function."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors


def test_the_cuda_kernels_take_what_they_are_given() -> None:
    """Without a GPU torch checks devices, shapes and signatures; of the fp32 backward kernel it has no such check."""
    cuda = torch.device("cuda:0")
    with FakeTensorMode():
        for dtype in (torch.bfloat16, torch.float32):
            calls = packed_calls(GROUPS, cuda)
            query, key, value, grad = (torch.empty_like(x, device=cuda) for x in row_of(GROUPS, dtype=dtype))
            context: Any = Context()
            out = _Attention.forward(context, query, key, value, calls, SCALE)
            assert (out.shape, out.dtype, out.device) == (query.shape, dtype, cuda)
            if dtype == torch.bfloat16:
                found = _Attention.backward(context, grad)[:3]
                for x, gradient in zip((query, key, value), found, strict=True):
                    assert (gradient.shape, gradient.dtype, gradient.device) == (x.shape, dtype, cuda)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("groups", [GROUPS, ((5,), ((2, 4, 33),)), ((130, 70), ((1,) * 5, (200, 65))), *SINGLE_TOKENS])
def test_the_kernels_of_a_gpu_are_softmax_over_the_union(groups: tuple[Any, Any], dtype: torch.dtype) -> None:
    cuda = torch.device("cuda")
    row = [x.to(cuda) for x in row_of(groups, dtype=dtype)]
    found = with_gradients(row, plan_attention(*groups).to(cuda).calls)
    assert worst(found, exact(row, group_mask(*groups))) < (2e-2 if dtype == torch.bfloat16 else 2e-3)


@pytest.mark.parametrize(
    ("queries", "keys", "causal", "message"),
    [
        ((range(3), range(3, 3)), (range(3), range(3, 4)), False, r"\[\(3, 3\), \(0, 1\)\].* at least one of each"),
        ((), (), False, "at least one of each"),
    ],
)
def test_stretches_without_tokens_are_refused(
    queries: tuple[range, ...], keys: tuple[range, ...], causal: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Stretches(queries=queries, keys=keys, causal=causal)


def test_gaps_are_refused_on_a_cpu() -> None:
    gap = Stretches(queries=(range(2), range(3, 4)), keys=(range(2), range(2, 3)), causal=False)
    with pytest.raises(ValueError, match="have gaps between them, but must adjoin"):
        gap.blocks()


def test_trap_03_a_causal_diagonal_starts_in_no_corner_of_an_oblong() -> None:
    """Kernels put the causal diagonal of unequal numbers of queries and keys into either corner, silently."""
    with pytest.raises(ValueError, match=r"\[\(2, 5\)\] queries and keys, but must have as many of both"):
        Stretches(queries=(range(5, 7),), keys=(range(5),), causal=True)
    row = row_of(((5,), ((2,),)), dtype=torch.float64)
    expected = exact(row, group_mask((5,), ((2,),)))[0][5:]
    query, key, value = (x.transpose(0, 1)[None] for x in row[:3])
    upper_left = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, 5:], key, value, is_causal=True, scale=SCALE, enable_gqa=True
    )
    assert float((upper_left[0].transpose(0, 1) - expected).abs().max()) > 0.1
    found = attend(*row[:3], plan_attention((5,), ((2,),)).calls, SCALE)
    torch.testing.assert_close(found[5:], expected)
