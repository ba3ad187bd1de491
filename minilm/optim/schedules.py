"""Learning rates as pure functions of the step t = 0, 1, 2, ...: nothing to advance, nothing to save.

Every schedule climbs for its first w = ``warmup`` steps, reaches ``lr`` at t = w, and then goes its own way:

    t < w:   lr (t + 1) / (w + 1)      as nanoGPT's get_lr (github.com/karpathy/nanoGPT, train.py): no step is wasted
             lr t / w                  with from_zero=True, as transformers' get_*_schedule: the first step does nothing

    rate = cosine(lr=6e-4, steps=600_000, warmup=2000, min_lr=6e-5)
    for group in optimizer.param_groups:
        group["lr"] = rate(step)

ValueError for a negative lr, min_lr, warmup or step, and for a min_lr above lr.
"""

import math
from collections.abc import Callable

from .checks import not_negative

Schedule = Callable[[int], float]


def constant(lr: float, *, warmup: int = 0, from_zero: bool = False) -> Schedule:
    """Return lr(t) = lr after the warm-up.

    With from_zero: transformers' get_constant_schedule_with_warmup.

    >>> rate = constant(1.0, warmup=3)
    >>> [rate(step) for step in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    lr = not_negative("constant", "lr", lr)
    return _after_warmup("constant", lambda t: lr, lr, warmup, from_zero)


def linear(lr: float, *, steps: int, warmup: int = 0, min_lr: float = 0.0, from_zero: bool = False) -> Schedule:
    """Return lr(t) = min_lr + (lr - min_lr) (T - t) / (T - w) up to T = ``steps``, and min_lr from there on.

    With from_zero and min_lr = 0: transformers' get_linear_schedule_with_warmup, the schedule of BERT (Devlin et al.
    2019, arXiv:1810.04805).

    >>> rate = linear(1.0, steps=4)
    >>> [rate(step) for step in range(6)]
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    lr, min_lr = _rates("linear", lr, min_lr)

    def down(t: int) -> float:
        return min_lr + (lr - min_lr) * ((steps - t) / (steps - warmup)) if t < steps else min_lr

    return _after_warmup("linear", down, lr, warmup, from_zero, steps)


def cosine(lr: float, *, steps: int, warmup: int = 0, min_lr: float = 0.0, from_zero: bool = False) -> Schedule:
    """Return lr(t) = min_lr + ½ (1 + cos(π (t - w) / (T - w))) (lr - min_lr) up to T = ``steps``, then min_lr.

    As it stands: nanoGPT's get_lr bit for bit, with its warmup_iters = w, lr_decay_iters = T.  With from_zero and
    min_lr = 0: transformers' get_cosine_schedule_with_warmup, which after T would climb again; this one does not.
    Source: Loshchilov & Hutter (2017), arXiv:1608.03983, equation 5, without restarts.

    >>> rate = cosine(1.0, steps=4)
    >>> [round(rate(step), 3) for step in range(6)]
    [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    lr, min_lr = _rates("cosine", lr, min_lr)

    def down(t: int) -> float:
        if t >= steps:
            return min_lr
        return min_lr + 0.5 * (1.0 + math.cos(math.pi * ((t - warmup) / (steps - warmup)))) * (lr - min_lr)

    return _after_warmup("cosine", down, lr, warmup, from_zero, steps)


def inverse_sqrt(lr: float, *, warmup: int = 0, timescale: int | None = None, from_zero: bool = False) -> Schedule:
    """Return lr(t) = lr / √((t - w + s) / s) after the warm-up.

    s = ``timescale`` is w by default, or 10,000 where w = 0.  With from_zero: transformers' get_inverse_sqrt_schedule.
    With s = w it is lr √(w / t), the schedule of the first Transformer (Vaswani et al. 2017, arXiv:1706.03762, section
    5.3), whose lr is 1 / √(d_model w).

    >>> rate = inverse_sqrt(1.0, warmup=4)
    >>> [rate(step) for step in (3, 4, 16, 64)]
    [0.8, 1.0, 0.5, 0.25]
    """
    lr = not_negative("inverse_sqrt", "lr", lr)
    not_negative("inverse_sqrt", "warmup", warmup)
    s = (warmup or 10_000) if timescale is None else timescale
    if s <= 0:
        raise ValueError(f"inverse_sqrt: timescale must be positive, got {timescale}. Leave it out to take warmup.")
    return _after_warmup("inverse_sqrt", lambda t: lr * (1.0 / math.sqrt((t - warmup + s) / s)), lr, warmup, from_zero)


def _rates(who: str, lr: float, min_lr: float) -> tuple[float, float]:
    lr, min_lr = not_negative(who, "lr", lr), not_negative(who, "min_lr", min_lr)
    if min_lr > lr:
        raise ValueError(f"{who}: min_lr must not be above lr, got min_lr={min_lr} and lr={lr}.")
    return lr, min_lr


def _after_warmup(who: str, then: Schedule, lr: float, w: int, from_zero: bool, steps: int | None = None) -> Schedule:
    not_negative(who, "warmup", w)
    if steps is not None and not_negative(who, "steps", steps) < w:
        raise ValueError(f"{who}: steps must not be below warmup, got steps={steps} and warmup={w}.")

    def rate(t: int) -> float:
        if t < 0:
            raise ValueError(f"{who}: the step must be 0 or more, got {t}.")
        if t >= w:
            return then(t)
        return lr * (t / w) if from_zero else lr * (t + 1) / (w + 1)

    return rate
