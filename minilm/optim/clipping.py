"""Clipping by global norm: all gradients are scaled by one factor when their common norm is too large.

    ‖g‖ = √(Σ over parameters, Σ over entries, g²)          g ← g · min(1, c / (‖g‖ + 10⁻⁶))          c = max_norm

Source: Pascanu, Mikolov & Bengio (2013), arXiv:1211.5063; the 10⁻⁶ is that of torch.nn.utils.clip_grad_norm_.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from .._kernels import registry
from ..tensor import Tensor
from .checks import gradient, number

TINY = 1e-6


def global_norm(params: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of all gradients together, 0.0 where there are none.

    A tensor that is listed twice counts once.  Infinite or NaN gradients give inf or nan.  Gradients in float32 may be
    as large or as many as they like; in float64 the norm is inf where the sum of squares is, above 1e154.
    TypeError or ValueError for what is not a Tensor, or a gradient that does not have its tensor's shape and dtype.
    """
    with np.errstate(all="ignore"):
        grads = [g for _, g in _gradients("global_norm", params)]
        return math.sqrt(registry.kernel("sum_of_squares").forward(grads))


def clip_factor(norm: float, max_norm: float) -> float:
    """Return the factor of the gradients, at most 1, for ``optimizer.step(grad_scale=factor)``: no pass of its own.

    1.0 where ``norm`` is infinite or NaN: no factor mends such gradients, so look at the norm before the step.
    ValueError for a ``max_norm`` that is not positive.

    >>> clip_factor(4.0, max_norm=1.0)
    0.24999993750001562
    """
    if (max_norm := number("clip_factor", "max_norm", max_norm)) <= 0:
        raise ValueError(
            f"clip_factor: max_norm must be positive, got {max_norm}. To switch clipping off, leave it out."
        )
    return min(1.0, max_norm / (float(norm) + TINY)) if math.isfinite(norm) else 1.0


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients in place so that ``global_norm`` is at most ``max_norm``; return the norm that they had.

    Gradients are left as they are when that norm is infinite or NaN.  Errors: as ``global_norm`` and ``clip_factor``.
    """
    params = [params] if isinstance(params, Tensor) else list(params)
    norm = global_norm(params)
    if (factor := clip_factor(norm, max_norm)) < 1:
        for p, g in _gradients("clip_grad_norm", params):
            if g is p.grad and g.flags.writeable:
                g *= factor
            else:
                p.grad = g * factor
    return norm


def _gradients(who: str, params: Iterable[Tensor]) -> Iterator[tuple[Tensor, np.ndarray]]:
    seen = set()
    for i, p in enumerate([params] if isinstance(params, Tensor) else params):
        if not isinstance(p, Tensor):
            raise TypeError(f"{who}: parameters must be Tensors, got {p!r} at place {i}. Use model.parameters().")
        if id(p) not in seen and (g := gradient(who, str(i), p)) is not None:
            seen.add(id(p))
            yield p, g
