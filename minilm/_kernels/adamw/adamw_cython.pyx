# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loop of adamw, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of adamw.py.
"""

from cython cimport floating
from cython.parallel cimport prange

cdef extern from "<math.h>" nogil:
    float sqrtf(float x)
    double sqrt(double x)

cdef enum:
    BLOCK = 1024  # small enough to stay in the first cache between the three short loops
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
    """One loop with three outputs would need more checks for overlap than gcc makes, and would not be vectorised."""
    cdef Py_ssize_t i
    for i in range(n):
        m[i] = beta1 * m[i] + rest1 * (g[i] * grad_scale)
    for i in range(n):
        v[i] = beta2 * v[i] + rest2 * ((g[i] * grad_scale) * (g[i] * grad_scale))
    for i in range(n):
        p[i] = decay * p[i] - rate * m[i] / (_sqrt(v[i]) * unroot + eps)
