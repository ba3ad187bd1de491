"""One number of threads, and one pool of them, for BLAS, the Cython loops (OpenMP) and Numba.

OpenBLAS brings threads of its own, which go on spinning for a while after a matrix product, as OpenMP's do after a
loop: alternating between the two, each pool takes the cores from the other, at several times the cost of the work.  So
when the first compiled loop is asked for, OpenBLAS is told to run its jobs on OpenMP's threads.  Other BLAS libraries
are left as they are.  Nothing happens at import.

After a fork, the child has one thread: OpenMP's threads do not exist there, and waiting for them would never end.
"""

import ctypes
import os
import re
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module

OPENBLAS_NAMES = ("{}", "{}64_", "scipy_{}", "scipy_{}64_")  # NumPy's wheels rename what they bring

_count = None  # the number of threads, once somebody has asked
_joined = False
_forked = False


def get_num_threads() -> int:
    """Return how many threads BLAS and the compiled loops use, at most."""
    return _default() if _count is None else _count


def set_num_threads(n: int) -> None:
    """Let BLAS and the compiled loops use ``n`` threads, from this Python thread.

    ``n`` is at least 1.  A forked child has one thread, and cannot have more: start it with "spawn" instead.
    """
    global _count
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads: n must be a whole number of at least 1; got {n!r}")
    if _forked and n > 1:
        raise RuntimeError(
            f"set_num_threads: a forked process has one thread; got {n}; start it with multiprocessing's 'spawn'"
        )
    _count = n
    for library in _blas():
        library.set_num_threads(n)
    _set_openmp(n)
    _set_numba(n)


def join_pools() -> None:
    """Make the compiled loops and BLAS share OpenMP's threads.  Called when the first compiled loop is loaded."""
    global _count, _joined
    if _joined or _forked:
        return
    _joined = True
    _count = get_num_threads()
    _set_openmp(_count)
    for library in _blas():
        library.set_num_threads(min(_count, library.num_threads))  # fewer, if the user has asked for fewer
    _lend_threads(True)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def prepare_numba() -> None:
    """Let Numba prefer OpenMP, so that its loops share the pool.  Called before the first Numba loop is loaded."""
    numba = import_module("numba")
    if "NUMBA_THREADING_LAYER" not in os.environ and "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
    with suppress(ImportError):  # without compiled loops there is no OpenMP to share
        join_pools()
    _set_numba(get_num_threads())


def _after_fork():
    global _count, _forked
    _forked, _count = True, 1
    _lend_threads(False)
    for library in _blas():
        library.set_num_threads(1)
    _set_openmp(1)


def _set_openmp(n):
    with suppress(ImportError):
        import_module(f"{__package__}.machine_cython").set_openmp_threads(n)


def _set_numba(n):
    numba = sys.modules.get("numba")
    if numba is not None and hasattr(numba, "set_num_threads"):
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))


@cache
def _blas():
    from threadpoolctl import ThreadpoolController

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


def openblas():
    """Return NumPy's OpenBLAS, as a list of one of threadpoolctl's controllers; empty where it has another BLAS."""
    libraries = [library for library in _blas() if library.internal_api == "openblas"]
    if len(libraries) > 1:
        libraries = [library for library in libraries if "numpy" in library.filepath]
    return libraries


def _lend_threads(lend):
    """Give OpenMP's threads to NumPy's OpenBLAS, or give it back its own."""
    for library in openblas():
        register = _symbol(library.dynlib, "openblas_set_threads_callback_function")
        if register is None or library.threading_layer != "pthreads":
            continue
        runner = import_module(f"{__package__}.machine_cython").blas_runner(_places(library.dynlib)) if lend else 0
        if runner or not lend:
            register.argtypes, register.restype = [ctypes.c_void_p], None
            register(runner or None)


def _places(dynlib):
    config = _symbol(dynlib, "openblas_get_config")
    if config is None:
        return 0
    config.restype = ctypes.c_char_p
    found = re.search(rb"MAX_THREADS=(\d+)", config() or b"")
    return int(found[1]) if found else 0


def _symbol(dynlib, name):
    return next((found for form in OPENBLAS_NAMES if (found := getattr(dynlib, form.format(name), None))), None)


@cache
def _default():
    """OMP_NUM_THREADS, or the cores that this process may use: without hyperthreads, within the container's share."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    from pathlib import Path

    mine = os.sched_getaffinity(0)
    cores = set()
    for cpu in mine:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.exists() else cpu)
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(len(cores), int(quota) // int(period)))
    return max(1, len(cores))
