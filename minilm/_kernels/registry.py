"""Find the two functions of an op on the backend in use.

The file name is the registration: op ``gelu`` is ``gelu/gelu.py``, its loops for Numba are ``gelu/gelu_numba.py``.
A backend is imported the first time one of its kernels is asked for, never before.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import ModuleType

from . import threads
from .threads import here

OPS = (
    "add_layer_norm",
    "add_rms_norm",
    "attention",
    "bias_gelu",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "gelu_linear",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "log_softmax",
    "relu",
    "rms_norm",
    "rotary",
    "silu",
    "softmax",
    "swiglu_linear",
)
UPDATES = ("accumulate", "adamw", "sum_of_squares")  # what is done to gradients: one function, and no backward
BACKENDS = ("numpy", "numba", "cython")
AUTO = ("cython", "numba", "numpy")  # order of preference, as measured in benchmarks/LOG.md

_chosen = ContextVar("minilm_backend", default=os.environ.get("MINILM_BACKEND", "auto"))


@dataclass(frozen=True, slots=True)
class Kernel:
    """The forward and backward of one op on one backend.

    ``adds``: the backward takes ``into`` as well, for each input an array to add that gradient to, or None.
    ``primitive``: the backward can itself be differentiated.
    """

    op: str
    backend: str
    forward: Callable
    backward: Callable
    primitive: bool = False
    adds: bool = field(init=False)

    def __post_init__(self) -> None:
        code = getattr(self.backward, "__code__", None)
        object.__setattr__(self, "adds", code is not None and "into" in code.co_varnames[: code.co_argcount])


class BackendUnavailable(ImportError):
    """A backend was asked for by name, and cannot run here."""


@cache
def load(op: str, backend: str) -> Kernel:
    """Return ``op`` on ``backend``, or raise BackendUnavailable saying what to install."""
    if op not in OPS + UPDATES:
        raise ValueError(f"no op named {op!r}; the ops are {', '.join(OPS + UPDATES)}")
    _check_name(backend, BACKENDS)
    reference = import_module(f"{__package__}.{op}.{op}")
    if backend == "numpy":
        if op in UPDATES:
            return Kernel(op, backend, getattr(reference, op), _no_backward)
        return Kernel(op, backend, getattr(reference, f"{op}_forward"), getattr(reference, f"{op}_backward"))
    try:
        owners = getattr(reference, "LOOPS", op)
        loops = [_LOOPS[backend](owner) for owner in ((owners,) if isinstance(owners, str) else owners)]
    except ImportError as error:
        raise BackendUnavailable(f"{op} on {backend}: {error}. {_HOW_TO_GET[backend]}") from error
    made = getattr(reference, f"{op}_compiled")(*loops)
    return Kernel(op, backend, made, _no_backward) if op in UPDATES else Kernel(op, backend, *made)


def kernel(op: str) -> Kernel:
    """Return ``op`` on the chosen backend; "auto" takes the first that loads."""
    backend = _chosen.get()
    found = _first_that_loads(op) if backend == "auto" else load(op, backend)
    if here.follows != threads.setting or found.backend == "numba":
        threads.follow(found.backend == "numba")
    return found


@cache
def _first_that_loads(op: str) -> Kernel:
    for backend in AUTO:
        try:
            return load(op, backend)
        except BackendUnavailable:
            continue
    raise AssertionError("the NumPy reference always loads")


def backend() -> str:
    """Return the name of the chosen backend: numpy, numba, cython or auto."""
    return _chosen.get()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the body of a with-statement on one backend: numpy, numba, cython or auto.

    Raises ValueError for a name that is none of these.  A backend that cannot run here raises BackendUnavailable
    (an ImportError) when its first kernel is needed.

    >>> with use_backend("numpy"):
    ...     kernel("gelu").backend
    'numpy'
    """
    _check_name(name, (*BACKENDS, "auto"))
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def _check_name(name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        from difflib import get_close_matches

        hint = "".join(f" Did you mean {match!r}?" for match in get_close_matches(name, names, n=1))
        raise ValueError(f"no backend named {name!r}; the backends are {', '.join(names)}.{hint}")


def _cython_loops(op: str) -> ModuleType:
    """Import the loops built for the best instruction set that this processor has."""
    from . import cpu

    loops = cpu.import_loops(op)
    threads.join_pools()
    return loops


def _numba_loops(op: str) -> ModuleType:
    threads.prepare_numba()
    return import_module(f"{__package__}.{op}.{op}_numba")


def _no_backward(*_: object) -> None:
    raise TypeError("what an optimizer computes has no backward")


_LOOPS = {"cython": _cython_loops, "numba": _numba_loops}
_HOW_TO_GET = {
    "numba": "Install it with: pip install 'minilm[numba]'",
    "cython": "It is compiled when minilm is installed on a machine with a C compiler: "
    "install one (Debian: apt-get install gcc), then run pip install again",
}
