"""The bigram model, which a language model must beat: the next token from the last one alone.

    P(y | x) = (c(x, y) + a p(y)) / (c(x) + a),      p(y) = (c(y) + 1) / (N + V)

c counts pairs of neighbours in the training tokens, N of them; V is the size of the vocabulary.  This is a Dirichlet
prior of strength a around the unigram (MacKay and Peto 1995, "A hierarchical Dirichlet language model"), which is
interpolation with the unigram by the weight a / (c(x) + a): much after a rare x, little after a frequent one.

The strength is the power of two under which the training pairs are most likely when each one in turn is left out of the
counts (Ney, Essen and Kneser 1995), so the model is as good as it can be made without a look at validation tokens:

    L(a) = sum over pairs of c(x, y) log[ (c(x, y) - 1 + a q(y)) / (c(x) - 1 + a) ],      q(y) = c(y) / (N - 1 + V)
"""

import numpy as np

CHUNK = 1 << 20  # pairs counted or looked up at once
DENSE = 1 << 20  # possible pairs up to which one table is counted into; above, pairs are sorted
STRENGTHS = [2.0**k for k in range(-6, 21)]


class Bigram:
    """Counts of the pairs in ``tokens`` (N,), ids below ``vocab_size``; the strength a is chosen unless it is given.

    Memory grows with the number of different pairs, not with the square of the vocabulary, nor with the tokens.

    >>> model = Bigram(np.array([0, 1, 0, 1, 0, 2]), vocab_size=3, strength=1.0)
    >>> float(np.exp(model.log_probability(0, 1))) == (2 + 1.0 * (2 + 1) / (5 + 3)) / (3 + 1.0)
    True
    """

    def __init__(self, tokens, vocab_size, strength=None):
        if len(tokens) < 2:
            raise ValueError(f"tokens must hold a pair, got {len(tokens)} of them")
        self.vocab_size = V = int(vocab_size)
        self._pairs, self._counts = _count_pairs(tokens, V)  # x * V + y, sorted, and c(x, y)
        x, y = np.divmod(self._pairs, V)
        self._first = np.bincount(x, weights=self._counts, minlength=V)  # c(x), (V,)
        self._second = np.bincount(y, weights=self._counts, minlength=V)  # c(y), (V,)
        self._unigram = (self._second + 1) / (self._second.sum() + V)  # p(y), (V,)
        if strength is not None and not strength > 0:
            raise ValueError(f"strength must be positive, got {strength}")
        self.strength = max(STRENGTHS, key=self._left_out) if strength is None else strength

    def _left_out(self, a):
        x, y = np.divmod(self._pairs, self.vocab_size)
        q = self._second / (self._second.sum() - 1 + self.vocab_size)
        return float(self._counts @ np.log((self._counts - 1 + a * q[y]) / (self._first[x] - 1 + a)))

    def log_probability(self, x, y):
        """Return log P(y | x), float64, for ids x and y of one shape, e.g. the inputs and targets of a batch."""
        x, y = np.asarray(x, dtype=np.int64), np.asarray(y, dtype=np.int64)
        pairs = x * self.vocab_size + y
        at = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        count = np.where(self._pairs[at] == pairs, self._counts[at], 0)
        return np.log((count + self.strength * self._unigram[y]) / (self._first[x] + self.strength))

    def loss(self, tokens):
        """Return the mean of -log P over all tokens (N,) but the first, in nats per token."""
        if len(tokens) < 2:
            raise ValueError(f"tokens must hold a pair, got {len(tokens)} of them")
        total = 0.0
        for x, y in _neighbours(tokens):
            total -= float(self.log_probability(x, y).sum())
        return total / (len(tokens) - 1)


def _neighbours(tokens):
    for start in range(0, len(tokens) - 1, CHUNK):
        part = tokens[start : start + CHUNK + 1].astype(np.int64)
        yield part[:-1], part[1:]


def _count_pairs(tokens, V):
    """Return the different pairs x * V + y, sorted, and how often each occurs."""
    if V * V <= DENSE:
        table = np.zeros(V * V, dtype=np.int64)
        for x, y in _neighbours(tokens):
            table += np.bincount(x * V + y, minlength=V * V)
        pairs = np.flatnonzero(table)
        return pairs, table[pairs]
    pairs = counts = np.zeros(0, dtype=np.int64)
    for x, y in _neighbours(tokens):
        new, new_counts = np.unique(x * V + y, return_counts=True)
        pairs, place = np.unique(np.concatenate([pairs, new]), return_inverse=True)
        counts = np.bincount(place, weights=np.concatenate([counts, new_counts])).astype(np.int64)
    return pairs, counts
