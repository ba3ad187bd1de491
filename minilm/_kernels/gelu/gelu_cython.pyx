# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of gelu, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of gelu.py and gelu.md.  With e = exp(-2|u|), the logistic function of 2u is
1 / (1 + e) for u > 0 and e / (1 + e) for u < 0, and s (1 - s) = e / (1 + e)² for both: nothing overflows or cancels.
The exact Φ is 1 - q for x > 0 and q for x < 0, q the tail of the normal distribution beyond |x|, which shares its
exponential with φ.
"""

from cython cimport floating
from cython.parallel cimport prange

cdef extern from "vecmath.h" nogil:
    """
    #define GELU_PEAK 0.39894228040143267794
    #define GELU_TANH_SCALE 0.79788456080286535588
    #define GELU_TANH_CUBE 0.044715
    #define GELU_LARGE 40.0
    """
    float vm_expf(float x)
    double vm_exp(double x)
    float vm_normal_tailf(float a, float e)
    double vm_normal_tail(double a, double e)
    float vm_clamp(float x, float limit)
    float vm_sign(float x, float y)
    double fabs(double x)
    double copysign(double x, double y)
    double GELU_PEAK, GELU_TANH_SCALE, GELU_TANH_CUBE, GELU_LARGE

cdef enum:
    BLOCK = 2048  # elements that one thread takes at a time
    ENOUGH = 8192  # elements below which a second thread costs more than it saves


cdef inline floating _exp(floating x) noexcept nogil:
    if floating is float:
        return vm_expf(x)
    else:
        return vm_exp(x)


cdef inline floating _normal(floating x, floating e) noexcept nogil:
    cdef floating q, one = 1
    if floating is float:
        q = vm_normal_tailf(x if x > 0 else -x, e)
    else:
        q = vm_normal_tail(x if x > 0 else -x, e)
    return one - q if x > 0 else q


cdef inline floating _held(floating x) noexcept nogil:
    if floating is float:
        return vm_sign(vm_clamp(x, <float>GELU_LARGE), x)
    else:
        return copysign(GELU_LARGE, x) if fabs(x) > GELU_LARGE else x


cdef inline floating _u(floating x) noexcept nogil:
    cdef floating k = <floating>GELU_TANH_SCALE, a = <floating>GELU_TANH_CUBE
    return k * (x + a * (x * x * x))


def forward_erf(const floating[::1] x, floating[::1] y):
    cdef Py_ssize_t k, n = x.shape[0]
    for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static", use_threads_if=n > ENOUGH):
        _forward_erf(min(BLOCK, n - k * BLOCK), &x[k * BLOCK], &y[k * BLOCK])


cdef void _forward_erf(Py_ssize_t n, const floating *x, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating half = <floating>0.5, large = <floating>GELU_LARGE
    for i in range(n):
        y[i] = (-large if x[i] < -large else x[i]) * _normal(x[i], _exp(-half * (x[i] * x[i])))


def backward_erf(const floating[::1] dy, const floating[::1] x, floating[::1] dx):
    cdef Py_ssize_t k, n = x.shape[0]
    for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static", use_threads_if=n > ENOUGH):
        _backward_erf(min(BLOCK, n - k * BLOCK), &dy[k * BLOCK], &x[k * BLOCK], &dx[k * BLOCK])


cdef void _backward_erf(Py_ssize_t n, const floating *dy, const floating *x, floating *dx) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating half = <floating>0.5, peak = <floating>GELU_PEAK, e
    for i in range(n):
        e = _exp(-half * (x[i] * x[i]))
        dx[i] = dy[i] * (_normal(x[i], e) + _held(x[i]) * (peak * e))


def forward_tanh(const floating[::1] x, floating[::1] y):
    cdef Py_ssize_t k, n = x.shape[0]
    for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static", use_threads_if=n > ENOUGH):
        _forward_tanh(min(BLOCK, n - k * BLOCK), &x[k * BLOCK], &y[k * BLOCK])


cdef void _forward_tanh(Py_ssize_t n, const floating *x, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating one = 1, two = 2, large = <floating>GELU_LARGE
    for i in range(n):
        y[i] = (-large if x[i] < -large else x[i]) / (one + _exp(-two * _u(x[i])))


def backward_tanh(const floating[::1] dy, const floating[::1] x, floating[::1] dx):
    cdef Py_ssize_t k, n = x.shape[0]
    for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static", use_threads_if=n > ENOUGH):
        _backward_tanh(min(BLOCK, n - k * BLOCK), &dy[k * BLOCK], &x[k * BLOCK], &dx[k * BLOCK])


cdef void _backward_tanh(Py_ssize_t n, const floating *dy, const floating *x, floating *dx) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating one = 1, two = 2, k = <floating>GELU_TANH_SCALE, a3 = <floating>(3 * GELU_TANH_CUBE), h, u, e, r, s
    for i in range(n):
        h = _held(x[i])
        u = _u(x[i])
        e = _exp(-two * (u if u > 0 else -u))
        r = one / (one + e)
        s = r if u > 0 else e * r
        dx[i] = dy[i] * (s + h * (two * e * (r * r)) * (k * (one + a3 * (h * h))))
