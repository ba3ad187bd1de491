"""The functions of vecmath.h against doubles, in units in the last place, over all kinds of floats.

The header is compiled here as setup.py compiles it, for every instruction set that this processor has.
"""

import ctypes
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from minilm._kernels import cpu

HEADER = Path(cpu.__file__).parent
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
ONE = ("expf", "logf", "tanhf", "erff", "exp2_downf", "decayf")
SOURCE = '#include "vecmath.h"\n' + "".join(
    f"void {name}_all(long n, const float *x, float *y) {{ for (long i = 0; i < n; i++) y[i] = vm_{name}(x[i]); }}\n"
    for name in ONE
) + (
    "void normal_tailf_all(long n, const float *a, const float *e, float *y)"
    "{ for (long i = 0; i < n; i++) y[i] = vm_normal_tailf(a[i], e[i]); }\n"
)  # fmt: skip
LIMITS = {"expf": 1.02, "logf": 0.91, "tanhf": 1.34, "erff": 1.17}  # the header's; 4 units are what users are promised
EXACT = {
    "expf": np.exp,
    "logf": np.log,
    "tanhf": np.tanh,
    "erff": lambda x: torch.erf(torch.from_numpy(x)).numpy(),
}
isas = pytest.mark.parametrize("isa", [name for name in cpu.isas() if name != "base"] or ["base"])


@cache
def compiled(isa):
    import tempfile

    folder = Path(tempfile.mkdtemp())
    source, library = folder / "vecmath.c", folder / "vecmath.so"
    source.write_text(SOURCE)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    march = [] if isa == "base" else [f"-march={isa.replace('_', '-')}"]
    subprocess.run([*compiler, *FLAGS, *march, f"-I{HEADER}", str(source), "-o", str(library), "-lm"], check=True)
    return ctypes.CDLL(str(library))


def run(isa, name, *inputs):
    out = np.empty_like(inputs[0])
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (*inputs, out)]
    getattr(compiled(isa), f"{name}_all")(ctypes.c_long(len(out)), *pointers)
    return out


def floats(step):
    """Every ``step``-th pattern of bits: both signs, denormals, infinities and NaN among them; and the borders."""
    borders = [0, 1, 0.625, 0.92, 4, 87.33654, 88.72283, 88.72284, 103.27893, 103.97208, 104, 1e-45, 1.1754944e-38]
    borders = np.array([*borders, 1e30, np.inf, np.nan], np.float32)
    near = np.concatenate([np.nextafter(borders, np.float32(s * np.inf)) for s in (-1, 1)] + [borders])
    return np.concatenate([np.arange(0, 2**32, step, np.uint32).view(np.float32), near, -near])


def units(got, exact):
    """The largest distance in units in the last place; infinities, NaN and the sign of 0 must be what they are."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
    special = ~np.isfinite(rounded) | ~np.isfinite(got)
    np.testing.assert_array_equal(got[special], rounded[special])
    zero = rounded == 0
    assert (np.signbit(got[zero]) == np.signbit(rounded[zero])).all()
    spacing = np.spacing(np.abs(rounded[~special])).astype(np.float64)
    return float((np.abs(got[~special] - exact[~special]) / spacing).max(initial=0))


def check(isa, name, x):
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.float64))
    assert units(run(isa, name, x), exact) <= LIMITS[name]


@isas
@pytest.mark.parametrize("name", LIMITS)
def test_errors_in_units_in_the_last_place(name, isa):
    check(isa, name, floats(4099))


@pytest.mark.slow
@isas
@pytest.mark.parametrize("name", LIMITS)
def test_errors_over_tens_of_millions_of_floats(name, isa):
    for part in np.array_split(floats(101), 64):
        check(isa, name, part)


@isas
def test_the_exponential_that_only_falls(isa):
    t = np.concatenate([np.linspace(-126.4, 0, 2_000_001, dtype=np.float32), [0, -1, -126.4, -0.5, -1e-30]]).astype("f")
    assert units(run(isa, "exp2_downf", t), np.exp2(t.astype(np.float64))) <= 1.23
    below = np.linspace(-127.4, -126.6, 1001, dtype=np.float32)
    assert (run(isa, "exp2_downf", below) == 0).all()
    assert np.isnan(run(isa, "exp2_downf", np.full(3, np.nan, np.float32))).all()


@isas
def test_the_exponential_of_scores(isa):
    x = np.concatenate([np.linspace(-87, 88, 2_000_001, dtype=np.float32), [0, -0.0, 1e-30, -1e-45]]).astype("f")
    assert units(run(isa, "decayf", x), np.exp(x.astype(np.float64))) <= 1.0
    below = np.array([-87.01, -88, -104, -1e30, -np.inf], np.float32)
    assert (run(isa, "decayf", below) == 0).all()
    assert np.isnan(run(isa, "decayf", np.full(3, np.nan, np.float32))).all()


@isas
def test_the_tail_of_the_normal_distribution(isa):
    """The probability beyond a, given an exact e: the error is the fit's and that of its own rounding."""
    a = np.linspace(0, 13.2, 1_000_001, dtype=np.float32)
    wide = a.astype(np.float64)
    e = np.exp(-wide * wide / 2)
    exact = 0.5 * torch.special.erfc(torch.from_numpy(wide) / 2**0.5).numpy()
    rounded = e.astype(np.float32)
    with np.errstate(all="ignore"):
        got = run(isa, "normal_tailf", a, rounded) * (e / rounded)  # without the rounding of e
    normal = exact > 1e-37
    assert np.abs(got[normal] / exact[normal] - 1).max() <= 4.9e-7


def test_loops_become_vectors():
    """A loop that calls them makes no calls, and works on whole registers: without that they gain nothing."""
    isa = cpu.isas()[0]
    if not isa.startswith("x86_64"):
        pytest.skip("registers are named for x86-64 alone")
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    flags = [
        *FLAGS[:3],
        f"-march={isa.replace('_', '-')}",
        "-mprefer-vector-width=512",
        "-S",
        "-o",
        "-",
        "-x",
        "c",
        "-",
    ]
    text = subprocess.run([*compiler, *flags, f"-I{HEADER}"], input=SOURCE, check=True, capture_output=True, text=True)
    for name in (*ONE, "normal_tailf"):
        body = text.stdout.split(f"\n{name}_all:")[1].split(".size")[0]
        calls = [line for line in body.splitlines() if "\tcall" in line]
        assert not calls, f"{name}: {calls}"
        assert ("mulps" in body) or ("fmadd" in body and "ps\t" in body), f"{name}: no packed products"
