"""What stands at a mask: the likeliest tokens of a masked language model, such as BERT."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import autograd
from ..models.encoders import MaskedLM
from . import scores


@dataclass
class Guess:
    """A token for a mask, its probability, and the text with it."""

    token: str
    id: int
    probability: float
    text: str


def fill_mask(model: Any, tokenizer: Any, text: str, top_k: int = 5) -> list[list[Guess]]:
    """Return, for each mask token in ``text``, the ``top_k`` likeliest tokens, likeliest first.

    With several masks each is guessed by itself, and its texts keep the others, and the special tokens.
    ValueError for a text without a mask token, a vocabulary that has none, and a model without a masked-LM head.
    """
    if not isinstance(model, MaskedLM):
        raise ValueError(
            f"fill_mask: the model must have a masked-LM head; got {type(model).__name__}. Load it with "
            "task='masked-lm'."
        )
    if tokenizer.mask_id is None:
        raise ValueError("fill_mask: the vocabulary must have a mask token; this one has none.")
    if top_k < 1:
        raise ValueError(f"fill_mask: top_k must be at least 1; got {top_k}.")
    ids = tokenizer.encode(text)
    masks = np.flatnonzero(ids == tokenizer.mask_id)
    if not len(masks):
        raise ValueError(f"fill_mask: the text must hold {tokenizer.mask_token}, at least once; got {text!r:.80}.")
    training = model.training
    model.eval()
    try:
        with autograd.no_grad():
            z = model(ids[None], logits_to_keep=masks).logits._data[0]  # (masks, V)
    finally:
        model.train(training)
    scores.check_finite(z)
    p = np.exp(scores.log_softmax(z))
    return [
        [_guess(tokenizer, ids, at, token, q[token], len(masks)) for token in _best(q, top_k)]
        for at, q in zip(masks, p, strict=True)
    ]


def _best(p: np.ndarray, k: int) -> list[int]:
    k = min(k, len(p))
    best = np.argpartition(p, len(p) - k)[len(p) - k :]
    return best[np.argsort(-p[best], kind="stable")].tolist()


def _guess(tokenizer, ids, at, token, probability, masks):
    filled = ids.copy()
    filled[at] = token
    return Guess(
        tokenizer.decode([token]),
        token,
        float(probability),
        tokenizer.decode(filled, skip_special_tokens=masks == 1),
    )
