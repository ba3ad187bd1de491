"""Transformers from scratch in NumPy, with compiled kernels that must agree with it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._kernels.registry import BackendUnavailable, use_backend
from ._kernels.threads import get_num_threads, set_num_threads
from .autograd import decomposed, enable_grad, no_grad
from .derivatives import grad, hessian, hvp, jacobian, jvp, recompute, value_and_grad, vjp
from .tensor import Tensor

if TYPE_CHECKING:
    from .pretrained import load, save

__version__ = "0.1.0"
__all__ = [
    "BackendUnavailable",
    "Tensor",
    "decomposed",
    "enable_grad",
    "get_num_threads",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "load",
    "no_grad",
    "recompute",
    "save",
    "set_num_threads",
    "use_backend",
    "value_and_grad",
    "vjp",
]
_ON_USE = ("load", "save")  # of minilm.pretrained, which imports every family's files and formats


def __getattr__(name: str) -> Any:
    if name in _ON_USE:
        return getattr(import_module(".pretrained", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
