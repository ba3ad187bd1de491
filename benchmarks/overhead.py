"""What Python costs per op, for benchmarks.kernels --overhead: ops so small that arithmetic is nothing.

Each is applied to its own output DEPTH times with the tape recording, then the tape is walked back; what is told is
the median of microseconds per application, in turn with PyTorch's same calls.  A loss is one number: it is taken DEPTH
times of the same input, and walked back as often.
"""

import argparse
import time

import numpy as np

from .sides import ratio, serve, started, take_turns

SIDES = ("minilm", "torch")
DEPTH, REPEATS = 16, 100


def small_ops(F, tensor, integers, layer_norm, add_layer_norm, bias_gelu):
    """Return name -> (what it begins with, the function); all arrays of floats learn."""
    rng = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return tensor(scale * rng.standard_normal(shape, np.float32))

    x, near_one, w, b = normal(8, 8), tensor(np.full((8, 8), 1.01, np.float32)), normal(8, 8, scale=0.3), normal(8)
    q, k, v, tall = normal(1, 1, 8, 8), normal(1, 1, 8, 8), normal(1, 1, 8, 8), normal(8 + DEPTH, 8)
    ids = integers(np.arange(8))
    return {
        "add": (x, lambda t: t + near_one),
        "mul": (x, lambda t: t * near_one),
        "linear": (x, lambda t: F.linear(t, w, b)),
        "embedding": (x, lambda t: F.embedding(ids, t)),
        "gelu": (x, F.gelu),
        "bias_gelu": (x, lambda t: bias_gelu(t, b)),
        "layer_norm": (x, lambda t: layer_norm(t, b, b)),
        "add_layer_norm": (x, lambda t: add_layer_norm(t, near_one, b, b)),
        "attention": (q, lambda t: F.scaled_dot_product_attention(t, k, v, is_causal=True)),
        "cross_entropy": (x, lambda t: F.cross_entropy(t, ids)),
        "reshape": (x, lambda t: t.reshape(-1) if t.ndim == 2 else t.reshape(8, 8)),
        "getitem": (tall, lambda t: t[1:]),
    }


def minilm_ops(threads):
    import minilm
    from minilm import functional as F
    from minilm.nn.module import parameter

    def add_layer_norm(t, y, w, b):
        return F.add_layer_norm(t, y, w, b)[1]

    minilm.set_num_threads(threads)
    return small_ops(F, parameter, minilm.Tensor, F.layer_norm, add_layer_norm, F.bias_gelu), lambda a: a


def torch_ops(threads):
    import torch
    from torch.nn import functional as F

    def layer_norm(t, w, b):
        return F.layer_norm(t, (8,), w, b)

    def add_layer_norm(t, y, w, b):
        return F.layer_norm(t + y, (8,), w, b)

    def bias_gelu(t, b):
        return F.gelu(t + b)

    def tensor(array):
        return torch.from_numpy(array).requires_grad_()

    torch.set_num_threads(threads)
    return small_ops(F, tensor, torch.from_numpy, layer_norm, add_layer_norm, bias_gelu), torch.from_numpy


def work(side, threads):
    ops, array = {"minilm": minilm_ops, "torch": torch_ops}[side](threads)
    leaves = [x for x, _ in ops.values()]

    def once(x, function):
        start, outs = time.perf_counter(), [x]
        for _ in range(DEPTH):
            outs.append(function(outs[-1] if outs[-1].ndim else x))
        middle = time.perf_counter()
        for out in outs[1:] if not outs[-1].ndim else outs[-1:]:
            out.backward(array(np.ones(tuple(out.shape), np.float32)))
        end = time.perf_counter()
        for leaf in leaves:
            leaf.grad = None
        return middle - start, end - middle

    def answer(_):
        per_op = 1e6 / DEPTH
        return {
            name: (per_op * np.median([once(*op) for _ in range(REPEATS)], axis=0)).tolist() for name, op in ops.items()
        }

    serve(answer)


def compare(rounds, threads):
    """Yield what was measured of each op: a dict that JSON can hold."""
    given = {side: [side, "--threads", str(threads)] for side in SIDES}
    with started("benchmarks.overhead", given, threads) as sides:
        take_turns(sides, "warm up", 1)
        answers = take_turns(sides, "run", rounds)
    print(f"\nmicroseconds per op{'':<15}forward (minilm / torch){'':<24}backward (minilm / torch)")
    for op in answers["minilm"][0]:
        found = {side: np.array([answer[op] for answer in answers[side]]) for side in SIDES}  # (rounds, 2)
        yield {"op": op} | {
            side: dict(zip(("forward", "backward"), a.T.tolist(), strict=True)) for side, a in found.items()
        }


def report(found):
    cells = []
    for way in ("forward", "backward"):
        ours, theirs = (found[side][way] for side in SIDES)
        cells.append(f"{np.median(ours):7.2f} /{np.median(theirs):7.2f}  {ratio(ours, theirs):<32}")
    print(f"{found['op']:<15}" + " ".join(cells))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", choices=SIDES, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    work(args.worker, args.threads)


if __name__ == "__main__":
    main()
