"""Marian: the models of OPUS-MT that translate; BART's layers, with sinusoidal positions and no norm before them.

    h⁰ = √C? E[t] + P[i]            P[i] = (sin(i ω₀), sin(i ω₁), ..., cos(i ω₀), cos(i ω₁), ...)
    logits = hᴸ Eᵀ + b              ω_j = 10000^(-2j/C)

√C is there with ``scale_embedding``; b, of the checkpoint, is not learned, nor is P.  Source and target have one table
E, or with ``share_encoder_decoder_embeddings`` false one each; for the rest see bart.py.
Sources: Junczys-Dowmunt et al. (2018), arXiv:1804.00344; Tiedemann & Thottingal (2020), OPUS-MT.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..nn import Embedding, Module, Parameter
from ..tensor import Tensor
from .bart import BartBase, BartConfig, BartPreTrainedModel, BartStack
from .seq2seq_heads import BiasedSeq2SeqLM


@dataclass(frozen=True, kw_only=True)
class MarianConfig(BartConfig):
    """Sizes and choices, under HF's names; the defaults are HF's."""

    vocab_size: int = 58101
    decoder_vocab_size: int | None = None  # None: vocab_size
    share_encoder_decoder_embeddings: bool = True
    bos_token_id: int | None = None
    pad_token_id: int | None = 58100
    eos_token_id: int | list[int] | None = 0
    decoder_start_token_id: int | None = 58100
    id2label: dict[int, str] = field(default_factory=lambda: {0: "LABEL_0", 1: "LABEL_1"})

    model_type = "marian"
    only = {**BartConfig.only, "normalize_embedding": (False,), "static_position_embeddings": (True,)}

    @property
    def target_vocab_size(self) -> int:
        return self.decoder_vocab_size or self.vocab_size

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_vocab_size is not None:
            self.check_sizes("decoder_vocab_size")
        if self.share_encoder_decoder_embeddings and self.target_vocab_size != self.vocab_size:
            self.refuse("decoder_vocab_size", f"vocab_size, {self.vocab_size}, where source and target share a table")
        if self.pad_token_id is not None and self.pad_token_id >= self.target_vocab_size:
            self.refuse("pad_token_id", f"a row of the target's table too, below {self.target_vocab_size}")


class MarianPositions(Module):
    """The sinusoids of every position, or what a file holds in their place."""

    def __init__(self, config: MarianConfig, dtype: Any):
        i, C = np.arange(config.max_position_embeddings)[:, None], config.d_model
        angles = i / 10000 ** (2 * np.arange((C + 1) // 2) / C)  # (positions, ⌈C/2⌉)
        P = np.concatenate([np.sin(angles), np.cos(angles[:, : C // 2])], axis=1)
        # Rounded to float32 for any dtype: what transformers adds, and what files hold.
        self.weight = Parameter(P.astype(np.float32).astype(dtype), requires_grad=False)

    def forward(self, positions: np.ndarray) -> Tensor:
        return self.weight[positions]


class MarianPreTrainedModel(BartPreTrainedModel):
    config: MarianConfig
    config_class = MarianConfig


class MarianModel(MarianPreTrainedModel, BartBase):
    """Encoder and decoder on one table of token vectors, or on two."""

    def __init__(self, config: MarianConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)

        def tokens(V: int) -> Embedding:
            return Embedding(V, config.d_model, config.pad_token_id, std=config.init_std, rng=rng, dtype=dtype)

        shares = config.share_encoder_decoder_embeddings
        if shares:
            self.shared = tokens(config.vocab_size)
        one = shares and config.tie_word_embeddings
        self.encoder, self.decoder = (
            BartStack(
                *(config, across),
                self.shared if one else tokens(config.target_vocab_size if across else config.vocab_size),
                MarianPositions(config, dtype),
                None,  # no norm of embeddings
                *(rng, dtype),
            )
            for across in (False, True)
        )


class MarianMTModel(MarianPreTrainedModel, BiasedSeq2SeqLM):
    """Marian with the head that says what is written."""

    def __init__(self, config: MarianConfig, *, rng: np.random.Generator, dtype: Any = np.float32):
        super().__init__(config, rng=rng, dtype=dtype)
        self.model = MarianModel(config, rng=rng, dtype=dtype)
        table = self.model.decoder.embed_tokens.weight if config.tie_word_embeddings else None
        self.add_head(config.target_vocab_size, config.d_model, config.init_std, table)


TASKS = {"base": MarianModel, "seq2seq-lm": MarianMTModel}
