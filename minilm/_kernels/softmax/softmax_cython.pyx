# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of softmax, for Cython: a few rows at a time, which stay in the cache from their first pass to their last.

The mathematics and the names are those of softmax.py.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY

from ..rows cimport ROWS, dot, exp_row, largest, rows_together

cdef enum:
    ALONE = 8192  # arrays of fewer numbers are not worth a second thread


def forward_rows(const floating[:, ::1] x, floating[:, ::1] y):
    cdef Py_ssize_t k, N = x.shape[0], C = x.shape[1], R = rows_together(C)
    for k in prange((N + R - 1) // R, nogil=True, use_threads_if=N * C > ALONE):
        _forward(min(R, N - k * R), C, &x[k * R, 0], &y[k * R, 0])


cdef void _forward(Py_ssize_t rows, Py_ssize_t C, const floating *x, floating *y) noexcept nogil:
    cdef Py_ssize_t i, c
    cdef floating scale
    cdef floating top[ROWS]
    cdef double total[ROWS]
    for i in range(rows):
        top[i] = largest(C, x + i * C, <floating> -INFINITY)
    for i in range(rows):
        total[i] = exp_row(C, x + i * C, top[i] if top[i] > -INFINITY else 0, y + i * C)
    for i in range(rows):
        scale = <floating> (1 / total[i] if total[i] else 0)
        for c in range(i * C, (i + 1) * C):
            y[c] *= scale


def backward_rows(const floating[:, ::1] dy, const floating[:, ::1] y, floating[:, ::1] dx):
    cdef Py_ssize_t k, N = y.shape[0], C = y.shape[1], R = rows_together(C)
    for k in prange((N + R - 1) // R, nogil=True, use_threads_if=N * C > ALONE):
        _backward(min(R, N - k * R), C, &dy[k * R, 0], &y[k * R, 0], &dx[k * R, 0])


cdef void _backward(Py_ssize_t rows, Py_ssize_t C, const floating *dy, const floating *y,
                    floating *dx) noexcept nogil:
    cdef Py_ssize_t i, c
    cdef floating mean[ROWS]
    for i in range(rows):
        mean[i] = <floating> dot(C, dy + i * C, y + i * C)
    for i in range(rows):
        for c in range(i * C, (i + 1) * C):
            dx[c] = y[c] * (dy[c] - mean[i])
