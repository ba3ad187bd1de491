"""The same GPT in JAX, and its whole step in one compiled call, for comparison of speed."""

import jax
import jax.numpy as jnp
import numpy as np


def layer_norm(x, weights, name):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    y = (x - mean) * jax.lax.rsqrt(variance + 1e-5) * weights[f"{name}.weight"]
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def linear(x, weights, name):
    y = x @ weights[f"{name}.weight"]  # (in, out), as GPT-2's checkpoints keep it
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def loss(weights, inputs, targets, layers, heads, gelu):
    w = {name.removeprefix("transformer."): array for name, array in weights.items()}
    B, T = inputs.shape
    x = w["wte.weight"][inputs] + w["wpe.weight"][:T]  # (B, T, C)
    for i in range(layers):
        qkv = linear(layer_norm(x, w, f"h.{i}.ln_1"), w, f"h.{i}.attn.c_attn")
        q, k, v = (t.reshape(B, T, heads, -1) for t in jnp.split(qkv, 3, axis=-1))
        o = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)
        x = x + linear(o, w, f"h.{i}.attn.c_proj")
        h = linear(layer_norm(x, w, f"h.{i}.ln_2"), w, f"h.{i}.mlp.c_fc")
        x = x + linear(jax.nn.gelu(h, approximate=gelu == "gelu_new"), w, f"h.{i}.mlp.c_proj")
    log_p = jax.nn.log_softmax(layer_norm(x, w, "ln_f") @ w["wte.weight"].T)  # (B, T, V)
    return -jnp.take_along_axis(log_p, targets[..., None], -1).mean()


def trainer(weights, layers, heads, gelu, *, lr, betas, eps, weight_decay, max_norm):
    """Return a function that does one step of AdamW with clipping on (inputs, targets), and returns the loss."""

    def step(weights, m, v, t, inputs, targets):
        value, g = jax.value_and_grad(loss)(weights, inputs, targets, layers, heads, gelu)
        norm = jnp.sqrt(sum(jnp.vdot(a, a) for a in g.values()))
        factor = jnp.minimum(1.0, max_norm / (norm + 1e-6))
        g = jax.tree.map(lambda a: a * factor, g)
        m = jax.tree.map(lambda m, g: betas[0] * m + (1 - betas[0]) * g, m, g)
        v = jax.tree.map(lambda v, g: betas[1] * v + (1 - betas[1]) * g * g, v, g)
        a, b = 1 - betas[0] ** t, 1 - betas[1] ** t
        weights = jax.tree.map(
            lambda p, m, v: p * (1 - lr * weight_decay) - lr * (m / a) / (jnp.sqrt(v / b) + eps), weights, m, v
        )
        return value, weights, m, v

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    weights = {name: jnp.array(array) for name, array in weights.items()}
    state = [weights, *({name: jnp.zeros_like(p) for name, p in weights.items()} for _ in "mv")]
    steps = 0

    def run(batch):
        nonlocal state, steps
        steps += 1
        value, *state = compiled(*state, np.float32(steps), *(np.asarray(ids, np.int32) for ids in batch))
        jax.block_until_ready(state)
        return float(value)

    return run
