# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of linear, for Cython: the products (gemm.h), and the gradient of the bias, summed over chunks of rows."""

from cython cimport floating
from cython.parallel cimport prange

from ..arrays cimport Grid, Rows, grid, reads, rows, writes

cdef extern from * nogil:
    """
    #define REAL float
    #define NAME(x) x##_f
    #include "linear/gemm.h"
    #undef REAL
    #undef NAME
    #define REAL double
    #define NAME(x) x##_d
    #include "linear/gemm.h"
    #undef REAL
    #undef NAME
    """
    int HAS_GEMM
    int gemm_f(long, long, long, const float*, long, long, const float*, long, long, float*, long, const float*, int)
    int gemm_d(long, long, long, const double*, long, long, const double*, long, long, double*, long, const double*, int)

GEMM = bool(HAS_GEMM)  # whether ``product`` can be called


cdef enum:
    ENOUGH = 8192  # numbers below which a second thread costs more than it saves


def product(a, b, c, bias, bint add):
    """Write a b + bias into c, or add it to what is there.

    a (M, K) and b (K, N) lie anywhere, aligned; so may the rows of c (M, N).  No side is empty; bias may be None.
    """
    cdef Grid x = grid(a, False), y = grid(b, False), z = grid(c, True)
    cdef Py_ssize_t M = x.shape[2], K = x.shape[3], N = y.shape[3], unit = x.unit, apart = z.strides[2] // unit
    cdef const char *shift = reads(bias, N, unit)
    cdef int failed
    if y.kind != x.kind or z.kind != x.kind or y.shape[2] != K or z.shape[2] != M or z.shape[3] != N:
        raise TypeError(f"linear: a (M, K), b (K, N) and c (M, N) of one dtype; got {a.dtype} {a.shape}, {b.dtype} "
                        f"{b.shape} and {c.dtype} {c.shape}")
    if N > 1 and z.strides[3] != unit:
        raise ValueError(f"linear: rows of c lie in one piece each; got strides {c.strides}")
    with nogil:
        if x.kind == b"f":
            failed = gemm_f(M, N, K, <float *> x.at, x.strides[2] // unit, x.strides[3] // unit, <float *> y.at,
                            y.strides[2] // unit, y.strides[3] // unit, <float *> z.at, apart, <const float *> shift, add)
        else:
            failed = gemm_d(M, N, K, <double *> x.at, x.strides[2] // unit, x.strides[3] // unit, <double *> y.at,
                            y.strides[2] // unit, y.strides[3] // unit, <double *> z.at, apart, <const double *> shift,
                            add)
    if failed:
        raise MemoryError("linear: no memory for a copy of some columns")


def add_bias(y, b):
    """Add b to every row of y; rows may lie apart."""
    cdef Grid r = grid(y, True)
    if r.shape[3] > 1 and r.strides[3] != r.unit:
        raise ValueError(f"linear: rows of y lie in one piece each; got strides {y.strides}")
    _add_bias(r, reads(b, r.shape[3], r.unit))


cdef void _add_bias(Grid y, const char *b) noexcept:
    cdef Py_ssize_t n, F = y.shape[3]
    for n in prange(y.shape[2] if F else 0, nogil=True, schedule="static", use_threads_if=y.shape[2] * F > ENOUGH):
        _add(F, y.kind, y.at + n * y.strides[2], b)


cdef void _add(Py_ssize_t F, char kind, char *to, const char *x) noexcept nogil:
    cdef Py_ssize_t f
    if kind == b"f":
        for f in range(F):
            (<float *> to)[f] += (<const float *> x)[f]
    else:
        for f in range(F):
            (<double *> to)[f] += (<const double *> x)[f]


def sum_rows(dy, db):
    """Add to each row of db the rows of one chunk of dy."""
    cdef Rows r = rows(dy)
    cdef Py_ssize_t chunks = rows(db).N
    _sum_rows(r, chunks, writes(db, chunks * r.C, r.unit))


cdef void _sum_rows(Rows dy, Py_ssize_t chunks, char *db) noexcept:
    cdef Py_ssize_t k
    for k in prange(chunks if dy.N * dy.C else 0, nogil=True, schedule="static", use_threads_if=chunks > 1):
        if dy.kind == b"f":
            _sum(k * dy.N // chunks, (k + 1) * dy.N // chunks, dy.C, <const float *> dy.at, <float *> db + k * dy.C)
        else:
            _sum(k * dy.N // chunks, (k + 1) * dy.N // chunks, dy.C, <const double *> dy.at, <double *> db + k * dy.C)


cdef void _sum(Py_ssize_t n, Py_ssize_t end, Py_ssize_t F, const floating *dy, floating *db) noexcept nogil:
    """Eight rows at a time: a row of db would otherwise be read and written as often as dy is read."""
    cdef Py_ssize_t f
    cdef const floating *a
    cdef const floating *b
    while n < end:
        a, b = dy + n * F, dy + (n + 4) * F
        if n + 8 <= end:
            for f in range(F):
                db[f] += (((a[f] + a[F + f]) + (a[2 * F + f] + a[3 * F + f]))
                          + ((b[f] + b[F + f]) + (b[2 * F + f] + b[3 * F + f])))
            n += 8
        else:
            for f in range(F):
                db[f] += a[f]
            n += 1
