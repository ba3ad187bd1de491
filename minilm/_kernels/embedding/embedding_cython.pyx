# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of embedding, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of embedding.py.  Going back, a thread owns some columns and not some rows: each
number of dw is summed by one thread, in the order of the places.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from ..arrays cimport Rows, reads, rows, writes

cdef enum:
    STRIPE = 64  # columns that one thread takes at a time: whole cache lines
    ENOUGH = 16384  # elements below which a second thread costs more than it saves
    CLEARED = 65536  # bytes, about, that one thread clears at a time


def gather(w, ids, y):
    cdef Rows r = rows(w)
    cdef Py_ssize_t N = ids.size
    _gather(N, r.C * r.unit, r.at, <const int64_t *> reads(ids, N, sizeof(int64_t)), writes(y, N * r.C, r.unit),
            N * r.C > ENOUGH)


cdef void _gather(Py_ssize_t N, Py_ssize_t row, const char *w, const int64_t *ids, char *y, bint shared) noexcept:
    cdef Py_ssize_t i
    if not shared:
        for i in range(N):
            memcpy(y + i * row, w + ids[i] * row, row)
    else:
        for i in prange(N, nogil=True, schedule="static"):
            memcpy(y + i * row, w + ids[i] * row, row)


def clear(dw):
    cdef Rows r = rows(dw)
    _clear(r.N, r.C * r.unit, writes(dw, r.N * r.C, r.unit))


cdef void _clear(Py_ssize_t N, Py_ssize_t row, char *dw) noexcept:
    cdef Py_ssize_t k, each = max(1, CLEARED // max(1, row)), chunks = (N + each - 1) // each
    if chunks == 1:
        memset(dw, 0, N * row)
        return
    for k in prange(chunks, nogil=True, schedule="static"):
        memset(dw + k * each * row, 0, min(each, N - k * each) * row)


def scatter_add(dy, ids, int64_t padding_idx, dw):
    cdef Rows r = rows(dw)
    cdef Py_ssize_t N = ids.size
    cdef char *to = writes(dw, r.N * r.C, r.unit)
    cdef const char *down = reads(dy, N * r.C, r.unit)
    cdef const int64_t *places = <const int64_t *> reads(ids, N, sizeof(int64_t))
    if r.kind == b"f":
        _scatter(N, r.C, <const float *> down, places, padding_idx, <float *> to)
    else:
        _scatter(N, r.C, <const double *> down, places, padding_idx, <double *> to)


cdef void _scatter(Py_ssize_t N, Py_ssize_t C, const floating *dy, const int64_t *ids, int64_t padding_idx,
                   floating *dw) noexcept:
    cdef Py_ssize_t k
    if N * C <= ENOUGH:
        _scatter_stripe(0, C, N, C, dy, ids, padding_idx, dw)
        return
    for k in prange((C + STRIPE - 1) // STRIPE, nogil=True, schedule="static"):
        _scatter_stripe(k * STRIPE, min(STRIPE, C - k * STRIPE), N, C, dy, ids, padding_idx, dw)


cdef void _scatter_stripe(Py_ssize_t begin, Py_ssize_t size, Py_ssize_t N, Py_ssize_t C, const floating *dy,
                          const int64_t *ids, int64_t padding_idx, floating *dw) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(N):
        if ids[i] != padding_idx:
            _add(size, dy + i * C + begin, dw + ids[i] * C + begin)


cdef void _add(Py_ssize_t size, const floating *dy, floating *dw) noexcept nogil:
    cdef Py_ssize_t c
    for c in range(size):
        dw[c] += dy[c]
