"""The same GPT in PyTorch, written the way its users write it, for comparison of speed."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, heads, C, bias, gelu):
        super().__init__()
        self.heads, self.approximate = heads, "tanh" if gelu == "gelu_new" else "none"
        self.ln_1, self.ln_2 = nn.LayerNorm(C, bias=bias), nn.LayerNorm(C, bias=bias)
        self.c_attn, self.attn_proj = nn.Linear(C, 3 * C, bias), nn.Linear(C, C, bias)
        self.c_fc, self.mlp_proj = nn.Linear(C, 4 * C, bias), nn.Linear(4 * C, C, bias)

    def forward(self, x):
        B, T, C = x.shape
        qkv = self.c_attn(self.ln_1(x)).split(C, dim=2)
        q, k, v = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2) for t in qkv)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_proj(o.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate=self.approximate))


class GPT(nn.Module):
    def __init__(self, layers, heads, C, T, _, V, bias, gelu):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        self.h = nn.ModuleList(Block(heads, C, bias, gelu) for _ in range(layers))
        self.ln_f = nn.LayerNorm(C, bias=bias)

    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    def load(self, weights):
        """Take over minilm's weights: its linear layers keep (in, out), PyTorch's (out, in)."""
        renamed = {"attn.c_attn": "c_attn", "attn.c_proj": "attn_proj", "mlp.c_fc": "c_fc", "mlp.c_proj": "mlp_proj"}
        state = {}
        for name, array in weights.items():
            name = name.removeprefix("transformer.")
            linear = next((old for old in renamed if old in name), None)
            if linear:
                name = name.replace(linear, renamed[linear])
            state[name] = torch.tensor(array.T.copy() if linear and array.ndim == 2 else array)
        self.load_state_dict(state)
