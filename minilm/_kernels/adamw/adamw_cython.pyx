# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loop of adamw, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of adamw.py.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.string cimport memcpy

cdef extern from "<math.h>" nogil:
    float sqrtf(float x)
    double sqrt(double x)

cdef enum:
    BLOCK = 16384  # elements that one thread takes at a time
    PIECE = 256  # elements computed before they are written back
    ENOUGH = 8192  # elements below which a second thread costs more than it saves


cdef inline floating _sqrt(floating x) noexcept nogil:
    if floating is float:
        return sqrtf(x)
    else:
        return sqrt(x)


def update(floating[::1] p, const floating[::1] g, floating[::1] m, floating[::1] v, double decay, double rate,
           double root, double beta1, double beta2, double eps, double grad_scale):
    cdef Py_ssize_t k, n = p.shape[0]
    for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static", use_threads_if=n > ENOUGH):
        _update(min(BLOCK, n - k * BLOCK), &p[k * BLOCK], &g[k * BLOCK], &m[k * BLOCK], &v[k * BLOCK],
                <floating>decay, <floating>rate, <floating>(1 / root), <floating>beta1, <floating>(1 - beta1),
                <floating>beta2, <floating>(1 - beta2), <floating>eps, <floating>grad_scale)


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
