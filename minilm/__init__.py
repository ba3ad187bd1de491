"""Transformers from scratch in NumPy, with compiled kernels that must agree with it."""

from ._kernels.registry import BackendUnavailable, use_backend
from ._kernels.threads import get_num_threads, set_num_threads
from .autograd import decomposed, enable_grad, no_grad
from .derivatives import grad, hessian, hvp, jacobian, jvp, recompute, value_and_grad, vjp
from .tensor import Tensor

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
    "no_grad",
    "recompute",
    "set_num_threads",
    "use_backend",
    "value_and_grad",
    "vjp",
]
