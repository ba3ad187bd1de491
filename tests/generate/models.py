"""Small random models, ours and transformers', and a vocabulary of bytes."""

import numpy as np
import torch
import transformers

import minilm
from minilm.text import train_tokenizer
from tests.models.judge import checkpoint

V = 61
SIZES = {
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 48, "initializer_range": 0.5},
    "llama": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "max_position_embeddings": 16},
    "mistral": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_key_value_heads": 2, "sliding_window": 5, "head_dim": 6},
    "bloom": {"hidden_size": 24, "n_layer": 2, "n_head": 4, "initializer_range": 0.5},
    "t5": {"d_model": 24, "d_ff": 32, "num_layers": 2, "num_heads": 4, "d_kv": 6, "decoder_start_token_id": 0},
    "bart": {"d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3,
             "decoder_attention_heads": 3, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 0.3,
             "max_position_embeddings": 48, "forced_eos_token_id": None},
    "marian": {"d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3,
               "decoder_attention_heads": 3, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 0.3,
               "decoder_start_token_id": 60, "forced_eos_token_id": None},
}  # fmt: skip
SCALE = {"gpt2": 0.1, "bloom": 0.1}  # of what moves norms and biases; more, and every text would begin alike
DECODERS = ("gpt2", "llama", "mistral", "bloom")
ANSWERERS = ("t5", "bart", "marian")
CLASSES = {"t5": transformers.T5ForConditionalGeneration, "bart": transformers.BartForConditionalGeneration,
           "marian": transformers.MarianMTModel, "gpt2": transformers.GPT2LMHeadModel,
           "llama": transformers.LlamaForCausalLM, "mistral": transformers.MistralForCausalLM,
           "bloom": transformers.BloomForCausalLM}  # fmt: skip


def pair(family, folder, seed=0, eos=3):
    """Return (transformers' model, ours), of the same weights, in float64."""
    tokens = {"vocab_size": V, "bos_token_id": 1, "eos_token_id": eos, "pad_token_id": 60}
    config = transformers.AutoConfig.for_model(family, **tokens, **SIZES[family])
    theirs = checkpoint(folder, CLASSES[family], config, seed=seed, scale=SCALE.get(family, 0.3)).to(torch.float64)
    theirs.generation_config = transformers.GenerationConfig(
        eos_token_id=eos,
        pad_token_id=60,
        bos_token_id=1,
        decoder_start_token_id=config.to_dict().get("decoder_start_token_id"),
    )
    return theirs, minilm.load(folder, dtype=np.float64)


def prompts(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, V - 1, n).tolist() for n in lengths]


def bytes_vocabulary():
    """Return a byte-level vocabulary without merges: one token for each byte."""
    return train_tokenizer("bpe", ["no merges"], vocab_size=257)


def want(theirs, prompt, **options):
    """Return transformers' own new tokens (sequences, n), and the scores of beams."""
    ids = torch.tensor([prompt])
    options = {"do_sample": False, **options}
    out = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), return_dict_in_generate=True, output_scores=True, **options
    )
    new = out.sequences[:, 1 if theirs.config.is_encoder_decoder else len(prompt) :].tolist()
    return new, getattr(out, "sequences_scores", None)
