"""Read a prompt and write after it, GPT-2 124M in float32, against PyTorch:  python -m benchmarks.decode [--rounds 7]

One sequence, weights that are the same random ones on both sides; the tokens that greedy choice gives are compared
before any clock starts.  *Prefill* reads T tokens; its floor is the sgemm rate that NumPy reaches in the same minute.
*Decode* writes one token after another; its floor is the rate at which memory is read, measured in the same minute, for
every weight is read once a token.  PyTorch is transformers with its own fused attention and its static or dynamic
cache, whichever is faster.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from .sides import Side, ratio, serve, take_turns

SIDES = ("minilm", "torch")
T, NEW = 512, 48  # tokens read, tokens written
C, LAYERS, V = 768, 12, 50257


def prompt():
    return np.random.default_rng(1).integers(0, V, (1, T))


def minilm_side(folder, threads):
    import minilm
    from minilm._kernels.process import tune_process

    minilm.set_num_threads(threads)
    tune_process()  # as minilm generate does
    model = minilm.load(folder)

    def read():
        cache = model.new_cache(1, T + NEW)
        with minilm.no_grad():
            return model(prompt(), past_key_values=cache, logits_to_keep=1).logits._data[0, -1], cache

    def step(token, cache):
        with minilm.no_grad():
            return model(np.array([[token]]), past_key_values=cache, logits_to_keep=1).logits._data[0, -1]

    return read, step


def torch_side(folder, threads):
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()

    def read():
        with torch.inference_mode():
            out = model(torch.from_numpy(prompt()), use_cache=True, logits_to_keep=1)
        return out.logits[0, -1].numpy(), out.past_key_values

    def step(token, cache):
        with torch.inference_mode():
            return model(torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits[0, -1].numpy()

    return read, step


def work(side, folder, threads):
    read, step = {"minilm": minilm_side, "torch": torch_side}[side](folder, threads)

    def answer(_):
        start = time.perf_counter()
        z, cache = read()
        prefill, tokens, seconds = time.perf_counter() - start, [], []
        for _ in range(NEW):
            tokens.append(int(z.argmax()))
            start = time.perf_counter()
            z = step(tokens[-1], cache)
            seconds.append(time.perf_counter() - start)
        return {"prefill": prefill, "decode": float(np.median(seconds)), "tokens": tokens}

    serve(answer)


def roofs(threads):
    """sgemm, FLOP/s; reading, bytes/s: the best of a few, as roofs are."""
    from minilm import set_num_threads
    from minilm._kernels.process import tune_process

    set_num_threads(threads)
    tune_process()
    a, b = np.ones((T, C), np.float32), np.ones((C, 4 * C), np.float32)
    table, x = np.ones((V, C), np.float32), np.ones(C, np.float32)

    def best(work, amount):
        times = []
        for _ in range(12):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return amount / min(times)

    return best(lambda: a @ b, 2 * T * C * 4 * C), best(lambda: table @ x, table.nbytes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker, args.folder, args.threads)
    import minilm
    from minilm.models.gpt2 import GPT2Config, GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        model = GPT2LMHeadModel(GPT2Config(), rng=np.random.default_rng(0))
        minilm.save(model, folder)
        weights = Path(folder, "model.safetensors").stat().st_size
        given = ["--folder", folder, "--threads", str(args.threads)]
        sides = {side: Side("benchmarks.decode", ["--worker", side, *given], args.threads) for side in SIDES}
        first = {side: worker.ask("warm")["tokens"] for side, worker in sides.items()}
        assert first["minilm"] == first["torch"], "the tokens must agree first"
        before = roofs(args.threads)
        answers = take_turns(sides, "run", args.rounds)
        after = roofs(args.threads)
        for worker in sides.values():
            worker.close()
    sgemm, reading = (max(pair) for pair in zip(before, after, strict=True))
    # 2 FLOPs a weight and token in the layers, the causal half of attention, and one row of the head
    flops = 2 * T * LAYERS * 12 * C * C + 2 * LAYERS * C * T * T + 2 * V * C
    for side, found in answers.items():
        prefill = np.median([answer["prefill"] for answer in found])
        decode = np.median([answer["decode"] for answer in found])
        print(
            f"{side:<8}prefill {T / prefill:7,.0f} tokens/s, {flops / prefill / sgemm:6.1%} of sgemm;  "
            f"decode {1 / decode:6.1f} tokens/s, {weights / decode / reading:6.1%} of the read bandwidth"
        )
    print(f"roofs: sgemm {sgemm / 1e9:.0f} GFLOP/s, reading {reading / 1e9:.1f} GB/s")
    for what in ("prefill", "decode"):
        times = {side: [answer[what] for answer in found] for side, found in answers.items()}
        print(f"ratio of times, {what}, minilm / torch: {ratio(times['minilm'], times['torch'])}")


if __name__ == "__main__":
    main()
