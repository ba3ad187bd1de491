# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of accumulate, for Cython."""

from cython cimport floating
from cython.parallel cimport prange

from ..arrays cimport Rows, rows, writes

cdef enum:
    CHUNK = 16384  # numbers that one thread takes at a time


def add(to, x, double r):
    """Add r x to to."""
    _run(to, x, r, True)


def scale(to, x, double r):
    """Write r x into to, which may be x."""
    _run(to, x, r, False)


cdef _run(to, x, double r, bint add):
    cdef Rows a = rows(x)
    cdef Py_ssize_t n = a.N * a.C
    cdef char *out = writes(to, n, a.unit)
    if a.kind == b"f":
        _all(n, <float *> out, <const float *> a.at, <float> r, add)
    else:
        _all(n, <double *> out, <const double *> a.at, r, add)


cdef void _all(Py_ssize_t n, floating *to, const floating *x, floating r, bint add) noexcept:
    cdef Py_ssize_t k
    for k in prange((n + CHUNK - 1) // CHUNK, nogil=True, schedule="static", use_threads_if=n > CHUNK):
        _chunk(min(CHUNK, n - k * CHUNK), to + k * CHUNK, x + k * CHUNK, r, add)


cdef void _chunk(Py_ssize_t n, floating *to, const floating *x, floating r, bint add) noexcept nogil:
    cdef Py_ssize_t i
    if add:
        for i in range(n):
            to[i] += r * x[i]
    else:
        for i in range(n):
            to[i] = r * x[i]
