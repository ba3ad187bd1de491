"""The loops of accumulate, for Numba."""

from numba import njit, prange

from ..layout import flat
from ..vecmath_numba import EXACT

CHUNK = 16384  # numbers that one thread takes at a time


@njit(**EXACT)
def _row(to, x, r, add):
    if add:
        for i in range(len(to)):
            to[i] += r * x[i]
    else:
        for i in range(len(to)):
            to[i] = r * x[i]


def add(to, x, r):
    """Add r x to to."""
    _all(to.reshape(-1), flat(x), x.dtype.type(r), True)


def scale(to, x, r):
    """Write r x into to, which may be x."""
    _all(to.reshape(-1), flat(x), x.dtype.type(r), False)


@njit(parallel=True, cache=True)
def _all(to, x, r, add):
    for k in prange((len(x) + CHUNK - 1) // CHUNK):
        of = slice(k * CHUNK, min((k + 1) * CHUNK, len(x)))
        _row(to[of], x[of], r, add)
