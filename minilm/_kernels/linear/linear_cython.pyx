# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of linear, for Cython: the bias, added by all threads where the product has just been left in the cache, and
its gradient, summed over chunks of rows.

The products themselves are BLAS's, see linear.py.
"""

from cython cimport floating
from cython.parallel cimport prange


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
