"""Time one training step of a GPT against PyTorch:  python -m benchmarks.train_step [--size nanogpt-cpu] [--rounds 7]

Each side runs in a process of its own, with the same weights, tokens, clipping and AdamW.  The losses of the first
steps are compared before any clock starts.  Rounds alternate, so that a slow minute of the machine is slow for both;
what counts is the ratio of each round, not a time.  PyTorch runs its eager mode with its own fused attention and AdamW.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from .sides import Side, ratio, serve, take_turns

SIDES = ("minilm", "torch")

SIZES = {  # name: (layers, heads, width, T, B, V, bias, gelu)
    "nanogpt-cpu": (4, 4, 128, 64, 12, 65, False, "gelu"),
    "nanogpt-char": (6, 6, 384, 256, 16, 65, False, "gelu"),
    "gpt2": (12, 12, 768, 64, 4, 50257, True, "gelu_new"),
}
CHECKED = 5  # steps whose losses must agree, which also warm up
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def batches(size, n):
    *_, T, B, V, _, _ = SIZES[size]
    return np.random.default_rng(1).integers(0, V, (n, 2, B, T))


# ---- the two sides: a function that does one step on (inputs, targets) and returns the loss


def minilm_step(size, weights, threads):
    from minilm import optim
    from minilm._kernels import threads as pool
    from minilm._kernels.process import tune_process
    from minilm.models.gpt2 import GPT2LMHeadModel
    from minilm.tasks import causal_lm

    pool.set_num_threads(threads)
    tune_process()  # as minilm train does
    model = GPT2LMHeadModel(our_config(size), rng=np.random.default_rng(0))
    model.load_state_dict(weights)
    parameters = list(model.parameters())
    optimizer = optim.AdamW(parameters, **ADAMW)

    def step(inputs, targets):
        loss = causal_lm.loss(model, inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(grad_scale=optim.clip_factor(optim.global_norm(parameters), 1.0))
        return loss.item()

    return step


def torch_step(size, weights, threads):
    import torch

    from .torch_gpt import GPT

    torch.set_num_threads(threads)
    model = GPT(*SIZES[size])
    model.load(weights)
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW, fused=True)

    def step(inputs, targets):
        loss = model(torch.from_numpy(inputs), torch.from_numpy(targets))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def our_config(size):
    from minilm.models.gpt2 import GPT2Config

    layers, heads, width, T, _, V, bias, gelu = SIZES[size]
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"vocab_size": V, "n_positions": T, "n_embd": width, "n_layer": layers, "n_head": heads}
    return GPT2Config(**sizes, activation_function=gelu, bias=bias, **still)


# ---- one process a side: reads how many steps to do, answers with losses and seconds


def work(side, size, weights_file, threads):
    with np.load(weights_file) as file:
        weights = dict(file)
    step = {"minilm": minilm_step, "torch": torch_step}[side](size, weights, threads)

    def answer(steps):
        losses, seconds = [], []
        for inputs, targets in batches(size, steps):
            start = time.perf_counter()
            losses.append(step(inputs, targets))
            seconds.append(time.perf_counter() - start)
        return {"losses": losses, "seconds": seconds}

    serve(answer)


def compare(size, rounds, steps, threads):
    from minilm.models.gpt2 import GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        weights_file = Path(folder, "weights.npz")
        np.savez(weights_file, **GPT2LMHeadModel(our_config(size), rng=np.random.default_rng(0)).state_dict())
        given = ["--size", size, "--weights", str(weights_file), "--threads", str(threads)]
        sides = {side: Side("benchmarks.train_step", ["--worker", side, *given], threads) for side in SIDES}
        first = {side: worker.ask(CHECKED)["losses"] for side, worker in sides.items()}
        np.testing.assert_allclose(first["minilm"], first["torch"], rtol=2e-4, err_msg="the losses must agree first")
        answers = take_turns(sides, steps, rounds)
        for worker in sides.values():
            worker.close()
    medians = {side: [float(np.median(answer["seconds"])) for answer in found] for side, found in answers.items()}
    *_, T, B, _, _, _ = SIZES[size]
    for side, times in medians.items():
        ms, speed = 1e3 * np.array(times), B * T / np.median(times)
        print(f"{side:<8}{np.median(ms):9.2f} ms a step ({ms.min():.2f} to {ms.max():.2f}), {speed:,.0f} tokens/s")
    print(f"ratio of times, minilm / torch: {ratio(medians['minilm'], medians['torch'])}, {steps} steps each")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="nanogpt-cpu", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="steps a round; the median of them counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.size, args.weights, args.threads)
    else:
        compare(args.size, args.rounds, args.steps, args.threads)


if __name__ == "__main__":
    main()
