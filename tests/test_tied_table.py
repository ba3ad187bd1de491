"""A table of token vectors that is also the head's matrix, or is looked up twice: one gradient, made in one array.

PyTorch makes a second table of zeros for the lookup and adds the two.
"""

import tracemalloc

import numpy as np
import pytest
import torch

from minilm import Tensor
from minilm import functional as F
from minilm._kernels import registry
from minilm.testing import AGAINST_PYTORCH, AGAINST_REFERENCE, assert_close

V, C, N = 211, 64, 40


@pytest.fixture
def accumulated(backend, monkeypatch):
    """The times that the lookup's gradient was added to one that was there."""
    kernel, calls = registry.load("embedding", backend), []

    def backward(dy, saved, needs, into=(None, None)):
        grads = kernel.backward(dy, saved, needs, into)
        if grads[0] is into[0]:
            calls.append(into)
        return grads

    counted = registry.Kernel("embedding", backend, kernel.forward, backward)
    monkeypatch.setattr(F, "kernel", lambda op: counted if op == "embedding" else registry.load(op, backend))
    return calls


def draw(dtype=np.float64):
    rng = np.random.default_rng(0)
    return rng.standard_normal((V, C)).astype(dtype), rng.integers(0, 9, (4, N // 4)), rng.integers(0, V, (4, N // 4))


def loss_of(w, ids, target, padding_idx=None):
    return F.linear_cross_entropy(F.embedding(ids, w, padding_idx), w, target)


def gradient_of_torch(w, ids, target, padding_idx=None):
    w = torch.tensor(w, requires_grad=True)
    x = torch.nn.functional.embedding(torch.tensor(ids), w, padding_idx)
    torch.nn.functional.cross_entropy((x @ w.T).reshape(-1, V), torch.tensor(target).reshape(-1)).backward()
    return w.grad.numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("padding_idx", [None, 3, -208])
def test_a_tied_table_has_the_gradient_of_pytorch(padding_idx, dtype, accumulated):
    """The row padding_idx, which is row 3, keeps what the head gives it."""
    table, ids, target = draw(dtype)
    w = Tensor(table, requires_grad=True)
    loss_of(w, ids, target, padding_idx).backward()
    assert len(accumulated) == 1
    want = gradient_of_torch(table, ids, target, padding_idx)
    assert padding_idx is None or np.abs(want[3]).max() > 0
    assert_close(w.grad, want, AGAINST_PYTORCH[dtype])


def test_a_second_backward_adds_the_same_once_more(accumulated):
    table, ids, target = draw()
    w = Tensor(table, requires_grad=True)
    loss = loss_of(w, ids, target)
    loss.backward(retain_graph=True)
    first = w.grad
    assert_close(first, gradient_of_torch(table, ids, target), AGAINST_PYTORCH[np.float64])
    w.grad = None
    loss.backward(retain_graph=True)
    assert not np.shares_memory(first, w.grad)
    assert_close(w.grad, first, AGAINST_REFERENCE[np.float64])
    loss.backward()
    assert_close(w.grad, 2 * first, AGAINST_REFERENCE[np.float64])
    assert len(accumulated) == 3
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_a_table_that_is_looked_up_twice(accumulated):
    table, one, two = draw()
    w, v = Tensor(table, requires_grad=True), torch.tensor(table, requires_grad=True)
    (F.embedding(one, w) * np.tanh(F.embedding(two, w))).sum().backward()
    look_up = torch.nn.functional.embedding
    (look_up(torch.tensor(one), v) * torch.tanh(look_up(torch.tensor(two), v))).sum().backward()
    assert len(accumulated) == 1
    assert_close(w.grad, v.grad.numpy(), AGAINST_PYTORCH[np.float64])


def test_the_lookup_makes_no_second_table(backend):
    """By NumPy's own count of bytes, against a head of its own; a single token, so that logits do not matter."""
    table = np.random.default_rng(0).standard_normal((5000, 16)).astype(np.float32)
    ids = np.array([[7]])

    def peak(tied):
        w = Tensor(table, requires_grad=True)
        head = w if tied else Tensor(table, requires_grad=True)
        loss = F.linear_cross_entropy(F.embedding(ids, w), head, ids)
        tracemalloc.start()
        try:
            loss.backward()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(tied=True)  # loads the loops
    assert peak(tied=True) < peak(tied=False) - 0.75 * table.nbytes
