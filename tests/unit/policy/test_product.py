"""Products of narrow formats against those of fp32."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mm_agrae.policy.product import NARROW, product

SHAPES = [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5))]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_sums_are_kept_in_fp32(left: tuple[int, ...], right: tuple[int, ...], dtype: torch.dtype) -> None:
    a, b = torch.randn(left).to(dtype), torch.randn(right).to(dtype)
    found = product(a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, a.float() @ b.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_on_cuda_the_product_itself_returns_fp32(
    left: tuple[int, ...], right: tuple[int, ...], dtype: torch.dtype
) -> None:
    """No kernel runs; the operator checks what it is given."""
    with FakeTensorMode():
        found = product(torch.empty(left, dtype=dtype, device="cuda"), torch.empty(right, dtype=dtype, device="cuda"))
    assert (found.shape, found.dtype, found.device.type) == ((*left[:-1], 5), torch.float32, "cuda")
