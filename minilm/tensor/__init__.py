"""A NumPy array that remembers where it came from."""

from .core import Tensor, apply, as_tensor

__all__ = ["Tensor", "apply", "as_tensor"]
