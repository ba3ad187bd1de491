# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of cross_entropy, for Cython: z is read once from memory in each direction.

The mathematics and the names are those of cross_entropy.py.  The gradient may be written over z.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int64_t

from ..arrays cimport Grid, Rows, grid, reads, rows, writes
from ..rows cimport ROWS, log_sum_exp, pull, rows_together, sum

cdef enum:
    ALONE = 8192  # arrays of fewer numbers are not worth a second thread
    NONE = -1  # no target, so that no row is left out


def forward_rows(z, target, int64_t ignore_index, double label_smoothing, loss, L):
    """Return the sum of the losses, taken in order, and how many rows count."""
    cdef Rows r = rows(z)
    cdef Py_ssize_t i, counted = 0
    cdef double total = 0
    cdef const int64_t *t = <const int64_t *> reads(target, r.N, sizeof(int64_t))
    cdef char *losses = writes(loss, r.N, r.unit)
    cdef char *logs = writes(L, r.N, r.unit)
    if r.kind == b"f":
        _forward_rows(r.N, r.C, <const float *> r.at, t, ignore_index, label_smoothing, <float *> losses,
                      <float *> logs)
    else:
        _forward_rows(r.N, r.C, <const double *> r.at, t, ignore_index, label_smoothing, <double *> losses,
                      <double *> logs)
    for i in range(r.N):
        counted += t[i] != ignore_index
        total += (<float *> losses)[i] if r.kind == b"f" else (<double *> losses)[i]
    return total, counted


cdef void _forward_rows(Py_ssize_t N, Py_ssize_t V, const floating *z, const int64_t *t, int64_t ignore_index,
                        double label_smoothing, floating *loss, floating *L) noexcept:
    cdef Py_ssize_t k, R = rows_together(V), groups = (N + R - 1) // R
    if N * V <= ALONE:
        for k in range(groups):
            _forward(min(R, N - k * R), V, z + k * R * V, V, t + k * R, ignore_index, label_smoothing, loss + k * R,
                     L + k * R)
    else:
        for k in prange(groups, nogil=True):
            _forward(min(R, N - k * R), V, z + k * R * V, V, t + k * R, ignore_index, label_smoothing, loss + k * R,
                     L + k * R)


cdef void _forward(Py_ssize_t rows, Py_ssize_t V, const floating *z, Py_ssize_t apart, const int64_t *t,
                   int64_t ignore_index, double label_smoothing, floating *loss, floating *L) noexcept nogil:
    """Rows of z are ``apart`` numbers from one to the next."""
    cdef Py_ssize_t i, start = 0, end
    cdef floating top[ROWS]
    cdef floating log_total[ROWS]
    cdef double one
    while start < rows:
        end = start
        while end < rows and t[end] != ignore_index:
            end += 1
        if end > start:
            log_sum_exp(end - start, V, z + start * apart, apart, top, log_total)
        for i in range(start, end):
            one = <double> top[i - start] + log_total[i - start]
            L[i] = <floating> one
            one -= (1 - label_smoothing) * z[i * apart + t[i]]
            if label_smoothing:
                one -= label_smoothing / V * sum(V, z + i * apart)
            loss[i] = <floating> one
        if end < rows:
            loss[end] = L[end] = 0
        start = end + 1


def backward_rows(z, target, L, w, int64_t ignore_index, double label_smoothing, dz):
    """w has one number for each row, or one for all."""
    cdef Rows r = rows(z)
    cdef Py_ssize_t each = w.size
    cdef const int64_t *t = <const int64_t *> reads(target, r.N, sizeof(int64_t))
    cdef const char *logs = reads(L, r.N, r.unit)
    cdef const char *weights = reads(w, each if each == 1 else r.N, r.unit)
    cdef char *out = writes(dz, r.N * r.C, r.unit)
    if r.kind == b"f":
        _backward_rows(r.N, r.C, <const float *> r.at, t, <const float *> logs, each > 1, <const float *> weights,
                       ignore_index, label_smoothing, <float *> out)
    else:
        _backward_rows(r.N, r.C, <const double *> r.at, t, <const double *> logs, each > 1, <const double *> weights,
                       ignore_index, label_smoothing, <double *> out)


cdef void _backward_rows(Py_ssize_t N, Py_ssize_t V, const floating *z, const int64_t *t, const floating *L,
                         bint each, const floating *w, int64_t ignore_index, double label_smoothing,
                         floating *dz) noexcept:
    cdef Py_ssize_t i
    if N * V <= ALONE:
        for i in range(N):
            _backward_row(V, z + i * V, t[i], L[i], w[i if each else 0], ignore_index, label_smoothing, dz + i * V)
    else:
        for i in prange(N, nogil=True):
            _backward_row(V, z + i * V, t[i], L[i], w[i if each else 0], ignore_index, label_smoothing, dz + i * V)


cdef void _backward_row(Py_ssize_t V, const floating *z, int64_t t, floating L, floating w, int64_t ignore_index,
                        double label_smoothing, floating *dz) noexcept nogil:
    cdef Py_ssize_t c
    if t == ignore_index:
        for c in range(V):
            dz[c] = 0
        return
    pull(V, z, L, w, <floating> (label_smoothing / V), dz)
    dz[t] -= w * <floating> (1 - label_smoothing)


def loss_and_gradient(z, target, double label_smoothing, double w, loss, bint gradient):
    """Write the loss of every row, all of which count, and with ``gradient`` w times its gradient over the row.

    Rows of z may lie apart.  A row's gradient is made while a cache still holds it.
    """
    cdef Grid r = grid(z, True)
    cdef Py_ssize_t N = r.shape[2], V = r.shape[3], apart = r.strides[2] // r.unit
    cdef const int64_t *t = <const int64_t *> reads(target, N, sizeof(int64_t))
    cdef char *losses = writes(loss, N, r.unit)
    if V > 1 and r.strides[3] != r.unit:
        raise ValueError(f"compiled loops need rows of which each lies in one piece; got strides {z.strides}")
    if r.kind == b"f":
        _loss_and_gradient(N, V, <float *> r.at, apart, t, label_smoothing, w, <float *> losses, gradient)
    else:
        _loss_and_gradient(N, V, <double *> r.at, apart, t, label_smoothing, w, <double *> losses, gradient)


cdef void _loss_and_gradient(Py_ssize_t N, Py_ssize_t V, floating *z, Py_ssize_t apart, const int64_t *t,
                             double label_smoothing, double w, floating *loss, bint gradient) noexcept:
    cdef Py_ssize_t k, R = rows_together(V), groups = (N + R - 1) // R
    for k in prange(groups, nogil=True, use_threads_if=N * V > ALONE):
        _both(min(R, N - k * R), V, z + k * R * apart, apart, t + k * R, label_smoothing, w, loss + k * R, gradient)


cdef void _both(Py_ssize_t rows, Py_ssize_t V, floating *z, Py_ssize_t apart, const int64_t *t, double label_smoothing,
                double w, floating *loss, bint gradient) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating L[ROWS]
    _forward(rows, V, <const floating *> z, apart, t, NONE, label_smoothing, loss, L)
    for i in range(rows if gradient else 0):
        _backward_row(V, <const floating *> z + i * apart, t[i], L[i], <floating> w, NONE, label_smoothing, z + i * apart)
