"""Beam search: the likeliest texts, not the likeliest next tokens.

Of one prompt, k beams y are kept, with S(y) = Σ log p(y_t | y_<t).  All their continuations are compared and the best
few times k taken, so that k remain if the others end here.  A text that ends, with n new tokens, is worth S / n^α, α
the length penalty; the k best ended ones are kept too.  The search stops when no beam can become better than the worst
of them: estimated at the length that the beams have now; with early_stopping "never" and α > 0, at the greatest length;
with True as soon as k texts have ended.
Source: the behaviour of transformers' ``generate(num_beams=k)``, which the tests hold this to.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from .options import GenerationConfig

NEVER = -1e9  # below any score of a text, yet finite, so that sums and comparisons stay numbers


@dataclass
class Ended:
    """A text that was found: new tokens, the model's log-probability of each, and S / n^α."""

    tokens: list[int]
    logprobs: list[float]
    score: float
    stopped: bool  # by a token, not by the length


class Beams:
    """The beams of one prompt, at most ``room`` new tokens long."""

    def __init__(self, config: GenerationConfig, room: int, eos: Collection[int], rng: np.random.Generator | None):
        k = config.num_beams
        self.config, self.room, self.eos, self.rng = config, room, np.array(sorted(eos), np.int64), rng
        self.scores = np.full(k, NEVER)  # S of each beam; at first all are the same text, and one counts
        self.scores[0] = 0
        self.tokens: list[list[int]] = [[] for _ in range(k)]
        self.logprobs: list[list[float]] = [[] for _ in range(k)]
        self.ended: list[Ended] = []
        self.done = room == 0

    def advance(self, z: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take log-probabilities (k, V), processed and raw; return which beams go on (k,), and with which tokens (k,).

        ``done`` tells whether the search is over.
        """
        k, V = z.shape
        n = len(self.tokens[0]) + 1
        S = (z + self.scores[:, None]).ravel()  # (k V,), float64
        best = self._chosen(S, k * max(2, 1 + len(self.eos)))
        beams, tokens, S = best // V, best % V, S[best]
        ends = np.isin(tokens, self.eos) | (n == self.room)

        candidates = []
        for i in range(k):
            if ends[i]:
                b, token = int(beams[i]), int(tokens[i])
                so_far, each = self.tokens[b], self.logprobs[b]
                worth = float(S[i]) / n**self.config.length_penalty
                stopped = token in self.eos
                candidates.append(Ended([*so_far, token], [*each, float(raw[b, token])], worth, stopped))
        self.ended = sorted(self.ended + candidates, key=lambda text: -text.score)[:k]

        going = np.argsort(-(S + np.where(ends, NEVER, 0)), kind="stable")[:k]
        beams, tokens, self.scores = beams[going], tokens[going], (S + np.where(ends, NEVER, 0))[going]
        self.logprobs = [[*self.logprobs[b], float(raw[b, t])] for b, t in zip(beams, tokens, strict=True)]
        self.tokens = [[*self.tokens[b], int(t)] for b, t in zip(beams, tokens, strict=True)]
        self.done = bool(ends.all()) or self._settled(n)
        return beams, tokens

    def _chosen(self, S: np.ndarray, count: int) -> np.ndarray:
        """Return the indices of the best ``count``, best first; or of as many drawn from softmax(S), one by one.

        Drawn without replacement by adding Gumbel noise to each: the largest is a draw, the next one of the rest, ...
        """
        if self.rng is not None:
            S = S + self.rng.gumbel(size=S.shape)
        count = min(count, len(S))
        best = np.argpartition(S, -count)[-count:]
        return best[np.argsort(-S[best], kind="stable")]

    def _settled(self, n: int) -> bool:
        full = len(self.ended) == self.config.num_beams
        if full and self.config.early_stopping is True:
            return True
        alpha = self.config.length_penalty
        longest = self.room if self.config.early_stopping == "never" and alpha > 0 else n
        return full and not self.scores[0] / longest**alpha > self.ended[-1].score
