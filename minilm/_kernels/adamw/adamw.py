"""One step of Adam with decoupled weight decay, in place on the parameters p and the moments m, v.

With g the gradient times grad_scale, and t = step, counted from 1:

    p ← p (1 - lr λ)                                       λ = weight_decay
    m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²
    p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)

m and v start at 0, so after t steps they hold 1 - βᵗ of what they should: the two divisions repair that.
grad_scale is the factor of gradient clipping (1 for none), so that clipping costs no pass of its own.
Derivation: adamw.md.  Source: Loshchilov & Hutter (2019), arXiv:1711.05101; Kingma & Ba (2015), arXiv:1412.6980.
"""

import math

import numpy as np

from ..layout import flat


def adamw_update(p, g, m, v, *, lr, beta1, beta2, eps, weight_decay, step, grad_scale):  # all of one shape
    decay, rate, root = _per_step(lr, beta1, beta2, weight_decay, step)
    g = g * grad_scale
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g * g
    p[...] = decay * p - rate * m / (np.sqrt(v) / root + eps)


def _per_step(lr, beta1, beta2, weight_decay, step):
    """The numbers that are the same for every parameter: 1 - lr λ, lr / (1 - β₁ᵗ), √(1 - β₂ᵗ)."""
    return 1 - lr * weight_decay, lr / (1 - beta1**step), math.sqrt(1 - beta2**step)


def adamw_compiled(loops):
    """Wrap the compiled ``loops`` of adamw_numba or adamw_cython; what is not contiguous is copied there and back."""

    def update(p, g, m, v, *, lr, beta1, beta2, eps, weight_decay, step, grad_scale):
        decay, rate, root = _per_step(lr, beta1, beta2, weight_decay, step)
        own = [np.ascontiguousarray(a) for a in (p, m, v)]
        P, M, V = (a.reshape(-1) for a in own)
        loops.update(P, flat(g), M, V, decay, rate, root, beta1, beta2, eps, grad_scale)
        for a, copied in zip((p, m, v), own, strict=True):
            if copied is not a:
                a[...] = copied

    return update
