"""Scores of the next token, and what changes them: arrays in, arrays out, nothing is written to.

Scores z (B, V) are the model's logits, or log-probabilities where beams are compared.  ``texts`` holds, for each row,
the ids (n,) that the token will follow.  What is forbidden gets -inf.  The order is that of transformers.
Sources: Keskar et al. (2019), arXiv:1909.05858 (repetition penalty); Fan et al. (2018), arXiv:1805.04833 (top-k);
Holtzman et al. (2020), arXiv:1904.09751 (top-p); Nguyen et al. (2024), arXiv:2407.01082 (min-p); the OpenAI API
reference (presence and frequency penalties).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from .options import GenerationConfig, ids

Texts = Sequence[np.ndarray]
BLOCK = 256  # tokens that are summed together in a draw


def processed(z: np.ndarray, texts: Texts, written: np.ndarray, room: np.ndarray, config: GenerationConfig,
              eos: Collection[int]) -> np.ndarray:  # fmt: skip
    """Apply every option of ``config``: scores (B, V) -> (B, V).

    ``written`` (B,): how many tokens of each text were generated; ``room`` (B,): how many may be.
    IndexError for a token id of an option outside the vocabulary.
    """
    c = config
    length = np.array([len(text) for text in texts])
    if c.sequence_bias:
        z = sequence_bias(z, texts, c.sequence_bias)
    if c.repetition_penalty != 1:
        z = repetition_penalty(z, texts, c.repetition_penalty)
    if c.presence_penalty or c.frequency_penalty:
        new = [text[len(text) - n :] for text, n in zip(texts, written, strict=True)]
        z = count_penalty(z, new, c.presence_penalty, c.frequency_penalty)
    if c.no_repeat_ngram_size:
        z = no_repeated_ngram(z, texts, c.no_repeat_ngram_size)
    if c.bad_words_ids:
        words = [tuple(word) for word in c.bad_words_ids]
        z = sequence_bias(z, texts, {word: -np.inf for word in words if len(word) > 1 or word[0] not in eos})
    if eos and (c.min_new_tokens or c.min_length):
        z = forbid(z, (length < c.min_length) | (written < c.min_new_tokens), eos)
    if c.forced_bos_token_id is not None:
        z = force(z, length == 1, (c.forced_bos_token_id,))
    if c.forced_eos_token_id is not None:
        z = force(z, written == room - 1, ids(c.forced_eos_token_id))
    if c.exponential_decay_length_penalty is not None:
        z = growing_end(z, written, *c.exponential_decay_length_penalty, eos)
    if c.suppress_tokens:
        z = forbid(z, np.ones(len(z), bool), c.suppress_tokens)
    if c.begin_suppress_tokens:
        first = (length - written <= 1) & (c.forced_bos_token_id is not None)  # the forced one comes before
        z = forbid(z, written == first, c.begin_suppress_tokens)
    if c.samples:
        z = warped(z, c, keep=1 + max(len(eos), 1) if c.num_beams > 1 else 1)
    return log_softmax(z) if c.renormalize_logits else z


def warped(z: np.ndarray, config: GenerationConfig, keep: int = 1) -> np.ndarray:
    """Apply the options of sampling; at least ``keep`` tokens of each row stay possible."""
    c = config
    if c.temperature is not None and c.temperature != 1:
        z = temperature(z, c.temperature)
    if c.top_k:
        z = top_k(z, max(c.top_k, keep))
    if c.top_p is not None and c.top_p < 1:
        z = top_p(z, c.top_p, keep)
    if c.min_p:
        z = min_p(z, c.min_p, keep)
    return z


def temperature(z: np.ndarray, T: float) -> np.ndarray:
    """z / T."""
    return z / float(T)


def top_k(z: np.ndarray, k: int) -> np.ndarray:
    """Keep the k largest of each row; ties at the edge all stay."""
    V = z.shape[-1]
    if k >= V:
        return z
    edge = np.partition(z, V - k, axis=-1)[:, V - k, None]
    return np.where(z >= edge, z, -np.inf)


def top_p(z: np.ndarray, p: float, keep: int = 1) -> np.ndarray:
    """Keep the fewest of the likeliest tokens that together reach probability p; ties at the edge all stay.

    Only tokens that could stay are sorted: any number of tokens of at most (1 - p) / V each are together at most 1 - p.
    """
    V = z.shape[-1]
    keep = min(keep, V)
    q = np.exp(z - z.max(axis=-1, keepdims=True))
    q /= q.sum(axis=-1, keepdims=True)
    edge = np.partition(q, V - keep, axis=-1)[:, V - keep] if keep > 1 else q.max(axis=-1)
    for row, likely in enumerate(q):
        able = -np.sort(-likely[likely > (1 - p) / V])
        before = np.cumsum(able, dtype=np.float64) - able  # what all likelier ones have together
        n = int(np.searchsorted(before, p))
        if n > keep:
            edge[row] = able[n - 1]
    return np.where(q >= edge[:, None], z, -np.inf)


def min_p(z: np.ndarray, p: float, keep: int = 1) -> np.ndarray:
    """Keep the tokens that are at least p times as likely as the likeliest."""
    edge = z.max(axis=-1, keepdims=True) + float(np.log(p))
    if keep > 1:
        at = max(z.shape[-1] - keep, 0)
        edge = np.minimum(edge, np.partition(z, at, axis=-1)[:, at, None])
    return np.where(z >= edge, z, -np.inf)


def repetition_penalty(z: np.ndarray, texts: Texts, penalty: float) -> np.ndarray:
    """z / penalty where z > 0, z penalty where not, for every token that the text holds."""
    z, penalty = z.copy(), float(penalty)
    for row, text in zip(z, texts, strict=True):
        seen = np.unique(text)
        row[seen] = np.where(row[seen] < 0, row[seen] * penalty, row[seen] / penalty)
    return z


def count_penalty(z: np.ndarray, new: Texts, presence: float, frequency: float) -> np.ndarray:
    """z - frequency count - presence [count > 0], counting in the tokens that were generated."""
    z = z.copy()
    for row, text in zip(z, new, strict=True):
        seen, counts = np.unique(text, return_counts=True)
        row[seen] -= (frequency * counts + presence).astype(z.dtype)
    return z


def no_repeated_ngram(z: np.ndarray, texts: Texts, n: int) -> np.ndarray:
    """Forbid what would complete n tokens that the text holds already."""
    z = z.copy()
    for row, text in zip(z, texts, strict=True):
        if len(text) >= n:
            windows = np.lib.stride_tricks.sliding_window_view(text, n)
            row[windows[(windows[:, :-1] == text[len(text) + 1 - n :]).all(axis=1), -1]] = -np.inf
    return z


def sequence_bias(z: np.ndarray, texts: Texts, bias: Mapping[tuple[int, ...], float]) -> np.ndarray:
    """Add each sequence's bias to its last token where the text ends in the ones before it."""
    z = z.copy()
    for row, text in zip(z, texts, strict=True):
        for sequence, value in bias.items():
            n = len(sequence) - 1
            if n <= len(text) and (text[len(text) - n :] == sequence[:-1]).all():
                row[sequence[-1]] += value
    return z


def growing_end(z: np.ndarray, written: np.ndarray, start: int, factor: float, eos: Collection[int]) -> np.ndarray:
    """z + |z| (factor^(n - start) - 1) for the tokens that end a text, once it has n > start generated tokens."""
    z, ends = z.copy(), list(eos)
    for row, n in zip(z, written.tolist(), strict=True):
        if n > start:
            more = np.abs(row[ends]) * (float(factor) ** (n - start) - 1)
            row[ends] += np.where(np.isfinite(more), more, 0)
    return z


def forbid(z: np.ndarray, rows: np.ndarray, tokens: Collection[int]) -> np.ndarray:
    """-inf for the tokens in some rows."""
    if not rows.any():
        return z
    z = z.copy()
    z[np.ix_(rows, np.array(list(tokens)))] = -np.inf
    return z


def force(z: np.ndarray, rows: np.ndarray, tokens: Collection[int]) -> np.ndarray:
    """0 for the tokens and -inf for all others in some rows."""
    if not rows.any():
        return z
    z = np.where(rows[:, None], -np.inf, z)
    z[np.ix_(rows, np.array(list(tokens)))] = 0
    return z


def log_softmax(z: np.ndarray) -> np.ndarray:
    """z - log Σ e^z over the last axis."""
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def draw(z: np.ndarray, rng: np.random.Generator) -> int:
    """Return a token drawn from softmax(z), z (V,); it takes one number of ``rng``.

    The number points into a block of tokens, by the blocks' sums, and then to one inside: most are summed only once.
    """
    e = np.exp(z - z.max())
    starts = np.arange(0, len(e), BLOCK)
    sums = np.cumsum(np.add.reduceat(e, starts), dtype=np.float64)
    u = rng.random() * sums[-1]
    block = int(np.searchsorted(sums, u, side="right"))
    start = block * BLOCK
    inside = np.cumsum(e[start : start + BLOCK], dtype=np.float64)
    u = max(u - (sums[block - 1] if block else 0.0), 0.0)  # rounding must not lead before the block, or behind it
    i = int(np.searchsorted(inside, u, side="right"))
    return start + (i if i < len(inside) else int(np.flatnonzero(e[start : start + BLOCK])[-1]))


def check_finite(z: np.ndarray) -> None:
    """Refuse rows without a likeliest token; the largest is NaN if any is, infinite if any is inf or all are -inf."""
    if not np.isfinite(z.max(axis=-1)).all():
        raise ValueError(
            "generate: scores must be numbers, and some token must be possible; got NaN or infinities. Are the weights "
            "finite, and does an option forbid every token?"
        )
