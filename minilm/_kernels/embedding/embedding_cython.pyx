# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of embedding, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of embedding.py.  Going back, a thread owns some columns and not some rows: each
number of dw is summed by one thread, in the order of the places.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int64_t
from libc.string cimport memcpy

cdef enum:
    STRIPE = 64  # columns that one thread takes at a time: whole cache lines
    ENOUGH = 16384  # elements below which a second thread costs more than it saves


def gather(const floating[:, ::1] w, const int64_t[::1] ids, floating[:, ::1] y):
    cdef Py_ssize_t i, N = ids.shape[0], C = w.shape[1]
    for i in prange(N if C else 0, nogil=True, schedule="static", use_threads_if=N * C > ENOUGH):
        memcpy(&y[i, 0], &w[ids[i], 0], C * sizeof(floating))


def scatter_add(const floating[:, ::1] dy, const int64_t[::1] ids, int64_t padding_idx, floating[:, ::1] dw):
    cdef Py_ssize_t k, N = ids.shape[0], C = dw.shape[1]
    for k in prange((C + STRIPE - 1) // STRIPE, nogil=True, schedule="static", use_threads_if=N * C > ENOUGH):
        _scatter_stripe(k * STRIPE, min(STRIPE, C - k * STRIPE), dy, ids, padding_idx, dw)


cdef void _scatter_stripe(Py_ssize_t begin, Py_ssize_t size, const floating[:, ::1] dy, const int64_t[::1] ids,
                          int64_t padding_idx, floating[:, ::1] dw) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(ids.shape[0]):
        if ids[i] != padding_idx:
            _add(size, &dy[i, begin], &dw[ids[i], begin])


cdef void _add(Py_ssize_t size, const floating *dy, floating *dw) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(size):
        dw[c] += dy[c]
