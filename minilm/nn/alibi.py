"""Attention with linear biases: a key is worth less to a query the farther back it lies, and positions need no vectors.

Head h = 1 .. H adds -mₕ (t - s) to what query t scores for key s.  A softmax does not change when a row of scores gets
a constant, here mₕ t, so that mₕ s is enough, the same for all queries.  The slopes fall geometrically:

    mₕ = 2^(-8h/H)                                      H a power of two
    those of n heads, then every other one of 2n heads  n the largest power of two below H

Source: Press, Smith & Lewis (2022), "Train Short, Test Long", arXiv:2108.12409.
"""

from typing import Any

import numpy as np

from ..tensor import Tensor, as_tensor
from .sequences import Sequences


def alibi_slopes(heads: int) -> np.ndarray:
    """Return m (H,) in float64."""
    n = 1 << (heads.bit_length() - 1)
    first = 2.0 ** (-8 * np.arange(1, n + 1) / n)
    rest = 2.0 ** (-8 * np.arange(1, 2 * (heads - n), 2) / (2 * n))
    return np.concatenate([first, rest])


def alibi(slopes: np.ndarray, sequences: Sequences, dtype: Any) -> Tensor:
    """Return mₕ s, to be added to the scores: (B or 1, H, 1, S).

    Positions s count the keys of a sequence, those in the cache first, and of a padded row those that are not padding.
    """
    if sequences.padding is not None:
        s = sequences.padding.cumsum(axis=1) - 1  # (B, S)
    elif sequences.lengths is not None:
        s = sequences.positions  # (1, N)
    else:
        s = np.arange(sequences.past + sequences.T)[None]  # (1, S)
    return as_tensor((slopes[:, None, None] * s[:, None, None, :]).astype(dtype))
