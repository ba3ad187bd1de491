# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loop of adamw, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of adamw.py; places and starts are those of places.py.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int64_t
from libc.string cimport memcpy

cdef extern from "<math.h>" nogil:
    float sqrtf(float x)
    double sqrt(double x)

cdef enum:
    CHUNK = 16384  # numbers that one thread takes at a time, of as many arrays as they are
    PIECE = 256  # numbers computed before they are written back
    ENOUGH = 8192  # numbers below which a second thread costs more than it saves


cdef inline floating _sqrt(floating x) noexcept nogil:
    if floating is float:
        return sqrtf(x)
    else:
        return sqrt(x)


def update(const int64_t[:, ::1] places, const int64_t[::1] starts, const double[:, ::1] repairs, double decay,
           double beta1, double beta2, double eps, double grad_scale):
    cdef Py_ssize_t k, n = places.shape[1], total = starts[n]
    for k in prange((total + CHUNK - 1) // CHUNK, nogil=True, schedule="static", use_threads_if=total > ENOUGH):
        _chunk(k * CHUNK, min((k + 1) * CHUNK, total), n, &places[0, 0], &starts[0], &repairs[0, 0], decay, beta1,
               beta2, eps, grad_scale)


cdef void _chunk(Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n, const int64_t *places, const int64_t *starts,
                 const double *repairs, double decay, double beta1, double beta2, double eps,
                 double grad_scale) noexcept nogil:
    """Update the numbers [begin, end) of all arrays, counted through."""
    cdef Py_ssize_t i = 0, first, size
    while begin < end:
        while starts[i + 1] <= begin:
            i += 1
        first, size = begin - starts[i], min(end, starts[i + 1]) - begin
        if places[4 * n + i] == c"f":
            _update[float](size, <float *>places[i] + first, <float *>places[n + i] + first,
                           <float *>places[2 * n + i] + first, <float *>places[3 * n + i] + first,
                           <float>decay, <float>repairs[2 * i], <float>(1 / repairs[2 * i + 1]), <float>beta1,
                           <float>(1 - beta1), <float>beta2, <float>(1 - beta2), <float>eps, <float>grad_scale)
        else:
            _update[double](size, <double *>places[i] + first, <double *>places[n + i] + first,
                            <double *>places[2 * n + i] + first, <double *>places[3 * n + i] + first,
                            decay, repairs[2 * i], 1 / repairs[2 * i + 1], beta1,
                            1 - beta1, beta2, 1 - beta2, eps, grad_scale)
        begin += size


cdef void _update(Py_ssize_t n, floating *p, const floating *g, floating *m, floating *v, floating decay, floating rate,
                  floating unroot, floating beta1, floating rest1, floating beta2, floating rest2, floating eps,
                  floating grad_scale) noexcept nogil:
    """Results are collected in local arrays: gcc knows that these overlap nothing, so the loop is vectorised."""
    cdef floating new_p[PIECE]
    cdef floating new_m[PIECE]
    cdef floating new_v[PIECE]
    cdef floating gradient
    cdef Py_ssize_t i, k, size, begin
    for k in range((n + PIECE - 1) // PIECE):
        begin = k * PIECE
        size = min(PIECE, n - begin)
        for i in range(size):
            gradient = g[begin + i] * grad_scale
            new_m[i] = beta1 * m[begin + i] + rest1 * gradient
            new_v[i] = beta2 * v[begin + i] + rest2 * (gradient * gradient)
            new_p[i] = decay * p[begin + i] - rate * new_m[i] / (_sqrt(new_v[i]) * unroot + eps)
        memcpy(p + begin, new_p, size * sizeof(floating))
        memcpy(m + begin, new_m, size * sizeof(floating))
        memcpy(v + begin, new_v, size * sizeof(floating))
