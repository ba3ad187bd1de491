# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of rms_norm, for Cython.  What is done with one row is in norm_rows.h, for layer_norm too.

The mathematics and the names are those of rms_norm.py.
"""

from cython.parallel cimport prange
from libc.stdlib cimport free

from ..arrays cimport Rows, add_up, reads, rows, writes, zeros

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


def forward_rows(x, w, double eps, y, r):
    cdef Rows of = rows(x)
    _forward_rows(of, reads(w, of.C, of.unit), eps, writes(y, of.N * of.C, of.unit), writes(r, of.N, of.unit))


cdef void _forward_rows(Rows x, const char *w, double eps, char *y, char *r) noexcept:
    cdef Py_ssize_t i, N = x.N if x.C else 0
    if N * x.C <= ENOUGH:
        for i in range(N):
            _forward_row(i, x, w, eps, y, r)
    else:
        for i in prange(N, nogil=True, schedule="static"):
            _forward_row(i, x, w, eps, y, r)


cdef void _forward_row(Py_ssize_t i, Rows x, const char *w, double eps, char *y, char *r) noexcept nogil:
    cdef Py_ssize_t begin = i * x.C * x.unit
    if x.kind == b"f":
        forward_f(CENTRED, x.C, <const float *> (x.at + begin), NULL, <const float *> w, NULL, eps, NULL,
                  <float *> (y + begin), NULL, <float *> r + i)
    else:
        forward_d(CENTRED, x.C, <const double *> (x.at + begin), NULL, <const double *> w, NULL, eps, NULL,
                  <double *> (y + begin), NULL, <double *> r + i)


def backward_rows(dy, x, w, r, dx, Py_ssize_t chunks, dw):
    """dw, which may be None, is summed in chunks of rows."""
    cdef Rows of = rows(x)
    cdef Py_ssize_t size = of.N * of.C
    cdef const char *down = reads(dy, size, of.unit)
    cdef const char *scale = reads(w, of.C, of.unit)
    cdef const char *rstd = reads(r, of.N, of.unit)
    cdef char *out = writes(dx, size, of.unit)
    cdef char *of_w = writes(dw, of.C, of.unit)
    cdef char *sums = zeros(chunks * of.C, of.unit)
    _backward_rows(down, of, scale, rstd, out, chunks, sums)
    add_up(sums, chunks, of.C, of.kind, of_w)
    free(sums)


cdef void _backward_rows(const char *dy, Rows x, const char *w, const char *r, char *dx, Py_ssize_t chunks,
                         char *dw) noexcept:
    cdef Py_ssize_t k
    if x.N * x.C <= ENOUGH:
        for k in range(chunks):
            _backward_chunk(k, chunks, dy, x, w, r, dx, dw)
    else:
        for k in prange(chunks, nogil=True, schedule="static"):
            _backward_chunk(k, chunks, dy, x, w, r, dx, dw)


cdef void _backward_chunk(Py_ssize_t k, Py_ssize_t chunks, const char *dy, Rows x, const char *w, const char *r,
                          char *dx, char *dw) noexcept nogil:
    cdef Py_ssize_t i, begin, row = x.C * x.unit
    for i in range(k * x.N // chunks, (k + 1) * x.N // chunks if x.C else 0):
        begin = i * row
        if x.kind == b"f":
            backward_f(CENTRED, x.C, NULL, <const float *> (dy + begin), <const float *> (x.at + begin),
                       <const float *> w, 0, (<const float *> r)[i], <float *> (dx + begin), <float *> (dw + k * row),
                       NULL)
        else:
            backward_d(CENTRED, x.C, NULL, <const double *> (dy + begin), <const double *> (x.at + begin),
                       <const double *> w, 0, (<const double *> r)[i], <double *> (dx + begin),
                       <double *> (dw + k * row), NULL)
