"""Ops of several outputs on the tape: what comes down to each output reaches the op once, and together."""

import tracemalloc

import numpy as np
import pytest
import torch

import minilm
from minilm import Tensor
from minilm import functional as F
from minilm._kernels import layout
from minilm._kernels.layout import laid_out_as, side_by_side
from minilm.testing import AGAINST_PYTORCH, assert_close


def test_a_tensor_unpacks_into_its_parts():
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    a, b, c = x
    (a * c + 2 * a).sum().backward()
    np.testing.assert_array_equal(x.grad, [[6, 7], [0, 0], [0, 1]])
    assert b.requires_grad


def test_a_part_that_is_used_twice_gathers_before_the_op_sees_it():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    a, b = x
    seen = []
    a.register_hook(lambda g: seen.append(g.copy()))
    (a * 2 + a * 3 + b).sum().backward()
    np.testing.assert_array_equal(seen, [np.full(3, 5.0)])
    np.testing.assert_array_equal(x.grad, [[5, 5, 5], [1, 1, 1]])


def test_a_hook_on_a_part_replaces_its_gradient_alone():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    a, b = x
    a.register_hook(lambda g: 10 * g)
    (a + b).sum().backward()
    np.testing.assert_array_equal(x.grad, [[10, 10, 10], [1, 1, 1]])


def test_each_part_is_a_root_of_its_own():
    x = Tensor(np.ones((2, 3)), requires_grad=True)
    a, b = x
    a.backward(np.ones(3), retain_graph=True)
    b.backward(np.full(3, 7.0))
    np.testing.assert_array_equal(x.grad, [[1, 1, 1], [7, 7, 7]])
    with pytest.raises(RuntimeError, match="unstack a second time"):
        a.backward(np.ones(3))


def test_a_part_knows_who_computed_it_and_keeps_its_gradient_on_request():
    a, _ = Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(RuntimeError, match="computed by unstack"):
        a.requires_grad = False
    a.retain_grad()
    (a * 4).sum().backward()
    np.testing.assert_array_equal(a.grad, [4, 4, 4])


def test_derivatives_of_derivatives_go_through_parts():
    def f(x):
        a, b = x
        return (a**3 * b).sum()

    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    H = minilm.hessian(f)(x).reshape(4, 4)
    theirs = torch.autograd.functional.hessian(lambda x: (x[0] ** 3 * x[1]).sum(), torch.tensor(x)).numpy()
    np.testing.assert_allclose(H, theirs.reshape(4, 4), rtol=1e-12)


def test_no_tape_no_nodes():
    with minilm.no_grad():
        a, b = Tensor(np.ones((2, 3)), requires_grad=True)
    assert not a.requires_grad
    assert not b.requires_grad


def test_of_two_leaves_that_are_handed_one_gradient_one_keeps_it(backend):
    """A residual and what is added to it have the same gradient: it is copied once, not twice."""
    x, y = (Tensor(np.ones((400, 300), np.float32), requires_grad=True) for _ in "xy")
    dy = np.ones((400, 300), np.float32)
    np.add(*F.add_layer_norm(x, y)).backward(dy)  # loads the loops
    total, normal = F.add_layer_norm(x, y)
    x.grad = y.grad = None
    tracemalloc.start()
    try:
        (total + normal).backward(dy)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert not np.shares_memory(x.grad, y.grad)
    assert_close(x.grad, y.grad, 0)
    assert kept < 2.5 * dy.nbytes
    x.grad += 1  # writable, and its own
    assert not np.shares_memory(x.grad, dy)


def heads(x, order):
    """Queries, keys and values in one array, (B, T, 3 H D) in the order of GPT-2 or BLOOM."""
    B, T, C = x.shape
    if order == "gpt2":
        return x.reshape(B, T, 3, 2, C // 6).transpose(2, 0, 3, 1, 4)
    return x.reshape(B, T, 2, 3, C // 6).transpose(3, 0, 2, 1, 4)


@pytest.mark.parametrize("order", ["gpt2", "bloom"])
def test_gradients_of_packed_queries_keys_and_values_are_not_copied(order, backend, monkeypatch):
    rng = np.random.default_rng(0)
    data, dy = rng.standard_normal((2, 5, 24)), rng.standard_normal((2, 2, 5, 4))
    x = Tensor(data, requires_grad=True)
    out = F.scaled_dot_product_attention(*heads(x, order), is_causal=True)
    stacks, stack = [], np.stack
    monkeypatch.setattr(np, "stack", lambda *given, **more: stacks.append(1) or stack(*given, **more))
    out.backward(dy)
    assert len(stacks) == (backend == "numpy")  # the reference makes each where it is
    theirs = torch.tensor(data, requires_grad=True)
    q, k, v = theirs.reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4) if order == "gpt2" else (
        theirs.reshape(2, 5, 2, 3, 4).permute(3, 0, 2, 1, 4)
    )  # fmt: skip
    torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).backward(torch.tensor(dy))
    assert_close(x.grad, theirs.grad.numpy(), AGAINST_PYTORCH[np.float64])


@pytest.mark.parametrize("which", ["same", "overlapping", "reversed", "apart", "spread"])
def test_queries_keys_and_values_may_lie_anywhere(which, backend):
    """One array three times, windows of one array that overlap, and the like: gradients must not share memory."""
    rng = np.random.default_rng(0)
    store = rng.standard_normal((9, 4, 3))
    parts = {
        "same": lambda: [store[None, :2]] * 3,
        "overlapping": lambda: [store[None, i : i + 2] for i in range(3)],
        "reversed": lambda: [store[None, i : i + 2] for i in (4, 2, 0)],
        "apart": lambda: [store[None, :2], store[None, 2:4], store[None, 6:8]],
        "spread": lambda: [np.broadcast_to(store[i][None, None], (1, 2, 4, 3)) for i in range(3)],
    }[which]()
    ours = [Tensor(p, requires_grad=True) for p in parts]
    theirs = [torch.tensor(p, requires_grad=True) for p in parts]
    F.scaled_dot_product_attention(*ours).sum().backward()
    torch.nn.functional.scaled_dot_product_attention(*theirs).sum().backward()
    for mine, its in zip(ours, theirs, strict=True):
        assert_close(mine.grad, its.grad.numpy(), AGAINST_PYTORCH[np.float64])


@pytest.fixture(params=["compiled", "plain"])
def lies(request, monkeypatch):
    """With the compiled helper, and without: Numba runs without it."""
    if request.param == "plain":
        monkeypatch.setattr(layout, "_finder", lambda: layout._lies)
    else:
        assert layout._finder() is not layout._lies


def test_side_by_side_is_a_view_or_nothing(lies):
    x = np.arange(24.0).reshape(4, 3, 2)
    for parts in (list(x), list(x[::2]), list(x[::-1]), list(x.swapaxes(0, 1)), [x[1]] * 3, [x[0]]):
        whole = side_by_side(parts)
        np.testing.assert_array_equal(whole, np.stack(parts))
        assert np.shares_memory(whole, x)
    for parts in (
        [x[0], x[1], x[3]],
        [x[0], x[1].copy()],
        [x[0], None],
        [x[0], x[1].T.copy().T],
        [x.copy()],
        [],
        [None, x[0]],
    ):
        assert side_by_side(parts) is None
    for parts in ([x[0], x[1].T], [x[0], x[1, :1]], [x[0], x[1].view(np.int64)], [x[0], x[1, ::-1]], [1.0, x[0]]):
        assert side_by_side(parts) is None


def test_what_is_laid_out_alike_does_not_overlap(lies):
    x = np.zeros((2, 5, 3, 4))
    for parts in (list(x.transpose(2, 0, 1, 3)), list(x)):
        made = laid_out_as(parts)
        assert [m.shape for m in made] == [p.shape for p in parts]
        assert all(not np.shares_memory(m, n) for i, m in enumerate(made) for n in made[:i])
        assert all(m.strides[-1] == m.itemsize for m in made)
    for parts in (list(x.transpose(3, 0, 1, 2)), [x[0]] * 2):  # the loops need the last axis innermost
        assert laid_out_as(parts) is None
