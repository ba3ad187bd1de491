"""The loop of adamw, for Numba.

The mathematics and the names are those of adamw.py.
"""

import numpy as np
from numba import njit, prange


@njit(parallel=True, cache=True)
def update(p, g, m, v, decay, rate, root, beta1, beta2, eps, grad_scale):
    real = p.dtype.type
    decay_, rate_, root_, eps_, scale = real(decay), real(rate), real(root), real(eps), real(grad_scale)
    beta1_, rest1, beta2_, rest2 = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2)
    for i in prange(len(p)):
        gradient = g[i] * scale
        m[i] = beta1_ * m[i] + rest1 * gradient
        v[i] = beta2_ * v[i] + rest2 * gradient * gradient
        p[i] = decay_ * p[i] - rate_ * m[i] / (np.sqrt(v[i]) / root_ + eps_)
