"""Stochastic gradient descent, with momentum and Nesterov's momentum."""

from typing import Any, ClassVar

import numpy as np

from .checks import flag, not_negative, number
from .optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent on parameters θ with gradients g, multiplied by ``grad_scale`` first:

        g ← g + λ θ                          λ = weight_decay
        b ← g at the first step, then
        b ← μ b + (1 - τ) g                  μ = momentum, τ = dampening
        g ← g + μ b  if nesterov, else b     without momentum (μ = 0) there is no b, and g stays
        θ ← θ - lr g

    The options, their defaults and the rule are those of torch.optim.SGD: lr stands outside the velocity b, and the
    first b is not dampened.  Saved for each parameter: ``momentum_buffer``, which is b.
    ValueError for a negative lr, momentum or weight_decay, and for nesterov without momentum or with dampening.
    ``params`` and its errors: see ``Optimizer``.

    Source: Robbins & Monro (1951); momentum: Polyak (1964); Nesterov's in this form: Sutskever et al. (2013), "On the
    importance of initialization and momentum in deep learning".
    """

    slots: ClassVar = {"momentum_buffer": np.ndarray}

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )

    def _checked(self, *, lr, momentum, dampening, weight_decay, nesterov):
        checked = {
            "lr": not_negative("SGD", "lr", lr),
            "momentum": not_negative("SGD", "momentum", momentum),
            "dampening": number("SGD", "dampening", dampening),
            "weight_decay": not_negative("SGD", "weight_decay", weight_decay),
            "nesterov": flag("SGD", "nesterov", nesterov),
        }
        if nesterov and (checked["momentum"] == 0 or checked["dampening"] != 0):
            raise ValueError(
                f"SGD: nesterov needs momentum above 0 and dampening 0, got momentum={momentum} and "
                f"dampening={dampening}. Try momentum=0.9."
            )
        return checked

    def _update(self, ready, *, lr, momentum, dampening, weight_decay, nesterov, grad_scale):
        for p, grad, state in ready:
            g = np.multiply(grad, grad_scale, out=np.empty_like(p))
            if weight_decay:
                g += weight_decay * p
            if momentum:
                b = state.get("momentum_buffer")
                if b is None:
                    b = state["momentum_buffer"] = g
                else:
                    b *= momentum
                    b += (1 - dampening) * g
                g = g + momentum * b if nesterov else b
            p -= lr * g
