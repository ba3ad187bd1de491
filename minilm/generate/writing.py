"""Write text: one token after another, each chosen from what the model predicts after the ones before it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import scores
from .beams import Beams
from .options import GenerationConfig, ids, strings
from .rows import Rows
from .texts import Writer

Prompts = Sequence[int] | Sequence[Sequence[int]] | Sequence[np.ndarray] | np.ndarray
Random = np.random.Generator | Sequence[np.random.Generator] | None


@dataclass
class Piece:
    """One token of one text: ``index`` counts the texts, ``text`` is what may be shown since the last piece."""

    index: int
    id: int
    text: str | None = None  # None without a tokenizer
    logprob: float | None = None
    finish_reason: str | None = None  # of the last piece: "stop" (a token or string that ends) or "length"


@dataclass
class Result:
    """A text that was written after a prompt, which is not repeated.

    ``ids`` (n,) int64 hold the token that ended it, too; ``text`` neither that nor a stop string, nor special tokens.
    ``logprobs`` (n,) are the model's own, if asked for.  ``score``: of beams, Σ log p / n^length_penalty.
    """

    ids: np.ndarray
    text: str | None
    finish_reason: str
    logprobs: np.ndarray | None = None
    score: float | None = None


def generate(
    model: Any,
    prompts: Prompts,
    config: GenerationConfig | None = None,
    *,
    rng: Random = None,
    tokenizer: Any = None,
    **options: Any,
) -> list[Result]:
    """Return what the model writes after each prompt, ``num_return_sequences`` texts for each, one after another.

    ``prompts``: the ids of one prompt, or of several, of any length; each text is what its prompt alone would give.  An
    empty prompt is the model's bos token.  An encoder-decoder reads the prompt and answers from decoder_start_token_id.
    ``options``: fields of GenerationConfig, which win over ``config``.  With ``tokenizer`` results have text.
    ``rng`` draws one seed for each text, in order, and each text draws its tokens from its own generator,
    ``default_rng(seed)``; or pass one generator for each text.  Greedy search and beams need none.

    ValueError for an empty prompt without a bos token, a prompt longer than the model's positions, or an option out of
    range; TypeError for an unknown one; IndexError for a token id out of range.
    """
    job = _Job(model, prompts, (config or GenerationConfig()).with_options(**options), rng, tokenizer)
    if job.config.num_beams > 1:
        return job.search()
    pieces: list[list[Piece]] = [[] for _ in range(len(job.prompts) * job.config.num_return_sequences)]
    for piece in job.pieces():
        pieces[piece.index].append(piece)
    return [_joined(each, job.config, tokenizer) for each in pieces]


def stream(
    model: Any,
    prompts: Prompts,
    config: GenerationConfig | None = None,
    *,
    rng: Random = None,
    tokenizer: Any = None,
    **options: Any,
) -> Iterator[Piece]:
    """Yield the pieces of what ``generate`` would return, as the tokens are chosen; errors come at once.

    Of several texts each step yields one piece for each that goes on.  ValueError for beams, which are compared to the
    end.
    """
    config = (config or GenerationConfig()).with_options(**options)
    if config.num_beams > 1:
        raise ValueError(f"stream: num_beams must be 1; got {config.num_beams}. Beams are compared to the end.")
    return _Job(model, prompts, config, rng, tokenizer).pieces()


class _Job:
    """What was asked for, checked, and the cache for it."""

    def __init__(self, model: Any, prompts: Prompts, config: GenerationConfig, rng: Random, tokenizer: Any):
        self.model, self.tokenizer = model, tokenizer
        self.answers = hasattr(model, "encode")  # an encoder-decoder, which reads the prompt and answers
        self.config = config = with_ends(model, tokenizer, config)
        self.prompts = _prompts(model, prompts, config)
        self.rngs = generators(rng, config, len(self.prompts) * config.num_return_sequences)
        self.start = _start(model, config) if self.answers else None
        self.copies = config.num_beams if config.num_beams > 1 else config.num_return_sequences
        read = np.array([1 if self.answers else len(p) for p in self.prompts])
        self.room = np.array([config.new_tokens(n) for n in read.tolist()])
        capacity = max(int((read + self.room).max()) - 1, int(read.max()))
        self.rows = Rows(model, len(self.prompts) * self.copies, capacity)
        limit = self.rows.limit
        if config.when_full == "forget" and not self.answers and config.num_beams == 1:
            self.prompts = [prompt[-limit:] for prompt in self.prompts]
        elif read.max() > limit:
            raise ValueError(
                f"generate: a prompt must fit the model's {limit} positions; got {read.max()} tokens. Keep the last "
                'ones, or pass when_full="forget".'
            )
        else:
            self.room = np.minimum(self.room, limit + 1 - read)

    def begin(self) -> np.ndarray:
        """Read the prompts; return the logits of each text's first token (texts, V)."""
        if self.start is not None:
            return self.rows.answer(self.prompts, self.start, self.copies)
        return self.rows.read(self.prompts, self.copies)

    def writer(self, prompt: np.ndarray) -> Writer:
        return Writer(self.tokenizer, prompt[:0] if self.answers else prompt, strings(self.config.stop_strings))

    def pieces(self) -> Iterator[Piece]:
        writers = None
        if self.tokenizer is not None:
            writers = [self.writer(prompt) for prompt in self.prompts for _ in range(self.copies)]
        with _evaluating(self.model):
            yield from write(self.rows, self.begin(), self.room.repeat(self.copies), self.config, self.rngs, writers)

    def search(self) -> list[Result]:
        """Search with beams for all prompts together, k rows for each."""
        config = self.config
        ends = frozenset(ids(config.eos_token_id))
        seeds = [None] * len(self.prompts) if self.rngs is None else self.rngs[:: config.num_return_sequences]
        every = [Beams(config, n, ends, rng) for n, rng in zip(self.room.tolist(), seeds, strict=True)]
        with _evaluating(self.model):
            _advance(self.rows, self.begin(), every, config, ends)
        found = []
        for prompt, beams in zip(self.prompts, every, strict=True):
            for text in beams.ended[: config.num_return_sequences]:
                shown = None
                if self.tokenizer is not None:
                    writer = self.writer(prompt)
                    shown = "".join([writer.push(t)[0] for t in text.tokens if t not in ends]) + writer.flush()
                logprobs = np.array(text.logprobs) if config.logprobs else None
                reason = "stop" if text.stopped else "length"
                found.append(Result(np.array(text.tokens, np.int64), shown, reason, logprobs, text.score))
        return found


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def write(
    rows: Rows,
    z: np.ndarray,
    room: np.ndarray,
    config: GenerationConfig,
    rngs: list[np.random.Generator] | None,
    writers: list[Writer] | None,
) -> Iterator[Piece]:
    """Yield the pieces of texts that begin with what ``rows`` have read, z (B, V) the logits of their first tokens.

    ``config`` is as ``with_ends`` made it.
    """
    ends = frozenset(ids(config.eos_token_id))
    index = np.arange(len(z))  # of each row
    written = np.zeros(len(z), np.int64)
    if not (room > 0).any():
        return
    if not (room > 0).all():
        index, written, room, z = _without(rows, room > 0, index, written, room, z)
    while len(index):
        raw = scores.log_softmax(z) if config.logprobs else None
        z = scores.processed(z, rows.texts, written, room, config, ends)
        scores.check_finite(z)
        if rngs is None:
            tokens = z.argmax(axis=1)
        else:
            tokens = np.array([scores.draw(row, rngs[i]) for row, i in zip(z, index, strict=True)])
        rows.write(tokens)
        written = written + 1
        goes_on = np.ones(len(index), bool)
        for row, (i, token) in enumerate(zip(index.tolist(), tokens.tolist(), strict=True)):
            text: str | None = None
            ended, found = token in ends, False
            if writers is not None:
                text, found = ("", False) if ended else writers[i].push(token)
            goes_on[row] = not (ended or found or written[row] == room[row])
            if writers is not None and not goes_on[row] and not found:
                text = (text or "") + writers[i].flush()
            reason = None if goes_on[row] else "stop" if ended or found else "length"
            yield Piece(i, token, text, None if raw is None else float(raw[row, token]), reason)
        if not goes_on.any():
            return
        if not goes_on.all():
            index, written, room = _without(rows, goes_on, index, written, room)
        z = rows.forget() if rows.full().any() else rows.step()


def _without(rows: Rows, goes_on: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    rows.keep(np.flatnonzero(goes_on))
    return [array[goes_on] for array in arrays]


def _advance(rows: Rows, z: np.ndarray, going: list[Beams], config: GenerationConfig, ends: frozenset[int]) -> None:
    """Let every search run to its end; z (searches k, V) are the logits of the first tokens."""
    k = config.num_beams
    while True:
        active = [beams for beams in going if not beams.done]
        if not active:
            return
        if len(active) < len(going):
            stay = np.repeat([not beams.done for beams in going], k)
            rows.keep(np.flatnonzero(stay))
            going = active
        if going[0].tokens[0]:
            z = rows.step()
        raw = scores.log_softmax(z)
        scores.check_finite(raw)
        written = np.repeat([len(beams.tokens[0]) for beams in going], k)
        most = np.repeat([beams.room for beams in going], k)
        z = scores.processed(raw, rows.texts, written, most, config, ends)
        scores.check_finite(z)
        moves = [beams.advance(z[i * k : i * k + k], raw[i * k : i * k + k]) for i, beams in enumerate(going)]
        rows.reorder(np.concatenate([i * k + parents for i, (parents, _) in enumerate(moves)]))
        rows.write(np.concatenate([tokens for _, tokens in moves]))


def _joined(pieces, config, tokenizer):
    return Result(
        np.array([piece.id for piece in pieces], np.int64),
        None if tokenizer is None else "".join(piece.text for piece in pieces),
        pieces[-1].finish_reason if pieces else "length",
        np.array([piece.logprob for piece in pieces]) if config.logprobs else None,
    )


def with_ends(model: Any, tokenizer: Any, config: GenerationConfig) -> GenerationConfig:
    """Return ``config`` with eos_token_id as it is: the model's, if it says nothing, and stop strings that are special
    tokens, whose text is not written.

    ValueError for stop strings without a tokenizer; IndexError for a token id of an option outside the vocabulary.
    """
    ends = ids(model.config.eos_token_id if config.eos_token_id is None else config.eos_token_id)
    stops = strings(config.stop_strings)
    if stops and tokenizer is None:
        raise ValueError(f"generate: stop_strings must have a tokenizer; got {stops} without. Pass tokenizer=.")
    special = () if tokenizer is None else tuple(t for s, t in tokenizer.special_tokens.items() if s in stops)
    for name, token in config.tokens():
        if token >= model.config.vocab_size:
            raise IndexError(f"generate: {name} must lie in the vocabulary of {model.config.vocab_size}; got {token}.")
    return config.with_options(eos_token_id=tuple(sorted({*ends, *special})))


def _start(model, config):
    given = (config.decoder_start_token_id, model.config.decoder_start_token_id, config.bos_token_id,
             model.config.bos_token_id)  # fmt: skip
    start = next((token for token in given if token is not None), None)
    if start is None:
        raise ValueError(
            "generate: an encoder-decoder must have decoder_start_token_id or bos_token_id to start from; got neither. "
            "Pass decoder_start_token_id=."
        )
    return start


def _prompts(model, prompts, config):
    """Return the prompts as a list of arrays (n,), n at least 1."""
    one = isinstance(prompts, np.ndarray) and prompts.ndim == 1
    one = one or all(isinstance(x, (int, np.integer)) for x in prompts)
    found = []
    for prompt in [prompts] if one else prompts:
        array = np.asarray(prompt)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise ValueError(
                f"generate: a prompt must be token ids (n,); got {array.dtype} of shape {array.shape}. Encode "
                "text first."
            )
        bos = model.config.bos_token_id if config.bos_token_id is None else config.bos_token_id
        if not array.size and bos is None:
            raise ValueError(
                "generate: the prompt must hold at least one token, as the model has no bos_token_id to begin with; "
                "got none. Pass bos_token_id=."
            )
        found.append(array.astype(np.int64) if array.size else np.array([bos], np.int64))
    return found


def generators(rng, config, count):
    """Return a generator for each text, or None where nothing is drawn."""
    if not config.samples:
        return None
    if rng is None:
        raise ValueError(
            "generate: sampling needs rng, a numpy.random.Generator; or take temperature=0, the likeliest."
        )
    if isinstance(rng, np.random.Generator):
        return [np.random.default_rng(seed) for seed in rng.integers(2**63, size=count)]
    if len(rng) != count:
        raise ValueError(f"generate: rng must be one generator, or one for each of {count} texts; got {len(rng)}.")
    return list(rng)
