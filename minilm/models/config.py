"""What every configuration shares: reading a config.json so that no option is silently ignored.

An option is a field of the family's dataclass, which the model honours; or one of ``ONLY``, which may hold just the
value that the model computes; or one that changes no number (``INERT``).  Anything else is refused by name.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Self

# Options of any family that say where a file came from, how text is generated, or what another program computes with.
INERT = frozenset(
    """_name_or_path architectures auto_map attn_implementation _attn_implementation _attn_implementation_autoset
    _attn_implementation_internal dtype torch_dtype transformers_version model_type _commit_hash use_cache
    pretraining_tp finetuning_task task_specific_params tokenizer_class prefix return_dict output_attentions
    output_hidden_states gradient_checkpointing torchscript use_bfloat16 tf_legacy_loss sep_token_id mask_token_id
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens begin_suppress_ids
    begin_suppress_tokens_ids""".split()
)
# Options of any family that would change the numbers, and the values under which they do not.
ONLY: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
    "chunk_size_feed_forward": (0, None),
    "quantization_config": (None,),
    "is_encoder_decoder": (False, None),
    "position_embedding_type": ("absolute", None),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options that every family has; its own are the fields of its dataclass, under HF's names."""

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    tie_word_embeddings: bool = True
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})
    problem_type: str | None = None  # of sequence classification: see models/heads.py

    model_type: ClassVar[str]
    aliases: ClassVar[Mapping[str, str]] = {}  # other names under which files hold a field
    only: ClassVar[Mapping[str, tuple[Any, ...]]] = {}  # as ONLY, of this family; wins over it
    inert: ClassVar[Collection[str]] = ()  # as INERT, of this family

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], ignore: Collection[str] = ()) -> Self:
        """Read a config.json.

        ValueError for another model_type, an option that the family does not have, or a value that the model does not
        compute.  ``ignore`` names options to pass over.
        """
        name, values = cls.__name__, {}
        if config.get("model_type", cls.model_type) != cls.model_type:
            raise ValueError(f"{name}: model_type must be {cls.model_type!r}; got {config['model_type']!r}.")
        known, only = {f.name for f in fields(cls)}, {**ONLY, **cls.only}
        for option, value in cls.translate(dict(config)).items():
            option = cls.aliases.get(option, option)
            if option in ignore:
                continue
            if option in known:
                values[option] = value
            elif option in only:
                if value not in only[option]:
                    raise ValueError(f"{name}: {option} must be {only[option][0]!r} here; got {value!r}.")
            elif option not in INERT and option not in cls.inert:
                near = get_close_matches(option, known, n=1)
                hint = f"Is {near[0]} meant?" if near else "If it changes no number, pass over it with ignore=."
                raise ValueError(f"{name}: {option} is no option of this family; got {value!r}. {hint}")
        if "id2label" in values:
            values["id2label"] = _labels(name, values["id2label"])
        try:
            return cls(**values)
        except TypeError as error:  # a comparison with a value of another type
            raise ValueError(
                f"{name}: every option must have the type that transformers writes; got: {error}."
            ) from None

    @classmethod
    def translate(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Return the options under today's names.  What older files say differently, a family says here."""
        config.pop("label2id", None)  # id2label says it
        count = config.pop("num_labels", None)
        if count is not None and "id2label" not in config:
            config["id2label"] = {i: f"LABEL_{i}" for i in range(count)}
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds, as transformers reads it."""
        values = {"model_type": self.model_type, **asdict(self)}
        values["id2label"] = {str(i): label for i, label in self.id2label.items()}
        values["label2id"] = {label: i for i, label in self.id2label.items()}
        return values

    def __post_init__(self) -> None:
        ends = "eps", "epsilon", "initializer_range", "initializer_factor", "init_std"
        self.check_reals(*(f.name for f in fields(self) if f.name.endswith(ends)))
        if self.problem_type not in (None, "regression", "single_label_classification", "multi_label_classification"):
            self.refuse("problem_type", "regression, single_label_classification or multi_label_classification")

    # ---- what families check their fields with

    def refuse(self, option: str, must: str) -> None:
        raise ValueError(f"{type(self).__name__}: {option} must be {must}; got {getattr(self, option)!r}.")

    def check_sizes(self, *options: str) -> None:
        """Refuse what is not a whole number of 1 or more; and what no model has, before memory is taken for it."""
        for option in options:
            value = getattr(self, option)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**24:
                self.refuse(option, "a whole number, at least 1 and below 2**24")

    def check_reals(self, *options: str) -> None:
        """Refuse what is not a finite number of 0 or more."""
        for option in options:
            value = getattr(self, option)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
                self.refuse(option, "a finite number, at least 0")

    def check_rates(self, *options: str) -> None:
        """Refuse a dropout rate outside [0, 1)."""
        for option in options:
            if not 0 <= getattr(self, option) < 1:
                self.refuse(option, "a rate in [0, 1)")

    def check_choice(self, option: str, choices: Collection[Any]) -> None:
        if getattr(self, option) not in choices:
            self.refuse(option, "one of " + ", ".join(map(str, choices)))

    def check_divides(self, heads: str, width: str) -> None:
        """Refuse a width that does not split into that many heads."""
        if getattr(self, width) % getattr(self, heads):
            raise ValueError(
                f"{type(self).__name__}: {width} must divide by {heads}, one equal share of the channels per head; "
                f"got {width} {getattr(self, width)} and {heads} {getattr(self, heads)}."
            )


def _labels(name: str, labels: Any) -> dict[int, str]:
    try:
        found = {int(i): str(label) for i, label in labels.items()}
    except (AttributeError, ValueError, TypeError):
        found = {}
    if sorted(found) != list(range(len(found))) or not found:
        raise ValueError(f"{name}: id2label must map 0, 1, ... to names; got {labels!r}.")
    return found
