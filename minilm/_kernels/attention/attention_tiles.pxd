# cython: language_level=3
"""What attention_tiles.h does to a block, under one name for both types; and rows of one head, wherever they lie."""

from cython cimport floating
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from ..arrays cimport Grid

cdef enum:
    LITTLE = 131072  # products below which a second thread costs more than it saves (measured)

cdef extern from "vecmath.h" nogil:
    float vm_decayf(float)
    double vm_decay(double)

cdef extern from * nogil:
    """
    #include "openmp.h"
    #define REAL float
    #define DECAY vm_decayf
    #define NAME(x) x##_f
    #include "attention/attention_tiles.h"
    #undef REAL
    #undef DECAY
    #undef NAME
    #define REAL double
    #define DECAY vm_decay
    #define NAME(x) x##_d
    #include "attention/attention_tiles.h"
    #undef REAL
    #undef DECAY
    #undef NAME
    """
    int omp_get_max_threads()
    enum:
        BLOCK
        ROWS
        STEP
    ctypedef struct ahead:
        const char *at[5]
        long row[5]
        long bytes[5]
        long arrays, left, each
    void ask(ahead*)
    void soon(const void*, size_t)
    bint far_away(const void*, long, long)
    void fence()
    long first_column(long, long)
    void product_f(long, long, long, const float*, long, long, const float*, long, float*, long, int)
    void product_d(long, long, long, const double*, long, long, const double*, long, double*, long, int)
    void dots_f(long, long, const float*, long, const float*, float, float*)
    void dots_d(long, long, const double*, long, const double*, double, double*)
    void hide_f(long, long, long, long, float*)
    void hide_d(long, long, long, long, double*)
    void softmax_f(long, long, long, float*, float*, float*, double*)
    void softmax_d(long, long, long, double*, double*, double*, double*)
    void slopes_f(long, long, const float*, const float*, const float*, float, float*, float*)
    void slopes_d(long, long, const double*, const double*, const double*, double, double*, double*)
    void draw_f(uint64_t, uint32_t, float, long, long, long, long, long, long, float*)
    void draw_d(uint64_t, uint32_t, double, long, long, long, long, long, long, double*)
    void transpose_f(long, long, const float*, long, float, float*)
    void transpose_d(long, long, const double*, long, double, double*)
    void rows_f(long, long, const float*, long, const float*, float*, long, int)
    void rows_d(long, long, const double*, long, const double*, double*, long, int)
    float dot_f(long, const float*, const float*)
    double dot_d(long, const double*, const double*)

cdef struct Place:  # of the rows of one head
    char *at  # the first row
    Py_ssize_t row  # numbers from one to the next


cdef inline char *at(const Grid *x, Py_ssize_t b, Py_ssize_t h, Py_ssize_t t) noexcept nogil:
    """A row, whose numbers lie in one piece."""
    return x.at + b * x.strides[0] + h * x.strides[1] + t * x.strides[2]


cdef inline Place place(const Grid *x, Py_ssize_t b, Py_ssize_t h) noexcept nogil:
    cdef Place where
    where.at, where.row = at(x, b, h, 0), x.strides[2] // x.unit
    return where


cdef inline Place beside(floating *scratch, Py_ssize_t row, Py_ssize_t first) noexcept nogil:
    """Rows of scratch memory, the first of which stands for row ``first`` of a head."""
    cdef Place where
    where.at, where.row = <char *> (scratch - first * row), row
    return where


cdef inline void clear(Place x, Py_ssize_t D, Py_ssize_t t, Py_ssize_t end, const floating *of_type) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(t, end):
        memset(<floating *> x.at + i * x.row, 0, D * sizeof(floating))


cdef inline void also_ask(ahead *next, const Grid *x, Py_ssize_t b, Py_ssize_t h, Py_ssize_t t) noexcept nogil:
    """Add the rows from t on to what is asked for."""
    next.at[next.arrays], next.row[next.arrays] = at(x, b, h, t), x.strides[2]
    next.bytes[next.arrays] = x.shape[3] * x.unit
    next.arrays += 1


cdef inline void move(Place x, Place to, Py_ssize_t D, Py_ssize_t t, Py_ssize_t end, bint stream,
                      const floating *of_type) noexcept nogil:
    """Copy rows t to end."""
    copy_rows(end - t, D, <floating *> x.at + t * x.row, x.row, <floating *> NULL, <floating *> to.at + t * to.row,
              to.row, stream)


cdef inline void product(Py_ssize_t M, Py_ssize_t N, Py_ssize_t K, const floating *a, Py_ssize_t a_row,
                         Py_ssize_t a_col, const floating *b, Py_ssize_t b_row, floating *c, Py_ssize_t c_row,
                         bint add) noexcept nogil:
    if floating is float:
        product_f(M, N, K, a, a_row, a_col, b, b_row, c, c_row, add)
    else:
        product_d(M, N, K, a, a_row, a_col, b, b_row, c, c_row, add)


cdef inline void dots(Py_ssize_t M, Py_ssize_t K, const floating *a, Py_ssize_t a_row, const floating *x, floating c,
                      floating *y) noexcept nogil:
    if floating is float:
        dots_f(M, K, a, a_row, x, c, y)
    else:
        dots_d(M, K, a, a_row, x, c, y)


cdef inline void hide(Py_ssize_t first, Py_ssize_t width, Py_ssize_t seen, Py_ssize_t gone,
                      floating *row) noexcept nogil:
    if floating is float:
        hide_f(first, width, seen, gone, row)
    else:
        hide_d(first, width, seen, gone, row)


cdef inline void softmax(Py_ssize_t m, Py_ssize_t width, Py_ssize_t diagonal, floating *A, floating *top,
                         floating *shrink, double *total) noexcept nogil:
    if floating is float:
        softmax_f(m, width, diagonal, A, top, shrink, total)
    else:
        softmax_d(m, width, diagonal, A, top, shrink, total)


cdef inline void slopes(Py_ssize_t first, Py_ssize_t width, const floating *L, const floating *delta,
                        const floating *keep, floating c, floating *A, floating *dR) noexcept nogil:
    if floating is float:
        slopes_f(first, width, L, delta, keep, c, A, dR)
    else:
        slopes_d(first, width, L, delta, keep, c, A, dR)


cdef inline void draw(uint64_t seed, uint32_t threshold, floating kept, Py_ssize_t head, Py_ssize_t t0, Py_ssize_t s0,
                      Py_ssize_t m, Py_ssize_t width, Py_ssize_t diagonal, floating *keep) noexcept nogil:
    if floating is float:
        draw_f(seed, threshold, kept, head, t0, s0, m, width, diagonal, keep)
    else:
        draw_d(seed, threshold, kept, head, t0, s0, m, width, diagonal, keep)


cdef inline void transpose(const floating *x, Py_ssize_t n, Py_ssize_t D, Py_ssize_t x_row, floating c,
                           floating *xT) noexcept nogil:
    if floating is float:
        transpose_f(n, D, x, x_row, c, xT)
    else:
        transpose_d(n, D, x, x_row, c, xT)


cdef inline void copy_rows(Py_ssize_t n, Py_ssize_t D, const floating *x, Py_ssize_t x_row, const floating *c,
                           floating *to, Py_ssize_t to_row, bint stream) noexcept nogil:
    if floating is float:
        rows_f(n, D, x, x_row, c, to, to_row, stream)
    else:
        rows_d(n, D, x, x_row, c, to, to_row, stream)


cdef inline floating dot(Py_ssize_t n, const floating *a, const floating *b) noexcept nogil:
    if floating is float:
        return dot_f(n, a, b)
    else:
        return dot_d(n, a, b)


cdef inline floating exp(floating x) noexcept nogil:
    if floating is float:
        return vm_decayf(x)
    else:
        return vm_decay(x)


cdef inline int threads_for(Py_ssize_t pieces, Py_ssize_t each) noexcept nogil:
    """As many as there is work for: pieces of ``each`` products, scores times numbers in a row.

    Where it is one, a loop is run without a team: a team of one costs 0.5 us, as much as a small op.
    """
    return 1 if pieces * each <= LITTLE else <int> min(pieces, omp_get_max_threads())


cdef inline Py_ssize_t first_key(const int64_t *piece, Py_ssize_t t0, Py_ssize_t window) noexcept nogil:
    """The first key that any query of the piece from t0 on sees."""
    return max(piece[2], t0 + piece[4] - window + 1)


cdef inline Py_ssize_t end_key(const int64_t *piece, Py_ssize_t t1, bint causal) noexcept nogil:
    """The key after the last that any query of the piece before t1 sees."""
    return max(min(piece[3], t1 + piece[4]), piece[2]) if causal else piece[3]
