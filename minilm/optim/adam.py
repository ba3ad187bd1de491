"""Adam."""

from typing import Any, ClassVar

import numpy as np

from .._kernels import registry
from .checks import decay_rates, not_negative
from .flat import zeros_like
from .optimizer import Optimizer, Ready


class Adam(Optimizer):
    """Adam on parameters θ with gradients g, multiplied by ``grad_scale`` first; t counts the steps of each from 1:

        g ← g + λ θ                          λ = weight_decay
        m ← β₁ m + (1 - β₁) g                m and v start at 0
        v ← β₂ v + (1 - β₂) g²
        m̂ = m / (1 - β₁ᵗ)
        v̂ = v / (1 - β₂ᵗ)
        θ ← θ - lr m̂ / (√v̂ + ε)              lr is the paper's α

    The options, their defaults and the rule are those of torch.optim.Adam: weight decay is a part of the gradient (L2),
    and so is divided by √v̂ too; ``AdamW`` decays by itself.
    Saved for each parameter: ``step``, which is t, ``exp_avg``, which is m, and ``exp_avg_sq``, which is v.
    ValueError for a negative lr, eps or weight_decay, and for betas outside [0, 1).
    ``params`` and its errors: see ``Optimizer``.

    Source: Kingma & Ba (2015), arXiv:1412.6980, algorithm 1.
    """

    slots: ClassVar = {"step": int, "exp_avg": np.ndarray, "exp_avg_sq": np.ndarray}

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _checked(self, **options):
        return checked("Adam", **options)

    def _update(self, ready, *, lr, betas, eps, weight_decay, grad_scale):
        update = registry.kernel("adamw").forward  # with its own decay at 0, AdamW is Adam
        options = {"lr": lr, "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": 0.0}
        steps, m, v = next_moments(ready)
        p, g = [p for p, _, _ in ready], [g for _, g, _ in ready]
        if not weight_decay:
            update(p, g, m, v, steps=steps, grad_scale=grad_scale, **options)
            return
        for i, (p_, g_) in enumerate(zip(p, g, strict=True)):  # one at a time: each g is a new array
            g_ = np.multiply(g_, grad_scale, out=np.empty_like(p_))
            g_ += weight_decay * p_
            update([p_], [g_], m[i : i + 1], v[i : i + 1], steps=steps[i : i + 1], grad_scale=1.0, **options)


def checked(who: str, *, lr, betas, eps, weight_decay) -> dict[str, Any]:
    """Return the options of Adam's family, each in the type and range that it must have."""
    return {
        "lr": not_negative(who, "lr", lr),
        "betas": decay_rates(who, "betas", betas),
        "eps": not_negative(who, "eps", eps),
        "weight_decay": not_negative(who, "weight_decay", weight_decay),
    }


def next_moments(ready: list[Ready]) -> tuple[list[int], list[np.ndarray], list[np.ndarray]]:
    """Count a step of each parameter in its state, and return all t, m and v; new ones share two flat buffers."""
    new = [(p, state) for p, _, state in ready if not state]
    arrays = [p for p, _ in new]
    for (_, state), first, second in zip(new, zeros_like(arrays), zeros_like(arrays), strict=True):
        state.update(step=0, exp_avg=first, exp_avg_sq=second)
    steps: list[int] = []
    m: list[np.ndarray] = []
    v: list[np.ndarray] = []
    for _, _, state in ready:
        state["step"] += 1
        steps.append(state["step"])
        m.append(state["exp_avg"])
        v.append(state["exp_avg_sq"])
    return steps, m, v
