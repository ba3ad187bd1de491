"""Qwen2 and Qwen2.5: Llama with biases in the projections to queries, keys and values, and a window in some layers.

    token t of a "sliding_attention" layer attends to tokens t - W + 1 .. t, W = ``sliding_window``

``layer_types`` names each layer "full_attention" or "sliding_attention"; without it, and with ``use_sliding_window``,
the layers from ``max_window_layers`` on slide.
Source: Yang et al. (2024), arXiv:2407.10671.
"""

from dataclasses import dataclass
from typing import Any

from .llama import (
    DecoderConfig,
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
)

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class Qwen2Config(DecoderConfig):
    """Sizes and choices, under HF's names and with its defaults."""

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    max_position_embeddings: int = 32768
    use_sliding_window: bool = False
    sliding_window: int | None = 4096  # counts only with use_sliding_window
    max_window_layers: int = 28
    layer_types: list[str] | None = None

    model_type = "qwen2"
    only = {**DecoderConfig.only, "attention_bias": (True,), "use_mrope": (False,)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.use_sliding_window:
            self._set("sliding_window", None)
        if self.sliding_window is not None:
            self.check_sizes("sliding_window")
        if self.layer_types is None:
            first = self.num_hidden_layers if self.sliding_window is None else self.max_window_layers
            self._set("layer_types", [SLIDING if i >= first else FULL for i in range(self.num_hidden_layers)])
        kinds: Any = self.layer_types
        if len(kinds) != self.num_hidden_layers or not set(kinds) <= {FULL, SLIDING}:
            self.refuse("layer_types", f"{FULL!r} or {SLIDING!r} for each of {self.num_hidden_layers} layers")
        if SLIDING in kinds and self.sliding_window is None:
            self.refuse("layer_types", f"all {FULL!r} without use_sliding_window and a sliding_window")

    def window(self, layer: int) -> int | None:
        assert self.layer_types is not None
        return self.sliding_window if self.layer_types[layer] == SLIDING else None


class Qwen2Model(LlamaModel):
    config_class = Qwen2Config

    def attention(self, layer: int) -> dict[str, Any]:
        return {"qkv_bias": True, "o_bias": False, "window": self.config.window(layer)}


class Qwen2ForCausalLM(LlamaForCausalLM):
    config_class, base = Qwen2Config, Qwen2Model


class Qwen2ForSequenceClassification(LlamaForSequenceClassification):
    config_class, base = Qwen2Config, Qwen2Model


class Qwen2ForTokenClassification(LlamaForTokenClassification):
    config_class, base = Qwen2Config, Qwen2Model


class Qwen2ForQuestionAnswering(LlamaForQuestionAnswering):
    config_class, base = Qwen2Config, Qwen2Model


TASKS = {
    "base": Qwen2Model,
    "causal-lm": Qwen2ForCausalLM,
    "sequence-classification": Qwen2ForSequenceClassification,
    "token-classification": Qwen2ForTokenClassification,
    "question-answering": Qwen2ForQuestionAnswering,
}
