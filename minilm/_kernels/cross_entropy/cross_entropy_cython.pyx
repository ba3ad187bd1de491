# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of cross_entropy, for Cython: z is read once from memory in each direction.

The mathematics and the names are those of cross_entropy.py.  The forward goes over a row in parts that fit the first
cache: the largest entry of a part, then its sum of exponentials; what was summed before shrinks when the top rises.
The gradient may be written over z.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.stdint cimport int64_t

cdef extern from "vecmath.h" nogil:
    float vm_expf(float)
    double vm_exp(double)
    double vm_log(double)

cdef enum:
    LANES = 16  # partial sums, so that a row vectorises
    PART = 1024  # after so many numbers the partial sums go into a double
    ALONE = 8192  # arrays of fewer numbers are not worth a second thread


def forward_rows(const floating[:, ::1] z, const int64_t[::1] target, int64_t ignore_index, double label_smoothing,
                 floating[::1] loss, floating[::1] L):
    cdef Py_ssize_t i, N = z.shape[0], V = z.shape[1]
    for i in prange(N, nogil=True, use_threads_if=N * V > ALONE):
        _forward_row(V, &z[i, 0], target[i], ignore_index, label_smoothing, &loss[i], &L[i])


cdef void _forward_row(Py_ssize_t V, const floating *z, int64_t t, int64_t ignore_index, double label_smoothing,
                       floating *loss, floating *L) noexcept nogil:
    cdef Py_ssize_t start, n
    cdef floating top = -INFINITY, new, base
    cdef double total = 0, sum_z = 0
    loss[0] = L[0] = 0
    if t == ignore_index:
        return
    for start in range(0, V, 1024):  # PART
        n = min(V - start, <Py_ssize_t> PART)
        new = _max(n, z + start, top)
        base = 0 if new == -INFINITY else new
        if new != top:
            total *= vm_exp(<double> top - base)
            top = new
        total += _sum_exp(n, z + start, base)
        if label_smoothing:
            sum_z += _sum(n, z + start)
    L[0] = <floating> ((0 if top == -INFINITY else top) + vm_log(total if total else 1))
    loss[0] = <floating> (L[0] - (1 - label_smoothing) * z[t])
    if label_smoothing:
        loss[0] = <floating> (L[0] - (1 - label_smoothing) * z[t] - label_smoothing / V * sum_z)


def backward_rows(const floating[:, ::1] z, const int64_t[::1] target, const floating[::1] L, const floating[::1] w,
                  int64_t ignore_index, double label_smoothing, floating[:, ::1] dz):
    cdef Py_ssize_t i, N = z.shape[0], V = z.shape[1]
    for i in prange(N, nogil=True, use_threads_if=N * V > ALONE):
        _backward_row(V, &z[i, 0], target[i], L[i], w[i], ignore_index, label_smoothing, &dz[i, 0])


cdef void _backward_row(Py_ssize_t V, const floating *z, int64_t t, floating L, floating w, int64_t ignore_index,
                        double label_smoothing, floating *dz) noexcept nogil:
    cdef Py_ssize_t c, start, n
    cdef floating everywhere = <floating> (label_smoothing / V), z_t
    cdef floating p[PART]
    if t == ignore_index:
        for c in range(V):
            dz[c] = 0
        return
    z_t = z[t]
    for start in range(0, V, 1024):  # PART; through p, since dz may be z
        n = min(V - start, <Py_ssize_t> PART)
        for c in range(n):
            p[c] = _exp(z[start + c] - L)
        for c in range(n):
            dz[start + c] = w * (p[c] - everywhere)
    dz[t] = w * (_exp(z_t - L) - <floating> (1 - label_smoothing) - everywhere)


cdef floating _max(Py_ssize_t n, const floating *x, floating least) noexcept nogil:
    cdef Py_ssize_t c, l, whole = n // LANES * LANES
    cdef floating top[LANES]
    for l in range(LANES):
        top[l] = least
    for c in range(0, whole, 16):  # LANES
        for l in range(LANES):
            top[l] = x[c + l] if x[c + l] > top[l] else top[l]
    for c in range(whole, n):
        top[0] = x[c] if x[c] > top[0] else top[0]
    for l in range(8):
        top[l] = top[l + 8] if top[l + 8] > top[l] else top[l]
    for l in range(4):
        top[l] = top[l + 4] if top[l + 4] > top[l] else top[l]
    top[0] = top[2] if top[2] > top[0] else top[0]
    top[1] = top[3] if top[3] > top[1] else top[1]
    return top[1] if top[1] > top[0] else top[0]


cdef double _sum_exp(Py_ssize_t n, const floating *x, floating base) noexcept nogil:
    cdef Py_ssize_t c, l, whole = n // LANES * LANES
    cdef floating lanes[LANES]
    cdef double total = 0
    for l in range(LANES):
        lanes[l] = 0
    for c in range(0, whole, 16):  # LANES
        for l in range(LANES):
            lanes[l] += _exp(x[c + l] - base)
    for c in range(whole, n):
        lanes[0] += _exp(x[c] - base)
    for l in range(8):
        lanes[l] += lanes[l + 8]
    for l in range(4):
        lanes[l] += lanes[l + 4]
    total += <double> (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
    return total


cdef double _sum(Py_ssize_t n, const floating *x) noexcept nogil:
    cdef Py_ssize_t c, l, whole = n // LANES * LANES
    cdef floating lanes[LANES]
    cdef double total = 0
    for l in range(LANES):
        lanes[l] = 0
    for c in range(0, whole, 16):  # LANES
        for l in range(LANES):
            lanes[l] += x[c + l]
    for c in range(whole, n):
        lanes[0] += x[c]
    for l in range(8):
        lanes[l] += lanes[l + 8]
    for l in range(4):
        lanes[l] += lanes[l + 4]
    total += <double> (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
    return total


cdef inline floating _exp(floating x) noexcept nogil:
    if floating is float:
        return vm_expf(x)
    else:
        return vm_exp(x)
