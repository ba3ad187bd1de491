"""AdamW."""

from typing import Any, ClassVar

import numpy as np

from .._kernels import registry
from .adam import checked, next_moments
from .optimizer import Optimizer


class AdamW(Optimizer):
    """Adam with decoupled weight decay, on parameters θ with gradients g, multiplied by ``grad_scale`` first:

        θ ← θ - lr λ θ                       λ = weight_decay
        m ← β₁ m + (1 - β₁) g                m and v start at 0
        v ← β₂ v + (1 - β₂) g²
        m̂ = m / (1 - β₁ᵗ)                    t counts the steps of each parameter from 1
        v̂ = v / (1 - β₂ᵗ)
        θ ← θ - lr m̂ / (√v̂ + ε)

    The options, their defaults and the rule are those of torch.optim.AdamW: the paper's schedule multiplier η and its α
    are one number here, lr, so the decay follows the schedule too.
    Saved for each parameter: ``step``, which is t, ``exp_avg``, which is m, and ``exp_avg_sq``, which is v.
    ValueError for a negative lr, eps or weight_decay, and for betas outside [0, 1).
    ``params`` and its errors: see ``Optimizer``.

    Source: Loshchilov & Hutter (2019), arXiv:1711.05101, algorithm 2.
    """

    slots: ClassVar = {"step": int, "exp_avg": np.ndarray, "exp_avg_sq": np.ndarray}

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _checked(self, **options):
        return checked("AdamW", **options)

    def _update(self, ready, *, lr, betas, eps, weight_decay, grad_scale):
        steps, m, v = next_moments(ready)
        registry.kernel("adamw").forward(
            [p for p, _, _ in ready],
            [g for _, g, _ in ready],
            m,
            v,
            lr=lr,
            beta1=betas[0],
            beta2=betas[1],
            eps=eps,
            weight_decay=weight_decay,
            steps=steps,
            grad_scale=grad_scale,
        )
