# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loop of rotary, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of rotary.py; ``sign`` is -1 in the backward.
"""

from cython cimport floating
from cython.parallel cimport prange

from ..arrays cimport Grid, grid

cdef enum:
    ENOUGH = 16384  # elements below which a second thread costs more than it saves


def turn(x, cos, sin, double sign, bint interleaved, y):
    _turn_rows(grid(x, False), grid(cos, False), grid(sin, False), sign, interleaved, grid(y, True))


cdef void _turn_rows(Grid x, Grid cos, Grid sin, double sign, bint interleaved, Grid y) noexcept:
    cdef Py_ssize_t w, rows = x.shape[0] * x.shape[1] * x.shape[2] if x.shape[3] else 0
    if rows * x.shape[3] <= ENOUGH:
        for w in range(rows):
            _turn_row(w, x, cos, sin, sign, interleaved, y)
    else:
        for w in prange(rows, nogil=True, schedule="static"):
            _turn_row(w, x, cos, sin, sign, interleaved, y)


cdef void _turn_row(Py_ssize_t w, Grid x, Grid cos, Grid sin, double sign, bint interleaved, Grid y) noexcept nogil:
    cdef Py_ssize_t D = x.shape[3], half = cos.shape[3]
    cdef Py_ssize_t t = w % x.shape[2], h = w // x.shape[2] % x.shape[1], b = w // x.shape[2] // x.shape[1]
    if x.kind == b"f":
        _turn(D, half, <const float *> _row(b, h, t, x), <const float *> _row(b, h, t, cos),
              <const float *> _row(b, h, t, sin), <float> sign, interleaved, <float *> _row(b, h, t, y))
    else:
        _turn(D, half, <const double *> _row(b, h, t, x), <const double *> _row(b, h, t, cos),
              <const double *> _row(b, h, t, sin), sign, interleaved, <double *> _row(b, h, t, y))


cdef inline char *_row(Py_ssize_t b, Py_ssize_t h, Py_ssize_t t, Grid a) noexcept nogil:
    return a.at + b * a.strides[0] + h * a.strides[1] + t * a.strides[2]


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
