"""Predict the next token: the loss of a language model on windows of text.

    loss = - 1/N Σ log P(target_n | inputs up to n)      in nats per token, N = B T targets

Targets come with the inputs, one place later, so each of the T positions has one.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from .. import functional as F
from ..autograd import no_grad
from ..config import ModelConfig
from ..data import Bigram, DataError, consecutive_windows
from ..models.gpt2 import GPT2Config, GPT2LMHeadModel
from ..tensor import Tensor

Batch = tuple[np.ndarray, np.ndarray]  # inputs and targets, (B, T) each


def build(
    shape: ModelConfig, vocab_size: int, block_size: int, eos_id: int | None, rng: np.random.Generator
) -> GPT2LMHeadModel:
    """Return a GPT-2 of that shape, its first weights drawn from ``rng``."""
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=block_size,
        n_embd=shape.n_embd,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        activation_function=shape.activation,
        resid_pdrop=shape.dropout,
        embd_pdrop=shape.dropout,
        attn_pdrop=shape.dropout,
        bos_token_id=eos_id,
        eos_token_id=eos_id,
        bias=shape.bias,
    )
    return GPT2LMHeadModel(config, rng=rng)


def loss(model: GPT2LMHeadModel, inputs: np.ndarray, targets: np.ndarray) -> Tensor:
    """Return the mean loss over all targets; inputs and targets (B, T) of token ids."""
    x = model.base_model(inputs).last_hidden_state  # (B, T, C)
    return F.linear_cross_entropy(x, getattr(model, model.head).weight, targets)


def accumulate(model: GPT2LMHeadModel, batch: Batch, parts: int) -> float:
    """Add the gradients of the batch's mean loss to the parameters', and return that loss.

    The batch is run in ``parts`` equal parts, one after another, each weighted by 1 / parts: the gradients are those of
    the whole batch, up to rounding.
    """
    inputs, targets = batch
    rows = len(inputs) // parts
    total = 0.0
    for start in range(0, len(inputs), rows):
        part = loss(model, inputs[start : start + rows], targets[start : start + rows])
        part.backward(np.asarray(1 / parts, dtype=part.dtype))
        total += part.item()
    return total / parts


def evaluate(model: GPT2LMHeadModel, batches: Iterable[Batch]) -> float:
    """Return the mean loss over the targets of all batches, without dropout."""
    total, count = 0.0, 0
    model.eval()
    try:
        with no_grad():
            for inputs, targets in batches:
                total += loss(model, inputs, targets).item() * targets.size
                count += targets.size
    finally:
        model.train()
    return total / count


def final_losses(
    model: GPT2LMHeadModel, train: np.ndarray, validation: np.ndarray, block_size: int, limit: int
) -> tuple[float, float]:
    """Return the validation loss of the model, and of a bigram model of the training tokens, on the same targets.

    The targets are all validation tokens but the first, or the first ``limit`` of them unless it is 0.
    """
    part = validation[: limit + 1] if limit else validation
    rows = max(1, 4096 // block_size)
    batches: Iterator[Batch] = consecutive_windows(part, min(block_size, len(part) - 1), rows)
    return evaluate(model, batches), Bigram(train, model.config.vocab_size).loss(part)


def check_ids(tokens: np.ndarray, vocab_size: int) -> None:
    """Refuse a corpus with ids that the vocabulary does not have.  It is read once, piece by piece."""
    for start in range(0, len(tokens), 1 << 22):
        if (largest := int(tokens[start : start + (1 << 22)].max())) >= vocab_size:
            hint = "was it encoded with another vocabulary?"
            raise DataError(f"token ids must lie in [0, {vocab_size})", str(largest), hint)
