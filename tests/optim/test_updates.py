"""What optimizers compute, in one call for many arrays: on every backend against the reference, exact sums, layouts."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from minilm._kernels import places, registry
from minilm.testing import AGAINST_REFERENCE, MODEL_SIZES, SIZES, assert_close, sample

from ..test_machine import built

SIZES_OF = {op: [size for size in SIZES[op] if size not in MODEL_SIZES] for op in registry.UPDATES}
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


def assert_updates_agree(got, want, start, dtype):
    for ours, theirs, before in zip(got, want, start, strict=True):
        for name, a, b, c in zip("pgmv", ours, theirs, before, strict=True):
            assert_close(a, b, AGAINST_REFERENCE[dtype], name)
            # An update of a large number may hide in its last digits: what changed is compared too.
            eps = 4 * np.finfo(dtype).eps * max(1.0, np.abs(c).max(initial=0.0))
            np.testing.assert_allclose(a - c, b - c, rtol=1e-4 if dtype == np.float32 else 1e-12, atol=eps)


@every_dtype
@pytest.mark.parametrize("layout", ["plain", "fortran", "strided", "mixed"])
@pytest.mark.parametrize("size", SIZES_OF["adamw"])
def test_adamw_agrees_with_reference(size, layout, dtype, backend):
    arrays, static = sample("adamw", size, dtype)
    want = [[a.copy() for a in column] for column in arrays]
    start = [[a.copy() for a in column] for column in arrays]
    registry.load("adamw", "numpy").forward(*want, **static)
    layouts = {
        "plain": lambda a: a,
        "fortran": lambda a: np.array(a, order="F"),
        "strided": lambda a: np.repeat(a[..., None], 2, axis=-1)[..., 0],
    }
    given = list(layouts.values()) if layout == "mixed" else [layouts[layout]]
    got = [[given[(i + j) % len(given)](a) for i, a in enumerate(column)] for j, column in enumerate(arrays)]
    for g in got[1]:
        g.flags.writeable = False
    registry.load("adamw", backend).forward(*got, **static)
    assert_updates_agree(zip(*got, strict=True), zip(*want, strict=True), zip(*start, strict=True), dtype)
    for a, b in zip(got[1], start[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_update_of_two_dtypes(backend):
    (single, static), (double, _) = sample("adamw", "several", np.float32), sample("adamw", "several", np.float64)
    static = {**static, "steps": static["steps"] * 2}
    both = [[*a, *b] for a, b in zip(single, double, strict=True)]
    want = [[a.copy() for a in column] for column in both]
    registry.load("adamw", backend).forward(*both, **static)
    registry.load("adamw", "numpy").forward(*want, **static)
    for got, expected in zip(both, want, strict=True):
        for a, b in zip(got, expected, strict=True):
            assert_close(a, b, AGAINST_REFERENCE[b.dtype.type])


def test_arrays_that_do_not_belong_together_are_refused_before_anything_is_written(backend):
    """Loops that are given addresses would write past the end."""
    if backend == "numpy":
        return  # its own errors stop it
    read_only = np.ones(3)
    read_only.flags.writeable = False
    good = np.ones(3)
    for place, bad in [(0, np.ones(3, int)), (1, np.ones(2)), (2, np.ones(4)), (3, np.ones(3, ">f8")), (3, read_only)]:
        columns = [[np.ones(3), good.copy()] for _ in "pgmv"]
        columns[place][1] = bad
        static = {**sample("adamw", "plain")[1], "steps": [1, 1]}
        with pytest.raises(ValueError, match=r"arrays of a list must be 2, .* got .* in list"):
            registry.load("adamw", backend).forward(*columns, **static)
        with pytest.raises(ValueError, match="arrays of a list must be 2"):
            registry.load("adamw", backend).forward([good, good], [good], [good] * 2, [good] * 2, **static)
        assert (columns[0][0] == 1).all()
    with pytest.raises(ValueError, match="reshape"):
        registry.load("adamw", backend).forward(*([good] for _ in "pgmv"), **static)
    assert (good == 1).all()


@every_dtype
@pytest.mark.parametrize("layout", ["plain", "fortran", "strided", "other dtype", "read-only"])
@pytest.mark.parametrize("r", [1, -2])  # of which products are exact: fused or not, the sum is rounded once
@pytest.mark.parametrize("size", SIZES_OF["accumulate"])
def test_accumulate_is_numpys_sum_to_the_bit(size, r, layout, dtype, backend):
    (to, x), _ = sample("accumulate", size, dtype)
    layouts = {
        "fortran": lambda a: np.array(a, order="F"),
        "strided": lambda a: np.repeat(a[..., None], 2, axis=-1)[..., 0],
        "other dtype": lambda a: a.astype(np.float16),
    }
    x = layouts.get(layout, np.copy)(x)
    x.flags.writeable = False
    want, before = np.copy(r * x if to is None else to + r * x.astype(dtype)), x.copy()
    got = registry.load("accumulate", backend).forward(to, x, r)
    assert got.dtype == want.dtype
    assert got.tobytes() == want.tobytes()
    assert to is None or got is to
    assert not np.shares_memory(got, x)
    assert got.flags.writeable
    np.testing.assert_array_equal(x, before)


def test_accumulate_refuses_what_does_not_fit(backend):
    """A loop that is given addresses would write past the end."""
    update, large = registry.load("accumulate", backend).forward, np.ones((300, 1000))
    for to, x in [
        (np.ones((300, 999)), large),
        (np.ones((1000, 300)), large),
        (np.broadcast_to(1.0, large.shape), large),
    ]:
        with pytest.raises(ValueError, match=r"broadcast|read-only"):
            update(to, x)
    half = np.ones(large.shape, np.float32)
    assert update(half, large) is half  # as NumPy does
    assert (half == 2).all()
    turned = np.asfortranarray(large)
    assert update(turned, large) is turned
    assert (turned == 2).all()


@every_dtype
@pytest.mark.parametrize("size", SIZES_OF["sum_of_squares"])
def test_sum_of_squares_agrees_with_exact_sums(size, dtype, backend):
    (arrays,), _ = sample("sum_of_squares", size, dtype)
    arrays += [a.astype(np.float16) for a in arrays] + [np.repeat(a[..., None], 2, axis=-1)[..., 0] for a in arrays]
    arrays += [np.array(a, order="F") for a in arrays]
    exact = math.fsum(float(x) ** 2 for a in arrays for x in a.astype(np.float64).ravel())
    got = registry.load("sum_of_squares", backend).forward(arrays)
    assert type(got) is float
    assert got == pytest.approx(exact, rel=1e-13, abs=0)


def test_places_are_the_same_without_the_compiled_helper(monkeypatch):
    """Numba runs without it."""
    columns, _ = sample("adamw", "several", np.float32)
    columns[2][1] = np.array(columns[2][1], order="F")
    tables = []
    for locate in (places._LOCATE, places._locate):
        monkeypatch.setattr(places, "_LOCATE", locate)
        for a, b in ((0, 1), (3, 3)):
            tables.append(places.table([columns[a], columns[b]], [True, True])[:2])
        with pytest.raises(ValueError, match="float32 or float64"):
            places.table([[np.ones(3, np.float16)]], [False])
    for first, second in zip(tables[:2], tables[2:], strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


BITS = """
import sys, hashlib, numpy as np
from minilm._kernels import registry, threads
from minilm.testing import sample
threads.set_num_threads(int(sys.argv[1]))
digest = hashlib.sha256()
for size in ("several", "gpt2"):
    columns, static = sample("adamw", size, np.float32)
    registry.load("adamw", sys.argv[2]).forward(*columns, **static)
    for column in columns:
        for a in column:
            digest.update(a.tobytes())
        digest.update(registry.load("sum_of_squares", sys.argv[2]).forward(column).hex().encode())
print(digest.hexdigest())
"""


def test_bits_do_not_depend_on_the_number_of_threads(backend):
    def run(n):
        return subprocess.run([sys.executable, "-c", BITS, str(n), backend], check=True, capture_output=True).stdout

    assert backend == "numpy" or run(1) == run(2)


JUDGE = """
from minilm._kernels import cpu, registry
from minilm.testing import AGAINST_REFERENCE, assert_close, sample
for dtype, tolerance in AGAINST_REFERENCE.items():
    got, static = sample("adamw", "several", dtype)
    want, _ = sample("adamw", "several", dtype)
    for backend, columns in (("cython", got), ("numpy", want)):
        registry.load("adamw", backend).forward(*columns, **static)
        columns.append([registry.load("sum_of_squares", backend).forward(columns[1])])
    for a, b in zip(sum(got[:4], []), sum(want[:4], [])):
        assert_close(a, b, tolerance)
    assert abs(got[4][0] / want[4][0] - 1) < 1e-13
print(cpu.isa())
"""


@pytest.mark.parametrize("isa", built())
def test_every_instruction_set_agrees_with_the_reference(isa):
    environment = {**os.environ, "MINILM_CPU": isa}
    run = subprocess.run([sys.executable, "-c", JUDGE], check=True, capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == isa
