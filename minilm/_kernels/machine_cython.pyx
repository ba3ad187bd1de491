# cython: language_level=3
"""What only C can ask of the machine: which instructions it has, how OpenMP's threads stand, where arrays lie or shall
lie, and, in one pass, whether their numbers do.

Built once, without any -m flag, so that it may be imported on every processor.
"""

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_STRIDES, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
)
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t, uintptr_t
from numpy cimport (
    NPY_ARRAY_C_CONTIGUOUS, PyArray_CHKFLAGS, PyDataMem_GetHandler, PyDataMem_Handler, PyDataMem_SetHandler, import_array,
    ndarray
)

cdef extern from *:
    """
    #include "openmp.h"

    /* 1, 3 or 4: the x86-64 level of this processor, counting only what the operating system saves and restores. */
    static int ml_x86_64_level(void) {
    #if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
        __builtin_cpu_init();
        if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi")
              && __builtin_cpu_supports("bmi2"))) return 1;
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl") ? 4 : 3;
    #elif defined(_M_X64)
        return IsProcessorFeaturePresent(41) ? 4 : IsProcessorFeaturePresent(40) ? 3 : 1;  /* AVX-512F, AVX2 */
    #else
        return 0;
    #endif
    }

    /* OpenBLAS hands over jobs that wait for one another, so each needs a thread of its own.  OpenMP gives fewer than
     * it was asked for inside another parallel region: then each job gets an ordinary thread of the system.
     * One set of jobs at a time, since OpenBLAS keeps one buffer for each place and the sets would share them.  Its own
     * threads, which some of LAPACK still starts, have the first places; ours are the last ml_places. */
    typedef void (*ml_job)(int place, void *data, int extra);
    static int ml_places = 0;

    #if defined(_OPENMP) && !defined(_WIN32)
    #include <pthread.h>
    #include <stdlib.h>

    typedef struct { ml_job job; char *data; int place, extra; } ml_work;
    static pthread_mutex_t ml_one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

    static void *ml_start(void *argument) {
        const ml_work *work = (const ml_work *)argument;
        work->job(work->place, work->data, work->extra);
        return NULL;
    }

    static void ml_run_on_fresh_threads(ml_work *works, int count) {
        pthread_t *threads = (pthread_t *)malloc(count * sizeof(pthread_t));
        if (!threads) abort(); /* the jobs can neither run one by one nor report an error */
        for (int i = 1; i < count; i++)
            if (pthread_create(&threads[i], NULL, ml_start, &works[i])) abort();
        ml_start(&works[0]);
        for (int i = 1; i < count; i++) pthread_join(threads[i], NULL);
        free(threads);
    }

    static void ml_run(int sync, ml_job job, int count, size_t size, void *data, int extra) {
        const int first = ml_places >= 2 * count ? ml_places - count : 0;
        int team = 0;
        ml_work *works = (ml_work *)malloc(count * sizeof(ml_work));
        (void)sync;
        if (!works) abort();
        for (int i = 0; i < count; i++) {
            const ml_work work = {job, (char *)data + i * size, first + i, extra};
            works[i] = work;
        }
        pthread_mutex_lock(&ml_one_at_a_time);
        if (!omp_in_parallel()) {
            #pragma omp parallel num_threads(count)
            {
                #pragma omp single
                team = omp_get_num_threads();
                if (team == count) ml_start(&works[omp_get_thread_num()]);
            }
        }
        if (team != count) ml_run_on_fresh_threads(works, count);
        pthread_mutex_unlock(&ml_one_at_a_time);
        free(works);
    }
    static void *ml_runner(void) { return (void *)ml_run; }
    #else
    static void *ml_runner(void) { return NULL; }
    #endif
    """
    int omp_get_max_threads() nogil
    void omp_set_num_threads(int) nogil
    int ml_x86_64_level() nogil
    void *ml_runner() nogil
    int ml_places


cdef extern from *:
    """
    /* Memory for NumPy's arrays that starts with a line of the cache; right before it stands by how much that lies
     * behind what malloc gave, whose own alignment leaves room for this. */
    #include <stdint.h>
    #include <stdlib.h>
    enum { ML_LINE = 64 };

    static void *ml_shifted(char *given, size_t shift) {
        if (!given) return NULL;
        ((size_t *)(given + shift))[-1] = shift;
        return given + shift;
    }

    static void *ml_malloc(void *ctx, size_t n) {
        char *given = n > SIZE_MAX - ML_LINE ? NULL : (char *)malloc(n + ML_LINE);
        (void)ctx;
        return ml_shifted(given, ML_LINE - (uintptr_t)given % ML_LINE);
    }

    static void *ml_calloc(void *ctx, size_t count, size_t unit) {
        char *given = unit && count > (SIZE_MAX - ML_LINE) / unit ? NULL : (char *)calloc(1, count * unit + ML_LINE);
        (void)ctx;
        return ml_shifted(given, ML_LINE - (uintptr_t)given % ML_LINE);
    }

    static void *ml_realloc(void *ctx, void *p, size_t n) { /* which may move it away from the start of a line */
        const size_t shift = p ? ((size_t *)p)[-1] : 0;
        if (!p) return ml_malloc(ctx, n);
        return ml_shifted(n > SIZE_MAX - ML_LINE ? NULL : (char *)realloc((char *)p - shift, n + ML_LINE), shift);
    }

    static void ml_free(void *ctx, void *p, size_t n) {
        (void)ctx, (void)n;
        if (p) free((char *)p - ((size_t *)p)[-1]);
    }

    static PyDataMem_Handler ml_lines = {"minilm_lines", 1, {NULL, ml_malloc, ml_calloc, ml_realloc, ml_free}};
    """
    PyDataMem_Handler ml_lines

import_array()


def align_arrays():
    """Begin every array that NumPy allocates from now on, in this context, with a line of the cache.

    Where NumPy was given another allocator than its own, leave that.
    """
    cdef PyDataMem_Handler *here = <PyDataMem_Handler *>PyCapsule_GetPointer(PyDataMem_GetHandler(), "mem_handler")
    if here.name == b"default_allocator":
        PyDataMem_SetHandler(PyCapsule_New(&ml_lines, "mem_handler", NULL))


def x86_64_level():
    """1, 3 or 4 on x86-64; 0 on any other processor."""
    return ml_x86_64_level()


def openmp_threads():
    """How many threads OpenMP gives a loop that this Python thread starts."""
    return omp_get_max_threads()


def set_openmp_threads(int n):
    """Let OpenMP give ``n`` threads to every loop that this Python thread starts from now on."""
    omp_set_num_threads(n)


def blas_runner(int places):
    """The address of a function for openblas_set_threads_callback_function, 0 without OpenMP.

    ``places`` is the largest number of threads that this OpenBLAS was built for, 0 if that is not known.
    """
    global ml_places
    ml_places = places
    return <uintptr_t>ml_runner()


def locate(list arrays, bint writable, bint first, int64_t[:] addresses, int64_t[:] starts, int64_t[:] kinds):
    """As ``_locate`` of places.py, fifteen times as fast."""
    cdef Py_buffer view
    cdef Py_ssize_t i, size
    cdef char kind
    cdef bint fits
    for i in range(len(arrays)):
        if not PyObject_CheckBuffer(arrays[i]):
            return False
        PyObject_GetBuffer(arrays[i], &view, PyBUF_STRIDES | PyBUF_FORMAT)
        kind = view.format[0]  # of other byte orders it is a sign of its own
        fits = (kind == b"f" or kind == b"d") and PyBuffer_IsContiguous(&view, b"C") and not (writable and view.readonly)
        size = view.len // view.itemsize
        addresses[i] = <int64_t><uintptr_t>view.buf
        PyBuffer_Release(&view)
        if first:
            starts[i + 1] = starts[i] + size
            kinds[i] = kind
        if not (fits and size == starts[i + 1] - starts[i] and kind == kinds[i]):
            return False
    return True


def lie_below(ids, int64_t V, ignored):
    """Whether each of ``ids``, which are contiguous int64, lies in [0, V), or is ``ignored``, if that is not None."""
    cdef Py_buffer view
    cdef Py_ssize_t i, n
    cdef bint some = ignored is not None
    cdef int64_t other = ignored if some else 0
    cdef const int64_t *id
    cdef bint fits = True
    PyObject_GetBuffer(ids, &view, PyBUF_SIMPLE)
    id, n = <const int64_t *>view.buf, view.len // 8
    for i in range(n):
        fits = fits and (0 <= id[i] < V or (some and id[i] == other))
    PyBuffer_Release(&view)
    return fits


def lies(parts):
    """As ``_lies`` of layout.py, ten times as fast."""
    cdef ndarray first, part, owner
    cdef Py_ssize_t step = 0, i, axis
    if not (parts and isinstance(parts[0], ndarray) and isinstance(parts[0].base, ndarray)):
        return None
    first = parts[0]
    owner = parts[0].base
    if owner.descr is not first.descr or not PyArray_CHKFLAGS(owner, NPY_ARRAY_C_CONTIGUOUS):
        return None
    for i in range(len(parts)):
        if not isinstance(parts[i], ndarray):
            return None
        part = parts[i]
        if part.base != <PyObject *>owner or part.descr is not first.descr or part.ndim != first.ndim:
            return None
        for axis in range(first.ndim):
            if part.shape[axis] != first.shape[axis] or part.strides[axis] != first.strides[axis]:
                return None
        if i == 1:
            step = part.data - first.data
        if part.data - first.data != i * step:
            return None
    return first.data - owner.data, step
