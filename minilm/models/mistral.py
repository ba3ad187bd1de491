"""Mistral: Llama without biases, whose attention may see only the last W tokens, ``sliding_window``.

    token t of every layer attends to tokens t - W + 1 .. t

Source: Jiang et al. (2023), arXiv:2310.06825.
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


@dataclass(frozen=True, kw_only=True)
class MistralConfig(DecoderConfig):
    """Sizes and choices, under HF's names; the defaults are the 7B model's."""

    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    sliding_window: int | None = 4096
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    model_type = "mistral"
    only = {**DecoderConfig.only, "attention_bias": (False,)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sliding_window is not None:
            self.check_sizes("sliding_window")


class MistralModel(LlamaModel):
    config_class = MistralConfig

    def attention(self, layer: int) -> dict[str, Any]:
        return {"window": self.config.sliding_window}


class MistralForCausalLM(LlamaForCausalLM):
    config_class, base = MistralConfig, MistralModel


class MistralForSequenceClassification(LlamaForSequenceClassification):
    config_class, base = MistralConfig, MistralModel


class MistralForTokenClassification(LlamaForTokenClassification):
    config_class, base = MistralConfig, MistralModel


class MistralForQuestionAnswering(LlamaForQuestionAnswering):
    config_class, base = MistralConfig, MistralModel
    base_model_prefix = "model"  # not "transformer", as Llama, Qwen2 and Qwen3 have it
    rename = {r"^transformer\.": "model."}


TASKS = {
    "base": MistralModel,
    "causal-lm": MistralForCausalLM,
    "sequence-classification": MistralForSequenceClassification,
    "token-classification": MistralForTokenClassification,
    "question-answering": MistralForQuestionAnswering,
}
