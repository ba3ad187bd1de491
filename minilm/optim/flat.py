"""What a rule remembers of many parameters, in one buffer: one allocation, and one run of memory to stream through."""

from collections.abc import Sequence

import numpy as np


def zeros_like(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return zeros of the shapes, dtypes and order of ``arrays``: parts of one buffer for each dtype, end to end."""
    sizes: dict[np.dtype, int] = {}
    for a in arrays:
        sizes[a.dtype] = sizes.get(a.dtype, 0) + a.size
    left = {dtype: np.zeros(size, dtype) for dtype, size in sizes.items()}
    parts = []
    for a in arrays:
        part, left[a.dtype] = left[a.dtype][: a.size], left[a.dtype][a.size :]
        parts.append(part.reshape(a.shape, order="F" if a.flags.fnc else "C"))
    return parts
