"""Positions as a bias of the scores that depends on the distance s - t alone, shared by distances in one bucket.

Half of the buckets hold one near distance each, the other half logarithmic steps up to ``max_distance``, beyond which
all distances are one.  Where both directions are seen, each has half of them.
Source: Raffel et al. (2020), arXiv:1910.10683, section 2.1.
"""

import math
from typing import Any

import numpy as np

from .. import functional as F
from ..tensor import Tensor
from .sequences import Sequences, attend, merge_heads


def relative_buckets(distances: np.ndarray, num_buckets: int, max_distance: int, causal: bool) -> np.ndarray:
    """Return the bucket of each distance s - t: integers of any shape -> integers of the same shape.

    ``causal``: only the distances up to 0 are told apart.
    """
    far = np.maximum(-distances, 0) if causal else np.abs(distances)
    n = num_buckets if causal else num_buckets // 2
    near = n // 2
    # float32, in this order: a distance on the edge of a step falls into the bucket that models were trained with.
    steps = np.log(np.maximum(far, near).astype(np.float32) / np.float32(near))
    steps = steps / np.float32(math.log(max_distance / near)) * np.float32(n - near)
    bucket = np.where(far < near, far, np.minimum(near + steps.astype(np.int64), n - 1))
    return bucket if causal else bucket + n * (distances > 0)


def distances(sequences: Sequences) -> np.ndarray:
    """Return s - t for all that a token may attend to: (B or 1, T, S), S counting what a cache holds.

    Of packed sequences those of the longest, (1, T, T).
    """
    if sequences.lengths is not None:
        t = np.arange(max(sequences.lengths, default=0))[None]
    else:
        t = sequences.positions if sequences.ragged else sequences.positions[:1]  # (B or 1, T)
    return np.arange(sequences.past + t.shape[1]) - t[..., None]


def attend_biased(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sequences: Sequences,
    bias: Tensor,
    *,
    layer: int,
    causal: bool,
    scale: float,
    dropout_p: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """As ``attend``; packed sequences run one after another, each with its corner of the longest's bias (1, H, T, T).

    A bias for all of them at once would have (Σ lengths)² entries.
    """
    options: Any = {"scale": scale, "dropout_p": dropout_p, "rng": rng}
    if sequences.lengths is None:
        return attend(q, k, v, sequences, layer=layer, causal=causal, bias=bias, **options)
    heads: Any = []
    end = 0
    for n in sequences.lengths:
        own, end = slice(end, end + n), end + n
        part = q[:, :, own], k[:, :, own], v[:, :, own], bias[:, :, :n, :n]
        heads.append(F.scaled_dot_product_attention(*part, is_causal=causal, **options))
    return merge_heads(np.concatenate(heads, axis=2))  # type: ignore[arg-type]
