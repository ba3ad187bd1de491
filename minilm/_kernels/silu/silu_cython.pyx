# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of silu, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of silu.py.  With e = exp(-|x|) and r = 1 / (1 + e), σ and 1 - σ are r and e r,
or the other way round: nothing overflows or cancels.
"""

from cython cimport floating
from cython.parallel cimport prange

from ..arrays cimport Rows, reads, rows, writes

cdef extern from "vecmath.h" nogil:
    """
    #define SILU_LARGE 1000.0
    """
    float vm_expf(float x)
    double vm_exp(double x)
    float vm_clamp(float x, float limit)
    float vm_sign(float x, float y)
    double fabs(double x)
    double copysign(double x, double y)
    double SILU_LARGE

cdef enum:
    BLOCK = 2048  # elements that one thread takes at a time
    ENOUGH = 8192  # elements below which a second thread costs more than it saves


cdef inline floating _exp(floating x) noexcept nogil:
    if floating is float:
        return vm_expf(x)
    else:
        return vm_exp(x)


cdef inline floating _held(floating x) noexcept nogil:
    if floating is float:
        return vm_sign(vm_clamp(x, <float>SILU_LARGE), x)
    else:
        return copysign(SILU_LARGE, x) if fabs(x) > SILU_LARGE else x


def forward(x, y):
    cdef Rows r = rows(x)
    cdef char *out = writes(y, r.N * r.C, r.unit)
    if r.kind == b"f":
        _forward_blocks(r.N * r.C, <const float *> r.at, <float *> out)
    else:
        _forward_blocks(r.N * r.C, <const double *> r.at, <double *> out)


cdef void _forward_blocks(Py_ssize_t n, const floating *x, floating *y) noexcept:
    cdef Py_ssize_t k
    if n <= ENOUGH:
        _forward(n, x, y)
    else:
        for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static"):
            _forward(min(BLOCK, n - k * BLOCK), x + k * BLOCK, y + k * BLOCK)


cdef void _forward(Py_ssize_t n, const floating *x, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating one = 1, large = <floating>SILU_LARGE
    for i in range(n):
        y[i] = (-large if x[i] < -large else x[i]) / (one + _exp(-x[i]))


def gate(x, u, y):
    """Write silu(x) u into y."""
    cdef Rows r = rows(x)
    cdef const char *other = reads(u, r.N * r.C, r.unit)
    cdef char *out = writes(y, r.N * r.C, r.unit)
    if r.kind == b"f":
        _gate_blocks(r.N * r.C, <const float *> r.at, <const float *> other, <float *> out)
    else:
        _gate_blocks(r.N * r.C, <const double *> r.at, <const double *> other, <double *> out)


cdef void _gate_blocks(Py_ssize_t n, const floating *x, const floating *u, floating *y) noexcept:
    cdef Py_ssize_t k
    if n <= ENOUGH:
        _gate(n, x, u, y)
    else:
        for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static"):
            _gate(min(BLOCK, n - k * BLOCK), x + k * BLOCK, u + k * BLOCK, y + k * BLOCK)


cdef void _gate(Py_ssize_t n, const floating *x, const floating *u, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating one = 1, large = <floating>SILU_LARGE
    for i in range(n):
        y[i] = (-large if x[i] < -large else x[i]) / (one + _exp(-x[i])) * u[i]


def gate_backward(dy, x, u, dx, du):
    cdef Rows r = rows(x)
    cdef Py_ssize_t n = r.N * r.C
    cdef const char *down = reads(dy, n, r.unit)
    cdef const char *other = reads(u, n, r.unit)
    cdef char *out = writes(dx, n, r.unit)
    cdef char *of_other = writes(du, n, r.unit)
    if r.kind == b"f":
        _gate_backward_blocks(n, <const float *> down, <const float *> r.at, <const float *> other, <float *> out,
                              <float *> of_other)
    else:
        _gate_backward_blocks(n, <const double *> down, <const double *> r.at, <const double *> other,
                              <double *> out, <double *> of_other)


cdef void _gate_backward_blocks(Py_ssize_t n, const floating *dy, const floating *x, const floating *u,
                                floating *dx, floating *du) noexcept:
    cdef Py_ssize_t k, i
    if n <= ENOUGH:
        _gate_backward(n, dy, x, u, dx, du)
    else:
        for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static"):
            i = k * BLOCK
            _gate_backward(min(BLOCK, n - i), dy + i, x + i, u + i, dx + i, du + i)


cdef void _gate_backward(Py_ssize_t n, const floating *dy, const floating *x, const floating *u, floating *dx,
                         floating *du) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating one = 1, e, r, s, h
    for i in range(n):
        e = _exp(-(x[i] if x[i] > 0 else -x[i]))
        r = one / (one + e)
        s = r if x[i] > 0 else e * r
        h = _held(x[i])
        du[i] = dy[i] * ((h if x[i] < 0 else x[i]) * s)
        dx[i] = dy[i] * u[i] * (s * (one + h * (e * r if x[i] > 0 else r)))


def backward(dy, x, dx):
    cdef Rows r = rows(x)
    cdef const char *down = reads(dy, r.N * r.C, r.unit)
    cdef char *out = writes(dx, r.N * r.C, r.unit)
    if r.kind == b"f":
        _backward_blocks(r.N * r.C, <const float *> down, <const float *> r.at, <float *> out)
    else:
        _backward_blocks(r.N * r.C, <const double *> down, <const double *> r.at, <double *> out)


cdef void _backward_blocks(Py_ssize_t n, const floating *dy, const floating *x, floating *dx) noexcept:
    cdef Py_ssize_t k
    if n <= ENOUGH:
        _backward(n, dy, x, dx)
    else:
        for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static"):
            _backward(min(BLOCK, n - k * BLOCK), dy + k * BLOCK, x + k * BLOCK, dx + k * BLOCK)


cdef void _backward(Py_ssize_t n, const floating *dy, const floating *x, floating *dx) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating one = 1, e, r, s
    for i in range(n):
        e = _exp(-(x[i] if x[i] > 0 else -x[i]))
        r = one / (one + e)
        s = r if x[i] > 0 else e * r
        dx[i] = dy[i] * (s * (one + _held(x[i]) * (e * r if x[i] > 0 else r)))
