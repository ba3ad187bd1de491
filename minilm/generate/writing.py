"""Write text: one token after another, each chosen from what the model predicts after the ones before it."""

from collections.abc import Iterator, Sequence
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
    config = (config or GenerationConfig()).with_options(**options)
    prompts = _prompts(model, prompts, config)
    rngs = _generators(rng, config, len(prompts) * config.num_return_sequences)
    if config.num_beams > 1:
        return _search(model, prompts, config, rngs, tokenizer)
    pieces: list[list[Piece]] = [[] for _ in range(len(prompts) * config.num_return_sequences)]
    for piece in _stream(model, prompts, config, rngs, tokenizer):
        pieces[piece.index].append(piece)
    return [_joined(each, config, tokenizer) for each in pieces]


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
    prompts = _prompts(model, prompts, config)
    rngs = _generators(rng, config, len(prompts) * config.num_return_sequences)
    return _stream(model, prompts, config, rngs, tokenizer)


def _stream(model, prompts, config, rngs, tokenizer):
    copies = config.num_return_sequences
    room = np.array([config.new_tokens(_read(model, p)) for p in prompts])
    training = model.training
    model.eval()
    try:
        rows, room = _rows(model, prompts, room, config)
        z = rows.answer(prompts, _start(model, config), copies) if _answers(model) else rows.read(prompts, copies)
        room = np.repeat(room, copies)
        writers = None
        if tokenizer is not None:
            shown = [p[:0] for p in prompts] if _answers(model) else prompts
            writers = [Writer(tokenizer, p, strings(config.stop_strings)) for p in shown for _ in range(copies)]
        yield from write(rows, z, room, config, rngs, writers)
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
    """Yield the pieces of texts that begin with what ``rows`` have read, z (B, V) the logits of their first tokens."""
    ends = frozenset(ends_of(rows.model, config))
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


def _search(model, prompts, config, rngs, tokenizer):
    """Beam search for all prompts together; k rows for each."""
    k = config.num_beams
    room = np.array([config.new_tokens(_read(model, p)) for p in prompts])
    ends = frozenset(ends_of(model, config))
    training = model.training
    model.eval()
    try:
        rows, room = _rows(model, prompts, room, config)
        z = rows.answer(prompts, _start(model, config), k) if _answers(model) else rows.read(prompts, k)
        seeds = [None] * len(prompts) if rngs is None else rngs[:: config.num_return_sequences]
        every = [Beams(config, n, ends, rng) for n, rng in zip(room.tolist(), seeds, strict=True)]
        going = every
        while True:
            active = [beams for beams in going if not beams.done]
            if len(active) < len(going):
                stay = np.repeat([not beams.done for beams in going], k)
                rows.keep(np.flatnonzero(stay))
                z, going = z[stay], active
            if not going:
                break
            raw = scores.log_softmax(z)
            scores.check_finite(raw)
            written = np.repeat([len(beams.tokens[0]) for beams in going], k)
            most = np.repeat([beams.room for beams in going], k)
            z = scores.processed(raw, rows.texts, written, most, config, ends)
            scores.check_finite(z)
            moves = [beams.advance(z[i * k : i * k + k], raw[i * k : i * k + k]) for i, beams in enumerate(going)]
            rows.reorder(np.concatenate([i * k + parents for i, (parents, _) in enumerate(moves)]))
            rows.write(np.concatenate([tokens for _, tokens in moves]))
            if not all(beams.done for beams in going):
                z = rows.step() if not rows.full().any() else z
    finally:
        model.train(training)
    found = []
    for prompt, beams in zip(prompts, every, strict=True):
        shown = prompt[:0] if _answers(model) else prompt
        found += [_ended(text, shown, config, ends, tokenizer) for text in beams.ended[: config.num_return_sequences]]
    return found


def _ended(text, prompt, config, ends, tokenizer):
    shown = None
    if tokenizer is not None:
        writer = Writer(tokenizer, prompt, ())
        shown = "".join([writer.push(t)[0] for t in text.tokens if t not in ends]) + writer.flush()
    logprobs = np.array(text.logprobs) if config.logprobs else None
    reason = "stop" if text.stopped else "length"
    return Result(np.array(text.tokens, np.int64), shown, reason, logprobs, text.score)


def _joined(pieces, config, tokenizer):
    return Result(
        np.array([piece.id for piece in pieces], np.int64),
        None if tokenizer is None else "".join(piece.text for piece in pieces),
        pieces[-1].finish_reason if pieces else "length",
        np.array([piece.logprob for piece in pieces]) if config.logprobs else None,
    )


def ends_of(model: Any, config: GenerationConfig) -> tuple[int, ...]:
    """Return the tokens that end a text: those of ``config``, or else the model's."""
    return ids(model.config.eos_token_id if config.eos_token_id is None else config.eos_token_id)


def _answers(model):
    """Whether it is an encoder-decoder."""
    return hasattr(model, "encode")


def _read(model, prompt):
    """How many tokens the first new one follows."""
    return 1 if _answers(model) else len(prompt)


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


def _rows(model, prompts, room, config):
    """Make the cache; return it, and how many tokens may be written after each prompt (B,), as far as they fit."""
    lengths = np.array([_read(model, p) for p in prompts])
    forgets = config.when_full == "forget" and not _answers(model)
    k = config.num_beams if config.num_beams > 1 else config.num_return_sequences
    rows = Rows(model, len(prompts) * k, max(int((lengths + room).max()) - 1, int(lengths.max()), 1))
    if forgets:
        for i, prompt in enumerate(prompts):
            prompts[i] = prompt[-rows.limit :]
        return rows, room
    if lengths.max() > rows.limit:
        raise ValueError(
            f"generate: a prompt must fit the model's {rows.limit} positions; got {lengths.max()} tokens. Keep the "
            'last ones, or pass when_full="forget".'
        )
    return rows, np.minimum(room, rows.limit + 1 - lengths)


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


def _generators(rng, config, count):
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
