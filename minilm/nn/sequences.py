"""How the tokens of one call lie in memory, and what each may attend to.

Three layouts, one code.  *Rows*: (B, T) tokens, where ``attention_mask`` says which are padding.  *Packed*: sequences
of ``lengths`` n₁, n₂, ... end to end in one row, (1, N) with N = Σ nᵢ; no token sees another sequence, and nothing is
computed for padding.  *Cached*: the T tokens that follow those in a cache, whose rows may be of unequal length.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import autograd
from .. import functional as F
from .._kernels.primitives import PRIMITIVES
from ..tensor import Tensor, apply, as_tensor
from .cache import KVCache


class Sequences:
    """The tokens of one call.

    ``positions`` (B, T) count from 0 in each sequence, those in the cache included.  ``past`` is what the fullest row
    of the cache holds.  ``lengths`` is None, or what lies packed.
    """

    def __init__(
        self,
        name: str,
        input_ids: Any,
        *,
        dtype: Any,
        attention_mask: Any = None,
        lengths: Sequence[int] | None = None,
        cache: KVCache | None = None,
        limit: int | None = None,
    ):
        """Check the arguments of model ``name``; ``limit`` is the longest sequence that its positions allow.

        ValueError: input_ids not (B, T), a mask or lengths that do not fit, a sequence that is too long.
        RuntimeError: a cache while the tape records.
        """
        shape = np.shape(input_ids._data if isinstance(input_ids, Tensor) else input_ids)
        if len(shape) < 2:
            raise ValueError(f"{name}: input_ids must be (B, T), a batch of sequences; got shape {shape}.")
        self.B, self.T = B, T = shape[:2]
        self.cache, self.dtype = cache, np.dtype(dtype)
        self.lengths = None if lengths is None else _checked_lengths(name, lengths, B, T)
        if cache is not None:
            _check_cache(name, cache, B if self.lengths is None else len(self.lengths), self.lengths)
        self.past = cache.length if cache is not None else 0
        self.ragged = cache is not None and self.lengths is None and not cache.even  # after rows of unequal length
        longest = self.past + (T if self.lengths is None else max(self.lengths, default=0))
        room = min(x for x in (limit, cache.capacity if cache is not None else None, longest) if x is not None)
        if longest > room:
            raise ValueError(
                f"{name}: at most {room} positions fit" + (", the size of this cache" if limit != room else "") + "; "
                f"got {longest}. Keep the last ones" + (", or make a larger cache." if limit != room else ".")
            )
        if self.lengths is not None:
            self.positions = np.concatenate([np.arange(n) for n in self.lengths] or [np.arange(0)])[None]
        elif cache is not None:
            self.positions = cache.lengths[:, None] + np.arange(T)
        else:
            self.positions = np.broadcast_to(np.arange(T), (B, T))
        self.padding = None if attention_mask is None else _checked_mask(name, attention_mask, B, self.past + T)
        if self.padding is not None and (self.lengths is not None or (cache is not None and not cache.even)):
            raise ValueError(f"{name}: packed sequences have no padding; got attention_mask too. Leave it out.")
        self._masks: dict[Any, Tensor | None] = {}

    def mask(self, window: int | None = None) -> Tensor | None:
        """Return what to add to the scores, 0 or -inf, beside causality: (B, 1, 1 or T, S), or None if all may be seen.

        Over a cache with rows of unequal length it holds causality and ``window`` too.
        """
        if window not in self._masks:
            visible = None if self.padding is None else self.padding[:, None, None, :]
            if self.ragged:
                assert self.cache is not None
                s = np.arange(self.past + self.T)
                t = self.positions[:, None, :, None]  # (B, 1, T, 1)
                visible = (s <= t) if window is None else (s <= t) & (s > t - window)
            self._masks[window] = (
                None if visible is None else as_tensor(np.where(visible, 0, -np.inf).astype(self.dtype))
            )
        return self._masks[window]

    def done(self) -> None:
        """Let the cache, if there is one, count the new tokens, once every layer has written its keys and values."""
        if self.cache is not None:
            self.cache.advance(self.T if self.lengths is None else self.lengths)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H D) -> (B, H, T, D), a view.  ValueError where the heads do not divide the last axis."""
    B, T, C = x._data.shape
    return _rearrange(x, (B, T, heads, _width("split_heads", C, heads)), (0, 2, 1, 3))


def split_fused_heads(x: Tensor, heads: int, *, by_head: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one product, (B, T, 3 H D) -> three of (B, H, T, D), views.

    All queries come first, then all keys; or, ``by_head``, those of the first head, (B, T, H 3 D).
    ValueError where three times the heads do not divide the last axis.
    """
    B, T, C = x._data.shape
    D = _width("split_fused_heads", C, 3 * heads)
    if by_head:
        return _rearrange(x, (B, T, heads, 3, D), (3, 0, 2, 1, 4), apart=True)
    return _rearrange(x, (B, T, 3, heads, D), (2, 0, 3, 1, 4), apart=True)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H D)."""
    B, H, T, D = x._data.shape
    return _rearrange(x, (B, H, T, D), (0, 2, 1, 3), (B, T, H * D))


def _rearrange(
    x: Tensor, shape: tuple[int, ...], axes: tuple[int, ...], to: tuple[int, ...] | None = None, apart: bool = False
) -> Any:
    """x.reshape(shape).transpose(axes).reshape(to), on the tape once; or, ``apart``, each index of its first axis."""
    return apply(PRIMITIVES["rearrange"], x, shape=shape, axes=axes, to=to, apart=apart)


def _width(name: str, C: int, heads: int) -> int:
    if heads < 1 or C % heads:
        raise ValueError(f"{name}: the last axis must be a multiple of {heads}; got {C}. Is it another model's size?")
    return C // heads


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sequences: Sequences,
    *,
    layer: int = 0,
    causal: bool = True,
    scale: float | None = None,
    bias: Tensor | None = None,
    window: int | None = None,
    dropout_p: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """Return what each token takes from its own sequence: softmax(q kᵀ scale + bias) v, the heads side by side.

    Shapes: q (B, H, T, D), k and v (B, G, T, D), H a multiple of G -> (B, T, H D).  k and v go into the cache, if there
    is one, as those of ``layer``, and q sees all that is there.  ``bias`` broadcasts to (B, H, T, S), S positions, the
    cached ones included.  ``window``: a token sees only so many positions, itself the last.
    Mathematics: _kernels/attention/attention.py.
    """
    cache, lengths = sequences.cache, sequences.lengths
    if cache is not None and lengths is not None:
        cache.fill(layer, k, v, lengths)
    elif cache is not None:
        k, v = cache.extend(layer, k, v)
    mask = sequences.mask(window)
    alone = not sequences.ragged  # otherwise the mask holds causality and window
    o = F.scaled_dot_product_attention(
        *(q, k, v, bias if mask is None else mask if bias is None else bias + mask),
        dropout_p=dropout_p,
        is_causal=causal and alone,
        scale=scale,
        enable_gqa=True,
        query_offset=sequences.past if lengths is None else 0,
        rng=rng,
        lengths=lengths,
        window=window if alone else None,
    )
    return merge_heads(o)


def attend_across(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Any = None,
    lengths: tuple[Sequence[int], Sequence[int]] | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """Return what each token takes from another text: q (B, H, T, D), k and v (B, G, S, D) -> (B, T, H D).

    ``mask`` (B, S) is False or 0 where that text is padding; ``lengths`` are those of queries and keys where both lie
    packed.
    """
    visible = None if mask is None else np.asarray(mask).astype(bool)[:, None, None, :]
    o = F.scaled_dot_product_attention(
        q, k, v, visible, dropout_p=dropout_p, scale=scale, enable_gqa=True, rng=rng, lengths=lengths
    )
    return merge_heads(o)


def _checked_lengths(name: str, lengths: Sequence[int], B: int, T: int) -> tuple[int, ...]:
    found = tuple(int(n) for n in lengths)
    if B != 1 or min(found, default=1) < 1 or sum(found) != T:
        raise ValueError(
            f"{name}: packed input_ids must be (1, N), with lengths of at least 1 that add up to N; got shape "
            f"({B}, {T}) and lengths that add up to {sum(found)}."
        )
    return found


def _check_cache(name: str, cache: KVCache, rows: int, lengths: tuple[int, ...] | None) -> None:
    if autograd.recording():
        raise RuntimeError(f"{name}: a cache is for generation; call under minilm.no_grad().")
    if cache.batch != rows:
        raise ValueError(
            f"{name}: the cache holds {cache.batch} sequences; got {rows}. Make one with new_cache({rows})."
        )
    if lengths is not None and cache.length:
        raise ValueError(
            f"{name}: packed sequences must come first into a cache; got one with {cache.length} positions."
        )


def _checked_mask(name: str, attention_mask: Any, B: int, S: int) -> np.ndarray | None:
    mask = as_tensor(attention_mask)._data
    if mask.shape != (B, S):
        raise ValueError(f"{name}: attention_mask must be (B, S) = ({B}, {S}); got {mask.shape}.")
    visible = mask.astype(bool)
    return None if visible.all() else visible
