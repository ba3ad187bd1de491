"""What one training step of minilm spends its time on, op by op:  python -m benchmarks.profile [--size nanogpt-cpu]

Every kernel is timed around its call: what it computes, and the Python that lays out its arrays.  The rest is the tape,
the model's own Python, and what lies between.  Times are means over the steps; the sizes are those of
benchmarks.train_step, and so is the step.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from minilm._kernels import registry
from minilm._kernels.primitives import PRIMITIVES

from .sides import header, machine
from .train_step import SIZES, batches, minilm_phases, our_config

WARM_UP = 3  # steps, which compile and ask for memory


def watch():
    """Have every kernel of this process note its calls; return {(op, "forward" or "backward"): [calls, seconds]}.

    Kernels are shared and never written to, except here: a process that is watched does nothing else.
    """
    found = defaultdict(lambda: [0, 0.0])

    def noting(key, function):
        def noted(*args, **static):
            start = time.perf_counter()
            try:
                return function(*args, **static)
            finally:
                found[key][0] += 1
                found[key][1] += time.perf_counter() - start

        return noted

    with_loops = [registry.kernel(op) for op in registry.OPS + registry.UPDATES]
    for kernel in (*with_loops, *PRIMITIVES.values()):
        for way in ("forward", "backward"):
            object.__setattr__(kernel, way, noting((kernel.op, way), getattr(kernel, way)))
    return found


def profile(size, steps, threads):
    """Return what was measured: a dict that JSON can hold; seconds a step."""
    from minilm.models.gpt2 import GPT2LMHeadModel

    weights = GPT2LMHeadModel(our_config(size), rng=np.random.default_rng(0)).state_dict()
    phases = minilm_phases("minilm", size, weights, threads)
    found = watch()
    for i, value in enumerate(batches(size, WARM_UP + steps)):
        if i == WARM_UP:
            found.clear()
            start = time.perf_counter()
        for phase in phases.values():
            value = phase(value)
    step = (time.perf_counter() - start) / steps
    ops = {}
    for (op, way), (calls, seconds) in found.items():
        ops.setdefault(op, {})[way] = {"calls": calls / steps, "seconds": seconds / steps}
    return {"machine": machine(threads), "size": size, "steps": steps, "step": step, "ops": ops}


def report(found):
    print(header(found["machine"]))
    print(f"{found['size']}: {1e3 * found['step']:.2f} ms a step, the mean of {found['steps']}\n")
    print(f"{'':<22}{'calls':>7}{'forward ms':>12}{'backward ms':>13}{'share':>9}")
    total = {op: sum(way["seconds"] for way in ways.values()) for op, ways in found["ops"].items()}
    for op in sorted(total, key=total.get, reverse=True):
        ways = [found["ops"][op].get(way) for way in ("forward", "backward")]  # what an optimizer does has no backward
        forward, backward = (f"{1e3 * way['seconds']:.2f}" if way else "-" for way in ways)
        calls = max(way["calls"] for way in ways if way)
        print(f"{op:<22}{calls:7.0f}{forward:>12}{backward:>13}{total[op] / found['step']:9.1%}")
    print(f"{'the rest':<54}{1 - sum(total.values()) / found['step']:9.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="nanogpt-cpu", choices=SIZES)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    args = parser.parse_args()
    if args.steps < 1:
        parser.error(f"--steps must be at least 1; got {args.steps}")
    found = profile(args.size, args.steps, args.threads)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    report(found)


if __name__ == "__main__":
    main()
