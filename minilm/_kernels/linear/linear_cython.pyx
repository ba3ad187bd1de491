# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of linear, for Cython: the products (gemm.h), and the gradient of the bias, summed over chunks of rows."""

from cython cimport floating
from cython.parallel cimport prange

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


def product(const floating[:, :] a, const floating[:, :] b, floating[:, ::1] c, const floating[::1] bias, bint add):
    """Write a b + bias into c, or add it to what is there, and return True; or return False, and do nothing, where a
    stride is no multiple of a number's size.  No side may be empty; a bias of length 0 is none.
    """
    cdef Py_ssize_t M = c.shape[0], N = c.shape[1], K = a.shape[1], unit = sizeof(floating)
    cdef Py_ssize_t a_row = a.strides[0] // unit, a_col = a.strides[1] // unit
    cdef Py_ssize_t b_row = b.strides[0] // unit, b_col = b.strides[1] // unit
    cdef const floating *shift = &bias[0] if bias.shape[0] else NULL
    cdef int failed
    if (a.strides[0] | a.strides[1] | b.strides[0] | b.strides[1]) & (unit - 1):
        return False
    with nogil:
        if floating is float:
            failed = gemm_f(M, N, K, &a[0, 0], a_row, a_col, &b[0, 0], b_row, b_col, &c[0, 0], N, shift, add)
        else:
            failed = gemm_d(M, N, K, &a[0, 0], a_row, a_col, &b[0, 0], b_row, b_col, &c[0, 0], N, shift, add)
    if failed:
        raise MemoryError("linear: no memory for a copy of some columns")
    return True


def add_bias(floating[:, ::1] y, const floating[::1] b):
    cdef Py_ssize_t n, N = y.shape[0], F = y.shape[1]
    if F == 0:
        return
    for n in prange(N, nogil=True, schedule="static"):
        _add(F, &b[0], &y[n, 0])


cdef void _add(Py_ssize_t F, const floating *b, floating *y) noexcept nogil:
    cdef Py_ssize_t f
    for f in range(F):
        y[f] += b[f]


def sum_rows(const floating[:, ::1] dy, floating[:, ::1] db):
    """Add to each row of db the rows of one chunk of dy."""
    cdef Py_ssize_t k, chunks = db.shape[0], N = dy.shape[0], F = dy.shape[1]
    for k in prange(chunks if N * F else 0, nogil=True, schedule="static", use_threads_if=chunks > 1):
        _sum(k * N // chunks, (k + 1) * N // chunks, F, &dy[0, 0], &db[k, 0])


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
