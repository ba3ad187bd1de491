"""The judges of one call: NumPy's own result, differences of values, and differences of gradients."""

import numpy as np

import minilm
from minilm.tensor import Tensor

STEP = 1e-3  # of the five-point difference, whose error is STEP⁴ times the fifth derivative
BAR = 1e-8  # of gradients, relative to the size of the terms


def same(actual, expected, rtol=1e-13):
    """Check type by type: Tensors hold NumPy's values, shape and dtype."""
    if isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            same(a, e, rtol)
        return
    assert isinstance(actual, Tensor), type(actual)
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = np.abs(expected).max(initial=0) if expected.dtype.kind == "f" else 0
    np.testing.assert_allclose(actual._data, expected, rtol=0, atol=rtol * (scale + 1))


def check_values(case, rtol=1e-13):
    before = [a.copy() for a in case.arrays]
    same(case.tensor(*map(Tensor, case.arrays)), case.numpy(*case.arrays), rtol)
    for array, copy in zip(case.arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)  # inputs are never written to


def check_gradient(case, rng):
    """Check each differentiable input on its own, then all together, against differences of NumPy's result."""
    before = [a.copy() for a in case.arrays]
    weights = [np.array(rng.standard_normal(np.shape(y)), order="F") for y in _several(case.numpy(*case.arrays))]
    for weight in weights:
        weight.flags.writeable = False
    for moving in [[i] for i in case.differentiable] + [case.differentiable]:
        tensors = [Tensor(a, requires_grad=i in moving) for i, a in enumerate(case.arrays)]
        for y, weight in zip(_several(case.tensor(*tensors)), weights, strict=True):
            if y.requires_grad:
                y.backward(weight, retain_graph=True)  # with no other op in between, whose mistakes might cancel
        directions = [rng.uniform(-1, 1, a.shape) if i in moving else 0 for i, a in enumerate(case.arrays)]

        def value(t, directions=directions):
            ys = _several(case.numpy(*(a + t * d for a, d in zip(case.arrays, directions, strict=True))))
            return sum((y * w).sum() for y, w in zip(ys, weights, strict=True))

        for i, tensor in enumerate(tensors):
            _check_leaf(tensor, case.arrays, i in moving)
        terms = [(tensors[i].grad * directions[i]).sum() for i in moving]
        _close(sum(terms), _difference(value), "the gradient disagrees with differences", abs(value(0)))
    for array, copy in zip(case.arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def check_second(case, rng):
    """Check the derivative of the gradient, in every input and in what arrives at the output, against differences."""
    outs = _several(case.numpy(*case.arrays))
    weights = [rng.standard_normal(np.shape(y)) for y in outs]
    fixed = [None if i in case.differentiable else a for i, a in enumerate(case.arrays)]
    points = weights + [case.arrays[i] for i in case.differentiable]
    directions = [rng.uniform(-1, 1, p.shape) for p in points]
    every = tuple(range(len(points)))

    def scalar(*args):
        moving = iter(args[len(weights) :])
        ys = _several(case.tensor(*(next(moving) if a is None else Tensor(a) for a in fixed)))
        return _weighted(ys, args[: len(weights)])

    def along(*args):
        return sum((g * d).sum() for g, d in zip(minilm.grad(scalar, every)(*args), directions, strict=True))

    def gradients(t):
        tensors = [Tensor(p + t * d, requires_grad=True) for p, d in zip(points, directions, strict=True)]
        scalar(*tensors).backward()
        return [np.zeros(x.shape) if x.grad is None else x.grad for x in tensors]

    actual = minilm.grad(along, every)(*points)
    around = {t: gradients(t * STEP) for t in (-2, -1, 1, 2)}
    for k, got in enumerate(actual):
        expected = _difference(lambda t, k=k: around[round(t / STEP)][k])
        assert got.shape == points[k].shape
        _close(got._data, expected, f"the second derivative disagrees with differences (input {k})")


def check_float32(case):
    """Check that float32 stays so wherever NumPy says so, and that every gradient has its input's dtype."""
    arrays = [a.astype(np.float32) if a.dtype == np.float64 else a for a in case.arrays]
    tensors = [Tensor(a, requires_grad=i in case.differentiable) for i, a in enumerate(arrays)]
    outs = _several(case.tensor(*tensors))
    same(outs, _several(case.numpy(*arrays)), rtol=1e-5)
    for y in outs:
        if y.requires_grad:
            y.backward(np.ones(y.shape), retain_graph=True)
    for i in case.differentiable:
        grad = tensors[i].grad
        assert grad is None or grad.dtype == np.float32
    wide = [Tensor(a, requires_grad=i in case.differentiable) for i, a in enumerate(case.arrays)]
    for y in _several(case.tensor(*wide)):
        if y.requires_grad:
            y.backward(np.ones(y.shape), retain_graph=True)
    for i in case.differentiable:
        if wide[i].grad is not None:
            scale = np.abs(wide[i].grad).max(initial=1)
            np.testing.assert_allclose(tensors[i].grad, wide[i].grad, rtol=0, atol=1e-4 * scale)


def _check_leaf(tensor, arrays, moving):
    if not moving:
        assert tensor.grad is None
        return
    assert type(tensor.grad) is np.ndarray
    assert tensor.grad.shape == tensor.shape
    assert tensor.grad.dtype == tensor.dtype
    assert tensor.grad.flags.writeable
    assert not any(np.shares_memory(tensor.grad, a) for a in arrays)


def _several(outs):
    return list(outs) if isinstance(outs, (list, tuple)) else [outs]


def _weighted(outs, weights):
    return sum((w * y).sum() for y, w in zip(outs, weights, strict=True))


def _difference(f):
    return (8 * (f(STEP) - f(-STEP)) - (f(2 * STEP) - f(-2 * STEP))) / (12 * STEP)


def _close(actual, expected, message, height=0):
    scale = 1 + height + np.abs(expected).max(initial=0)  # the difference of two heights is rounded as they are
    np.testing.assert_allclose(actual, expected, rtol=0, atol=BAR * scale, err_msg=message)
