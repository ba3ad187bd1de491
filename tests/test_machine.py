"""Instruction sets, threads and settings of the process: what they are, that they are right, and bad requests."""

import os
import sys

import numpy as np
import pytest

import minilm
from minilm._kernels import cpu, registry

from .processes import python


def built():
    """The instruction sets that the Cython kernels were built for and this processor has; none without a compiler."""
    try:
        registry.load("gelu", "cython")
    except registry.BackendUnavailable:
        if "cython" in os.environ.get("MINILM_REQUIRE", "").split():
            raise
        return []
    return [isa for isa in cpu.isas() if isa != "base"]


JUDGE = """
import numpy as np
from minilm._kernels import cpu, registry
from minilm.testing import AGAINST_REFERENCE, MODEL_SIZES, SIZES, assert_close, sample
for op in registry.OPS:
    for size in SIZES[op]:
        if size in MODEL_SIZES:
            continue
        arrays, static = sample(op, size, np.float32)
        needs = tuple(a is not None and a.dtype.kind == "f" for a in arrays)
        wide = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in arrays]
        got, want = [], []
        # In float64: float32's own sum of 8,195 rows is further from it than the kernel's.
        for results, backend, given in ((got, "cython", arrays), (want, "numpy", wide)):
            kernel = registry.load(op, backend)
            out, saved = kernel.forward(*given, **static)
            results += [np.asarray(out), *kernel.backward(np.ones_like(out), saved, needs)]
        for a, b in zip(got, want, strict=True):
            if b is not None:
                assert a.dtype == arrays[0].dtype
                assert_close(a, b.astype(np.float32), AGAINST_REFERENCE[np.float32], f"{op} {size}")
print(cpu.isa())
"""


@pytest.mark.parametrize("isa", built())
def test_every_instruction_set_agrees_with_the_reference(isa):
    assert python(JUDGE, MINILM_CPU=isa) == isa


@pytest.mark.skipif(not built(), reason="the Cython kernels were not built here")
def test_an_instruction_set_that_does_not_exist_is_refused():
    code = """
from minilm._kernels import cpu
try:
    cpu.isa()
except ValueError as error:
    print(error)
"""
    assert "MINILM_CPU: must be one of" in python(code, MINILM_CPU="x86_64_v9")


def test_the_number_of_threads_is_one_knob():
    before = minilm.get_num_threads()
    try:
        minilm.set_num_threads(1)
        assert minilm.get_num_threads() == 1
        from threadpoolctl import threadpool_info

        blas = [pool["num_threads"] for pool in threadpool_info() if "numpy" in pool["filepath"]]
        assert all(n == 1 for n in blas)
    finally:
        minilm.set_num_threads(before)
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
            minilm.set_num_threads(wrong)


TUNED = """
import os, numpy as np
from minilm import tune_process
rng = np.random.default_rng(0)
a, b = rng.standard_normal((2, 301, 301))
before = dict(os.environ)
tune_process()
tune_process()
assert dict(os.environ) == before
for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-13)):
    got = a.astype(dtype) @ b.astype(dtype)
    want = np.einsum("ij,jk->ik", a, b, optimize=False)
    assert abs(got - want).max() <= tolerance * abs(want).max()
assert abs(np.linalg.solve(a, a @ b) - b).max() < 1e-8
if hasattr(os, "sched_getaffinity"):
    import resource
    def faults():
        start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            [np.ones(1 << 18, np.float32) for _ in range(8)]  # 1 MB each, below what NumPy puts on huge pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start
    faults()
    print(faults())
places = [x.ctypes.data for n in (0, 1, 5, 300, 1 << 16, 1 << 20) for x in (np.empty(n, np.int8), np.zeros(n))]
assert not ALIGNED or not any(place % 64 for place in places), places
x = np.arange(5)
for n in (1 << 20, 7, 0, 9, 1 << 16, 3):  # NumPy's realloc
    y = x.copy()
    x.resize(n, refcheck=False)
    assert (x[: len(y)] == y[:n]).all() and not x[len(y) :].any()
try:
    np.empty(np.iinfo(np.intp).max, np.int8)
except MemoryError:
    pass
else:
    raise AssertionError("more memory than there is")
if os.path.exists("/sys/kernel/mm/transparent_hugepage/enabled"):
    asked, here = set(), False  # the flags of the part of the heap where the last of 16 MB lie
    a = [np.ones(1 << 18, np.float32) for _ in range(16)]
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            here = first <= a[-1].ctypes.data < last
        elif line.startswith("VmFlags") and here:
            asked = set(line.split())
    assert "hg" in asked, asked
"""


def test_a_tuned_process_computes_the_same_and_reuses_its_memory():
    printed = python(f"ALIGNED = {bool(built())}\n{TUNED}")
    if sys.platform.startswith("linux") and os.confstr("CS_GNU_LIBC_VERSION"):
        assert int(printed) < 200  # of 160 arrays of 256 pages; without tuning most are touched anew


@pytest.mark.skipif(not built(), reason="the Cython kernels were not built here")
def test_an_allocator_that_numpy_was_given_is_left_alone():
    """And each thread of Python begins with NumPy's own, until it asks."""
    code = """
import threading, numpy as np
from minilm import tune_process
name = np._core.multiarray.get_handler_name
def here():
    seen = [name()]
    tune_process()
    print(*seen, name(), np.empty(3).ctypes.data % 64)
here()
made = np.ones(5)
for start in (here, lambda: print(made.sum()), lambda: globals().pop("made")):
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
"""
    assert python(code).split() == [*"default_allocator minilm_lines 0".split()] * 2 + ["5.0"]
    code = """
import ctypes, numpy as np
from minilm import tune_process
api = ctypes.pythonapi
text, pointer = ctypes.c_char_p, ctypes.c_void_p
api.PyCapsule_New.restype, api.PyCapsule_New.argtypes = ctypes.py_object, [pointer, text, pointer]
api.PyCapsule_GetPointer.restype, api.PyCapsule_GetPointer.argtypes = pointer, [ctypes.py_object, text]
table = api.PyCapsule_GetPointer(np._core.multiarray._ARRAY_API, None)
entry = ctypes.cast(table, ctypes.POINTER(pointer))
set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(entry[304])  # places in NumPy's C API
default = api.PyCapsule_GetPointer(ctypes.PYFUNCTYPE(ctypes.py_object)(entry[305])(), b"mem_handler")
other = ctypes.create_string_buffer(ctypes.string_at(default, 127 + 1 + 5 * ctypes.sizeof(pointer)))
other[0:18] = b"another_allocator\\0"
capsule = api.PyCapsule_New(ctypes.addressof(other), b"mem_handler", None)
set_handler(capsule)
tune_process()
print(np._core.multiarray.get_handler_name())
"""
    assert python(code) == "another_allocator"


FAR = """
import numpy as np
from minilm import tune_process
from minilm._kernels import registry
from minilm.testing import AGAINST_REFERENCE, assert_close
tune_process()  # arrays begin with a line, so that rows of more than 4 MB are written past the caches
rng = np.random.default_rng(0)
static = dict(scale=0.1, causal=True, offset=0, window=None, lengths=None, dropout=0.0, seed=0)
for D, dtype in (64, np.float32), (16, np.float64), (48, np.float64):
    qkv = rng.standard_normal((4, 257, 3, 33, D)).astype(dtype)
    do = rng.standard_normal((4, 257, 33, D)).astype(dtype).swapaxes(1, 2)
    q, k, v = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))
    results = []
    for backend in ("cython", "numpy"):
        kernel = registry.load("attention", backend)
        o, saved = kernel.forward(q, k, v, None, **static)
        results.append((o, *kernel.backward(do, saved, (True, True, True, False))[:3]))
    for got, want in zip(*results, strict=True):
        assert_close(got, want, AGAINST_REFERENCE[dtype], f"{D}")
print("same")
"""


@pytest.mark.skipif(not built(), reason="the Cython kernels were not built here")
def test_attention_past_the_caches_agrees_with_the_reference():
    assert python(FAR) == "same"


def test_importing_leaves_small_numbers_alone():
    """A library linked with -ffast-math would set flush-to-zero for the whole process."""
    code = """
import numpy as np
from minilm import functional as F
F.gelu(np.ones(3, np.float32))
print(np.float32(1e-45) / np.float32(1.0) > 0)
"""
    assert python(code) == "True"
    assert np.float32(1e-45) > 0
