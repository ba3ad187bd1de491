# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loop of dropout, for Cython: four elements to a counter, the counters of a chunk side by side in vectors.

The mathematics and the names are those of dropout.py.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport uint32_t, uint64_t

from ..arrays cimport Rows, rows, writes

cdef extern from "philox.h" nogil:
    void philox(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                uint32_t*, uint32_t*, uint32_t*, uint32_t*)

cdef enum:
    CHUNK = 1024  # elements drawn together
    ALONE = 8192  # fewer elements are not worth a second thread


def drop(x, uint32_t threshold, double scale, uint64_t seed, y):
    cdef Rows r = rows(x)
    cdef char *out = writes(y, r.N * r.C, r.unit)
    if r.kind == b"f":
        _drop(r.N * r.C, <const float *> r.at, threshold, <float> scale, seed, <float *> out)
    else:
        _drop(r.N * r.C, <const double *> r.at, threshold, scale, seed, <double *> out)


cdef void _drop(Py_ssize_t N, const floating *x, uint32_t threshold, floating scale, uint64_t seed,
                floating *y) noexcept:
    cdef Py_ssize_t k, chunks = (N + CHUNK - 1) // CHUNK
    if N <= ALONE:
        for k in range(chunks):
            _drop_chunk(k, min(<Py_ssize_t> CHUNK, N - k * CHUNK), x + k * CHUNK, threshold, scale, seed,
                        y + k * CHUNK)
    else:
        for k in prange(chunks, nogil=True):
            _drop_chunk(k, min(<Py_ssize_t> CHUNK, N - k * CHUNK), x + k * CHUNK, threshold, scale, seed,
                        y + k * CHUNK)


cdef void _drop_chunk(Py_ssize_t k, Py_ssize_t n, const floating *x, uint32_t threshold, floating scale, uint64_t seed,
                      floating *y) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint64_t counter = <uint64_t> k * (CHUNK // 4)  # 2³² is a multiple of a chunk's counters: one upper half
    cdef uint32_t low = <uint32_t> counter, high = <uint32_t> (counter >> 32)
    cdef uint32_t k0 = <uint32_t> seed, k1 = <uint32_t> (seed >> 32)
    cdef uint32_t words[CHUNK]
    for i in range((n + 3) // 4):
        philox(low + <uint32_t> i, high, 0, 0, k0, k1, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
               &words[4 * i + 3])
    for i in range(n):
        y[i] = x[i] * (scale if words[i] >= threshold else 0)
