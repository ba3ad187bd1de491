"""One step of Adam with decoupled weight decay, in place on the parameters p and the moments m, v: lists of arrays.

With g the gradient times grad_scale, and t the parameter's step, counted from 1:

    p ← p (1 - lr λ)                                       λ = weight_decay
    m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²
    p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)

m and v start at 0, so after t steps they hold 1 - βᵗ of what they should: the two divisions repair that.
grad_scale is the factor of gradient clipping (1 for none), so that clipping costs no pass of its own.
Derivation: adamw.md.  Source: Loshchilov & Hutter (2019), arXiv:1711.05101; Kingma & Ba (2015), arXiv:1412.6980.
"""

import math

import numpy as np

from .. import places


def adamw(p, g, m, v, *, lr, beta1, beta2, eps, weight_decay, steps, grad_scale):  # a list of n arrays each, n steps
    for p_, g_, m_, v_, t in zip(p, g, m, v, steps, strict=True):
        rate, root = _repairs(lr, beta1, beta2, t)
        _update(p_, g_ * grad_scale, m_, v_, 1 - lr * weight_decay, rate, root, beta1, beta2, eps)


def _update(p, g, m, v, decay, rate, root, beta1, beta2, eps):  # all of one shape
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g * g
    p[...] = decay * p - rate * m / (np.sqrt(v) / root + eps)


def _repairs(lr, beta1, beta2, t):
    """The numbers that are the same for all of a parameter: lr / (1 - β₁ᵗ), √(1 - β₂ᵗ)."""
    return lr / (1 - beta1**t), math.sqrt(1 - beta2**t)


def adamw_compiled(loops):
    """Wrap the compiled ``loops`` of adamw_numba or adamw_cython; what is not contiguous is copied there and back."""

    def update(p, g, m, v, *, lr, beta1, beta2, eps, weight_decay, steps, grad_scale):
        at, starts, laid = places.table((p, g, m, v), written=(True, False, True, True))
        by_step = {t: _repairs(lr, beta1, beta2, t) for t in set(steps)}
        repairs = np.array([by_step[t] for t in steps], np.float64).reshape(len(p), 2)
        loops.update(at, starts, repairs, 1 - lr * weight_decay, beta1, beta2, eps, grad_scale)
        for column, copies in zip((p, g, m, v), laid, strict=True):
            if copies is not column and column is not g:
                for a, copied in zip(column, copies, strict=True):
                    if copied is not a:
                        a[...] = copied

    return update
