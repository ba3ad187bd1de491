"""Qwen3: Llama with an RMSNorm over the channels of every query and key head, and Qwen2's choice of windows.

    q = turn(RMSNorm(W_q x))      k = turn(RMSNorm(W_k x))

Source: Yang et al. (2025), arXiv:2505.09388.
"""

from dataclasses import dataclass
from typing import Any

from .llama import (
    LlamaForCausalLM,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
)
from .qwen2 import Qwen2Config


@dataclass(frozen=True, kw_only=True)
class Qwen3Config(Qwen2Config):
    """Sizes and choices, under HF's names and with its defaults."""

    head_dim: int | None = 128
    attention_bias: bool = False  # of all four projections of attention

    model_type = "qwen3"


class Qwen3Model(LlamaModel):
    config_class = Qwen3Config

    def attention(self, layer: int) -> dict[str, Any]:
        bias = self.config.attention_bias
        return {
            "qkv_bias": bias,
            "o_bias": bias,
            "norm_eps": self.config.rms_norm_eps,
            "window": self.config.window(layer),
        }


class Qwen3ForCausalLM(LlamaForCausalLM):
    config_class, base = Qwen3Config, Qwen3Model


class Qwen3ForSequenceClassification(LlamaForSequenceClassification):
    config_class, base = Qwen3Config, Qwen3Model


class Qwen3ForTokenClassification(LlamaForTokenClassification):
    config_class, base = Qwen3Config, Qwen3Model


class Qwen3ForQuestionAnswering(LlamaForQuestionAnswering):
    config_class, base = Qwen3Config, Qwen3Model


TASKS = {
    "base": Qwen3Model,
    "causal-lm": Qwen3ForCausalLM,
    "sequence-classification": Qwen3ForSequenceClassification,
    "token-classification": Qwen3ForTokenClassification,
    "question-answering": Qwen3ForQuestionAnswering,
}
