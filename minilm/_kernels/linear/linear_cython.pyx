# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The one loop of linear, for Cython: the bias, added by all threads where the product has just been left in the cache.

The product itself is BLAS's, see linear.py.
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
