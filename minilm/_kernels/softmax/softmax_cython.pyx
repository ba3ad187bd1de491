# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of softmax, for Cython: one row at a time, which stays in the cache from its first pass to its last.

The mathematics and the names are those of softmax.py.  A row is summed in ``LANES`` partial sums, so that it vectorises,
and every ``PART`` numbers these go into a double, so that a long row loses nothing.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY

cdef extern from "vecmath.h" nogil:
    float vm_expf(float)
    double vm_exp(double)

cdef enum:
    LANES = 16
    PART = 1024
    ALONE = 8192  # arrays of fewer numbers are not worth a second thread


def forward_rows(const floating[:, ::1] x, floating[:, ::1] y):
    cdef Py_ssize_t i, N = x.shape[0], C = x.shape[1]
    for i in prange(N, nogil=True, use_threads_if=N * C > ALONE):
        _forward_row(C, &x[i, 0], &y[i, 0])


cdef void _forward_row(Py_ssize_t C, const floating *x, floating *y) noexcept nogil:
    cdef Py_ssize_t c
    cdef floating top = _max(C, x), scale
    cdef double total
    if top == -INFINITY:
        top = 0
    for c in range(C):
        y[c] = _exp(x[c] - top)
    total = _sum(C, y)
    scale = <floating> (1 / total if total else 0)
    for c in range(C):
        y[c] *= scale


def backward_rows(const floating[:, ::1] dy, const floating[:, ::1] y, floating[:, ::1] dx):
    cdef Py_ssize_t i, N = y.shape[0], C = y.shape[1]
    for i in prange(N, nogil=True, use_threads_if=N * C > ALONE):
        _backward_row(C, &dy[i, 0], &y[i, 0], &dx[i, 0])


cdef void _backward_row(Py_ssize_t C, const floating *dy, const floating *y, floating *dx) noexcept nogil:
    cdef Py_ssize_t c
    cdef floating mean = <floating> _dot(C, dy, y)
    for c in range(C):
        dx[c] = y[c] * (dy[c] - mean)


cdef floating _max(Py_ssize_t C, const floating *x) noexcept nogil:
    cdef Py_ssize_t c, l, whole = C // LANES * LANES
    cdef floating top[LANES]
    for l in range(LANES):
        top[l] = -INFINITY
    for c in range(0, whole, 16):  # LANES
        for l in range(LANES):
            top[l] = x[c + l] if x[c + l] > top[l] else top[l]
    for c in range(whole, C):
        top[0] = x[c] if x[c] > top[0] else top[0]
    for l in range(8):
        top[l] = top[l + 8] if top[l + 8] > top[l] else top[l]
    for l in range(4):
        top[l] = top[l + 4] if top[l + 4] > top[l] else top[l]
    top[0] = top[2] if top[2] > top[0] else top[0]
    top[1] = top[3] if top[3] > top[1] else top[1]
    return top[1] if top[1] > top[0] else top[0]


cdef double _sum(Py_ssize_t C, const floating *x) noexcept nogil:
    cdef Py_ssize_t c, l, start, whole
    cdef floating lanes[LANES]
    cdef double total = 0
    for start in range(0, C, 1024):  # PART
        whole = start + min(C - start, <Py_ssize_t> PART) // LANES * LANES
        for l in range(LANES):
            lanes[l] = 0
        for c in range(start, whole, 16):  # LANES
            for l in range(LANES):
                lanes[l] += x[c + l]
        for c in range(whole, min(start + PART, C)):
            lanes[0] += x[c]
        for l in range(8):
            lanes[l] += lanes[l + 8]
        for l in range(4):
            lanes[l] += lanes[l + 4]
        total += <double> (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
    return total


cdef double _dot(Py_ssize_t C, const floating *a, const floating *b) noexcept nogil:
    cdef Py_ssize_t c, l, start, whole
    cdef floating lanes[LANES]
    cdef double total = 0
    for start in range(0, C, 1024):  # PART
        whole = start + min(C - start, <Py_ssize_t> PART) // LANES * LANES
        for l in range(LANES):
            lanes[l] = 0
        for c in range(start, whole, 16):  # LANES
            for l in range(LANES):
                lanes[l] += a[c + l] * b[c + l]
        for c in range(whole, min(start + PART, C)):
            lanes[0] += a[c] * b[c]
        for l in range(8):
            lanes[l] += lanes[l + 8]
        for l in range(4):
            lanes[l] += lanes[l + 4]
        total += <double> (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
    return total


cdef inline floating _exp(floating x) noexcept nogil:
    if floating is float:
        return vm_expf(x)
    else:
        return vm_exp(x)
