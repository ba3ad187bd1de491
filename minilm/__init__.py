"""Transformers from scratch in NumPy, with compiled kernels that must agree with it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._kernels.registry import BackendUnavailable, use_backend
from ._kernels.threads import get_num_threads, set_num_threads
from .autograd import decomposed, enable_grad, no_grad
from .derivatives import grad, hessian, hvp, jacobian, jvp, recompute, value_and_grad, vjp
from .tensor import Tensor

if TYPE_CHECKING:
    from ._kernels.process import tune_process
    from .pretrained import convert, inspect, load, load_tokenizer, save

__version__ = "0.1.0"
__all__ = [
    "BackendUnavailable",
    "Tensor",
    "convert",
    "decomposed",
    "enable_grad",
    "get_num_threads",
    "grad",
    "hessian",
    "hvp",
    "inspect",
    "jacobian",
    "jvp",
    "load",
    "load_tokenizer",
    "no_grad",
    "recompute",
    "save",
    "set_num_threads",
    "tune_process",
    "use_backend",
    "value_and_grad",
    "vjp",
]
# Names whose modules import more than is needed here: import minilm stays light without them.
_ON_USE = dict.fromkeys(("convert", "inspect", "load", "load_tokenizer", "save"), ".pretrained")
_ON_USE["tune_process"] = "._kernels.process"


def __getattr__(name: str) -> Any:
    if name in _ON_USE:
        return getattr(import_module(_ON_USE[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
