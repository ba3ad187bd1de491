"""Programs in processes of their own, that take turns: none's threads or memory disturb another's."""

import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

# glibc keeps what is freed, in heaps, instead of returning it to the system: what minilm asks for while it runs.
KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(64 << 20)}


class Side:
    """A worker, ``python -m MODULE --worker ...``, which answers each request with one JSON line."""

    def __init__(self, name: str, module: str, arguments: list[str], threads: int, environ: dict[str, str]):
        self.name = name
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
        env = kept | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"} | environ
        # A session of its own: Ctrl-C reaches us alone, and we end it, with whatever processes it has started.
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,
        )

    def ask(self, request: Any) -> Any:
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        if line := self.process.stdout.readline():
            return json.loads(line)
        status = self.process.wait()
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        hint = ": was there memory enough?" if status == -signal.SIGKILL else "; its error is above."
        raise SystemExit(f"The side {self.name} died {how}{hint}")

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def started(
    module: str, sides: dict[str, list[str]], threads: int, environ: dict[str, dict[str, str]] | None = None
) -> Iterator[dict[str, Side]]:
    """Start a worker for each side, with its arguments; however the block is left, none of them outlives it."""
    running: dict[str, Side] = {}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        for name, arguments in sides.items():
            running[name] = Side(name, module, ["--worker", *arguments], threads, (environ or {}).get(name, {}))
        yield running
    except KeyboardInterrupt:
        raise SystemExit("Interrupted; all sides are ended.") from None
    finally:
        for side in running.values():
            side.end()
        signal.signal(signal.SIGTERM, before)


def serve(answer: Callable) -> None:
    """The worker's end: answer requests until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def take_turns(sides: dict[str, Side], request: Any, rounds: int) -> dict[str, list]:
    """Ask each side in every round, who begins changing from round to round; return all answers."""
    answers: dict[str, list] = {side: [] for side in sides}
    for r in range(rounds):
        for side in sorted(sides, reverse=r % 2 == 1):
            answers[side].append(sides[side].ask(request))
    return answers


def ratio(a: Any, b: Any) -> str:
    """The median of a / b over the rounds, and the smallest and the largest."""
    ratios = np.array(a) / np.array(b)
    return f"{np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f}, {len(ratios)} rounds)"


def require(package: str) -> None:
    """End the program, saying what to install, where a package is missing."""
    if importlib.util.find_spec(package) is None:
        raise SystemExit(f"This comparison needs {package}, which is not installed here: pip install {package}")


def memory(field: str) -> float:
    """Megabytes of this process: VmRSS, now; VmHWM, at its peak.  Elsewhere than on Linux, the peak for both."""
    with suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def machine(threads: int) -> dict[str, Any]:
    """What numbers mean nothing without."""
    processor = platform.processor()
    with suppress(OSError), open("/proc/cpuinfo") as file:
        processor = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), processor)
    versions = {"python": platform.python_version()}
    for package in ("minilm", "numpy", "torch", "jax", "numba"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    settings = {key: value for key, value in os.environ.items() if key.startswith(("OPENBLAS_", "MKL_", "MINILM_"))}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    found = {"processor": processor, "cores": os.cpu_count(), "threads": threads, "load": load}
    return {**found, "versions": versions, "commit": git.stdout.strip(), "settings": settings}


def header(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    load = "" if found["load"] is None else f", load {found['load']:.1f}"
    settings = "".join(f"\n{key}={value} is set: others may not have it" for key, value in found["settings"].items())
    return f"{found['processor']}, {found['cores']} cores{load}; {found['threads']} threads; {versions}{settings}"
