"""The order of the rows of query and key projections, on which the rotary embedding depends.

Rotary embedding turns the elements of a head in pairs.  Hugging Face's Llama pairs row i of a head with row i + h / 2,
the original Llama code and what follows it (llama2.c, GGUF files of architecture llama) rows 2 i and 2 i + 1.
Reordered rows give the same attention: queries and keys change places alike.
"""

import numpy as np


def half_split(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return rows (heads h, ...) in Hugging Face's order: row 2 i + j of each head goes to row i + j h / 2."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])  # (heads, h / 2, 2, ...)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)
