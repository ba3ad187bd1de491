"""Every rule against torch.optim, step by step: groups, changing lr, missing gradients, scaled gradients."""

import numpy as np
import pytest
import torch

from minilm import Tensor
from minilm.optim import SGD, Adam, AdamW

from .reference import assert_close, give, gradients, in_groups, parameters, set_lr, torch_run

CASES = {
    "sgd": (SGD, {"lr": 0.1}, {}),
    "sgd-decay": (SGD, {"lr": 0.1, "weight_decay": 0.1}, {"weight_decay": 0.0}),
    "momentum": (SGD, {"lr": 0.1, "momentum": 0.9}, {"momentum": 0.5}),
    "dampening": (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}, {"dampening": 0.0}),
    "nesterov": (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, {"nesterov": False}),
    "adam": (Adam, {}, {"betas": (0.5, 0.7)}),
    "adam-l2": (Adam, {"weight_decay": 0.1, "betas": (0.9, 0.95)}, {"weight_decay": 0.0, "eps": 1e-3}),
    "adamw": (AdamW, {}, {"weight_decay": 0.0}),
    "adamw-decay": (AdamW, {"weight_decay": 0.3, "betas": (0.8, 0.95), "eps": 1e-6}, {"betas": (0.0, 0.5)}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_rule(case, dtype, backend):
    cls, options, second = CASES[case]
    params = parameters(dtype)
    optimizer = cls(in_groups(params, **second), **options)
    expected = torch_run(getattr(torch.optim, cls.__name__), dtype, second, **options)
    for step, (grads, want) in enumerate(zip(gradients(dtype), expected, strict=True)):
        give(params, grads)
        set_lr(optimizer, step)
        optimizer.step()
        assert_close(params, want, dtype)
    for kept in optimizer.state.values():
        assert all(value.dtype == dtype for value in kept.values() if not isinstance(value, int))


@pytest.mark.parametrize("case", CASES)
def test_grad_scale_is_a_factor_on_every_gradient(case, backend):
    cls, options, second = CASES[case]
    params = parameters(np.float64)
    optimizer = cls(in_groups(params, **second), **options)
    expected = torch_run(getattr(torch.optim, cls.__name__), np.float64, second, **options)
    for step, (grads, want) in enumerate(zip(gradients(np.float64), expected, strict=True)):
        give(params, {name: g if g is None else np.asarray(g * 8.0) for name, g in grads.items()})
        kept = {name: p.grad if p.grad is None else p.grad.copy() for name, p in params.items()}
        set_lr(optimizer, step)
        optimizer.step(grad_scale=0.125)
        assert_close(params, want, np.float64)
        for name, p in params.items():
            np.testing.assert_array_equal(p.grad, kept[name])


@pytest.mark.parametrize("case", CASES)
def test_layout_does_not_matter(case, backend):
    cls, options, _ = CASES[case]
    rng = np.random.default_rng(3)

    def strided(array):
        wide = np.zeros((2 * array.shape[0], array.shape[1]), array.dtype)
        wide[::2] = array
        return wide[::2]

    start = rng.standard_normal((6, 5)).astype(np.float32)
    layouts = [np.ascontiguousarray, np.asfortranarray, strided, lambda a: a.T.copy().T[::-1][::-1]]
    groups = [[Tensor(layout(start.copy()), requires_grad=True)] for layout in layouts]
    optimizers = [cls(group, **options) for group in groups]
    for _ in range(5):
        g = rng.standard_normal((6, 5)).astype(np.float32)
        for i, (optimizer, (p,)) in enumerate(zip(optimizers, groups, strict=True)):
            p.grad = layouts[(i + 1) % len(layouts)](g)
            p.grad.flags.writeable = False
            optimizer.step()
    for (p,) in groups[1:]:
        np.testing.assert_allclose(p.data, groups[0][0].data, rtol=1e-6, atol=1e-7)
        assert (p.data != start).all()
