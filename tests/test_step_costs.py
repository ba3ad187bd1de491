"""What one training step of a small GPT-2 costs, in things that can be counted; time is not, and is not tested.

The expected numbers stand at the top.  When a test fails, it prints what it got: find the change that moved the number.
A number that went down is good news: write it here.  One that went up is a cost for every user in every step (a copy, a
transpose that is not folded away, an array kept for the backward): take it away, or say in the change what it buys, and
write the new number here.
"""

import gc
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from minilm._kernels import registry
from minilm.autograd import Part
from minilm.models.gpt2 import GPT2Config, GPT2LMHeadModel
from minilm.optim import AdamW
from minilm.tasks import causal_lm

pytestmark = pytest.mark.parametrize("backend", ["cython"], indirect=True)

L, H, C, T, B, V = 2, 4, 64, 32, 2, 211  # layers, heads, width, positions, sequences, vocabulary
N = B * T  # tokens

# Nodes on the tape after the loss; an op of several outputs counts once.
KERNEL_CALLS = {
    "embedding": 2,
    "layer_norm": 1,
    "add_layer_norm": 2 * L,
    "linear": 3 * L,
    "gelu_linear": L,
    "attention": L,
    "linear_cross_entropy": 1,
    "add": 1,  # of the two embeddings
    "reshape": 1,  # of the last norm's rows
    "rearrange": 2 * L,  # the heads of q, k and v; and of what attention gives
}

# float32 numbers that are kept for the backward, beside parameters.
SAVED_BY_A_BLOCK = (
    2 * (N * C + 2 * N)  # two layer_norms: their input, and mean and 1/σ of each row
    + N * C  # the input of c_attn
    + 3 * N * C  # q, k and v
    + N * C + N * H  # what attention gives, which is the input of its c_proj too, and one number per query
    + N * C  # the input of c_fc
    + 4 * N * C  # the input of gelu_linear, which makes what gelu gives again
)  # fmt: skip
SAVED_BY_THE_HEAD = (
    N * C + 2 * N  # the last layer_norm
    + N * C  # the input of the head
    + N * C + V * C  # linear_cross_entropy: the gradients of its input and of the table, made with the loss
)  # fmt: skip

# Calls into compiled loops in a step: forward, backward and optimizer.
LOOP_CALLS = {
    "embedding.gather": 2,
    "embedding.clear": 1,  # the gradient of the positions; that of the tokens is added to the head's
    "embedding.scatter_add": 2,
    "layer_norm.forward_rows": 2 * L + 1,
    "layer_norm.backward_rows": 2 * L + 1,
    "linear.product": 3 * 4 * L + 3,  # forward, and the gradients of x and W; the head's are linear_cross_entropy's
    "linear.sum_rows": 3 * L,
    "gelu.forward": 2 * L,
    "gelu.backward": L,
    "attention.forward": L,
    "attention.backward": L,
    "cross_entropy.loss_and_gradient": 1,
    "adamw.update": 1,  # for all parameters
}

ARRAYS_AFTER_FORWARD = 20  # of at least 1 KB: what is saved, and what the graph holds besides
BYTES_AT_MOST = 722_000  # at any time of a step, beside parameters and moments; 2 % more than was measured
KB = 1024


@pytest.fixture
def training(backend):
    """A model, its forward, and a step of training that calls ``between`` after the forward."""
    rng = np.random.default_rng(0)
    config = GPT2Config(
        vocab_size=V, n_positions=T, n_embd=C, n_layer=L, n_head=H, activation_function="gelu_new",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config, rng=rng)
    optimizer = AdamW(model.named_parameters(), lr=1e-3)
    ids, targets = rng.integers(0, V, (2, B, T))

    def forward():
        return causal_lm.loss(model, ids, targets)

    def step(between=lambda: None):
        loss = forward()
        between()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return SimpleNamespace(model=model, forward=forward, step=step)


@pytest.fixture
def loop_calls(monkeypatch):
    """The calls of compiled loops, by op and function."""
    calls = Counter()
    find = registry._LOOPS["cython"]

    class Counted:
        def __init__(self, op):
            self.op, self.loops = op, find(op)

        def __getattr__(self, name):
            found = getattr(self.loops, name)
            if not callable(found):
                return found

            def count(*given):
                calls[f"{self.op}.{name}"] += 1
                return found(*given)

            return count

    def forget():
        registry.load.cache_clear()
        registry._first_that_loads.cache_clear()

    monkeypatch.setitem(registry._LOOPS, "cython", Counted)
    forget()
    yield calls
    forget()


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def tape(loss):
    """Return the nodes of kernels that ``loss`` was made by."""
    found, stack = {loss.node}, [loss.node]
    while stack:
        new = {parent for parent in stack.pop().parents if parent is not None} - found
        found |= new
        stack += new
    return [node for node in found if node.kernel is not None and not isinstance(node, Part)]


def buffers(saved):
    """Yield the arrays of floats that own the memory of what was saved."""
    if isinstance(saved, np.ndarray):
        while isinstance(saved.base, np.ndarray):
            saved = saved.base
        if saved.dtype.kind == "f":
            yield saved
    elif isinstance(saved, (tuple, list)):
        for part in saved:
            yield from buffers(part)


def arrays():
    """Return how many arrays of at least 1 KB are alive, and the bytes of all arrays, by NumPy's own count."""
    gc.collect()
    of_numpy = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    sizes = [trace.size for trace in tracemalloc.take_snapshot().filter_traces([of_numpy]).traces]
    return sum(size >= KB for size in sizes), sum(sizes)


def test_kernel_calls_of_a_forward(training):
    got = Counter(node.kernel.op for node in tape(training.forward()))
    assert got == KERNEL_CALLS, f"the forward makes {dict(got)}"


def test_bytes_saved_for_the_backward(training):
    parameters = {id(array) for p in training.model.parameters() for array in buffers(p._data)}
    saved = {id(array): array for node in tape(training.forward()) for array in buffers(node.saved)}
    got = sum(array.nbytes for key, array in saved.items() if key not in parameters)
    shapes = Counter(array.shape for key, array in saved.items() if key not in parameters)
    expected = 4 * (L * SAVED_BY_A_BLOCK + SAVED_BY_THE_HEAD)
    assert got == expected, f"{got} bytes are saved, not {expected}: {dict(shapes)}"


def test_loop_calls_of_a_step(loop_calls, training):
    training.step()
    loop_calls.clear()
    training.step()
    if not registry._LOOPS["cython"]("linear").GEMM:  # BLAS multiplies, and a loop adds the bias: of all but c_fc
        assert loop_calls.pop("linear.add_bias") == 3 * L
        loop_calls["linear.product"] = LOOP_CALLS["linear.product"]
    assert loop_calls == LOOP_CALLS, f"a step calls {dict(loop_calls)}"


def test_memory_of_a_step(training, traced):
    training.step()
    training.step()
    (before, _), after_forward = arrays(), []
    training.step(between=lambda: after_forward.append(arrays()[0] - before))
    bytes_before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    training.step()
    peak = tracemalloc.get_traced_memory()[1] - bytes_before
    assert after_forward == [ARRAYS_AFTER_FORWARD], f"a forward leaves {after_forward} arrays"
    assert peak <= BYTES_AT_MOST, f"a step needs {peak} bytes"


def test_nothing_grows_from_step_to_step(training, traced):
    after = []
    for _ in range(4):
        training.step()
        after.append(arrays())
    assert after[3] == after[2], f"arrays, and bytes in them, after each step: {after}"
