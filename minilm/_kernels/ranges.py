"""Whether integers that say which row is meant lie among the rows: in one pass, where the code for it was compiled."""

from functools import cache

import numpy as np

INT64 = np.dtype(np.int64)


def lie_below(ids, V, ignored=None):
    """Return whether each of ``ids`` lies in [0, V), or is ``ignored``."""
    if ids.dtype is INT64 and ids.flags.c_contiguous and (one_pass := _compiled()) is not None:
        return one_pass(ids, V, ignored)
    return not outside(ids, V, ignored).any()


def outside(ids, V, ignored=None):
    """Return which of ``ids`` do neither."""
    out = (ids < 0) | (ids >= V)
    return out if ignored is None else out & (ids != ignored)


@cache
def _compiled():
    try:
        from .machine_cython import lie_below
    except ImportError:
        return None
    return lie_below
