# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loop of sum_of_squares, for Cython.  Nothing but typed loops: these directives make Python indexing unsafe.

The mathematics and the names are those of sum_of_squares.py; places and starts are those of places.py.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.stdint cimport int64_t

cdef enum:
    LENGTH = 16384  # numbers that one thread takes at a time, of as many arrays as they are
    LANES = 16  # sums side by side, for gcc to vectorise
    ENOUGH = 32768  # numbers below which a second thread costs more than it saves

CHUNK = LENGTH


def add(const int64_t[:, ::1] places, const int64_t[::1] starts, double[::1] sums):
    """Write the sum of the squares of each chunk into sums."""
    cdef Py_ssize_t k, n = places.shape[1], total = starts[n]
    for k in prange(sums.shape[0], nogil=True, schedule="static", use_threads_if=total > ENOUGH):
        sums[k] = _chunk(k * LENGTH, min((k + 1) * LENGTH, total), n, &places[0, 0], &starts[0])


cdef double _chunk(Py_ssize_t begin, Py_ssize_t end, Py_ssize_t n, const int64_t *places,
                   const int64_t *starts) noexcept nogil:
    cdef Py_ssize_t i = 0, first, size
    cdef double total = 0
    while begin < end:
        while starts[i + 1] <= begin:
            i += 1
        first, size = begin - starts[i], min(end, starts[i + 1]) - begin
        if places[n + i] == c"f":
            total += _squares[float](size, <const float *>places[i] + first)
        else:
            total += _squares[double](size, <const double *>places[i] + first)
        begin += size
    return total


cdef double _squares(Py_ssize_t n, const floating *x) noexcept nogil:
    cdef double lane[LANES]
    cdef double total = 0
    cdef Py_ssize_t i, j
    for j in range(LANES):
        lane[j] = 0
    for i in range(n // LANES):
        for j in range(LANES):
            lane[j] += <double>x[i * LANES + j] * <double>x[i * LANES + j]
    for j in range(n - n % LANES, n):
        total += <double>x[j] * <double>x[j]
    for j in range(LANES):
        total += lane[j]
    return total
