"""Scores of the head against the textbook formula under autograd, and what it keeps, rounds and leaves out."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mm_agrae.policy import head as head_module
from mm_agrae.policy.head import Drawing, Head
from mm_agrae.policy.load import Policy
from mm_agrae.policy.tiny import ARCHITECTURES

WIDTH, VOCABULARY, TARGETS = 16, 50, 20


def make(dtype: torch.dtype = torch.float64, *, bias: bool = False) -> tuple[Head, Tensor, Tensor]:
    """A head, states and targets; no target is one of the ids 3 and 7."""
    draw = torch.Generator().manual_seed(0)
    linear = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.normal_(generator=draw)
    states = torch.randn(TARGETS, WIDTH, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    return Head(linear), states, torch.randint(8, VOCABULARY, (TARGETS,), generator=draw)


def textbook(head: Head, states: Tensor, targets: Tensor, drawing: Drawing) -> tuple[Tensor, Tensor]:
    logits = nn.functional.linear(states, head.weight, head.bias) / drawing.temperature
    allowed = [token for token in range(VOCABULARY) if token not in drawing.banned]
    logprobs = logits[:, allowed].log_softmax(-1)
    places = torch.tensor([allowed.index(int(target)) for target in targets])
    return logprobs[torch.arange(len(targets)), places], -(logprobs.exp() * logprobs).sum(-1)


def gradients(head: Head, states: Tensor, logprobs: Tensor, entropy: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1.0, 2.0, TARGETS, dtype=logprobs.dtype)
    inputs = [states, *head.parameters()]
    return list(torch.autograd.grad((weights * logprobs).sum() + 0.3 * (weights * entropy).sum(), inputs))


@pytest.mark.parametrize("chunk", [1, 7, 1024])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("drawing", [Drawing(), Drawing(temperature=0.6, banned=(3, 7))])
@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_scores_and_gradients_are_those_of_the_textbook(
    monkeypatch: pytest.MonkeyPatch, chunk: int, bias: bool, drawing: Drawing, entropy_gradient: bool
) -> None:
    monkeypatch.setattr(head_module, "CHUNK", chunk)
    head, states, targets = make(bias=bias)
    expected = list(textbook(head, states, targets, drawing))
    found = head.score(states, targets, drawing, entropy_gradient=entropy_gradient)
    assert found[1].requires_grad == entropy_gradient
    torch.testing.assert_close(found, tuple(expected))
    expected[1] = expected[1] if entropy_gradient else expected[1].detach()
    torch.testing.assert_close(gradients(head, states, *found), gradients(head, states, *expected))


def test_an_entropy_alone_has_its_gradient() -> None:
    head, states, targets = make()
    drawing = Drawing(banned=(3,))
    (found,) = torch.autograd.grad(head.score(states, targets, drawing, entropy_gradient=True)[1].sum(), states)
    (expected,) = torch.autograd.grad(textbook(head, states, targets, drawing)[1].sum(), states)
    torch.testing.assert_close(found, expected)


def test_a_banned_target_has_no_probability_and_sends_no_gradient() -> None:
    head, states, targets = make()
    targets[0] = 3
    logprobs, entropy = head.score(states, targets, Drawing(banned=(3,)), entropy_gradient=False)
    assert torch.isneginf(logprobs[0])
    assert torch.isfinite(logprobs[1:]).all()
    assert torch.isfinite(entropy).all()
    (gradient,) = torch.autograd.grad(logprobs[1:].sum(), states)
    assert torch.isfinite(gradient).all()
    assert float(gradient[0].abs().max()) == 0


def test_no_row_of_logits_waits_for_the_backward_pass() -> None:
    head, states, targets = make()
    kept: list[tuple[int, ...]] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        head.score(states, targets, Drawing(), entropy_gradient=True)
    assert kept == [(TARGETS, WIDTH), (VOCABULARY, WIDTH), (TARGETS,)]


@pytest.mark.parametrize(("frozen", "products"), [(False, 4), (True, 3)])
def test_a_frozen_weight_costs_no_gradient(monkeypatch: pytest.MonkeyPatch, frozen: bool, products: int) -> None:
    head, states, targets = make()
    head.weight.requires_grad_(not frozen)
    shapes: list[tuple[int, ...]] = []
    product = head_module.product

    def counted(left: Tensor, right: Tensor) -> Tensor:
        shapes.append(tuple(product(left, right).shape))
        return product(left, right)

    monkeypatch.setattr(head_module, "product", counted)
    head.score(states, targets, Drawing(), entropy_gradient=False)[0].sum().backward()
    # Logits, logits again, to the states, to the weight.
    logits = (TARGETS, VOCABULARY)
    assert shapes == [logits, logits, (TARGETS, WIDTH), (VOCABULARY, WIDTH)][:products]
    assert (head.weight.grad is None) == frozen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_has_this_head_and_its_weight_stays_where_it_was(
    policy_of: Callable[[str], Policy], architecture: str
) -> None:
    policy = policy_of(architecture)
    assert isinstance(policy.inner.lm_head, Head)
    tied = policy.inner.config.get_text_config().tie_word_embeddings
    assert (policy.head.weight is policy.inner.get_input_embeddings().weight) == tied


def test_a_tied_weight_has_the_gradients_of_both_its_places() -> None:
    head, _, targets = make()
    weight, tokens = head.weight, torch.arange(TARGETS)
    (found,) = torch.autograd.grad(
        head.score(weight[tokens], targets, Drawing(), entropy_gradient=False)[0].sum(), weight
    )
    (expected,) = torch.autograd.grad(textbook(head, weight[tokens], targets, Drawing())[0].sum(), weight)
    torch.testing.assert_close(found, expected)


def test_sums_of_bf16_products_are_not_rounded_to_bf16() -> None:
    head, states, targets = make(torch.bfloat16)
    exact = states.double() @ head.weight.double().t()
    logits = head(states)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), exact, rtol=1e-5, atol=1e-5)
    rounded = nn.functional.linear(states, head.weight)
    assert float((rounded.double() - exact).detach().abs().max()) > 1e-2
    logprobs, _ = head.score(states, targets, Drawing(), entropy_gradient=False)
    expected = exact.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), expected, rtol=1e-5, atol=1e-5)


def test_autocast_rounds_the_factors_and_nothing_else() -> None:
    head, states, targets = make(torch.float32)
    exact = states.bfloat16().double() @ head.weight.bfloat16().double().t()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(states)
        logprobs, _ = head.score(states, targets, Drawing(), entropy_gradient=False)
    torch.testing.assert_close(logits.double(), exact, rtol=1e-5, atol=1e-5)
    expected = exact.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), expected, rtol=1e-5, atol=1e-5)
    logprobs.sum().backward()
    assert states.grad is not None
    assert states.grad.dtype == torch.float32
    assert float(states.grad.norm()) > 0


def test_the_gradient_of_the_weight_is_summed_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """1024 pieces of one target each: rounded to bf16 after each of them, the sum would stop growing at 256 times a
    term."""
    monkeypatch.setattr(head_module, "CHUNK", 1)
    head, states, targets = make(torch.bfloat16)
    states, targets = states[:1].detach().repeat(1024, 1), targets[:1].repeat(1024)
    head.score(states, targets, Drawing(), entropy_gradient=False)[0].sum().backward()
    head.weight.grad, found = None, head.weight.grad
    assert found is not None
    head.score(states[:1], targets[:1], Drawing(), entropy_gradient=False)[0].sum().backward()
    assert head.weight.grad is not None
    single = head.weight.grad.double()
    assert float((found.double() - 1024 * single).norm() / (1024 * single).norm()) < 2**-8


def test_logits_keep_the_dimensions_in_front() -> None:
    head, states, _ = make(bias=True)
    logits = head(states.unflatten(0, (4, -1)))
    assert logits.shape == (4, TARGETS // 4, VOCABULARY)
    torch.testing.assert_close(logits.flatten(0, 1), nn.functional.linear(states, head.weight, head.bias))


def test_logits_of_bf16_on_cuda_are_fp32() -> None:
    """No kernel runs; the operators check what they are given."""
    head = Head(nn.Linear(8, 5, bias=False))
    with FakeTensorMode():
        head.weight = nn.Parameter(torch.empty(5, 8, dtype=torch.bfloat16, device="cuda"), requires_grad=False)
        logits = head(torch.empty(2, 3, 8, dtype=torch.bfloat16, device="cuda"))
    assert (logits.dtype, logits.device.type, logits.shape) == (torch.float32, "cuda", (2, 3, 5))


def test_logits_without_the_gradient_that_is_wanted_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA factors stay bf16, and the product of these has no gradient."""
    monkeypatch.setattr(head_module, "_factor", lambda x, arithmetic: x.to(arithmetic))
    head, states, _ = make(torch.bfloat16)
    with pytest.raises(RuntimeError, match=r"bfloat16 on CUDA have no gradient.*Head\.score"):
        head(states)
    with torch.no_grad():
        assert head(states).dtype == torch.float32


def test_no_targets_have_a_gradient_of_zeros() -> None:
    head, states, targets = make(bias=True)
    logprobs, entropy = head.score(states[:0], targets[:0], Drawing(), entropy_gradient=True)
    (logprobs.sum() + entropy.sum()).backward()
    for leaf in (states, *head.parameters()):
        assert leaf.grad is not None
        assert float(leaf.grad.abs().max()) == 0


def test_a_backward_pass_under_autocast_is_the_same() -> None:
    head, states, targets = make(torch.float32)
    logprobs, _ = head.score(states, targets, Drawing(), entropy_gradient=False)
    (expected,) = torch.autograd.grad(logprobs.sum(), states, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = torch.autograd.grad(logprobs.sum(), states)
    assert torch.equal(found, expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_sums_on_cuda_are_those_of_the_cpu() -> None:
    head, states, targets = make(torch.bfloat16)
    found = head.score(states, targets, Drawing(), entropy_gradient=True)
    expected = gradients(head, states, *found)
    there = copy.deepcopy(head).cuda()
    placed = states.detach().cuda().requires_grad_()
    scores = there.score(placed, targets.cuda(), Drawing(), entropy_gradient=True)
    torch.testing.assert_close([score.cpu() for score in scores], list(found), rtol=1e-4, atol=1e-4)
    weights = torch.linspace(-1.0, 2.0, TARGETS, device="cuda")
    (weights * scores[0] + 0.3 * weights * scores[1]).sum().backward()
    torch.testing.assert_close(placed.grad.cpu(), expected[0], rtol=2e-2, atol=2e-2)
