"""Activation checkpointing: the same gradients, bit for bit, with less kept."""

import gc
import tracemalloc

import numpy as np
import pytest

import minilm
from minilm import Tensor, no_grad, recompute
from minilm import functional as F


def leaf(*shape):
    return Tensor(np.ones(shape), requires_grad=True)


def block(rng, w, p=0.3):
    def f(x):
        h = F.gelu(F.linear(x, w))
        return F.dropout(np.tanh(h @ w), p, rng=rng) + x

    return f


@pytest.mark.parametrize("nested", [False, True])
def test_recompute_changes_no_bit_and_draws_the_same_seeds(nested):
    def run(through):
        rng = np.random.default_rng(0)
        draw = np.random.default_rng(1).standard_normal
        # A weight for each segment: with one for both, its gradients would be added in another order.
        w, v = (Tensor(draw((8, 8)).astype(np.float32) / 3, requires_grad=True) for _ in "wv")
        x = Tensor(np.random.default_rng(2).standard_normal((5, 8)).astype(np.float32), requires_grad=True)
        f, h = block(rng, w), block(rng, v)
        y = through((lambda x: h(through(f, x))) if nested else f, x)
        z = y * F.dropout(y, 0.5, rng=rng)
        z.sum().backward()
        return y._data, x.grad, w.grad, v.grad if nested else 0, rng.integers(2**63)

    for plain, again in zip(run(lambda f, x: f(x)), run(recompute), strict=True):
        np.testing.assert_array_equal(plain, again)


def test_recompute_saves_memory():
    def peak(through):
        x = Tensor(np.ones(2**15, np.float32), requires_grad=True)
        segment = lambda x: np.tanh(np.tanh(np.tanh(np.tanh(x * 1.01) * 1.01) * 1.01) * 1.01)  # noqa: E731
        gc.collect()
        tracemalloc.start()
        y = x
        for _ in range(8):
            y = through(segment, y)
        y.sum().backward()
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top / x.nbytes, x.grad

    (plain, one), (saved, two) = peak(lambda f, x: f(x)), peak(recompute)
    np.testing.assert_array_equal(one, two)
    assert plain > 32  # 8 segments of 4 results
    assert saved < 18  # the inputs of 8 segments, one segment whole, and what is on its way


def test_recompute_passes_what_is_not_an_array_and_gives_integers_none():
    w, ids = leaf(4, 3), np.array([1, 1, 2])
    y = recompute(lambda ids, w, mask, scale: F.embedding(ids, w) * scale if mask is None else None, ids, w, None, 2.0)
    y.sum().backward()
    np.testing.assert_array_equal(w.grad[:, 0], [0.0, 4.0, 2.0, 0.0])


def test_recompute_off_the_tape_or_in_parts_is_the_call_itself():
    with no_grad():
        assert not recompute(np.exp, leaf(2)).requires_grad
    second = minilm.grad(minilm.grad(lambda x: recompute(lambda x: x**3, x)))(2.0)
    assert second.item() == 12.0


def test_recompute_of_a_function_that_changes_its_mind_says_so():
    calls, rng = [], np.random.default_rng(0)

    def f(x):
        calls.append(1)
        for _ in calls:
            x = F.dropout(x, 0.5, rng=rng)
        return x

    y = recompute(f, leaf(3))
    with pytest.raises(RuntimeError, match="must compute the same"):
        y.sum().backward()
    with pytest.raises(TypeError, match="one Tensor, got tuple"):
        recompute(lambda x: (x, x), leaf(3))


def test_recompute_catches_a_write_into_its_input():
    x = leaf(3)
    y = recompute(np.exp, x)
    x.data[0] = 5
    with pytest.raises(RuntimeError, match=r"recompute: .*written to"):
        y.sum().backward()
