# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of gelu and bias_gelu, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of gelu.py and gelu.md.  With a = |x| and Q = Φ(-a), what is left out by ReLU
and by its derivative is a function of a alone:

    y = max(x, 0) - a Q        dy/dx = 1 - D for x > 0, D for x < 0        D = Q - a φ(a)

Q is the tail of the normal distribution, which shares its exponential e with φ, or with tanh e r, e = exp(-2u(a)) and
r = 1 / (1 + e), and there φ is 2 u' e r².  a is held where e reaches 0: nothing overflows or cancels.

x is one long row in C order, of which b is one period.  A block of sums stays in the cache.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdlib cimport free

from ..arrays cimport Rows, add_up, reads, rows, writes, zeros

cdef extern from "vecmath.h" nogil:
    """
    #define GELU_PEAK 0.39894228040143267794
    #define GELU_LOG2_E 1.44269504088896340736
    #define GELU_TANH_SCALE 0.79788456080286535588
    #define GELU_TANH_CUBE 0.044715
    #define GELU_LARGE 40.0
    #define GELU_LARGE_ERFF 13.268f /* 2^-127 there, in floats */
    #define GELU_LARGE_TANHF 10.031f
    """
    float vm_exp2_downf(float t)
    double vm_exp2_down(double t)
    float vm_normal_tailf(float a, float e)
    double vm_normal_tail(double a, double e)
    float vm_leastf(float a, float limit)
    double vm_least(double a, double limit)
    float fabsf(float x)
    double fabs(double x)
    double GELU_PEAK, GELU_LOG2_E, GELU_TANH_SCALE, GELU_TANH_CUBE, GELU_LARGE
    float GELU_LARGE_ERFF, GELU_LARGE_TANHF

cdef enum:
    BLOCK = 1024  # elements whose sums with b are held at a time
    SHARE = 4096  # elements that one thread takes at a time on the way back, where nothing is summed
    ENOUGH = 8192  # elements below which a second thread costs more than it saves


cdef inline floating _exp2(floating t) noexcept nogil:
    if floating is float:
        return vm_exp2_downf(t)
    else:
        return vm_exp2_down(t)


cdef inline floating _size_erf(floating x) noexcept nogil:
    if floating is float:
        return vm_leastf(fabsf(x), GELU_LARGE_ERFF)
    else:
        return vm_least(fabs(x), GELU_LARGE)


cdef inline floating _size_tanh(floating x) noexcept nogil:
    if floating is float:
        return vm_leastf(fabsf(x), GELU_LARGE_TANHF)
    else:
        return vm_least(fabs(x), GELU_LARGE)


cdef inline floating _e_erf(floating a) noexcept nogil:
    """exp(-a²/2)"""
    return _exp2(<floating>(-0.5 * GELU_LOG2_E) * (a * a))


cdef inline floating _e_tanh(floating a) noexcept nogil:
    """exp(-2u(a))"""
    cdef floating k = <floating>(-2 * GELU_LOG2_E * GELU_TANH_SCALE)
    cdef floating cube = <floating>(-2 * GELU_LOG2_E * GELU_TANH_SCALE * GELU_TANH_CUBE)
    return _exp2(a * (k + cube * (a * a)))


cdef inline floating _tail(floating a, floating e) noexcept nogil:
    if floating is float:
        return vm_normal_tailf(a, e)
    else:
        return vm_normal_tail(a, e)


cdef void _forward_erf(Py_ssize_t n, const floating *x, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating zero = 0, a
    for i in range(n):
        a = _size_erf(x[i])
        y[i] = (zero if x[i] < zero else x[i]) - a * _tail(a, _e_erf(a))


cdef void _forward_tanh(Py_ssize_t n, const floating *x, floating *y) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating zero = 0, one = 1, a, e
    for i in range(n):
        a = _size_tanh(x[i])
        e = _e_tanh(a)
        y[i] = (zero if x[i] < zero else x[i]) - a * e / (one + e)


cdef void _backward_erf(Py_ssize_t n, const floating *dy, const floating *x, floating *dx) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating zero = 0, one = 1, peak = <floating>GELU_PEAK, a, e, D
    for i in range(n):
        a = _size_erf(x[i])
        e = _e_erf(a)
        D = _tail(a, e) - a * (peak * e)
        dx[i] = dy[i] * (one - D if x[i] > zero else D)


cdef void _backward_tanh(Py_ssize_t n, const floating *dy, const floating *x, floating *dx) noexcept nogil:
    cdef Py_ssize_t i
    cdef floating zero = 0, one = 1, k = <floating>(2 * GELU_TANH_SCALE)
    cdef floating cube = <floating>(6 * GELU_TANH_SCALE * GELU_TANH_CUBE), a, e, r, D
    for i in range(n):
        a = _size_tanh(x[i])
        e = _e_tanh(a)
        r = one / (one + e)
        D = (e * r) * (one - r * (a * (k + cube * (a * a))))
        dx[i] = dy[i] * (one - D if x[i] > zero else D)


def forward(x, b, y, bint tanh):
    """b is one period of what is added to x, or None."""
    cdef Rows r = rows(x)
    cdef Py_ssize_t n = r.N * r.C, C = 0 if b is None else r.C
    cdef const char *shift = reads(b, C, r.unit)
    cdef char *out = writes(y, n, r.unit)
    if r.kind == b"f":
        _forward_blocks(n, <const float *> r.at, C, <const float *> shift, <float *> out, tanh)
    else:
        _forward_blocks(n, <const double *> r.at, C, <const double *> shift, <double *> out, tanh)


cdef void _forward_blocks(Py_ssize_t n, const floating *x, Py_ssize_t C, const floating *b, floating *y,
                          bint tanh) noexcept:
    cdef Py_ssize_t k
    if n <= BLOCK:
        _forward(0, n, x, C, b, y, tanh)
        return
    for k in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="static", use_threads_if=n > ENOUGH):
        _forward(k * BLOCK, min(n, (k + 1) * BLOCK), x, C, b, y, tanh)


cdef void _forward(Py_ssize_t begin, Py_ssize_t end, const floating *x, Py_ssize_t C, const floating *b,
                   floating *y, bint tanh) noexcept nogil:
    cdef floating sums[BLOCK]
    cdef const floating *h = _plus(begin, end, x, C, b, sums)
    if tanh:
        _forward_tanh(end - begin, h, y + begin)
    else:
        _forward_erf(end - begin, h, y + begin)


def backward(dy, x, b, dx, Py_ssize_t chunks, db, bint tanh):
    """db, which may be None, is the sum of the rows of dx, made in chunks; without b there is no sum, and no chunks."""
    cdef Rows r = rows(x)
    cdef Py_ssize_t n = r.N * r.C, C = 0 if b is None else r.C
    cdef const char *down = reads(dy, n, r.unit)
    cdef const char *shift = reads(b, C, r.unit)
    cdef char *out = writes(dx, n, r.unit)
    cdef char *of_b = writes(db, C, r.unit)
    cdef char *sums = NULL
    if b is None:
        chunks = 1 + n // SHARE
    else:
        sums = zeros(chunks * C, r.unit)
    if r.kind == b"f":
        _backward_chunks(chunks, n, <const float *> down, <const float *> r.at, C, <const float *> shift,
                         <float *> out, <float *> sums, tanh)
    else:
        _backward_chunks(chunks, n, <const double *> down, <const double *> r.at, C, <const double *> shift,
                         <double *> out, <double *> sums, tanh)
    add_up(sums, chunks, C, r.kind, of_b)
    free(sums)


cdef void _backward_chunks(Py_ssize_t chunks, Py_ssize_t n, const floating *dy, const floating *x, Py_ssize_t C,
                           const floating *b, floating *dx, floating *db, bint tanh) noexcept:
    cdef Py_ssize_t k, row = max(C, 1), N = n // row
    if chunks == 1:
        _backward_chunk(0, n, dy, x, C, b, dx, db, tanh)
        return
    for k in prange(chunks, nogil=True, schedule="static", use_threads_if=n > ENOUGH):
        _backward_chunk(k * N // chunks * row, (k + 1) * N // chunks * row, dy, x, C, b, dx, db + k * C, tanh)


cdef void _backward_chunk(Py_ssize_t begin, Py_ssize_t end, const floating *dy, const floating *x, Py_ssize_t C,
                          const floating *b, floating *dx, floating *db, bint tanh) noexcept nogil:
    cdef floating sums[BLOCK]
    cdef const floating *h
    cdef Py_ssize_t stop
    while begin < end:
        stop = min(end, begin + BLOCK)
        h = _plus(begin, stop, x, C, b, sums)
        if tanh:
            _backward_tanh(stop - begin, dy + begin, h, dx + begin)
        else:
            _backward_erf(stop - begin, dy + begin, h, dx + begin)
        _add_columns(begin, stop, dx, C, db)
        begin = stop


cdef const floating *_plus(Py_ssize_t begin, Py_ssize_t end, const floating *x, Py_ssize_t C, const floating *b,
                           floating *sums) noexcept nogil:
    """Return where x + b begins: in sums, or in x where there is no b."""
    cdef Py_ssize_t i, j, run, c
    if C == 0:
        return x + begin
    i, c = begin, begin % C
    while i < end:
        run = min(C - c, end - i)
        for j in range(run):
            sums[i - begin + j] = x[i + j] + b[c + j]
        i, c = i + run, 0
    return sums


cdef void _add_columns(Py_ssize_t begin, Py_ssize_t end, const floating *dx, Py_ssize_t C, floating *db) noexcept nogil:
    cdef Py_ssize_t i, j, run, c
    if C == 0:
        return
    i, c = begin, begin % C
    while i < end:
        run = min(C - c, end - i)
        for j in range(run):
            db[c + j] += dx[i + j]
        i, c = i + run, 0
