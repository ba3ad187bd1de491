# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of rms_norm, for Cython.  What is done with one row is in norm_rows.h, for layer_norm too.

The mathematics and the names are those of rms_norm.py.
"""

from cython cimport floating
from cython.parallel cimport prange

cdef extern from * nogil:
    """
    #include <math.h>
    #include <stddef.h>
    #define REAL float
    #define NAME(x) x##_f
    #include "norm_rows.h"
    #undef REAL
    #undef NAME
    #define REAL double
    #define NAME(x) x##_d
    #include "norm_rows.h"
    #undef REAL
    #undef NAME
    """
    void forward_f(int, long, const float*, const float*, const float*, const float*, double,
                   float*, float*, float*, float*)
    void forward_d(int, long, const double*, const double*, const double*, const double*, double,
                   double*, double*, double*, double*)
    void backward_f(int, long, const float*, const float*, const float*, const float*, float, float,
                    float*, float*, float*)
    void backward_d(int, long, const double*, const double*, const double*, const double*, double, double,
                    double*, double*, double*)

cdef enum:
    CENTRED = 0
    ENOUGH = 8192  # elements below which a second thread costs more than it saves


def forward_rows(const floating[:, ::1] x, const floating[::1] w, double eps, floating[:, ::1] y, floating[::1] r):
    cdef Py_ssize_t i, N = x.shape[0], C = x.shape[1]
    for i in prange(N if C else 0, nogil=True, schedule="static", use_threads_if=N * C > ENOUGH):
        _forward_row(C, &x[i, 0], &w[0], eps, &y[i, 0], &r[i])


cdef void _forward_row(Py_ssize_t C, const floating *x, const floating *w, double eps,
                       floating *y, floating *r) noexcept nogil:
    if floating is float:
        forward_f(CENTRED, C, x, NULL, w, NULL, eps, NULL, y, NULL, r)
    else:
        forward_d(CENTRED, C, x, NULL, w, NULL, eps, NULL, y, NULL, r)


def backward_rows(const floating[:, ::1] dy, const floating[:, ::1] x, const floating[::1] w, const floating[::1] r,
                  floating[:, ::1] dx, floating[:, ::1] dw):
    cdef Py_ssize_t k, chunks = dw.shape[0], N = x.shape[0], C = x.shape[1]
    for k in prange(chunks if C else 0, nogil=True, schedule="static", use_threads_if=N * C > ENOUGH):
        _backward_chunk(k * N // chunks, (k + 1) * N // chunks, dy, x, w, r, dx, &dw[k, 0])


cdef void _backward_chunk(Py_ssize_t begin, Py_ssize_t end, const floating[:, ::1] dy, const floating[:, ::1] x,
                          const floating[::1] w, const floating[::1] r,
                          floating[:, ::1] dx, floating *dw) noexcept nogil:
    cdef Py_ssize_t i, C = x.shape[1]
    for i in range(begin, end):
        if floating is float:
            backward_f(CENTRED, C, NULL, &dy[i, 0], &x[i, 0], &w[0], 0, r[i], &dx[i, 0], dw, NULL)
        else:
            backward_d(CENTRED, C, NULL, &dy[i, 0], &x[i, 0], &w[0], 0, r[i], &dx[i, 0], dw, NULL)
