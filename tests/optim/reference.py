"""The same run twice, with minilm and with PyTorch: same start, same gradients, same options at every step."""

import numpy as np
import torch

from minilm import Tensor

SHAPES = {"wte.weight": (7, 5), "h.0.weight": (4, 3, 2), "h.0.bias": (6,), "scale": (), "empty": (0, 3), "ln_f": (1,)}
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}  # relative to the largest entry that the parameter had
STEPS = 25


def parameters(dtype, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}
    return {name: Tensor(array, requires_grad=True) for name, array in arrays.items()}


def gradients(dtype, seed=1):
    """Yield the gradients of each step: {name: array or None}; sizes differ widely, and some are missing."""
    rng = np.random.default_rng(seed)
    for step in range(STEPS):
        grads = {n: np.asarray(rng.standard_normal(s) * 10.0 ** rng.integers(-3, 2), dtype) for n, s in SHAPES.items()}
        if step % 4 == 1:
            grads["h.0.weight"] = None
        if step < 3:
            grads["h.0.bias"] = None
        yield grads


def in_groups(params, **second):
    """Two groups by name, the second with options of its own."""
    pairs = list(params.items())
    return [{"params": pairs[:3]}, {"params": pairs[3:] if len(pairs) > 3 else [], **second}]


def set_lr(optimizer, step):
    for i, group in enumerate(optimizer.param_groups):
        group["lr"] = 0.1 / (1 + step + i)


def torch_run(cls, dtype, second, **options):
    """Yield, by PyTorch, every parameter after every step, and the largest entry that it had so far."""
    ours = parameters(dtype)
    params = {name: torch.nn.Parameter(torch.tensor(p.data)) for name, p in ours.items()}
    optimizer = cls(in_groups(params, **second), foreach=False, **options)
    largest = {name: abs(p.data).max(initial=0.0) for name, p in ours.items()}
    for step, grads in enumerate(gradients(dtype)):
        for name, p in params.items():
            p.grad = None if grads[name] is None else torch.tensor(grads[name])
        set_lr(optimizer, step)
        optimizer.step()
        arrays = {name: p.detach().numpy() for name, p in params.items()}
        largest = {name: max(largest[name], abs(a).max(initial=0.0)) for name, a in arrays.items()}
        yield arrays, largest


def give(params, grads):
    for name, p in params.items():
        p.grad = grads[name]


def assert_close(actual, expected, dtype):
    for name, want in expected[0].items():
        got = actual[name].data
        assert got.dtype == dtype
        assert got.shape == want.shape
        atol = TOLERANCE[dtype] * expected[1][name]
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=name)
