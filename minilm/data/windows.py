"""Batches of windows of tokens: inputs, and the same tokens one place later as targets.

As in nanoGPT, training draws windows at random, with replacement, from one long row of tokens; a window may reach from
one document into the next.  Everything drawn comes from the seed alone; the streams of the split, the training windows
and the evaluation windows are separate: ``np.random.default_rng([seed, 0])``, ``[seed, 1]`` and ``[seed, 2]``.
"""

from collections.abc import Iterator

import numpy as np

from .errors import DataError

Batch = tuple[np.ndarray, np.ndarray]


def split(tokens, fraction=0.9):
    """Return the first int(fraction * N) of the tokens (N,) for training, and the rest for validation, as views.

    >>> [len(part) for part in split(np.arange(1_115_394))]
    [1003854, 111540]
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction of tokens for training must be between 0 and 1, got {fraction}")
    n = int(fraction * len(tokens))
    return tokens[:n], tokens[n:]


class Windows:
    """An endless iterator over batches of random windows: inputs (B, T) and targets (B, T), int64.

    ``state`` is where it stands, as plain JSON; a new Windows given it draws what this one would have drawn.
    DataError: fewer than T + 1 tokens; ``name`` says which.

    >>> windows = Windows(np.arange(10, dtype=np.uint16), block_size=3, batch_size=2, seed=1)
    >>> state = windows.state
    >>> inputs, targets = next(windows)
    >>> inputs
    array([[3, 4, 5],
           [2, 3, 4]])
    >>> targets
    array([[4, 5, 6],
           [3, 4, 5]])
    >>> windows.state = state
    >>> bool((next(windows)[0] == inputs).all())
    True
    """

    def __init__(self, tokens, block_size, batch_size, seed, name="training split"):
        _check(tokens, block_size, batch_size, name)
        self.tokens, self.block_size, self.batch_size = tokens, block_size, batch_size
        self._generator = np.random.default_rng([seed, 1])
        self._offsets = np.arange(block_size + 1)  # (T + 1,)

    def __iter__(self):
        return self

    def __next__(self) -> Batch:
        starts = self._generator.integers(len(self.tokens) - self.block_size, size=self.batch_size)  # (B,)
        return _gather(self.tokens, starts, self._offsets)

    @property
    def state(self):
        return self._generator.bit_generator.state

    @state.setter
    def state(self, state):
        try:
            self._generator.bit_generator.state = state
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ValueError(f"state must be what Windows.state gave, got {state!r} ({error})") from None


def fixed_windows(tokens, block_size, batch_size, batches, seed, name="validation split") -> Iterator[Batch]:
    """Yield ``batches`` random batches that are the same whenever the seed is: for an estimate of the loss in training.

    The first of them do not depend on how many are asked for.
    """
    _check(tokens, block_size, batch_size, name)
    generator = np.random.default_rng([seed, 2])
    offsets = np.arange(block_size + 1)
    starts = [generator.integers(len(tokens) - block_size, size=batch_size) for _ in range(batches)]
    return (_gather(tokens, batch, offsets) for batch in starts)


def consecutive_windows(tokens, block_size, batch_size, name="validation split") -> Iterator[Batch]:
    """Yield every token but the first as a target exactly once, in order: (N - 1) targets in all.

    The last full batch may have fewer rows, and the last window, alone in its batch, fewer columns: weigh a mean loss
    by the number of targets.
    """
    _check(tokens, block_size, batch_size, name)

    def batches():
        offsets = np.arange(block_size + 1)
        full = (len(tokens) - 1) // block_size  # windows; each begins with the last target of the one before
        for first in range(0, full, batch_size):
            starts = np.arange(first, min(first + batch_size, full)) * block_size
            yield _gather(tokens, starts, offsets)
        rest = len(tokens) - 1 - full * block_size
        if rest:
            yield _gather(tokens, np.array([full * block_size]), np.arange(rest + 1))

    return batches()


def _gather(tokens, starts, offsets):
    windows = tokens[starts[:, None] + offsets]  # (B, T + 1)
    return windows[:, :-1].astype(np.int64), windows[:, 1:].astype(np.int64)  # (B, T) each, contiguous


def _check(tokens, block_size, batch_size, name):
    for what, value in (("block_size", block_size), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{what} must be 1 or more, got {value}")
    if len(tokens) < block_size + 1:
        raise DataError(
            f"the {name} must hold one window of block_size + 1 = {block_size + 1} tokens",
            f"{len(tokens)}",
            "give more text or a smaller block_size",
        )
