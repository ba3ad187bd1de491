# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of silu, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of silu.py and silu.md.  With a = |x|, e = exp(-a) and r = 1 / (1 + e), what is
left out by ReLU and by its derivative is a function of a alone, as in gelu_cython.pyx:

    y = max(x, 0) - a e r        dy/dx = 1 - D for x > 0, D for x < 0        D = e r (1 - a r)

a is held where e is 0: nothing overflows or cancels.
"""

from cython cimport floating
from cython.parallel cimport prange

from ..arrays cimport Rows, reads, rows, writes

cdef extern from "vecmath.h" nogil:
    """
    #define SILU_LARGE 1000.0
    """
    float vm_decayf(float x)
    double vm_decay(double x)
    float vm_leastf(float a, float limit)
    double vm_least(double a, double limit)
    float fabsf(float x)
    double fabs(double x)
    double SILU_LARGE

cdef enum:
    BLOCK = 2048  # elements that one thread takes at a time
    ENOUGH = 8192  # elements below which a second thread costs more than it saves


cdef inline floating _size(floating x) noexcept nogil:
    if floating is float:
        return vm_leastf(fabsf(x), <float>SILU_LARGE)
    else:
        return vm_least(fabs(x), SILU_LARGE)


cdef inline floating _decay(floating x) noexcept nogil:
    if floating is float:
        return vm_decayf(x)
    else:
        return vm_decay(x)


cdef inline floating _silu(floating x) noexcept nogil:
    cdef floating zero = 0, one = 1, a = _size(x), e = _decay(-a)
    return (zero if x < zero else x) - a * e / (one + e)


cdef inline floating _slope(floating x) noexcept nogil:
    cdef floating one = 1, a = _size(x), e = _decay(-a), r = one / (one + e), D = e * r * (one - a * r)
    return one - D if x > 0 else D


def forward(x, u, y):
    """Write silu(x) into y, times u unless that is None."""
    cdef Rows r = rows(x)
    cdef const char *gated = reads(u, r.N * r.C, r.unit)
    cdef char *out = writes(y, r.N * r.C, r.unit)
    if r.kind == b"f":
        _forward_blocks(r.N * r.C, <const float *> r.at, <const float *> gated, <float *> out)
    else:
        _forward_blocks(r.N * r.C, <const double *> r.at, <const double *> gated, <double *> out)


cdef void _forward_blocks(Py_ssize_t n, const floating *x, const floating *u, floating *y) noexcept:
    cdef Py_ssize_t k, i
    if n <= ENOUGH:
        _forward(n, x, u, y)
    else:
        for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static"):
            i = k * BLOCK
            _forward(min(BLOCK, n - i), x + i, u + i if u else NULL, y + i)


cdef void _forward(Py_ssize_t n, const floating *x, const floating *u, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    if u:
        for i in range(n):
            y[i] = _silu(x[i]) * u[i]
    else:
        for i in range(n):
            y[i] = _silu(x[i])


def backward(dy, x, u, dx, du):
    """The gradients in x and, unless they are None, in u."""
    cdef Rows r = rows(x)
    cdef Py_ssize_t n = r.N * r.C
    cdef const char *down = reads(dy, n, r.unit)
    cdef const char *gated = reads(u, n, r.unit)
    cdef char *out = writes(dx, n, r.unit)
    cdef char *of_gated = writes(du, n, r.unit)
    if r.kind == b"f":
        _backward_blocks(n, <const float *> down, <const float *> r.at, <const float *> gated, <float *> out,
                         <float *> of_gated)
    else:
        _backward_blocks(n, <const double *> down, <const double *> r.at, <const double *> gated, <double *> out,
                         <double *> of_gated)


cdef void _backward_blocks(Py_ssize_t n, const floating *dy, const floating *x, const floating *u, floating *dx,
                           floating *du) noexcept:
    cdef Py_ssize_t k, i
    if n <= ENOUGH:
        _backward(n, dy, x, u, dx, du)
    else:
        for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static"):
            i = k * BLOCK
            _backward(min(BLOCK, n - i), dy + i, x + i, u + i if u else NULL, dx + i, du + i if u else NULL)


cdef void _backward(Py_ssize_t n, const floating *dy, const floating *x, const floating *u, floating *dx,
                    floating *du) noexcept nogil:
    cdef Py_ssize_t i
    if u:
        for i in range(n):
            du[i] = dy[i] * _silu(x[i])
            dx[i] = dy[i] * u[i] * _slope(x[i])
    else:
        for i in range(n):
            dx[i] = dy[i] * _slope(x[i])
