# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of accumulate, for Cython."""

from cython cimport floating
from cython.parallel cimport prange
from libc.string cimport memcpy

from ..arrays cimport Rows, rows, writes

cdef enum:
    CHUNK = 16384  # numbers that one thread takes at a time


def add(to, x):
    cdef Rows r = rows(x)
    cdef Py_ssize_t n = r.N * r.C
    cdef char *out = writes(to, n, r.unit)
    if r.kind == b"f":
        _add_all(n, <float *> out, <const float *> r.at)
    else:
        _add_all(n, <double *> out, <const double *> r.at)


cdef void _add_all(Py_ssize_t n, floating *to, const floating *x) noexcept:
    cdef Py_ssize_t k
    for k in prange((n + CHUNK - 1) // CHUNK, nogil=True, schedule="static", use_threads_if=n > CHUNK):
        _add(min(CHUNK, n - k * CHUNK), to + k * CHUNK, x + k * CHUNK)


cdef void _add(Py_ssize_t n, floating *to, const floating *x) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        to[i] += x[i]


def copy(to, x):
    cdef Rows r = rows(x)
    _copy_all(r.N * r.C * r.unit, writes(to, r.N * r.C, r.unit), r.at)


cdef void _copy_all(Py_ssize_t n, char *to, const char *x) noexcept:
    cdef Py_ssize_t k, chunk = 4 * CHUNK
    for k in prange((n + chunk - 1) // chunk, nogil=True, schedule="static", use_threads_if=n > chunk):
        memcpy(to + k * chunk, x + k * chunk, min(chunk, n - k * chunk))
