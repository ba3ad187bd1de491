"""What models that read one text and write another share: reading, remembering what was read, and writing.

The encoder turns a source of S tokens into vectors m (B, S, C).  The decoder writes a target of T tokens, each of which
sees the earlier ones and, in every layer, attends to m.  What predicts a text y is y behind a start token, less its
end: (start, y₁, ..., y_{T-1}).

Generation: ``encode`` the source, ``remember`` it in a cache, which keeps the keys and values of m for every layer,
then call the model with ``decoder_input_ids`` and the cache alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..nn import KVCache
from ..tensor import Tensor, as_tensor
from ..tensor.core import wrap
from .model import Model
from .outputs import BaseModelOutput, Seq2SeqOutput

Lengths = Sequence[int] | None
KeysValues = Callable[[Tensor], tuple[Tensor, Tensor]]  # m (B, S, C) -> two of (B, H, S, D)


class Memory:
    """What a decoder attends to across: the encoder's vectors, or what a cache keeps of them.

    ``mask`` (B, S) is False where it is padding; ``lengths`` are those of target and source where both lie packed.
    """

    def __init__(self, states: Tensor | None, mask: Any = None, lengths: Any = None, cache: KVCache | None = None):
        self.states, self.mask, self.lengths, self.cache = states, mask, lengths, cache

    def keys_values(self, project: KeysValues, layer: int) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, H, S, D) of a layer: those of the cache, or ``project`` of the vectors."""
        if self.cache is not None:
            return self.cache.memory[layer]
        assert self.states is not None
        return project(self.states)


class EncoderDecoder(Model):
    """A family's encoder and decoder.

    Both are called with ids and, beside the layout that Sequences (nn/sequences.py) takes, output_hidden_states; the
    decoder with a Memory too.  Both return a BaseModelOutput.  ``decoder.readers()`` lists what makes the keys and
    values of each layer.
    """

    encoder: Any
    decoder: Any
    copies = False  # whether the source is the target where none is given

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        *,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: KVCache | None = None,
        lengths: Lengths = None,
        decoder_lengths: Lengths = None,
        output_hidden_states: bool = False,
    ) -> Any:
        """Read the source, unless ``encoder_outputs`` or the cache hold it already, and run the decoder.

        Shapes: input_ids and attention_mask (B, S); decoder_input_ids (B, T), decoder_attention_mask (B, T) with the
        cached positions in front; masks are 0 or False where a token is padding.  Or, packed, input_ids (1, Σ lengths)
        and decoder_input_ids (1, Σ decoder_lengths), as many targets as sources.  A cache (``new_cache``) is filled in
        place, off the tape.
        ValueError where something is missing or does not fit; IndexError for an id out of range.
        """
        name, cache = type(self).__name__, past_key_values
        if decoder_input_ids is None and self.copies and input_ids is not None:
            decoder_input_ids, decoder_lengths = shift_right(input_ids, self.config, lengths), lengths
        if decoder_input_ids is None:
            raise ValueError(f"{name}: decoder_input_ids must be given, the ids (B, T) of what is written; got None.")
        if encoder_outputs is None and (cache is None or not cache.memory):
            encoder_outputs = self.encode(input_ids, attention_mask, lengths, output_hidden_states)
        memory = self._memory(encoder_outputs, attention_mask, cache, lengths, decoder_lengths)
        if memory.states is not None and (got := np.shape(as_tensor(decoder_input_ids)._data)[0]) != len(memory.states):
            raise ValueError(f"{name}: there must be a target for each source, {len(memory.states)} rows; got {got}.")
        written = self.decoder(
            decoder_input_ids,
            memory,
            attention_mask=decoder_attention_mask,
            lengths=decoder_lengths,
            cache=cache,
            output_hidden_states=output_hidden_states,
        )
        return Seq2SeqOutput(
            written.last_hidden_state,
            past_key_values=cache,
            decoder_hidden_states=written.hidden_states,
            encoder_last_hidden_state=None if encoder_outputs is None else encoder_outputs.last_hidden_state,
            encoder_hidden_states=None if encoder_outputs is None else encoder_outputs.hidden_states,
        )

    def _memory(
        self, read: BaseModelOutput | None, mask: Any, cache: KVCache | None, lengths: Lengths, targets: Lengths
    ) -> Memory:
        name = type(self).__name__
        if cache is not None:
            if targets is not None:
                raise ValueError(f"{name}: targets beside a cache must be rows (B, T); got decoder_lengths.")
            if read is not None:
                self.remember(cache, read, mask, lengths)
            return Memory(None, cache.memory_mask, cache=cache)
        assert read is not None
        states = read.last_hidden_state
        if lengths is None and targets is None:
            return Memory(states, _checked_mask(name, mask, states))
        if lengths is None or targets is None or len(lengths) != len(targets):
            raise ValueError(
                f"{name}: packed sources must have packed targets, one for each; got lengths {lengths} and "
                f"decoder_lengths {targets}."
            )
        return Memory(states, lengths=(tuple(targets), _checked_lengths(name, lengths, states, mask)))

    def encode(
        self, input_ids: Any, attention_mask: Any = None, lengths: Lengths = None, output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """Run the encoder: input_ids (B, S) with attention_mask -> (B, S, C), or (1, N) with lengths -> (1, N, C)."""
        if input_ids is None:
            raise ValueError(f"{type(self).__name__}: input_ids must be given, the ids (B, S) of what is read.")
        return self.encoder(
            input_ids, attention_mask=attention_mask, lengths=lengths, output_hidden_states=output_hidden_states
        )

    def remember(
        self, cache: KVCache, encoder_outputs: BaseModelOutput, attention_mask: Any = None, lengths: Lengths = None
    ) -> None:
        """Let the cache keep the keys and values of what was read, a row for each source, packed sources too.

        ValueError where the sources are not as many as the rows of the cache.
        """
        name, states = type(self).__name__, encoder_outputs.last_hidden_state
        rows = len(states) if lengths is None else len(lengths)
        if rows != cache.batch:
            raise ValueError(f"{name}: the cache must have a row for each source, {rows}; it has {cache.batch}.")
        if lengths is None:
            mask = _checked_mask(name, attention_mask, states)
            memory = [project(states) for project in self.decoder.readers()]
        else:
            n = np.array(_checked_lengths(name, lengths, states, attention_mask), np.int64)
            mask = None if (n == n[0]).all() else np.arange(n.max()) < n[:, None]  # (rows, S)
            memory = [(_rows(k, n), _rows(v, n)) for k, v in (project(states) for project in self.decoder.readers())]
        cache.memory, cache.memory_mask = dict(enumerate(memory)), mask


def shift_right(ids: Any, config: Any, lengths: Lengths = None) -> np.ndarray:
    """Return each sequence behind ``decoder_start_token_id``, less its last token: (B, T) -> (B, T), -100 as padding.

    ValueError where the configuration has no decoder_start_token_id or no pad_token_id.
    """
    for option in ("decoder_start_token_id", "pad_token_id"):
        if getattr(config, option) is None:
            raise ValueError(
                f"{type(config).__name__}: {option} must be set to make the decoder's input of labels or of the "
                "source; got None. Give decoder_input_ids."
            )
    found = as_tensor(ids)._data
    shifted = np.empty(found.shape, np.int64)
    shifted[:, 1:] = np.where(found[:, :-1] == -100, config.pad_token_id, found[:, :-1])
    shifted[:, :1] = config.decoder_start_token_id
    if lengths is not None:
        shifted[0, np.cumsum(lengths)[:-1]] = config.decoder_start_token_id
    return shifted


def _rows(x: Tensor, lengths: np.ndarray) -> Tensor:
    """Packed (1, H, N, D) -> (rows, H, S, D), with zeros behind the shorter ones."""
    _, H, _, D = x.shape
    rows = np.zeros((len(lengths), H, int(lengths.max()), D), x.dtype)
    ends = np.cumsum(lengths)
    for row, n, end in zip(rows, lengths, ends, strict=True):
        row[:, :n] = x._data[0, :, end - n : end]
    return wrap(rows)


def _checked_lengths(name: str, lengths: Sequence[int], states: Tensor, mask: Any) -> tuple[int, ...]:
    if mask is not None:
        raise ValueError(f"{name}: packed sources have no padding; got attention_mask too. Leave it out.")
    if states.shape[0] != 1 or sum(lengths) != states.shape[1]:
        raise ValueError(
            f"{name}: lengths must be those of the packed source (1, N, C), adding up to N; got {tuple(lengths)} for "
            f"{states.shape}."
        )
    return tuple(lengths)


def _checked_mask(name: str, attention_mask: Any, states: Tensor) -> np.ndarray | None:
    """Return the mask (B, S) of what was read, None where nothing is padding."""
    if attention_mask is None:
        return None
    mask = as_tensor(attention_mask)._data
    if mask.shape != states.shape[:2]:
        raise ValueError(f"{name}: attention_mask must be (B, S) = {states.shape[:2]}; got {mask.shape}.")
    visible = mask.astype(bool)
    return None if visible.all() else visible
