"""Time one training step of a GPT:  python -m benchmarks.train_step [--size nanogpt-cpu] [--against torch jax]

Each side runs in a process of its own, with the same weights, tokens, clipping and AdamW.  The losses of the first
steps are compared before any clock starts.  Rounds alternate, so that a slow minute of the machine is slow for all;
what counts is the ratio of each round, not a time.

PyTorch runs eager and compiled, with its own fused attention and AdamW; *tuned* means that glibc's malloc is told,
through variables that few users set, to keep its memory.  Out of the box it is the better of the first two, tuned the
better of the other two.  minilm is set up as `minilm train` sets it up, and needs no variables.

With --parts n every step takes its batch in n equal parts, one after another, and adds up their gradients.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from .sides import KEEPS_MEMORY, header, machine, memory, ratio, require, serve, started, take_turns

AGAINST = {
    "torch": ("torch-eager", "torch-compile", "torch-eager-tuned", "torch-compile-tuned"),
    "jax": ("jax",),
}
BETTER_OF = {"torch out of the box": AGAINST["torch"][:2], "torch tuned": AGAINST["torch"][2:]}
OTHERS = tuple(side for sides in AGAINST.values() for side in sides)

SIZES = {  # name: (layers, heads, width, T, B, V, bias, gelu)
    "nanogpt-cpu": (4, 4, 128, 64, 12, 65, False, "gelu"),
    "nanogpt-char": (6, 6, 384, 256, 16, 65, False, "gelu"),
    "gpt2": (12, 12, 768, 64, 4, 50257, True, "gelu_new"),
    "gpt2-512": (12, 12, 768, 512, 4, 50257, True, "gelu_new"),
}
CHECKED = 5  # steps whose losses must agree, which also warm up
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
MAX_NORM = 1.0
SQUARE, PRODUCTS = 2048, 5  # the roof: the best of so many products of two squares, in each round


def flops(size):
    """Floating-point operations that the mathematics of one step needs, in matrix products alone.

    A block multiplies every token by 12 C² weights, the head by C V, at 2 operations each; causal attention's two
    products take 2 T C operations for each token together, since half of (T, T) is hidden.  Backward takes twice as
    many as forward: a product for either input of each.  What a program computes again is its own affair.
    """
    layers, _, C, T, B, V, _, _ = SIZES[size]
    return 3 * B * T * (2 * (layers * 12 * C * C + C * V) + layers * 2 * T * C)


def batches(size, n):
    *_, T, B, V, _, _ = SIZES[size]
    return np.random.default_rng(1).integers(0, V, (n, 2, B, T))


def our_config(size):
    from minilm.models.gpt2 import GPT2Config

    layers, heads, width, T, _, V, bias, gelu = SIZES[size]
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"vocab_size": V, "n_positions": T, "n_embd": width, "n_layer": layers, "n_head": heads}
    return GPT2Config(**sizes, activation_function=gelu, bias=bias, **still)


# ---- the sides: the phases of a step.  Each is given what the one before returned: (inputs, targets), ..., a number.
# Of a batch in parts, each part goes through all but the last


def minilm_phases(side, size, weights, threads, parts=1):
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

    def backward(loss):
        loss.backward(np.asarray(1 / parts, loss.dtype))
        return loss.item()

    def update(loss):
        optimizer.step(grad_scale=optim.clip_factor(optim.global_norm(parameters), MAX_NORM))
        optimizer.zero_grad()
        return loss

    return {"forward": lambda batch: causal_lm.loss(model, *batch), "backward": backward, "optimizer": update}


def torch_phases(side, size, weights, threads, parts=1):
    import torch

    from .torch_gpt import GPT

    torch.set_num_threads(threads)
    model = GPT(*SIZES[size])
    model.load(weights)
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW, fused=True)
    loss_of = torch.compile(model) if "compile" in side else model

    def backward(loss):
        (loss / parts if parts > 1 else loss).backward()
        return loss.item()

    def update(loss):
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return {"forward": lambda batch: loss_of(*map(torch.from_numpy, batch)), "backward": backward, "optimizer": update}


def jax_phases(side, size, weights, threads, parts=1):
    """JAX compiles the step as a whole, which therefore has no phases, and no parts."""
    from .jax_gpt import trainer

    layers, heads, *_, gelu = SIZES[size]
    return {"step": trainer(weights, layers, heads, gelu, max_norm=MAX_NORM, **ADAMW)}


# ---- one process a side: reads how many steps to do, answers with losses, seconds, page faults and memory


def work(side, size, weights_file, threads, parts):
    import resource

    make = {"minilm": minilm_phases, "torch": torch_phases, "jax": jax_phases}[side.split("-")[0]]
    with np.load(weights_file) as file:
        phases = make(side, size, dict(file), threads, parts)
    *of_parts, last = phases

    def answer(steps):
        losses, seconds = [], {name: [] for name in phases}
        data = batches(size, steps)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for batch in data:
            values = list(np.split(batch, parts, axis=1))
            took = dict.fromkeys(phases, 0.0)
            for i in range(parts):
                for name in of_parts:
                    start = time.perf_counter()
                    values[i] = phases[name](values[i])
                    took[name] += time.perf_counter() - start
            start = time.perf_counter()
            losses.append(phases[last](np.mean(values) if of_parts else values[0]))
            took[last] = time.perf_counter() - start
            for name in phases:
                seconds[name].append(took[name])
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        step = float(np.median(np.sum(list(seconds.values()), axis=0)))
        phase_medians = {name: float(np.median(times)) for name, times in seconds.items()}
        return {"losses": losses, "step": step, **phase_medians, "faults": faults / steps, "peak": memory("VmHWM")}

    serve(answer)


def roof(threads):
    """Answer with the best speed of sgemm, FLOP/s."""
    import minilm
    from minilm._kernels.process import tune_process

    minilm.set_num_threads(threads)
    tune_process()
    a, b = np.ones((2, SQUARE, SQUARE), np.float32)
    c = np.empty_like(a)

    def answer(_):
        seconds = []
        for _ in range(PRODUCTS):
            start = time.perf_counter()
            np.matmul(a, b, out=c)
            seconds.append(time.perf_counter() - start)
        return 2 * SQUARE**3 / min(seconds)

    answer("once, to warm up")
    serve(answer)


# ---- the comparison


def compare(size, others, rounds, steps, threads, parts=1):
    """Return everything that was measured: a dict that JSON can hold."""
    from minilm.models.gpt2 import GPT2LMHeadModel

    for package in sorted({side.split("-")[0] for side in others}):
        require(package)
    found = {"machine": machine(threads), "size": size, "steps": steps, "parts": parts, "flops": flops(size)}
    names = ("minilm", *others)
    environ = {side: KEEPS_MEMORY for side in others if side.endswith("tuned")}
    environ["jax"] = {"NPROC": str(threads)}  # how many threads XLA starts
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.npz")
        np.savez(weights, **GPT2LMHeadModel(our_config(size), rng=np.random.default_rng(0)).state_dict())
        given = ["--size", size, "--weights", str(weights), "--threads", str(threads), "--parts", str(parts)]
        workers = {side: [side, *given] for side in (*names, "roof")}
        with started("benchmarks.train_step", workers, threads, environ) as sides:
            losses = {side: sides[side].ask(CHECKED)["losses"] for side in names}
            for side in others:
                if not np.allclose(losses["minilm"], losses[side], rtol=2e-4, atol=0):
                    raise SystemExit(
                        f"The losses must agree before the clock starts: {losses['minilm']}, {side} {losses[side]}"
                    )
            answers = take_turns(sides, steps, rounds)
    found["sgemm"] = answers.pop("roof")
    *_, T, B, _, _, _ = SIZES[size]
    found["sides"] = {}
    for side in names:
        measured = {name: [answer.get(name) for answer in answers[side]] for name in answers[side][0]}
        seconds = np.array(measured["step"])
        measured["tokens per second"] = (B * T / seconds).tolist()
        measured["share of sgemm"] = (flops(size) / seconds / found["sgemm"]).tolist()
        found["sides"][side] = measured | {"losses": losses[side]}
    found["better"] = {
        what: min(there, key=lambda side: np.median(found["sides"][side]["step"]))
        for what, sides in BETTER_OF.items()
        if (there := [side for side in sides if side in others])
    }
    ours = np.array(found["sides"]["minilm"]["step"])
    found["ratio"] = {side: (ours / found["sides"][side]["step"]).tolist() for side in others}
    return found


def report(found):
    print(header(found["machine"]))
    what = f"{found['size']} in {found['parts']} parts" if found["parts"] > 1 else found["size"]
    print(f"{what}: {found['flops'] / 1e9:.3g} GFLOP a step, sgemm {np.median(found['sgemm']) / 1e9:.0f} GFLOP/s")
    print(
        f"\n{'':<20}{'ms a step':>10} {'(min to max)':<20}{'tokens/s':>9}{'forward':>9}{'backward':>9}{'optimizer':>10}"
        f"{'of sgemm':>9}{'faults':>8}{'peak MB':>9}"
    )
    for side, it in found["sides"].items():
        ms = 1e3 * np.array(it["step"])
        phases = [f"{1e3 * np.median(it[p]):.1f}" if p in it else "-" for p in ("forward", "backward", "optimizer")]
        print(
            f"{side:<20}{np.median(ms):10.2f} {f'({ms.min():.2f} to {ms.max():.2f})':<20}"
            f"{np.median(it['tokens per second']):9,.0f}{phases[0]:>9}{phases[1]:>9}{phases[2]:>10}"
            f"{np.median(it['share of sgemm']):9.1%}{np.median(it['faults']):8.0f}{max(it['peak']):9,.0f}"
        )
    print("\nratio of times, minilm over")
    ours = found["sides"]["minilm"]
    for what, side in (*((side, side) for side in found["ratio"]), *found["better"].items()):
        it = found["sides"][side]
        best = f", the better: {side}" if what != side else ""
        print(
            f"  {what:<22}{ratio(ours['step'], it['step'])}; of memory {max(ours['peak']) / max(it['peak']):.2f}{best}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="nanogpt-cpu", choices=SIZES)
    parser.add_argument("--against", nargs="+", default=["torch"], choices=AGAINST)
    parser.add_argument("--sides", nargs="+", choices=OTHERS, help="these alone, instead of all that --against names")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="steps a round; the median of them counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", type=int, default=1, help="of a batch; they divide its size")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    parser.add_argument("--worker", choices=("minilm", *OTHERS, "roof"), help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker == "roof":
        return roof(args.threads)
    if args.worker:
        return work(args.worker, args.size, args.weights, args.threads, args.parts)
    others = args.sides or [side for group in args.against for side in AGAINST[group]]
    rows = SIZES[args.size][4]
    if args.parts < 1 or rows % args.parts:
        parser.error(f"--parts must divide the {rows} rows of a batch of {args.size}; got {args.parts}")
    if args.parts > 1 and "jax" in others:
        parser.error("--parts: JAX's step is compiled whole, and takes its batch whole")
    found = compare(args.size, tuple(dict.fromkeys(others)), args.rounds, args.steps, args.threads, args.parts)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    report(found)


if __name__ == "__main__":
    main()
