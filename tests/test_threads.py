"""One number of threads for all that computes: in every Python thread, under limits, after forks, on any BLAS."""

import os
from types import SimpleNamespace

import pytest

import minilm
from minilm._kernels import cpu, process, registry, threads

from .processes import python

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

SEEN = """
import os, sys, threading, traceback
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits
import minilm
from minilm import functional as F
x = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)

def seen():  # of a Python thread after its next kernel and product: the numbers of OpenMP, of BLAS, and of Numba
    F.gelu(x)
    x @ x
    from minilm._kernels import machine_cython
    blas = {pool["num_threads"] for pool in threadpool_info() if "numpy" in pool["filepath"]}
    numba = sys.modules.get("numba")
    return [machine_cython.openmp_threads(), *blas] + ([numba.get_num_threads()] if numba else [])

def elsewhere(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]
"""


@pytest.fixture
def compiled():
    """The Cython kernels, or a visible skip."""
    try:
        registry.load("gelu", "cython")
    except registry.BackendUnavailable as error:
        if "cython" in os.environ.get("MINILM_REQUIRE", "").split():
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.mark.parametrize("backend", ["cython", "numba"])
def test_every_python_thread_uses_the_number(backend, compiled):
    code = """
minilm.set_num_threads(1)
assert set(elsewhere(seen)) == {1}, elsewhere(seen)
assert set(seen()) == {1}, seen()
minilm.set_num_threads(2)
assert set(seen()) == set(elsewhere(seen)) == {2}

def twice():
    seen()
    turn.set()
    changed.wait()
    return seen()
turn, changed = threading.Event(), threading.Event()
def change():
    turn.wait()
    minilm.set_num_threads(1)
    changed.set()
threading.Thread(target=change).start()
found = elsewhere(twice)
assert set(found) == {1}, found
"""
    python(SEEN + code, MINILM_BACKEND=backend)


@pytest.mark.parametrize("backend", ["cython", "numba"])
@pytest.mark.parametrize("first", ["before", "inside"])
def test_the_limits_of_threadpoolctl_are_kept(first, backend, compiled):
    """Whether the first kernel comes before such a block or in it; the number is back when the block ends."""
    code = """
if FIRST == "before":
    assert set(seen()) == {2}, seen()
with threadpool_limits(1):
    assert set(seen()) == {1}, seen()
    assert set(elsewhere(seen)) <= {1, 2} and elsewhere(seen)[1] == 1
assert set(seen()) == {2}, seen()
assert set(elsewhere(seen)) == {2}, seen()
with threadpool_limits(1, user_api="openmp"):
    openmp, blas, *numba = seen()
    assert (openmp, blas) == (1, 2) and set(numba) <= {1}
with threadpool_limits(1, user_api="blas"):
    assert seen()[1] == 1
assert set(seen()) == {2}, seen()
def limited():
    with threadpool_limits(1, user_api="openmp"):
        inside = seen()
    return inside[0], seen()[0]
assert elsewhere(limited) == (1, 2)
"""
    python(SEEN.replace("def seen", f"FIRST = {first!r}\ndef seen") + code, MINILM_BACKEND=backend)


@pytest.mark.parametrize(
    "limit", ["OMP_THREAD_LIMIT=1", "OMP_DYNAMIC=true", "OMP_MAX_ACTIVE_LEVELS=0", "OMP_NESTED=true"]
)
def test_a_product_ends_when_openmp_gives_fewer_threads_than_blas_has_jobs(limit, compiled):
    code = """
want = np.einsum("ij,jk->ik", x, x)
seen()
for n in (2, 3, 1, 2):
    minilm.set_num_threads(n)
    for _ in range(20):
        assert abs(x @ x - want).max() < 1e-3
    with threadpool_limits(1, user_api="openmp"):
        assert abs(x @ x - want).max() < 1e-3
"""
    name, value = limit.split("=")
    python(SEEN + code, **{name: value})


def test_two_python_threads_compute_at_once_and_get_the_same(compiled):
    code = """
import time
from concurrent.futures import ThreadPoolExecutor
def work(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 160, 192)).astype(np.float32)
    y = F.softmax(F.gelu(a @ b.T)).data
    return np.concatenate([y.ravel(), (a.T @ b).ravel(), (y @ y[0])])
want = [work(seed) for seed in range(4)]
def repeat(seed):
    end, runs = time.monotonic() + 1, 0
    while time.monotonic() < end:
        assert (work(seed) == want[seed]).all()
        runs += 1
    return runs
with ThreadPoolExecutor(4) as pool:
    assert min(pool.map(repeat, range(4))) > 0
"""
    python(SEEN + code)


def test_the_environment_is_heeded_on_first_use(compiled):
    assert python(SEEN + "print(minilm.get_num_threads(), seen())", OMP_NUM_THREADS="1") == "1 [1, 1]"
    assert python(SEEN + "print(minilm.get_num_threads(), seen())", OMP_NUM_THREADS="2,1") == "2 [2, 2]"
    assert python(SEEN + "print(seen())", OPENBLAS_NUM_THREADS="1") == "[2, 1]"
    shared = {"OMP_NUM_THREADS": "", "PYTEST_XDIST_WORKER_COUNT": "64"}
    assert python(SEEN + "print(minilm.get_num_threads(), seen())", **shared) == "1 [1, 1]"


FORK = (
    SEEN
    + """
def child(check):
    pid = os.fork()
    if not pid:
        try:
            check()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def train():
    from minilm import Tensor
    q = Tensor(x.reshape(2, 2, 128, 128), requires_grad=True)
    loss = F.scaled_dot_product_attention(q, q, q, is_causal=True).sum()
    loss = loss + F.layer_norm(F.gelu(F.linear(Tensor(x), Tensor(x), Tensor(x[0])))).sum()
    loss.backward()
    return np.asarray(loss.data), q.grad
"""
)


@forks
@pytest.mark.parametrize("first", ["parent", "child"])
def test_a_forked_child_computes(first, compiled):
    """One whose parent has used the loops has one thread; one whose parent has not is as free as any process."""
    code = """
want = train() if FIRST == "parent" else None
def check():
    if want is None:
        assert minilm.get_num_threads() == 2 and set(seen()) == {2}
        train()
        return
    assert minilm.get_num_threads() == 1
    assert all(abs(a - b).max() <= 1e-5 * abs(b).max() for a, b in zip(train(), want))
    assert set(seen()) == set(elsewhere(seen)) == {1}
    try:
        minilm.set_num_threads(2)
    except RuntimeError as error:
        assert "a forked process has one thread" in str(error)
    else:
        raise AssertionError
    assert child(train) == 0
assert child(check) == 0
train()
assert set(seen()) == {2}
"""
    python(f"FIRST = {first!r}" + FORK + code)


@forks
def test_a_fork_while_another_thread_computes(compiled):
    code = """
train()
stop = threading.Event()
def busy():
    while not stop.is_set():
        F.gelu(x @ x)
thread = threading.Thread(target=busy)
thread.start()
try:
    for _ in range(8):
        assert child(train) == 0
finally:
    stop.set()
thread.join()
"""
    python(FORK + code)


@forks
def test_a_pool_of_forked_processes(compiled):
    code = """
import multiprocessing
def work(k):
    return float(F.gelu(x @ x).data[0, k])
want = [work(k) for k in range(4)]
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(4)) == want
"""
    python(FORK + code)


@forks
def test_numba_in_a_forked_child_refuses_and_does_not_end_the_process():
    code = """
with minilm.use_backend("numba"):
    want = F.gelu(x).data
def check():
    from minilm._kernels.threads import _numba_is_lost
    with minilm.use_backend("numba"):
        try:
            assert (F.gelu(x).data == want).all() and not _numba_is_lost()
        except RuntimeError as error:
            assert "spawn" in str(error) and _numba_is_lost()
    with minilm.use_backend("numpy"):
        assert abs(F.gelu(x).data - want).max() < 1e-5
assert child(check) == 0
with minilm.use_backend("numba"):
    F.gelu(x)
"""
    python(FORK + code)
    python(FORK + code, NUMBA_THREADING_LAYER="workqueue")


@pytest.fixture
def other_blas(monkeypatch):
    """A process whose NumPy was built on another BLAS, that nobody has asked for a number of threads yet."""
    calls = []
    library = SimpleNamespace(
        internal_api="mkl", user_api="blas", filepath="libmkl_rt.so", num_threads=7, set_num_threads=calls.append
    )
    monkeypatch.setattr(threads, "_blas", lambda: (library,))
    for name, value in {"_joined": False, "_count": None, "setting": threads.setting, "here": threads._Here()}.items():
        monkeypatch.setattr(threads, name, value)
    before = minilm.get_num_threads()
    threads.openblas.cache_clear()
    yield calls
    monkeypatch.undo()
    threads.openblas.cache_clear()
    threads.set_num_threads(before)


def test_another_blas_is_left_alone_until_it_is_asked(other_blas):
    threads.join_pools()
    threads.follow()
    process._widen_blas()
    assert other_blas == []
    threads.set_num_threads(1)
    assert other_blas == [1]  # the one knob turns it too, through its own function
    threads.follow()
    assert other_blas == [1]


BITS = """
import hashlib, sys
import numpy as np
import minilm
from minilm import optim
from minilm._kernels import registry
from minilm.models.gpt2 import GPT2Config, GPT2LMHeadModel
from minilm.tasks import causal_lm
from minilm.testing import MODEL_SIZES, SIZES, sample

def digest(arrays):
    found = hashlib.sha256()
    for a in arrays:
        if a is not None:
            found.update(np.ascontiguousarray(a).tobytes())
    return found.hexdigest()[:16]

for op in registry.OPS:
    for size in SIZES[op]:
        promised = (op, size) != ("linear_cross_entropy", "blocks")  # one row times a matrix is BLAS's
        if (size not in MODEL_SIZES or size == "nanogpt") and promised:
            arrays, static = sample(op, size, np.float32)
            kernel = registry.kernel(op)
            out, saved = kernel.forward(*arrays, **static)
            needs = tuple(a is not None and a.dtype.kind == "f" for a in arrays)
            print(op, size, digest([out, *kernel.backward(np.ones_like(out), saved, needs)]))

def train(C, V, T, B, layers, bias):
    config = GPT2Config(vocab_size=V, n_positions=T, n_embd=C, n_layer=layers, n_head=4, bias=bias)  # with dropout
    model = GPT2LMHeadModel(config, rng=np.random.default_rng(0))
    parameters = list(model.parameters())
    optimizer = optim.AdamW(parameters, lr=1e-3)
    losses = []
    for inputs, targets in np.random.default_rng(1).integers(0, V, (10, 2, B, T)):
        loss = causal_lm.loss(model, inputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(grad_scale=optim.clip_factor(optim.global_norm(parameters), 1.0))
        losses.append(loss.item())
    print("train", C, losses[-1], digest([np.array(losses), *(p.data for p in parameters)]))

train(48, 97, 19, 3, 2, True)
train(128, 65, 64, 12, 4, False)
"""


@pytest.mark.parametrize("isa", ["x86_64_v4", "x86_64_v3"])
def test_bits_do_not_depend_on_the_number_of_threads(isa, compiled):
    """Every op and ten steps of training."""
    if isa not in cpu.isas():
        pytest.skip(f"this processor has no {isa}")
    one, two = (python(BITS, OMP_NUM_THREADS=n, MINILM_CPU=isa) for n in "12")
    assert one.count("\n") > 30
    assert one.splitlines() == two.splitlines()
