"""What can be asked of generation, under transformers' names, and the generation_config.json of a published model."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

# Options of transformers that change no token: how it computes, and what else it returns.
INERT = frozenset(
    """use_cache cache_implementation cache_config max_cache_len return_dict_in_generate output_attentions
    output_hidden_states output_scores output_logits transformers_version _from_model_config _commit_hash pad_token_id
    compile_config disable_compile continuous_batching_config low_memory prefill_chunk_size is_assistant
    num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold max_matching_ngram_size
    assistant_lookbehind target_lookbehind""".split()
)
# Options that would change tokens, and the values besides null under which they do not.
ONLY: dict[str, tuple[Any, ...]] = {
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "top_h": (),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "diversity_penalty": (0.0,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
    "constraints": (),
    "force_words_ids": (),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
    "token_healing": (False,),
    "remove_invalid_values": (False,),
    "max_time": (),
    "use_mtp": (False,),
    "prompt_lookup_num_tokens": (),
    "assistant_early_exit": (),
    "assistant_ensemble_weight": (),
    "speculation_type": (),
}
SAMPLING = ("temperature", "top_k", "top_p", "min_p")
NEW_TOKENS = 20  # where nothing says how long a text may be, as in transformers
Ids = int | list[int] | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How to choose tokens and when to end.  None: not asked for.

    Lengths count tokens; ``max_length`` and ``min_length`` count the prompt too (of an encoder-decoder: the start
    token), and ``max_new_tokens`` and ``min_new_tokens`` win over them.
    ``do_sample`` None: sample if an option of sampling is given.  Temperature 0 takes the likeliest, whatever the rest.
    ``presence_penalty`` and ``frequency_penalty`` are OpenAI's, of the tokens written so far: z - frequency count -
    presence [count > 0].  ``sequence_bias``: {token ids: what to add to the last one's score}.
    ``eos_token_id``: one, several or () for none; None: the model's.
    ``when_full``: "stop" ends a text where the model's positions end; "forget" drops the older half of what was read,
    the prompt included, and goes on (not with beams, nor in an encoder-decoder, which stop).
    ``logprobs``: return the model's own log-probability of each token, before any option here has changed it.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    min_length: int = 0
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: Collection[Collection[int]] = ()
    sequence_bias: Mapping[tuple[int, ...], float] | None = None
    suppress_tokens: Collection[int] = ()
    begin_suppress_tokens: Collection[int] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: Ids | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None
    renormalize_logits: bool = False
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    num_return_sequences: int = 1
    stop_strings: str | Collection[str] = ()
    bos_token_id: int | None = None
    eos_token_id: Ids | None = None
    decoder_start_token_id: int | None = None
    when_full: str = "stop"
    logprobs: bool = False

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "max_length", "min_new_tokens", "min_length", "no_repeat_ngram_size", "top_k"):
            self._check(name, lambda x: _whole(x) and x >= 0, "a whole number, at least 0")
        for name in ("num_beams", "num_return_sequences"):
            self._check(name, lambda x: _whole(x) and x >= 1, "a whole number, at least 1")
        self._check("temperature", lambda x: _real(x) and (x == 0 or x >= 1e-6), "0, or from 1e-6 on, and finite")
        self._check("top_p", lambda x: _real(x) and 0 < x <= 1, "in (0, 1]; leave it out to keep every token")
        self._check("min_p", lambda x: _real(x) and 0 <= x <= 1, "in [0, 1]")
        self._check("repetition_penalty", lambda x: _real(x) and x > 0, "above 0 and finite")
        for name in ("presence_penalty", "frequency_penalty", "length_penalty"):
            self._check(name, _real, "a finite number")
        self._check("early_stopping", lambda x: x in (True, False, "never"), 'True, False or "never"')
        self._check("when_full", lambda x: x in ("stop", "forget"), '"stop" or "forget"')
        for name in ("forced_bos_token_id", "bos_token_id", "decoder_start_token_id"):
            self._check(name, _id, "one token id")
        for name in ("forced_eos_token_id", "eos_token_id"):
            self._check(name, lambda x: all(map(_id, ids(x))), "a token id, or several")
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            self._check(name, lambda x: all(map(_id, x)), "token ids")
        self._check("bad_words_ids", lambda x: all(len(w) and all(map(_id, w)) for w in x), "lists of token ids")
        self._check("sequence_bias", lambda x: all(len(w) and all(map(_id, w)) for w in x), "{token ids: number}")
        self._check("stop_strings", lambda x: all(isinstance(s, str) and s for s in strings(x)), "texts, not empty")
        self._check("exponential_decay_length_penalty", lambda x: _whole(x[0]) and _real(x[1]), "(start, factor)")
        most = self.num_beams if self.num_beams > 1 else None
        if most is not None and self.num_return_sequences > most:
            self._refuse("num_return_sequences", f"at most num_beams, {most}")
        if self.num_beams > 1 and strings(self.stop_strings):
            self._refuse("stop_strings", "left out with beams; use eos_token_id")
        if not self.samples and self.num_beams < self.num_return_sequences:
            self._refuse("num_return_sequences", "1 without sampling or beams, which would return the same text again")

    def _check(self, name: str, holds: Any, must: str) -> None:
        value = getattr(self, name)
        if value is None and type(self).__dataclass_fields__[name].default is None:
            return
        try:
            fine = holds(value)
        except (TypeError, IndexError):
            fine = False
        if not fine:
            self._refuse(name, must)

    def _refuse(self, name: str, must: str) -> None:
        raise ValueError(f"generate: {name} must be {must}; got {getattr(self, name)!r}.")

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn, rather than the likeliest taken."""
        if self.temperature == 0:
            return False
        if self.do_sample is None:
            return any(getattr(self, name) is not None for name in SAMPLING)
        return self.do_sample

    def new_tokens(self, prompt: int) -> int:
        """Return how many tokens may follow a prompt of so many."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return NEW_TOKENS if self.max_length is None else max(self.max_length - prompt, 0)

    def tokens(self) -> Iterator[tuple[str, int]]:
        """Yield every token id that an option names."""
        for name in ("eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "bos_token_id"):
            yield from ((name, token) for token in ids(getattr(self, name)))
        for name in ("suppress_tokens", "begin_suppress_tokens"):
            yield from ((name, token) for token in getattr(self, name))
        for name in ("bad_words_ids", "sequence_bias"):
            yield from ((name, token) for sequence in getattr(self, name) or () for token in sequence)

    def with_options(self, **options: Any) -> Self:
        """Return a copy with other options.  TypeError for a name that is none."""
        known = [f.name for f in fields(self)]
        for name in options:
            if name not in known:
                raise TypeError(f"generate: {name} is no option.{_hint(name, known)}")
        return replace(self, **options)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any], ignore: Collection[str] = ()) -> Self:
        """Read the options of a generation_config.json; what is left out means what it means to transformers.

        ValueError for an option that is not honoured here, and for one that is unknown; ``ignore`` names options to
        pass over.
        """
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {"do_sample": False, "top_k": 50}
        for name, value in options.items():
            if name in ignore or name in INERT or value is None:
                continue
            if name in known:
                values[name] = _sequence_bias(value) if name == "sequence_bias" else value
            elif name in ONLY:
                if value not in ONLY[name]:
                    only = " or ".join(map(repr, ONLY[name])) or "null"
                    raise ValueError(
                        f"generation_config: {name} must be {only} here; got {value!r}. Pass over it with ignore=."
                    )
            else:
                raise ValueError(
                    f"generation_config: {name} is no option here; got {value!r}.{_hint(name, known)} "
                    "If it changes no token, pass over it with ignore=."
                )
        return cls(**values)

    @classmethod
    def from_folder(cls, folder: str | Path, ignore: Collection[str] = ()) -> Self:
        """Read generation_config.json in a model's folder; without one, the options that config.json holds (as older
        models have them), or none.

        ValueError for a broken file, or as ``from_dict``.
        """
        for name in ("generation_config.json", "config.json"):
            file = Path(folder) / name
            if not file.is_file():
                continue
            try:
                options = json.loads(file.read_text(encoding="utf-8"))
                if not isinstance(options, dict):
                    raise ValueError("not an object")
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{file}: it must be a JSON object; got: {error}.") from None
            if name == "config.json":
                own = {f.name for f in fields(cls)} | set(ONLY)
                options = {k: v for k, v in options.items() if k in own}
            try:
                return cls.from_dict(options, ignore)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
        return cls()


def ids(value: Ids | None) -> tuple[int, ...]:
    """One id, several or None, as a tuple."""
    return () if value is None else (value,) if isinstance(value, int) else tuple(value)


def strings(value: str | Collection[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _sequence_bias(value: Any) -> dict[tuple[int, ...], float]:
    """JSON has no tuples: [[ids, bias], ...]."""
    try:
        return {
            tuple(sequence): float(bias) for sequence, bias in (value.items() if isinstance(value, dict) else value)
        }
    except (TypeError, ValueError):
        raise ValueError(
            f"generation_config: sequence_bias must be [[token ids, number], ...]; got {value!r}."
        ) from None


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _id(x: Any) -> bool:
    return _whole(x) and x >= 0


def _real(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < float("inf")


def _hint(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" Is {near[0]} meant?" if near else ""
