"""A conversation with a model, whose history stays in its cache."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .options import GenerationConfig, ids, strings
from .rows import Rows
from .texts import Writer
from .writing import generators, with_ends, write


class Chat:
    """A conversation, laid out by the tokenizer's chat template.

    ``messages`` is the history, [{"role": ..., "content": ...}, ...]; it may be changed between replies.  Of a turn,
    only tokens that the cache does not hold yet are computed: the longest common beginning is kept.

    The context has ``context`` tokens, by default as many as the model's positions.  When a turn leaves less than a
    quarter of it (or less than max_new_tokens, if that is fewer) for the answer, the oldest turns are dropped, first
    the oldest; the system message stays.  An answer that reaches the end of the context ends there.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        system: str | None = None,
        config: GenerationConfig | None = None,
        *,
        rng: np.random.Generator | None = None,
        context: int | None = None,
        **options: Any,
    ):
        """``config`` and ``options`` are those of ``generate``; without a length, an answer may fill the context.

        A text ends with the tokens of ``eos_token_id`` or, without that, the model's and the tokenizer's.
        ValueError for an encoder-decoder, for beams, and for options out of range.
        """
        if hasattr(model, "encode"):
            raise ValueError(f"Chat: the model must be a decoder; got {type(model).__name__}, which reads one text.")
        self.config = (config or GenerationConfig()).with_options(**options)
        if self.config.num_beams > 1 or self.config.num_return_sequences > 1:
            raise ValueError("Chat: num_beams and num_return_sequences must be 1, for a reply is one text.")
        own = self.config.eos_token_id is None and tokenizer.eos_id is not None
        self.config = with_ends(model, tokenizer, self.config)
        if own:
            self.config = self.config.with_options(eos_token_id=(*ids(self.config.eos_token_id), tokenizer.eos_id))
        generators(rng, self.config, 0)
        self.model, self.tokenizer, self.rng = model, tokenizer, rng
        self.messages: list[dict[str, str]] = [] if system is None else [{"role": "system", "content": system}]
        self.finish_reason: str | None = None  # of the last reply
        self._rows = Rows(model, 1, model.new_cache(1).capacity if context is None else context)

    def reply(self, text: str) -> Iterator[str]:
        """Yield the answer to ``text``, piece by piece.

        The history takes both in when the answer ends, or with what there is of it if the iterator is closed or
        interrupted before.  ValueError where the message alone is longer than the context.
        """
        messages, tokens = self._fitting([*self.messages, {"role": "user", "content": text}])
        return self._reply(messages, tokens)

    def _reply(self, messages, tokens):
        rows, model, said = self._rows, self.model, ""
        training = model.training
        model.eval()
        try:
            known = rows.texts[0][: rows.cache.length]
            n = min(len(known), len(tokens) - 1)  # the last one is read anew, for its logits
            same = known[:n] == tokens[:n]
            rows.rewind(n if same.all() else int(same.argmin()))
            z = rows.read_on(tokens[None, rows.cache.length :])
            room = rows.limit + 1 - len(tokens)
            if self.config.max_new_tokens is not None or self.config.max_length is not None:
                room = min(room, self.config.new_tokens(len(tokens)))
            rngs = generators(self.rng, self.config, 1)
            writers = [Writer(self.tokenizer, tokens, strings(self.config.stop_strings))]
            for piece in write(rows, z, np.array([room]), self.config, rngs, writers):
                self.finish_reason = piece.finish_reason
                if piece.text:
                    said += piece.text
                    yield piece.text
        finally:
            model.train(training)
            self.messages = [*messages, {"role": "assistant", "content": said}]

    def _fitting(self, messages):
        """Return the messages without the oldest turns, as many as must go, and their ids (n,)."""
        limit = self._rows.limit
        first = sum(message["role"] == "system" for message in messages[:1])
        wanted = limit // 4 if self.config.max_new_tokens is None else min(limit // 4, self.config.max_new_tokens)
        while True:
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
            tokens = self.tokenizer.encode(text, add_special_tokens=False)
            turns = [i for i, message in enumerate(messages) if i > first and message["role"] == "user"]
            if len(tokens) + wanted <= limit or not turns:
                break
            messages = [*messages[:first], *messages[turns[0] :]]
        if len(tokens) > limit:
            raise ValueError(f"Chat: a message must fit the context of {limit} tokens; got {len(tokens)}. Shorten it.")
        return messages, tokens
