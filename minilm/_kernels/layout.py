"""How the wrappers of the compiled loops lay out their arrays.

The loops take C-contiguous arrays that are read-only or not: a helper for the parts that every wrapper needs.
"""

import numpy as np

CHUNKS = 16  # sums over rows are made in this many parts on any number of threads, so the bits never change


def flat(x):
    """Return x as one row in C order, a view where that is possible."""
    return x.reshape(-1)


def as_rows(x):  # (..., C) -> (N, C)
    """Return x as a C-contiguous matrix of rows, a view where that is possible."""
    x = np.ascontiguousarray(x)
    C = x.shape[-1]
    return x.reshape(-1, C) if C else x.reshape(x.size, 0)


def ones(x):  # (..., C) -> (C,)
    """Return the scale that changes nothing."""
    return np.ones(x.shape[-1], x.dtype)


def zeros(x):  # (..., C) -> (C,)
    """Return the shift that changes nothing."""
    return np.zeros(x.shape[-1], x.dtype)
