"""The Gaussian error linear unit: x times the probability that a standard normal number is below x.

    exact ("none")     Φ(x) = ½ (1 + erf(x / √2))                              y = x Φ(x)
    approximate        Φ(x) = ½ (1 + tanh u),  u = √(2/π) (x + 0.044715 x³)     y = x Φ(x)      ("tanh")

Backward, with φ = Φ':

    dx = dy (Φ + x φ)        φ(x) = exp(-x²/2) / √(2π)   or   φ(x) = ½ (1 - tanh² u) √(2/π) (1 + 3·0.044715 x²)

Saves x alone: Φ is cheaper to recompute than to keep.  Beyond ±LARGE both Φ are 0 or 1 to the last bit and φ is 0, so
x is held there, which makes y and dx right for infinities.
Derivation: gelu.md.  Source: Hendrycks & Gimpel (2016), arXiv:1606.08415.
"""

import math

import numpy as np

from ..special import erf

SQRT_HALF = math.sqrt(0.5)
PEAK = 1 / math.sqrt(2 * math.pi)  # φ(0)
TANH_SCALE = math.sqrt(2 / math.pi)
TANH_CUBE = 0.044715
LARGE = 40.0


def gelu_forward(x, *, approximate):  # any shape
    Φ, _ = _normal(x, approximate)
    return np.maximum(x, -LARGE) * Φ, (x, approximate)


def gelu_backward(dy, saved, needs):
    x, approximate = saved
    Φ, xφ = _normal(x, approximate)
    return (dy * (Φ + xφ) if needs[0] else None,)


def _normal(x, approximate):
    """Φ(x) and x φ(x)."""
    x = np.minimum(np.maximum(x, -LARGE), LARGE)
    if approximate == "none":
        return 0.5 * (1 + erf(x * SQRT_HALF)), x * np.exp(-0.5 * (x * x)) * PEAK
    t = np.tanh(TANH_SCALE * (x + TANH_CUBE * (x * x * x)))
    return 0.5 * (1 + t), 0.5 * x * (1 - t * t) * TANH_SCALE * (1 + 3 * TANH_CUBE * (x * x))


def gelu_compiled(loops):
    """Wrap the compiled ``loops`` of gelu_numba or gelu_cython, with nothing to add to x."""

    def forward(x, *, approximate):
        y = np.empty(x.shape, x.dtype)
        loops.forward(np.ascontiguousarray(x), None, y, approximate == "tanh")
        return y, (x, approximate)

    def backward(dy, saved, needs):
        if not needs[0]:
            return (None,)
        x, approximate = saved
        dx = np.empty(x.shape, x.dtype)
        loops.backward(np.ascontiguousarray(dy), np.ascontiguousarray(x), None, dx, 0, None, approximate == "tanh")
        return (dx,)

    return forward, backward
