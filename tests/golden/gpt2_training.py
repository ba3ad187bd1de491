"""Ten training losses of a small GPT-2, by PyTorch and transformers and by minilm, from the same weights and tokens.

Remake the numbers with:  python -m tests.golden.gpt2_training
They are checked without PyTorch; a difference after a remake must be explained in the commit.
"""

import json
import platform
from pathlib import Path

import numpy as np

from minilm import optim
from minilm.models.gpt2 import GPT2Config, GPT2LMHeadModel

CASES = {
    "tanh": {"activation_function": "gelu_new"},
    "erf": {"activation_function": "gelu"},
}
SIZES = {"vocab_size": 65, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4}
STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": None, "eos_token_id": None}
ADAMW = {"lr": 3e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
STEPS = 10


def start(case, dtype):
    """Return our model with its first weights, and the batches (STEPS, B, T)."""
    config = GPT2Config(**SIZES, **STILL, **CASES[case])
    model = GPT2LMHeadModel(config, rng=np.random.default_rng(0), dtype=np.float64).astype(dtype)
    return model, np.random.default_rng(1).integers(0, SIZES["vocab_size"], (STEPS, 4, 16))


def ours(case, dtype):
    model, batches = start(case, dtype)
    optimizer = optim.AdamW(list(model.parameters()), **ADAMW)
    losses = []
    for ids in batches:
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(grad_scale=optim.clip_factor(optim.global_norm(model.parameters()), 1.0))
        losses.append(loss.item())
    return losses


def torch_loss(logits, labels):
    """PyTorch's cross-entropy of the next labels; the loss that transformers returns is rounded to float32."""
    import torch.nn.functional as F

    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


def pytorch(case, dtype):
    import torch
    import transformers

    model, batches = start(case, dtype)
    config = transformers.GPT2Config(**SIZES, **STILL, **CASES[case], attn_implementation="eager")
    other = transformers.GPT2LMHeadModel(config).to(getattr(torch, dtype))
    other.load_state_dict({name: torch.tensor(a) for name, a in model.state_dict().items()}, strict=False)
    optimizer = torch.optim.AdamW(other.parameters(), **ADAMW)
    losses = []
    for ids in torch.tensor(batches):
        loss = torch_loss(other(ids).logits, ids)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    import torch
    import transformers

    made = {
        "made by": "python -m tests.golden.gpt2_training",
        "with": f"torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}",
        "losses": {case: {dtype: pytorch(case, dtype) for dtype in ("float32", "float64")} for case in CASES},
    }
    (Path(__file__).parent / "gpt2_training.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
