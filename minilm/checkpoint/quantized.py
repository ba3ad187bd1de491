"""The block types of GGML, dequantised: x is the float, q a small integer, one row of bytes is one block.

    Q8_0   32 elements, 34 bytes    x = d q,          d float16, q int8
    Q4_0   32 elements, 18 bytes    x = d (q - 8),    d float16, q 4 bits
    Q4_1   32 elements, 20 bytes    x = d q + m,      d, m float16, q 4 bits
    Q4_K  256 elements, 144 bytes   x = d s q - e t,  d, e float16; s, t 6 bits for each 32 elements; q 4 bits
    Q6_K  256 elements, 210 bytes   x = d s (q - 32), d float16; s int8 for each 16 elements; q 6 bits

Where a byte holds two q of 4 bits, the low halves of a run of bytes come first, then the high halves.
Source: ggml's ggml-common.h (the blocks) and ggml-quants.c (the order of their parts).
"""

from collections.abc import Callable

import numpy as np

CHUNK = 4096  # blocks dequantised together: what lies between fits into the cache


def dequantize(data: np.ndarray, dtype: str) -> np.ndarray:
    """Return the elements, (n,) float32, of whole blocks of a type in BLOCKS, ``data`` (bytes,) uint8."""
    elements, size, function = BLOCKS[dtype]
    blocks = data.reshape(-1, size)  # (blocks, bytes of one)
    x = np.empty((len(blocks), elements), np.float32)
    with np.errstate(all="ignore"):  # a scale may be infinite or NaN; Weights.check finds it
        for start in range(0, len(blocks), CHUNK):
            x[start : start + CHUNK] = function(blocks[start : start + CHUNK])
    return x.reshape(-1)


def _q8_0(block: np.ndarray) -> np.ndarray:
    d, q = _half(block[:, :2]), block[:, 2:].view(np.int8)
    return d * q.astype(np.float32)


def _q4_0(block: np.ndarray) -> np.ndarray:
    d, q = _half(block[:, :2]), _nibbles(block[:, 2:], 16)
    return d * (q.astype(np.float32) - 8)


def _q4_1(block: np.ndarray) -> np.ndarray:
    d, m, q = _half(block[:, :2]), _half(block[:, 2:4]), _nibbles(block[:, 4:], 16)
    return d * q.astype(np.float32) + m


def _q4_k(block: np.ndarray) -> np.ndarray:
    d, e, packed = _half(block[:, :2]), _half(block[:, 2:4]), block[:, 4:16]
    s, t = _six_bits(packed)  # (blocks, 8), (blocks, 8)
    q = _nibbles(block[:, 16:], 32).reshape(-1, 8, 32)
    scale, offset = (d * s)[:, :, None], (e * t)[:, :, None]  # (blocks, 8, 1)
    return (scale * q.astype(np.float32) - offset).reshape(-1, 256)


def _q6_k(block: np.ndarray) -> np.ndarray:
    low, high, s, d = block[:, :128], block[:, 128:192], block[:, 192:208].view(np.int8), _half(block[:, 208:])
    low = _nibbles(low, 64)  # (blocks, 256), the 4 low bits of q
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(4, 1)
    high = (high.reshape(-1, 2, 1, 32) >> shifts & 3).reshape(-1, 256)  # the 2 high bits: 4 in a byte, 32 apart
    q = (low | high << 4).astype(np.float32).reshape(-1, 16, 16) - 32
    return ((d * s.astype(np.float32))[:, :, None] * q).reshape(-1, 256)


def _half(pair: np.ndarray) -> np.ndarray:
    """Return float16 numbers, (blocks, 2) uint8, as (blocks, 1) float32."""
    return np.ascontiguousarray(pair).view(np.float16).astype(np.float32)


def _nibbles(packed: np.ndarray, run: int) -> np.ndarray:
    """Return the halves of bytes, (blocks, n) to (blocks, 2 n): of each ``run`` bytes the low ones, then the others."""
    shifts = np.array([0, 4], np.uint8).reshape(2, 1)
    return (packed.reshape(len(packed), -1, 1, run) >> shifts & 15).reshape(len(packed), -1)


def _six_bits(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scales s and t of Q4_K, (blocks, 8) float32 each, out of 12 bytes.

    Bytes 0-3 and 4-7 hold s and t of the first four parts in their 6 low bits.  Of the last four, bytes 8-11 hold the
    4 low bits (s in the low half, t in the high one), and the 2 top bits of bytes 0-3 and 4-7 the 2 high ones.
    """
    a, b, c = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    s = np.concatenate([a & 63, c & 15 | a >> 6 << 4], axis=1)
    t = np.concatenate([b & 63, c >> 4 | b >> 6 << 4], axis=1)
    return s.astype(np.float32), t.astype(np.float32)


BLOCKS: dict[str, tuple[int, int, Callable[[np.ndarray], np.ndarray]]] = {  # elements and bytes of a block
    "Q4_0": (32, 18, _q4_0),
    "Q4_1": (32, 20, _q4_1),
    "Q8_0": (32, 34, _q8_0),
    "Q4_K": (256, 144, _q4_k),
    "Q6_K": (256, 210, _q6_k),
}
