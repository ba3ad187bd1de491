"""Settings of the whole process that long numeric work wants.  A training run asks for them; importing minilm does not.

Four things cost a training step more than its mathematics should.  glibc gives large arrays back to the system as soon
as they are freed, and the next step pays for fresh pages again.  Arrays lie in pages of 4 KB, of which a processor has
too few in mind when it reads the rows of several matrices in turn.  They begin in the middle of a line of the cache, so
that a product cannot write whole lines and must fetch each before it writes.  And OpenBLAS, on AMD processors that have
AVX-512, takes the kernels that it has for AVX2.  What each is worth is in benchmarks/LOG.md.
"""

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache

from . import cpu, threads

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc
NEVER, PAD = -1, 64 << 20
MADV_HUGEPAGE, HUGE = 14, 2 << 20  # mman.h of Linux; a page of 2 MB


def tune_process() -> None:
    """Keep freed memory for the next step, in pages of 2 MB; begin arrays with a line of the cache; let OpenBLAS use
    AVX-512 where the processor has it.

    For the whole process: call it before long work, while no other thread computes.  It holds for what is allocated
    from then on, in every Python thread and in forked children; called again, it does nothing.  Only where arrays
    begin is, by NumPy's rules, a matter of each Python thread, and is settled for the one that calls.  The process
    keeps the most memory that it ever had.  Where the C library is not glibc, or NumPy's BLAS is not an OpenBLAS that
    allows it, nothing is done.  Settings that were made by hand, with glibc's MALLOC_ variables, OPENBLAS_CORETYPE or
    an allocator given to NumPy, are left as they are.
    """
    with threads.lock:  # @cache alone would let two Python threads begin together
        _tune()
    _align_arrays()


@cache
def _tune() -> None:
    _keep_memory()
    _widen_blas()


def _keep_memory() -> None:
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - only glibc has it; elsewhere mallopt means something else
        libc.mallopt(M_MMAP_MAX, 0)  # from the heap, not from pages of their own
        libc.mallopt(M_TRIM_THRESHOLD, NEVER)
        libc.mallopt(M_TOP_PAD, PAD)
        _enlarge_pages(libc)


def _enlarge_pages(libc) -> None:
    """Let the heap grow into huge pages: half of the machine's memory is reserved for it, and none of it used yet."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    if reserved := libc.malloc(size):  # not where the process may not have as much, by ulimit -v say
        start, end = -(-reserved // HUGE) * HUGE, (reserved + size) // HUGE * HUGE
        libc.madvise(start, end - start, MADV_HUGEPAGE)  # a kernel without them refuses, and nothing is lost
        libc.free(reserved)  # to the top of the heap, which is never trimmed


def _align_arrays() -> None:
    with suppress(ImportError):
        from .machine_cython import align_arrays

        align_arrays()


def _widen_blas() -> None:
    with suppress(ImportError):  # without compiled loops it is not known what the processor has
        if cpu.isa() != "x86_64_v4" or "OPENBLAS_CORETYPE" in os.environ:
            return
        for library in threads.openblas():
            if getattr(library, "architecture", None) not in ("Haswell", "Zen"):
                continue
            restart = [getattr(library.dynlib, f"gotoblas_dynamic_{what}", None) for what in ("quit", "init")]
            if not all(restart):
                continue
            os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"  # OpenBLAS's name for its AVX-512 kernels
            try:
                for step in filter(None, restart):
                    step()
            finally:
                del os.environ["OPENBLAS_CORETYPE"]
