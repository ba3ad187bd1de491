"""Two programs in processes of their own, that take turns: neither's threads or memory disturb the other."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np


class Side:
    """A worker, ``python -m MODULE --worker ...``, which answers each request with one JSON line."""

    def __init__(self, module: str, arguments: list[str], threads: int):
        command = [sys.executable, "-m", module, *arguments]
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a side died; its error is above")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def serve(answer: Callable):
    """The worker's end: answer requests until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def take_turns(sides: dict[str, Side], request, rounds: int) -> dict[str, list]:
    """Ask each side in every round, who begins changing from round to round; return all answers."""
    answers: dict[str, list] = {side: [] for side in sides}
    for r in range(rounds):
        for side in sorted(sides, reverse=r % 2 == 1):
            answers[side].append(sides[side].ask(request))
    return answers


def ratio(a, b) -> str:
    """The median of a / b over the rounds, and the smallest and the largest."""
    ratios = np.array(a) / np.array(b)
    return f"{np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f}, {len(ratios)} rounds)"
