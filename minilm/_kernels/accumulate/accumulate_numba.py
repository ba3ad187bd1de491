"""The loops of accumulate, for Numba."""

from numba import njit, prange

from ..layout import flat
from ..vecmath_numba import EXACT

CHUNK = 16384  # numbers that one thread takes at a time


@njit(**EXACT)
def _add_row(to, x):
    for i in range(len(to)):
        to[i] += x[i]


@njit(**EXACT)
def _copy_row(to, x):
    for i in range(len(to)):
        to[i] = x[i]


def add(to, x):
    _add(to.reshape(-1), flat(x))


@njit(parallel=True, cache=True)
def _add(to, x):
    for k in prange((len(x) + CHUNK - 1) // CHUNK):
        of = slice(k * CHUNK, min((k + 1) * CHUNK, len(x)))
        _add_row(to[of], x[of])


def copy(to, x):
    _copy(to.reshape(-1), flat(x))


@njit(parallel=True, cache=True)
def _copy(to, x):
    for k in prange((len(x) + CHUNK - 1) // CHUNK):
        of = slice(k * CHUNK, min((k + 1) * CHUNK, len(x)))
        _copy_row(to[of], x[of])
