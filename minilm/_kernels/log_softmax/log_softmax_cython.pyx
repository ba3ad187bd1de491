# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of log_softmax, for Cython: a few rows at a time, which stay in the cache from their first pass to their last.

The mathematics and the names are those of log_softmax.py.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY

from ..arrays cimport Rows, reads, rows, writes
from ..rows cimport ROWS, exp, log_sum_exp, rows_together, sum

cdef enum:
    ALONE = 8192  # arrays of fewer numbers are not worth a second thread


def forward_rows(x, y):
    cdef Rows r = rows(x)
    cdef char *out = writes(y, r.N * r.C, r.unit)
    if r.kind == b"f":
        _forward_rows(r.N, r.C, <const float *> r.at, <float *> out)
    else:
        _forward_rows(r.N, r.C, <const double *> r.at, <double *> out)


cdef void _forward_rows(Py_ssize_t N, Py_ssize_t C, const floating *x, floating *y) noexcept:
    cdef Py_ssize_t k, R = rows_together(C), groups = (N + R - 1) // R
    if N * C <= ALONE:
        for k in range(groups):
            _forward(min(R, N - k * R), C, x + k * R * C, y + k * R * C)
    else:
        for k in prange(groups, nogil=True):
            _forward(min(R, N - k * R), C, x + k * R * C, y + k * R * C)


cdef void _forward(Py_ssize_t rows, Py_ssize_t C, const floating *x, floating *y) noexcept nogil:
    cdef Py_ssize_t i, c
    cdef floating top[ROWS]
    cdef floating log_total[ROWS]
    log_sum_exp(rows, C, x, C, top, log_total)
    for i in range(rows):
        for c in range(i * C, (i + 1) * C):
            y[c] = x[c] - top[i] - log_total[i]


def backward_rows(dy, y, dx):
    cdef Rows r = rows(y)
    cdef const char *down = reads(dy, r.N * r.C, r.unit)
    cdef char *out = writes(dx, r.N * r.C, r.unit)
    if r.kind == b"f":
        _backward_rows(r.N, r.C, <const float *> down, <const float *> r.at, <float *> out)
    else:
        _backward_rows(r.N, r.C, <const double *> down, <const double *> r.at, <double *> out)


cdef void _backward_rows(Py_ssize_t N, Py_ssize_t C, const floating *dy, const floating *y, floating *dx) noexcept:
    cdef Py_ssize_t k, R = rows_together(C), groups = (N + R - 1) // R
    if N * C <= ALONE:
        for k in range(groups):
            _backward(min(R, N - k * R), C, dy + k * R * C, y + k * R * C, dx + k * R * C)
    else:
        for k in prange(groups, nogil=True):
            _backward(min(R, N - k * R), C, dy + k * R * C, y + k * R * C, dx + k * R * C)


cdef void _backward(Py_ssize_t rows, Py_ssize_t C, const floating *dy, const floating *y,
                    floating *dx) noexcept nogil:
    cdef Py_ssize_t i, c
    cdef floating total[ROWS]
    for i in range(rows):
        total[i] = <floating> sum(C, dy + i * C)
    for i in range(rows):
        if _all_masked(C, y + i * C):
            for c in range(i * C, (i + 1) * C):
                dx[c] = 0
        else:
            for c in range(i * C, (i + 1) * C):
                dx[c] = dy[c] - exp(y[c]) * total[i]


cdef bint _all_masked(Py_ssize_t C, const floating *y) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(C):
        if y[c] != -INFINITY:
            return False
    return True
