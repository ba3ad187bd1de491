"""Modules: parameters with a forward function, and the parts that models are built of."""

from . import init
from .layers import ACTIVATIONS, Conv1D, Dropout, Embedding, LayerNorm, Linear, RMSNorm, Sequential
from .module import Module, Parameter, functional_call, parameter

__all__ = [
    "ACTIVATIONS",
    "Conv1D",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "RMSNorm",
    "Sequential",
    "functional_call",
    "init",
    "parameter",
]
