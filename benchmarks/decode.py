"""Read a prompt and write after it, GPT-2 124M in float32, against PyTorch:  python -m benchmarks.decode [--rounds 7]

One sequence, weights that are the same random ones on both sides; the tokens that greedy choice gives are compared
before any clock starts.  *Prefill* reads T tokens; its floor is the sgemm rate that NumPy reaches in the same round.
*Decode* writes one token after another; its floor is the rate at which memory is read, measured in the same round, for
every weight, and every key and value in the cache, is read once a token.  PyTorch is transformers with its own fused
attention and its usual cache.
"""

import argparse
import tempfile
import time

import numpy as np

from .sides import ratio, serve, started, take_turns

SIDES = ("minilm", "torch")
T, NEW = 512, 48  # tokens read, tokens written
READS = 5  # of the prompt, in each turn; the median counts, as of everything here
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
        readings, tokens, seconds = [], [], []
        for _ in range(READS):
            start = time.perf_counter()
            z, cache = read()
            readings.append(time.perf_counter() - start)
        for _ in range(NEW):
            tokens.append(int(z.argmax()))
            start = time.perf_counter()
            z = step(tokens[-1], cache)
            seconds.append(time.perf_counter() - start)
        return {"prefill": float(np.median(readings)), "decode": float(np.median(seconds)), "tokens": tokens}

    serve(answer)


def roofs(threads):
    """Measure sgemm, FLOP/s, and reading, bytes/s: medians of as many turns as the sides are given."""
    import minilm
    from minilm._kernels.process import tune_process

    minilm.set_num_threads(threads)
    tune_process()
    a, b = np.ones((T, C), np.float32), np.ones((C, 4 * C), np.float32)
    tables, x = [np.ones((V, C), np.float32) for _ in range(3)], np.ones(C, np.float32)  # as large as the model

    def rate(work, amount):
        times = []
        for _ in range(NEW):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return amount / float(np.median(times))

    def answer(_):
        reading = rate(lambda: [table @ x for table in tables], sum(table.nbytes for table in tables))
        return {"sgemm": rate(lambda: a @ b, 2 * T * C * 4 * C), "read": reading}

    serve(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=(*SIDES, "roofs"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker == "roofs":
        return roofs(args.threads)
    if args.worker:
        return work(args.worker, args.folder, args.threads)
    import minilm
    from minilm.models.gpt2 import GPT2Config, GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        model = GPT2LMHeadModel(GPT2Config(), rng=np.random.default_rng(0))
        minilm.save(model, folder)
        given = ["--folder", folder, "--threads", str(args.threads)]
        workers = {side: [side, *given] for side in (*SIDES, "roofs")}
        with started("benchmarks.decode", workers, args.threads) as sides:
            first = {side: sides[side].ask("warm")["tokens"] for side in SIDES}
            assert first["minilm"] == first["torch"], "the tokens must agree first"
            answers = take_turns(sides, "run", args.rounds)
    # 2 FLOPs a weight and token in the layers, the causal half of attention, and one row of the head
    flops = 2 * T * LAYERS * 12 * C * C + 2 * LAYERS * C * T * T + 2 * V * C
    # all weights but the table of positions, and keys and values of the positions before
    read = 4 * (model.num_parameters() - 1024 * C + 2 * LAYERS * C * (T + NEW // 2))
    roof = {what: np.array([answer[what] for answer in answers["roofs"]]) for what in ("sgemm", "read")}
    for side in SIDES:
        prefill, decode = (np.array([answer[what] for answer in answers[side]]) for what in ("prefill", "decode"))
        print(
            f"{side:<8}prefill {T / np.median(prefill):7,.0f} tokens/s, {share(flops / prefill / roof['sgemm'])} of "
            f"sgemm;  decode {1 / np.median(decode):6.1f} tokens/s, {share(read / decode / roof['read'])} of the "
            "read bandwidth"
        )
    print(
        f"roofs: sgemm {np.median(roof['sgemm']) / 1e9:.0f} GFLOP/s, reading {np.median(roof['read']) / 1e9:.1f} GB/s"
    )
    for what in ("prefill", "decode"):
        times = {side: [answer[what] for answer in answers[side]] for side in SIDES}
        print(f"ratio of times, {what}, minilm / torch: {ratio(times['minilm'], times['torch'])}")


def share(parts):
    return f"{np.median(parts):.1%} ({parts.min():.1%} to {parts.max():.1%})"


if __name__ == "__main__":
    main()
