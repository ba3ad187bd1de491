# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of linear, for Cython: the products (gemm.h), and the gradient of the bias, summed over chunks of rows."""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdlib cimport free

from ..arrays cimport Grid, Matrix, Rows, add_up, grid, matrix, reads, rows, writes, zeros

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


def product(a, b, c, bias, bint add, bint turned=False):
    """Write a b + bias into c, or add it to what is there; ``turned``: aᵀ b.  All axes but the last are rows.

    a (M, K), or (K, M) if it is turned, and b (K, N) lie anywhere, and so may the rows of c (M, N).  No side is empty;
    bias may be None.  Return whether it was done: not where the rows of one of them lie at unequal distances, or
    its numbers at broken addresses.
    """
    cdef Matrix x = matrix(a, False), y = matrix(b, False), z = matrix(c, True)
    cdef Py_ssize_t unit = x.unit, N = y.C, M, K
    cdef const char *shift = reads(bias, N, unit)
    cdef int failed
    if turned:
        x.N, x.C, x.row, x.column = x.C, x.N, x.column, x.row
    M, K = x.N, x.C
    if y.kind != x.kind or z.kind != x.kind or y.N != K or z.N != M or z.C != N:
        raise TypeError(f"linear: a (M, K), b (K, N) and c (M, N) of one dtype; got {a.dtype} {a.shape}, {b.dtype} "
                        f"{b.shape} and {c.dtype} {c.shape}")
    if not (x.fits and y.fits and z.fits):
        return False
    if N > 1 and z.column != unit:
        raise ValueError(f"linear: rows of c lie in one piece each; got strides {c.strides}")
    with nogil:
        if x.kind == b"f":
            failed = gemm_f(M, N, K, <float *> x.at, x.row // unit, x.column // unit, <float *> y.at, y.row // unit,
                            y.column // unit, <float *> z.at, z.row // unit, <const float *> shift, add)
        else:
            failed = gemm_d(M, N, K, <double *> x.at, x.row // unit, x.column // unit, <double *> y.at, y.row // unit,
                            y.column // unit, <double *> z.at, z.row // unit, <const double *> shift, add)
    if failed:
        raise MemoryError("linear: no memory for a copy of some columns")
    return True


def add_bias(y, b):
    """Add b to every row of y; rows may lie apart."""
    cdef Grid r = grid(y, True)
    if r.shape[3] > 1 and r.strides[3] != r.unit:
        raise ValueError(f"linear: rows of y lie in one piece each; got strides {y.strides}")
    _add_bias(r, reads(b, r.shape[3], r.unit))


cdef void _add_bias(Grid y, const char *b) noexcept:
    cdef Py_ssize_t n, F = y.shape[3], N = y.shape[2] if F else 0
    if N * F <= ENOUGH:  # a team of one costs as much as a small op
        for n in range(N):
            _add(F, y.kind, y.at + n * y.strides[2], b)
    else:
        for n in prange(N, nogil=True, schedule="static"):
            _add(F, y.kind, y.at + n * y.strides[2], b)


cdef void _add(Py_ssize_t F, char kind, char *to, const char *x) noexcept nogil:
    cdef Py_ssize_t f
    if kind == b"f":
        for f in range(F):
            (<float *> to)[f] += (<const float *> x)[f]
    else:
        for f in range(F):
            (<double *> to)[f] += (<const double *> x)[f]


def sum_rows(dy, Py_ssize_t chunks, db):
    """db is the sum of the rows of dy, made in chunks."""
    cdef Rows r = rows(dy)
    cdef char *to = writes(db, r.C, r.unit)
    cdef char *sums = zeros(chunks * r.C, r.unit)
    _sum_rows(r, chunks, sums)
    add_up(sums, chunks, r.C, r.kind, to)
    free(sums)


cdef void _sum_rows(Rows dy, Py_ssize_t chunks, char *db) noexcept:
    cdef Py_ssize_t k
    if chunks == 1:
        _sum_chunk(0, 1, dy, db)
    else:
        for k in prange(chunks, nogil=True, schedule="static"):
            _sum_chunk(k, chunks, dy, db)


cdef void _sum_chunk(Py_ssize_t k, Py_ssize_t chunks, Rows dy, char *db) noexcept nogil:
    cdef Py_ssize_t n = k * dy.N // chunks, end = (k + 1) * dy.N // chunks if dy.C else n
    if dy.kind == b"f":
        _sum(n, end, dy.C, <const float *> dy.at, <float *> db + k * dy.C)
    else:
        _sum(n, end, dy.C, <const double *> dy.at, <double *> db + k * dy.C)


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
