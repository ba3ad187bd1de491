# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of cross_entropy, for Cython: z is read once from memory in each direction.

The mathematics and the names are those of cross_entropy.py.  The gradient may be written over z.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int64_t

from ..rows cimport ROWS, log_sum_exp, pull, rows_together, sum

cdef enum:
    ALONE = 8192  # arrays of fewer numbers are not worth a second thread


def forward_rows(const floating[:, ::1] z, const int64_t[::1] target, int64_t ignore_index, double label_smoothing,
                 floating[::1] loss, floating[::1] L):
    cdef Py_ssize_t k, N = z.shape[0], V = z.shape[1], R = rows_together(V)
    for k in prange((N + R - 1) // R, nogil=True, use_threads_if=N * V > ALONE):
        _forward(min(R, N - k * R), V, &z[k * R, 0], &target[k * R], ignore_index, label_smoothing,
                 &loss[k * R], &L[k * R])


cdef void _forward(Py_ssize_t rows, Py_ssize_t V, const floating *z, const int64_t *t, int64_t ignore_index,
                   double label_smoothing, floating *loss, floating *L) noexcept nogil:
    cdef Py_ssize_t i, start = 0, end
    cdef floating top[ROWS]
    cdef floating log_total[ROWS]
    cdef double one
    while start < rows:
        end = start
        while end < rows and t[end] != ignore_index:
            end += 1
        if end > start:
            log_sum_exp(end - start, V, z + start * V, top, log_total)
        for i in range(start, end):
            one = <double> top[i - start] + log_total[i - start]
            L[i] = <floating> one
            one -= (1 - label_smoothing) * z[i * V + t[i]]
            if label_smoothing:
                one -= label_smoothing / V * sum(V, z + i * V)
            loss[i] = <floating> one
        if end < rows:
            loss[end] = L[end] = 0
        start = end + 1


def backward_rows(const floating[:, ::1] z, const int64_t[::1] target, const floating[::1] L, const floating[::1] w,
                  int64_t ignore_index, double label_smoothing, floating[:, ::1] dz):
    cdef Py_ssize_t i, N = z.shape[0], V = z.shape[1]
    for i in prange(N, nogil=True, use_threads_if=N * V > ALONE):
        _backward_row(V, &z[i, 0], target[i], L[i], w[i], ignore_index, label_smoothing, &dz[i, 0])


cdef void _backward_row(Py_ssize_t V, const floating *z, int64_t t, floating L, floating w, int64_t ignore_index,
                        double label_smoothing, floating *dz) noexcept nogil:
    cdef Py_ssize_t c
    if t == ignore_index:
        for c in range(V):
            dz[c] = 0
        return
    pull(V, z, L, w, <floating> (label_smoothing / V), dz)
    dz[t] -= w * <floating> (1 - label_smoothing)
