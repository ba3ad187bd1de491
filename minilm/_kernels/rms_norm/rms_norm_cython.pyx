# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of rms_norm, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of rms_norm.py.  Sums along a row run in LANES parts, one for each place in a
vector register, and go into a double after every BLOCK entries, so that long rows stay exact.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport sqrt

cdef enum:
    LANES = 16
    BLOCK = 1024
    ENOUGH = 8192  # elements below which a second thread costs more than it saves


def forward_rows(const floating[:, ::1] x, const floating[::1] w, double eps, floating[:, ::1] y, floating[::1] r):
    cdef Py_ssize_t i, N = x.shape[0], C = x.shape[1]
    for i in prange(N if C else 0, nogil=True, schedule="static", use_threads_if=N * C > ENOUGH):
        _forward_row(C, &x[i, 0], &w[0], eps, &y[i, 0], &r[i])


cdef void _forward_row(Py_ssize_t C, const floating *x, const floating *w, double eps,
                       floating *y, floating *r) noexcept nogil:
    cdef Py_ssize_t c
    cdef floating scale = <floating>(1 / sqrt(_dot(C, x, x) / C + eps))
    for c in range(C):
        y[c] = x[c] * scale * w[c]
    r[0] = scale


def backward_rows(const floating[:, ::1] dy, const floating[:, ::1] x, const floating[::1] w, const floating[::1] r,
                  floating[:, ::1] dx, floating[:, ::1] dw):
    cdef Py_ssize_t k, chunks = dw.shape[0], N = x.shape[0], C = x.shape[1]
    for k in prange(chunks if C else 0, nogil=True, schedule="static", use_threads_if=N * C > ENOUGH):
        _backward_chunk(k * N // chunks, (k + 1) * N // chunks, dy, x, w, r, dx, &dw[k, 0])


cdef void _backward_chunk(Py_ssize_t begin, Py_ssize_t end, const floating[:, ::1] dy, const floating[:, ::1] x,
                          const floating[::1] w, const floating[::1] r,
                          floating[:, ::1] dx, floating *dw) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(begin, end):
        _backward_row(x.shape[1], &dy[i, 0], &x[i, 0], &w[0], r[i], &dx[i, 0], dw)


cdef void _backward_row(Py_ssize_t C, const floating *dy, const floating *x, const floating *w, floating r,
                        floating *dx, floating *dw) noexcept nogil:
    """dx holds g until the mean over the row is known.  One loop with two outputs would not be vectorised."""
    cdef Py_ssize_t c
    cdef floating mean_gn
    for c in range(C):
        dx[c] = dy[c] * w[c]
    for c in range(C):
        dw[c] += dy[c] * (x[c] * r)
    mean_gn = <floating>(_dot(C, <const floating *>dx, x) * r / C)
    for c in range(C):
        dx[c] = r * (dx[c] - x[c] * r * mean_gn)


cdef double _dot(Py_ssize_t C, const floating *g, const floating *x) noexcept nogil:
    """Σ g x"""
    cdef floating lanes[LANES]
    cdef double total = 0
    cdef Py_ssize_t c, k, l, begin = 0, size
    while begin < C:
        size = min(BLOCK, C - begin)
        for l in range(LANES):
            lanes[l] = 0
        for k in range(size // LANES):
            for l in range(LANES):
                c = begin + k * LANES + l
                lanes[l] += g[c] * x[c]
        for c in range(begin + size // LANES * LANES, begin + size):
            lanes[0] += g[c] * x[c]
        for l in range(LANES):
            total += lanes[l]
        begin += size
    return total
