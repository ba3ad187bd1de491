"""Draw the seeds of random ops from a generator, so that a recomputation can draw the same ones again."""

from __future__ import annotations  # naming np.random.Generator would import numpy.random, a third of our import

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

_log: ContextVar[list[int] | None] = ContextVar("minilm_seed_log", default=None)
_replay: ContextVar[Iterator[int] | None] = ContextVar("minilm_seed_replay", default=None)


def draw(rng: np.random.Generator) -> int:
    """Return a 64-bit seed from ``rng``, or, inside ``replayed``, the next one of the first run."""
    if (again := _replay.get()) is None:
        seed = int(rng.integers(0, 2**64, dtype=np.uint64))
    elif (seed := next(again, -1)) < 0:
        raise RuntimeError(
            "recompute: the function drew more seeds when it ran again than at first. It must compute the same twice."
        )
    if (log := _log.get()) is not None:
        log.append(seed)
    return seed


@contextmanager
def logged() -> Iterator[list[int]]:
    """Yield a list that gathers every seed drawn in the body of the with-statement."""
    log: list[int] = []
    token = _log.set(log)
    try:
        yield log
    finally:
        _log.reset(token)


@contextmanager
def replayed(log: list[int]) -> Iterator[None]:
    """Draw the seeds of ``log`` again, in their order."""
    token = _replay.set(iter(log))
    try:
        yield
    finally:
        _replay.reset(token)
