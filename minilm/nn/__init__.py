"""Modules: parameters with a forward function, and the parts that models are built of."""

from . import init
from .alibi import alibi, alibi_slopes
from .cache import KVCache
from .layers import (
    ACTIVATIONS,
    Conv1D,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    RMSNorm,
    Sequential,
    add_and_norm,
    feed_forward,
    gated_feed_forward,
    gelu_tanh,
    linear_act,
    through_blocks,
)
from .module import Module, Parameter, functional_call, parameter
from .sequences import Sequences, attend, attend_across, merge_heads, split_fused_heads, split_heads

__all__ = [
    "ACTIVATIONS",
    "Conv1D",
    "Dropout",
    "Embedding",
    "KVCache",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "RMSNorm",
    "Sequences",
    "Sequential",
    "add_and_norm",
    "alibi",
    "alibi_slopes",
    "attend",
    "attend_across",
    "feed_forward",
    "functional_call",
    "gated_feed_forward",
    "gelu_tanh",
    "init",
    "linear_act",
    "merge_heads",
    "parameter",
    "split_fused_heads",
    "split_heads",
    "through_blocks",
]
