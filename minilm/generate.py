"""Write text: one token after another, each drawn from what the model predicts after the ones before it."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from . import autograd
from .models.gpt2 import GPT2LMHeadModel


def generate(
    model: GPT2LMHeadModel,
    prompt: Sequence[int],
    max_new_tokens: int = 100,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    rng: np.random.Generator | None = None,
    stop_tokens: Collection[int] = (),
    use_cache: bool = True,
) -> Iterator[int]:
    """Yield up to ``max_new_tokens`` token ids that follow ``prompt``, as they are chosen.

    ``temperature`` 0 takes the likeliest token (greedy); otherwise the token is drawn by ``rng`` from
    ``next_probabilities``.  A token of ``stop_tokens`` ends the text and is not yielded.  Keys and values of what was
    read are kept, unless ``use_cache`` is False.  When the context, n_positions, is full, its older half is forgotten.
    ValueError for an empty prompt or an option out of range; IndexError for a token id out of range.
    """
    if not len(prompt):
        raise ValueError(
            "generate: the prompt must hold at least one token; got none. Start with an end-of-text token."
        )
    if max_new_tokens < 0:
        raise ValueError(f"generate: max_new_tokens must be at least 0; got {max_new_tokens}.")
    _check(temperature, top_k, top_p)
    if temperature > 0 and rng is None:
        raise ValueError(
            "generate: sampling needs rng, a numpy.random.Generator; or take temperature=0, the likeliest."
        )
    return _tokens(model, prompt, max_new_tokens, (temperature, top_k, top_p), rng, stop_tokens, use_cache)


def _tokens(model, prompt, max_new_tokens, options, rng, stop_tokens, use_cache):
    longest = model.config.n_positions
    capacity = min(longest, len(prompt) + max_new_tokens)
    context = [int(t) for t in prompt][-longest:]
    training, cache, fresh = model.training, None, context
    model.eval()
    try:
        for _ in range(max_new_tokens):
            if len(context) > longest:
                context = context[-(longest // 2 or 1) :]
                cache = None
            if cache is None or not use_cache:
                cache = model.new_cache(1, capacity) if use_cache else None
                fresh = context
            with autograd.no_grad():
                logits = model(np.array([fresh]), past_key_values=cache).logits._data[0, -1]
            token = choose(next_probabilities(logits, *options), rng)
            if token in stop_tokens:
                return
            yield token
            context.append(token)
            fresh = [token]
    finally:
        model.train(training)


def next_probabilities(
    logits: np.ndarray, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> np.ndarray:
    """Return the distribution that the next token is drawn from: logits (V,) -> float64 (V,), which sums to 1.

    softmax(logits / temperature), then all but the ``top_k`` likeliest set to 0, then all but the smallest set of
    likeliest tokens that together reach ``top_p``.  Ties at the edge of top_k all stay.  Temperature 0 gives all to the
    likeliest token, the first of them if several tie.  Sources: Fan et al. (2018), arXiv:1805.04833 (top-k); Holtzman
    et al. (2020), arXiv:1904.09751 (top-p).
    """
    _check(temperature, top_k, top_p)
    z = logits.astype(np.float64)
    if np.isnan(z).any() or np.isposinf(z).any() or np.isneginf(z).all():
        raise ValueError("generate: the model's logits must be numbers; got NaN or infinities. Are its weights finite?")
    if temperature == 0:
        return (np.arange(len(z)) == z.argmax()).astype(np.float64)
    z = (z - z.max()) / temperature
    if top_k is not None and top_k < len(z):
        z = np.where(z >= np.partition(z, -top_k)[-top_k], z, -np.inf)
    with np.errstate(under="ignore"):
        p = np.exp(z)
    p /= p.sum()
    if top_p is not None and top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]  # the probability of all likelier tokens
        p[order[before >= top_p]] = 0
        p /= p.sum()
    return p


def choose(p: np.ndarray, rng: np.random.Generator | None) -> int:
    """Return an index drawn from the distribution ``p``; one that is certain needs no randomness."""
    if p.max() == 1:
        return int(p.argmax())
    assert rng is not None
    cumulative = np.cumsum(p)
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def _check(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not 0 <= temperature < np.inf:
        raise ValueError(f"generate: temperature must be at least 0 and finite; got {temperature}.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"generate: top_k must be at least 1; got {top_k}. Leave it out to keep every token.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"generate: top_p must lie in (0, 1]; got {top_p}. Leave it out to keep every token.")
