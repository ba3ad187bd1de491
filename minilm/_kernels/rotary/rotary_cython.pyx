# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loop of rotary, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of rotary.py; ``sign`` is -1 in the backward.
"""

from cython cimport floating
from cython.parallel cimport prange

cdef enum:
    ENOUGH = 16384  # elements below which a second thread costs more than it saves


def turn(const floating[:, :, :, :] x, const floating[:, :, :, :] cos, const floating[:, :, :, :] sin, double sign,
         bint interleaved, floating[:, :, :, :] y):
    cdef Py_ssize_t H = x.shape[1], T = x.shape[2], D = x.shape[3], half = cos.shape[3], w, b, h, t
    cdef Py_ssize_t rows = x.shape[0] * H * T if D else 0
    for w in prange(rows, nogil=True, schedule="static", use_threads_if=rows * D > ENOUGH):
        b = w // T // H
        h = w // T % H
        t = w % T
        _turn(D, half, &x[b, h, t, 0], _row(b, h, t, cos), _row(b, h, t, sin), <floating> sign, interleaved,
              &y[b, h, t, 0])


cdef inline const floating *_row(Py_ssize_t b, Py_ssize_t h, Py_ssize_t t,
                                 const floating[:, :, :, :] a) noexcept nogil:
    """Row (b, h, t) of a, whose axes may be 1 for all."""
    if a.shape[3] == 0:
        return NULL
    return &a[min(b, a.shape[0] - 1), min(h, a.shape[1] - 1), min(t, a.shape[2] - 1), 0]


cdef void _turn(Py_ssize_t D, Py_ssize_t half, const floating *x, const floating *cos, const floating *sin,
                floating sign, bint interleaved, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    if interleaved:
        for i in range(half):
            y[2 * i] = x[2 * i] * cos[i] - x[2 * i + 1] * (sign * sin[i])
            y[2 * i + 1] = x[2 * i + 1] * cos[i] + x[2 * i] * (sign * sin[i])
    else:
        for i in range(half):
            y[i] = x[i] * cos[i] - x[half + i] * (sign * sin[i])
            y[half + i] = x[half + i] * cos[i] + x[i] * (sign * sin[i])
    for i in range(2 * half, D):
        y[i] = x[i]
