"""The global norm against PyTorch and float64, clipping in place and by a factor."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from minilm import Tensor
from minilm.optim import AdamW, clip_factor, clip_grad_norm, global_norm

ROW = 16384  # what the loops take at a time


def with_gradients(*grads):
    params = [Tensor(np.zeros_like(g), requires_grad=True) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = g
    return params


def some(dtype=np.float32, scale=1.0):
    rng = np.random.default_rng(0)
    shapes = [(), (0, 3), (5,), (3, 4), (ROW,), (ROW + 1,), (2, 3 * ROW // 2), (3, ROW)]
    return [np.asarray(scale * rng.standard_normal(shape), dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 100.0, 1e6])
def test_clipping_is_that_of_pytorch(dtype, max_norm):
    params = with_gradients(*some(dtype))
    theirs = [torch.nn.Parameter(torch.zeros(p.shape, dtype=getattr(torch, p.dtype.name))) for p in params]
    for p, q in zip(params, theirs, strict=True):
        q.grad = torch.tensor(p.grad)
    rtol = 2e-6 if dtype == np.float32 else 1e-12
    own = [p.grad for p in params]
    norm = clip_grad_norm(params, max_norm)
    assert type(norm) is float
    assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, max_norm)), rel=rtol)
    for p, q, g in zip(params, theirs, own, strict=True):
        assert p.grad is g  # in place
        np.testing.assert_allclose(g, q.grad.numpy(), rtol=rtol, atol=0, strict=True)
    assert global_norm(params) == pytest.approx(min(norm, max_norm), rel=1e-6)


def test_a_factor_in_the_step_is_clipping_before_it(backend):
    ours, theirs = with_gradients(*some()), with_gradients(*some())
    factor = clip_factor(global_norm(ours), max_norm=1.0)
    AdamW(ours).step(grad_scale=factor)
    clip_grad_norm(theirs, max_norm=1.0)
    AdamW(theirs).step()
    for p, q, g in zip(ours, theirs, some(), strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(p.grad, g)


def test_the_norm_of_many_float32_numbers():
    g = np.full(20_000_000, 0.1, np.float32)  # BLAS alone is wrong by 1 % here
    exact = math.sqrt(g.size) * float(g[0])
    assert global_norm(with_gradients(g)) == pytest.approx(exact, rel=1e-6)


def test_the_norm_does_not_overflow_where_squares_do():
    for grads in (some(scale=1e30), some(scale=1e-20), [np.full(3, 3e38, np.float32)], [np.ones(70, np.float16) * 6e4]):
        exact = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads))
        assert global_norm(with_gradients(*grads)) == pytest.approx(exact, rel=2e-3 if exact < 1e-10 else 1e-6)


def strided(kind, rows=300):
    g = np.random.default_rng(1).standard_normal((rows, 400)).astype(np.float32)
    wide = np.zeros((2 * rows, 800), np.float32)
    wide[::2, ::2] = g
    views = {
        "fortran": np.asfortranarray(g),
        "strided": wide[::2, ::2],
        "reversed": g[::-1, ::-1].copy()[::-1, ::-1],
        "one number": np.broadcast_to(np.float32(0.1), (rows, 400)),
        "one row": np.broadcast_to(g[0], (rows, 400)),
        "turned": np.ascontiguousarray(g.reshape(-1, 10, 400).transpose(2, 0, 1)).transpose(1, 2, 0),
    }
    return views[kind]


@pytest.mark.parametrize("kind", ["fortran", "strided", "reversed", "one number", "one row", "turned"])
def test_any_layout(kind):
    g = strided(kind)
    (p,) = params = with_gradients(g)
    p.grad = g
    exact = math.sqrt(float((g.astype(np.float64) ** 2).sum()))
    expected = g * (1.0 / (exact + 1e-6))
    assert clip_grad_norm(params, 1.0) == pytest.approx(exact, rel=1e-6)
    np.testing.assert_allclose(p.grad, expected, rtol=1e-5, atol=0)
    assert (p.grad is g) == g.flags.writeable


@pytest.mark.parametrize("kind", ["fortran", "strided", "one number", "turned"])
def test_the_norm_makes_no_copy_of_the_gradient(kind):
    g = strided(kind, rows=6000)
    params = [Tensor(np.zeros(g.shape, np.float32), requires_grad=True)]
    params[0].grad = g
    global_norm(params)
    tracemalloc.start()
    global_norm(params)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < g.nbytes / 8


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, ROW + 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_infinite_and_nan_norms_leave_the_gradients(bad, place, dtype):
    g = np.full(ROW + 9, 3.0, dtype)
    g[place] = bad
    params = with_gradients(np.ones(3, dtype), g.copy())
    norm = clip_grad_norm(params, 1.0)
    assert np.array_equal(norm, abs(bad), equal_nan=True)
    assert clip_factor(norm, 1.0) == 1.0
    np.testing.assert_array_equal(params[0].grad, np.ones(3))
    np.testing.assert_array_equal(params[1].grad, g)
    params[0].grad = np.full(3, np.nan, dtype)
    assert math.isnan(global_norm(params))


def test_a_tensor_counts_once_and_none_counts_nothing():
    assert clip_factor(0.5, max_norm=1.0) == clip_factor(0.0, max_norm=1.0) == 1.0  # never enlarges
    (p,) = with_gradients(np.array([3.0, 4.0]))
    nothing = Tensor(np.ones(2), requires_grad=True)
    frozen = Tensor(np.ones(2))
    assert global_norm(p) == global_norm(iter([p, nothing, p, frozen])) == 5.0
    assert global_norm([nothing]) == global_norm([]) == clip_grad_norm([], 1.0) == 0.0
    clip_grad_norm(iter([p, p]), 1.0)
    np.testing.assert_allclose(p.grad, [0.6, 0.8], rtol=1e-6)
    clip_grad_norm(p, 0.1)
    np.testing.assert_allclose(p.grad, [0.06, 0.08], rtol=1e-4)


def test_a_gradient_on_the_tape_is_replaced_not_written():
    (p,) = with_gradients(np.array([3.0, 4.0]))
    p.grad = kept = Tensor(p.grad)
    clip_grad_norm([p], 1.0)
    np.testing.assert_array_equal(kept.data, [3.0, 4.0])
    np.testing.assert_allclose(p.grad, [0.6, 0.8], rtol=1e-6)


def test_refused():
    (p,) = with_gradients(np.ones(2))
    for max_norm in (0.0, -1.0):
        with pytest.raises(ValueError, match="max_norm must be positive, got"):
            clip_grad_norm([p], max_norm)
    with pytest.raises(ValueError, match="max_norm must be finite"):
        clip_factor(1.0, math.inf)
    with pytest.raises(TypeError, match=r"global_norm: parameters must be Tensors, got array.* at place 1"):
        global_norm([p, np.ones(2)])
    p.node.grad = np.ones(2, np.float32)
    with pytest.raises(TypeError, match="gradient of parameter 0 must have the parameter's dtype float64, got float32"):
        global_norm([p])
