"""The loops of accumulate, for Numba."""

from numba import njit, prange

from ..layout import flat

CHUNK = 16384  # numbers that one thread takes at a time


def add(to, x):
    _add(to.reshape(-1), flat(x))


@njit(parallel=True, cache=True)
def _add(to, x):
    for k in prange((len(x) + CHUNK - 1) // CHUNK):
        for i in range(k * CHUNK, min((k + 1) * CHUNK, len(x))):
            to[i] += x[i]


def copy(to, x):
    _copy(to.reshape(-1), flat(x))


@njit(parallel=True, cache=True)
def _copy(to, x):
    for k in prange((len(x) + CHUNK - 1) // CHUNK):
        for i in range(k * CHUNK, min((k + 1) * CHUNK, len(x))):
            to[i] = x[i]
