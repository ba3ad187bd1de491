"""Time the head of a language model and its loss against PyTorch:  python -m benchmarks.head [--rows 2048] [--rounds 7]

linear_cross_entropy here, F.cross_entropy(F.linear(x, w), t) there, forward and backward, gradients of x and w; each
side in a process of its own, with the same numbers.  Losses and gradients are compared before any clock starts.  Rounds
alternate; what counts is the ratio of each.  Memory is how much the process grew at its peak, gradients included.
"""

import argparse

import numpy as np

from .sides import Side, ratio, serve, take_turns

SIDES = ("minilm", "torch")


def inputs(rows, width, vocabulary):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, width), np.float32)
    w = 0.02 * rng.standard_normal((vocabulary, width), np.float32)
    return x, w, rng.integers(0, vocabulary, rows)


def minilm_side(x, w, target, threads):
    import minilm
    from minilm import Tensor
    from minilm import functional as F
    from minilm._kernels.process import tune_process

    minilm.set_num_threads(threads)
    tune_process()  # as minilm train does
    x, w = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)

    def run():
        x.grad = w.grad = None
        loss = F.linear_cross_entropy(x, w, target)
        loss.backward()
        return loss.item(), x.grad, w.grad

    return run


def torch_side(x, w, target, threads):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    x, w, target = torch.from_numpy(x).requires_grad_(), torch.from_numpy(w).requires_grad_(), torch.from_numpy(target)

    def run():
        x.grad = w.grad = None
        loss = F.cross_entropy(F.linear(x, w), target)
        loss.backward()
        return loss.item(), x.grad.numpy(), w.grad.numpy()

    return run


def status(field):
    """Megabytes of this process: VmRSS now, VmHWM at its peak."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024


def work(side, sizes, threads):
    from time import perf_counter

    run = {"minilm": minilm_side, "torch": torch_side}[side](*inputs(*sizes), threads)
    before = status("VmRSS")

    def answer(times):
        seconds = []
        for _ in range(times):
            start = perf_counter()
            loss, dx, dw = run()
            seconds.append(perf_counter() - start)
        grown = status("VmHWM") - before  # what follows makes copies
        checks = [loss, float(np.abs(dx).sum()), float(np.abs(dw).sum()), float(dw[::7, ::5].sum())]
        return {"checks": checks, "seconds": float(np.median(seconds)), "grown": grown}

    serve(answer)


def compare(sizes, rounds, threads):
    given = [f"--{name}={n}" for name, n in zip(("rows", "width", "vocabulary"), sizes, strict=True)]
    sides = {
        side: Side("benchmarks.head", ["--worker", side, *given, f"--threads={threads}"], threads) for side in SIDES
    }
    first = {side: worker.ask(1) for side, worker in sides.items()}
    np.testing.assert_allclose(first["minilm"]["checks"], first["torch"]["checks"], rtol=1e-4, atol=1e-4)
    answers = take_turns(sides, 1, rounds)
    for worker in sides.values():
        worker.close()
    found = {side: [answer["seconds"] for answer in answers[side]] for side in SIDES}
    for side, seconds in found.items():
        ms = 1e3 * np.array(seconds)
        spread, grown = f"({ms.min():.1f} to {ms.max():.1f})", first[side]["grown"]
        print(f"{side:<8}{np.median(ms):9.1f} ms {spread}, peak {grown:,.0f} MB")
    print(f"ratio of times, minilm / torch: {ratio(found['minilm'], found['torch'])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = args.rows, args.width, args.vocabulary
    if args.worker:
        work(args.worker, sizes, args.threads)
    else:
        compare(sizes, args.rounds, args.threads)


if __name__ == "__main__":
    main()
