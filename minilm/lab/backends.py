"""Which kernels run on which backend on this machine, with what, and why one does not."""

import platform
import sys
from functools import cache

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .._kernels import cpu, registry, threads


def show(console: Console | None = None) -> None:
    """Print a table of ops and backends, the machine, and each reason for which something does not run."""
    console = console or Console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("kernel")
    for backend in registry.BACKENDS:
        table.add_column(backend)
    for op in registry.OPS + registry.UPDATES:
        table.add_row(op, *(_cell(op, backend) for backend in registry.BACKENDS))
    console.print(table)
    console.print("\n[green]used[/green] now   yes: can be asked for   no: see below\n")
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in machine().items():
        facts.add_row(name, escape(value))
    console.print(facts)
    for reason in reasons():
        console.print(f"\n{reason}", markup=False, highlight=False, soft_wrap=True)


def missing() -> str | None:
    """Return one line where "auto" has to take NumPy for want of compiled loops, or else None."""
    slow = [op for op in registry.OPS + registry.UPDATES if _used(op) == "numpy"]
    if registry.backend() != "auto" or not slow:
        return None
    why = next((reason for backend in registry.AUTO if (reason := _refusal(slow[0], backend))), "")
    return f"{len(slow)} kernels run on NumPy, which is slower: {why}"


def machine() -> dict[str, str]:
    """Return what the kernels run with."""
    facts = {"backend": registry.backend(), "threads": str(threads.get_num_threads())}
    try:
        facts["instruction set"] = f"{cpu.isa()}, of {', '.join(cpu.isas())}"
    except (ImportError, ValueError) as error:
        facts["instruction set"] = str(error)
    facts["BLAS"] = _blas()
    facts["Python, NumPy"] = f"{platform.python_version()}, {np.__version__}"
    if (numba := sys.modules.get("numba")) is not None:
        facts["Numba"] = numba.__version__
    facts["processor"] = _processor()
    return facts


def reasons() -> list[str]:
    """Return why kernels do not run, one line for each backend and reason."""
    lines: list[str] = []
    for backend in registry.BACKENDS:
        found: dict[str, list[str]] = {}
        for op in registry.OPS + registry.UPDATES:
            if (reason := _refusal(op, backend)) is not None:
                found.setdefault(reason.removeprefix(f"{op} on {backend}: ").replace(op, "OP"), []).append(op)
        lines += [f"{backend}, {', '.join(ops)}: {reason}" for reason, ops in found.items()]
    return lines


def _cell(op: str, backend: str) -> str:
    if _refusal(op, backend) is not None:
        return "[red]no[/red]"
    return "[green]used[/green]" if _used(op) == backend else "yes"


def _used(op: str) -> str | None:
    try:
        return registry.kernel(op).backend
    except registry.BackendUnavailable:  # the chosen backend cannot run it
        return None


@cache
def _refusal(op: str, backend: str) -> str | None:
    try:
        registry.load(op, backend)
    except registry.BackendUnavailable as error:
        return str(error)
    return None


def _blas() -> str:
    from threadpoolctl import threadpool_info

    found = [
        f"{library['internal_api']} {library['version']} ({library.get('architecture', '?')}), "
        f"{library['num_threads']} threads of {library.get('threading_layer', '?')}"
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]
    return "; ".join(found) or "not known to threadpoolctl"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
