# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of log_softmax, for Cython: a few rows at a time, which stay in the cache from their first pass to their last.

The mathematics and the names are those of log_softmax.py.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY

from ..rows cimport ROWS, exp, log_sum_exp, rows_together, sum

cdef enum:
    ALONE = 8192  # arrays of fewer numbers are not worth a second thread


def forward_rows(const floating[:, ::1] x, floating[:, ::1] y):
    cdef Py_ssize_t k, N = x.shape[0], C = x.shape[1], R = rows_together(C)
    for k in prange((N + R - 1) // R, nogil=True, use_threads_if=N * C > ALONE):
        _forward(min(R, N - k * R), C, &x[k * R, 0], &y[k * R, 0])


cdef void _forward(Py_ssize_t rows, Py_ssize_t C, const floating *x, floating *y) noexcept nogil:
    cdef Py_ssize_t i, c
    cdef floating top[ROWS]
    cdef floating log_total[ROWS]
    log_sum_exp(rows, C, x, top, log_total)
    for i in range(rows):
        for c in range(i * C, (i + 1) * C):
            y[c] = x[c] - top[i] - log_total[i]


def backward_rows(const floating[:, ::1] dy, const floating[:, ::1] y, floating[:, ::1] dx):
    cdef Py_ssize_t k, N = y.shape[0], C = y.shape[1], R = rows_together(C)
    for k in prange((N + R - 1) // R, nogil=True, use_threads_if=N * C > ALONE):
        _backward(min(R, N - k * R), C, &dy[k * R, 0], &y[k * R, 0], &dx[k * R, 0])


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
