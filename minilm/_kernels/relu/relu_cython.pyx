# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of relu, for Cython.  The mathematics and the names are those of relu.py."""

from cython cimport floating
from cython.parallel cimport prange

from ..arrays cimport Rows, reads, rows, writes

cdef enum:
    BLOCK = 8192  # elements that one thread takes at a time, and below which a second one costs more than it saves


def forward(x, y):
    cdef Rows r = rows(x)
    cdef char *out = writes(y, r.N * r.C, r.unit)
    if r.kind == b"f":
        _blocks(r.N * r.C, <const float *> r.at, <const float *> r.at, <float *> out)
    else:
        _blocks(r.N * r.C, <const double *> r.at, <const double *> r.at, <double *> out)


def backward(dy, y, dx):
    cdef Rows r = rows(y)
    cdef const char *down = reads(dy, r.N * r.C, r.unit)
    cdef char *out = writes(dx, r.N * r.C, r.unit)
    if r.kind == b"f":
        _blocks(r.N * r.C, <const float *> r.at, <const float *> down, <float *> out)
    else:
        _blocks(r.N * r.C, <const double *> r.at, <const double *> down, <double *> out)


cdef void _blocks(Py_ssize_t n, const floating *x, const floating *a, floating *out) noexcept:
    cdef Py_ssize_t k
    if n <= BLOCK:
        _pass(n, x, a, out)
    else:
        for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static"):
            _pass(min(BLOCK, n - k * BLOCK), x + k * BLOCK, a + k * BLOCK, out + k * BLOCK)


cdef void _pass(Py_ssize_t n, const floating *x, const floating *a, floating *out) noexcept nogil:
    """out is a where x is above 0, or NaN, and 0 elsewhere: x is y in the backward, where none is below 0."""
    cdef Py_ssize_t i
    cdef floating zero = 0
    for i in range(n):
        out[i] = zero if x[i] <= zero else a[i]
