# cython: language_level=3
"""What rows.h does to a row of n numbers, under one name for both types."""

from cython cimport floating

cdef extern from "rows.h" nogil:
    enum:
        ROWS  # that are worked on together, at most
        PART  # numbers that stay in the first cache
    float vm_decayf(float)
    double vm_decay(double)
    float largest_f(Py_ssize_t, const float*, float)
    double largest_d(Py_ssize_t, const double*, double)
    double sum_f(Py_ssize_t, const float*)
    double sum_d(Py_ssize_t, const double*)
    double dot_f(Py_ssize_t, const float*, const float*)
    double dot_d(Py_ssize_t, const double*, const double*)
    void log_sum_exp_f(Py_ssize_t, Py_ssize_t, const float*, Py_ssize_t, float*, float*)
    void log_sum_exp_d(Py_ssize_t, Py_ssize_t, const double*, Py_ssize_t, double*, double*)
    void pull_f(Py_ssize_t, const float*, float, float, float, float*)
    void pull_d(Py_ssize_t, const double*, double, double, double, double*)
    double exp_row_f(Py_ssize_t, const float*, float, float*)
    double exp_row_d(Py_ssize_t, const double*, double, double*)


cdef inline Py_ssize_t rows_together(Py_ssize_t n) noexcept nogil:
    """How many rows of n numbers."""
    return max(1, min(<Py_ssize_t> ROWS, PART // max(n, 1)))


cdef inline floating exp(floating x) noexcept nogil:  # of x at most 0
    if floating is float:
        return vm_decayf(x)
    else:
        return vm_decay(x)


cdef inline floating largest(Py_ssize_t n, const floating *x, floating least) noexcept nogil:
    """The largest of the entries and ``least``; never NaN."""
    if floating is float:
        return largest_f(n, x, least)
    else:
        return largest_d(n, x, least)


cdef inline double sum(Py_ssize_t n, const floating *x) noexcept nogil:
    if floating is float:
        return sum_f(n, x)
    else:
        return sum_d(n, x)


cdef inline double dot(Py_ssize_t n, const floating *x, const floating *y) noexcept nogil:
    if floating is float:
        return dot_f(n, x, y)
    else:
        return dot_d(n, x, y)


cdef inline void log_sum_exp(Py_ssize_t rows, Py_ssize_t n, const floating *x, Py_ssize_t apart, floating *top,
                             floating *log_total) noexcept nogil:
    """Of each row: top, the largest entry, or 0 if that is -inf; log_total = log Σ exp(x - top), or 0 if Σ is 0.

    Rows are ``apart`` numbers from one to the next.
    """
    if floating is float:
        log_sum_exp_f(rows, n, x, apart, top, log_total)
    else:
        log_sum_exp_d(rows, n, x, apart, top, log_total)


cdef inline double exp_row(Py_ssize_t n, const floating *x, floating top, floating *y) noexcept nogil:
    """y = exp(x - top); return its sum."""
    if floating is float:
        return exp_row_f(n, x, top, y)
    else:
        return exp_row_d(n, x, top, y)


cdef inline void pull(Py_ssize_t n, const floating *x, floating L, floating w, floating shift,
                      floating *y) noexcept nogil:
    """y = w (exp(x - L) - shift); y may be x."""
    if floating is float:
        pull_f(n, x, L, w, shift, y)
    else:
        pull_d(n, x, L, w, shift, y)
