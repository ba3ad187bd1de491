"""The loops of accumulate, for Numba."""

from numba import njit, prange

from ..layout import flat
from ..vecmath_numba import EXACT

CHUNK = 16384  # numbers that one thread takes at a time


@njit(**EXACT)
def _add_row(to, x, r):
    for i in range(len(to)):
        to[i] += r * x[i]


@njit(**EXACT)
def _scale_row(to, x, r):
    for i in range(len(to)):
        to[i] = r * x[i]


def add(to, x, r):
    _add(to.reshape(-1), flat(x), x.dtype.type(r))


@njit(parallel=True, cache=True)
def _add(to, x, r):
    for k in prange((len(x) + CHUNK - 1) // CHUNK):
        of = slice(k * CHUNK, min((k + 1) * CHUNK, len(x)))
        _add_row(to[of], x[of], r)


def scale(to, x, r):
    """Write r x into to, which may be x."""
    _scale(to.reshape(-1), flat(x), x.dtype.type(r))


@njit(parallel=True, cache=True)
def _scale(to, x, r):
    for k in prange((len(x) + CHUNK - 1) // CHUNK):
        of = slice(k * CHUNK, min((k + 1) * CHUNK, len(x)))
        _scale_row(to[of], x[of], r)
