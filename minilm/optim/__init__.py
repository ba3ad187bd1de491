"""Optimizers, learning rates as functions of the step, and clipping of gradients.

>>> import numpy as np
>>> from minilm import Tensor
>>> w = Tensor(np.array([1.0, -2.0]), requires_grad=True)
>>> optimizer = AdamW([w], lr=0.1, weight_decay=0.0)
>>> rate = schedules.cosine(lr=0.1, steps=100, warmup=10)
>>> for step in range(100):
...     optimizer.zero_grad()
...     (w * w).sum().backward()
...     optimizer.param_groups[0]["lr"] = rate(step)
...     optimizer.step(grad_scale=clip_factor(global_norm([w]), max_norm=1.0))
>>> bool(abs(w.data).max() < 0.2)
True
"""

from . import schedules
from .adam import Adam
from .adamw import AdamW
from .clipping import clip_factor, clip_grad_norm, global_norm
from .optimizer import Optimizer
from .sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_factor", "clip_grad_norm", "global_norm", "schedules"]
