"""Which build of the Cython kernels this processor can run.

A wheel holds the same loops compiled for several instruction sets, each in a folder of its own beside the ops.  The
best one is chosen when the first compiled loop is asked for; MINILM_CPU=x86_64 (say) chooses a lower one, for tests.
"""

import os
from functools import cache
from importlib import import_module
from types import ModuleType

LEVELS = {"x86_64_v4": 4, "x86_64_v3": 3, "x86_64": 1, "base": 0}  # name -> the x86-64 level that it needs


@cache
def isas() -> tuple[str, ...]:
    """Return the instruction sets that this processor has, the best first; MINILM_CPU leaves out those above it.

    Raises ValueError when MINILM_CPU names one that does not exist or that this processor has not, and ImportError
    when the compiled kernels were not built.
    """
    from .machine_cython import x86_64_level

    here = [name for name, level in LEVELS.items() if level <= x86_64_level()]
    wanted = os.environ.get("MINILM_CPU") or here[0]
    if wanted not in here:
        problem = "this processor has not" if wanted in LEVELS else "that is unknown"
        raise ValueError(
            f"MINILM_CPU: must be one of {', '.join(here)} here; got {wanted!r}, {problem}; unset it for the best"
        )
    return tuple(here[here.index(wanted) :])


def isa() -> str:
    """Return the best instruction set that the compiled kernels may use, a name of LEVELS."""
    return isas()[0]


def import_loops(op: str) -> ModuleType:
    """Import the Cython loops of ``op``: the best build that exists and that this processor can run.

    Raises ImportError when there is none, and ValueError as ``isas`` does.
    """
    for name in isas():
        try:
            return import_module(f"{__package__}.{name}.{op}_cython")
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(f"no {op}_cython in {', '.join(isas())}")
