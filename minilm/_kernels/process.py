"""Settings of the whole process that long numeric work wants.  A training run asks for them; importing minilm does not.

Two things cost a training step more than its mathematics should.  glibc gives large arrays back to the system as soon
as they are freed, and the next step pays for fresh pages again.  And OpenBLAS, on AMD processors that have AVX-512,
takes the kernels that it has for AVX2.  What each is worth is in benchmarks/LOG.md.
"""

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache

from . import cpu, threads

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc
KEEP, PAD = 2**31 - 1, 64 << 20


def tune_process() -> None:
    """Keep freed memory for the next step, and let OpenBLAS use AVX-512 where the processor has it.

    For the whole process: call it before long work, while no other thread computes.  It holds for what is allocated
    from then on, in every Python thread and in forked children; called again, it does nothing.  The process keeps the
    most memory that it ever had.  Where the C library is not glibc, or NumPy's BLAS is not an OpenBLAS that allows it,
    nothing is done.  Settings that were made by hand, with glibc's MALLOC_ variables or OPENBLAS_CORETYPE, are left as
    they are.
    """
    with threads.lock:  # @cache alone would let two Python threads begin together
        _tune()


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
        libc.mallopt(M_TRIM_THRESHOLD, KEEP)
        libc.mallopt(M_TOP_PAD, PAD)


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
