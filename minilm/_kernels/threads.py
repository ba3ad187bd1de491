"""One number of threads, and one pool of them, for BLAS, the Cython loops (OpenMP) and Numba.

OpenBLAS brings threads of its own, which go on spinning for a while after a matrix product, as OpenMP's do after a
loop: alternating between the two, each pool takes the cores from the other, at several times the cost of the work.  So
when the first compiled loop is asked for, OpenBLAS is told to run its jobs on OpenMP's threads.  Other BLAS libraries
are left as they are.  Nothing happens at import.

OpenMP and Numba count for each Python thread apart, OpenBLAS for all of them: so a Python thread is told its number
when it looks up its first kernel.  A limit that somebody else has set, with threadpoolctl say, is kept.

After a fork, the child has one thread: OpenMP's threads do not exist there, and waiting for them would never end.
What is promised, and what not, is in docs/threads.md.
"""

import ctypes
import os
import re
import sys
import threading
from contextlib import suppress
from functools import cache
from importlib import import_module

OPENBLAS_NAMES = ("{}", "{}64_", "scipy_{}", "scipy_{}64_")  # NumPy's wheels rename what they bring


class _Here(threading.local):
    """What one Python thread was told."""

    follows = 0  # the value that ``setting`` had then
    given = None  # the number that OpenMP has here because we said so
    numba = None  # likewise Numba's


here = _Here()
setting = 0  # goes up with every change of the number; 0 as long as there is nothing to follow
_count = None  # the number of threads, once somebody has asked
_full: dict[str, int] = {}  # file of an OpenBLAS -> how many threads it has while nobody limits it
_joined = False
_forked = False  # a child of a process that had OpenMP: one thread, for good
_numba = None
lock = threading.RLock()


def get_num_threads() -> int:
    """Return how many threads BLAS and the compiled loops use, at most."""
    return _default() if _count is None else _count


def set_num_threads(n: int) -> None:
    """Let BLAS and the compiled loops use ``n`` threads, at least 1, in every Python thread.

    A forked child has one thread, and cannot have more: start it with "spawn" instead.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"set_num_threads: n must be a whole number of at least 1; got {n!r}")
    if _forked and n > 1:
        raise RuntimeError(
            f"set_num_threads: a forked process has one thread; got {n}; start it with multiprocessing's 'spawn'"
        )
    with lock:
        _change(n)
        for library in _blas():
            if library in _pthreads():
                _limit(library, n, for_good=True)
            else:
                library.set_num_threads(n)
        _tell(n)
        here.follows = setting


def join_pools() -> None:
    """Make the compiled loops and BLAS share OpenMP's threads.  Called when the first compiled loop is loaded."""
    global _joined
    with lock:
        if _joined:
            return
        _joined = True
        n = get_num_threads()
        for library in _pthreads():
            limit = library.num_threads
            _limit(library, n, for_good=True)
            if limit < n:  # the user's, for good, or for as long as a block of threadpoolctl's lasts
                _limit(library, limit, for_good="OPENBLAS_NUM_THREADS" in os.environ)
        if not _forked:
            _lend_threads(True)
        _change(n)


def prepare_numba() -> None:
    """Let Numba prefer OpenMP, so that its loops share the pool.  Called before the first Numba loop is loaded."""
    global _numba
    numba = import_module("numba")
    with lock:
        join_pools()
        if _numba is None and not _numba_is_lost():
            if "NUMBA_THREADING_LAYER" not in os.environ and "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
                numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
            before = _machine().openmp_threads() if _machine() else None
            numba.get_num_threads()  # Numba starts its threads, and changes OpenMP's number
            if before is not None:
                _machine().set_openmp_threads(before)
        _numba = numba


def follow(uses_numba: bool = False) -> None:
    """Tell this Python thread the number, or less where OpenMP or OpenBLAS was given less, by threadpoolctl say.

    Called with the first kernel after ``setting`` has changed; with every kernel while there is such a limit, to see
    when it ends; and with every kernel of Numba's, since threadpoolctl does not reach that.
    RuntimeError: Numba in a forked child, which Numba would end.
    """
    if uses_numba and _numba_is_lost():
        raise RuntimeError(
            "numba: its loops cannot run in a forked process once OpenMP's threads were started; got a fork; start "
            "the process with multiprocessing's 'spawn', or choose another backend in it"
        )
    with lock:
        now, n = setting, get_num_threads()
        for library in _pthreads():
            has, full = library.num_threads, _full.get(library.filepath, sys.maxsize)
            if has > full:  # a limit has ended, and with it the number that OpenBLAS chose for itself came back
                _limit(library, full)
            elif has < full < sys.maxsize:
                n = min(n, has)
        machine = _machine()
        if machine is not None and (has := machine.openmp_threads()) < (here.given or _openmp_default()):
            n = min(n, has)
            _set_numba(n)
        else:
            _tell(n)
        if n == get_num_threads():
            here.follows = now


def _after_fork():
    global lock, _forked
    lock = threading.RLock()  # nobody is left who could open the old one
    if not (_joined or _openmp_is_loaded()):
        return  # nothing was started: the child is as free as any process
    _forked = True
    _change(1)
    if _joined:
        _lend_threads(False)
        for library in _pthreads():
            _limit(library, 1, for_good=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _change(n):
    global _count, setting
    _count = n
    setting += 1


def _limit(library, n, for_good=False):
    """Set OpenBLAS's number by its own function: threadpoolctl's works in one Python thread and not in the others."""
    _symbol(library.dynlib, "openblas_set_num_threads")(n)
    if for_good:
        _full[library.filepath] = library.num_threads


def _tell(n):
    if _machine() is not None:
        _machine().set_openmp_threads(n)
        here.given = n
    _set_numba(n)


def _set_numba(n):
    if _numba is not None and here.numba != n and not _numba_is_lost():
        _numba.set_num_threads(min(n, _numba.config.NUMBA_NUM_THREADS))
        here.numba = n


def _numba_is_lost():
    """Tell whether Numba's loops would end this process: it is a fork, and GNU's OpenMP was at work before it."""
    if not _forked or "numba" not in sys.modules or not sys.platform.startswith("linux"):
        return False
    with suppress(ValueError):  # Numba has started no threads yet
        return sys.modules["numba"].threading_layer() == "omp"
    return False


@cache
def _machine():
    with suppress(ImportError):
        return import_module(f"{__package__}.machine_cython")
    return None


@cache
def _openmp_default():
    """Return what OpenMP gives a Python thread to which nobody has said anything."""
    found = []
    thread = threading.Thread(target=lambda: found.append(_machine().openmp_threads()))
    thread.start()
    thread.join()
    return found[0]


def _openmp_is_loaded():
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD))
    return False


@cache
def _blas():
    from threadpoolctl import ThreadpoolController

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


@cache
def openblas():
    """Return NumPy's OpenBLAS, as a tuple of one of threadpoolctl's controllers; empty where it has another BLAS."""
    libraries = tuple(library for library in _blas() if library.internal_api == "openblas")
    if len(libraries) > 1:
        libraries = tuple(library for library in libraries if "numpy" in library.filepath)
    return libraries


def _pthreads():
    """Return it only where it has threads of its own: built on OpenMP, it uses the pool anyway."""
    return [library for library in openblas() if library.threading_layer == "pthreads"]


def _lend_threads(lend):
    """Give OpenMP's threads to NumPy's OpenBLAS, or give it back its own."""
    for library in _pthreads():
        register = _symbol(library.dynlib, "openblas_set_threads_callback_function")
        if register is None or _machine() is None:
            continue
        runner = _machine().blas_runner(_places(library.dynlib)) if lend else 0
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
    """OMP_NUM_THREADS, or this process's share of the cores that it may use: pytest-xdist has told it of the others."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "")
    return max(1, _cores() // max(1, int(workers) if workers.isdigit() else 1))


def _cores():
    """Count the cores that this process may use: without hyperthreads, within the container's share."""
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
