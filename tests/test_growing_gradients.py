"""Gradients of a batch in parts: each backward adds to what is there, on its way if that is safe, else at its end."""

import tracemalloc

import numpy as np
import pytest
import torch

from minilm import Tensor, recompute
from minilm import functional as F
from minilm._kernels import registry
from minilm.testing import AGAINST_PYTORCH, assert_close

C, HIDDEN = 24, 40


def draw(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def parameters(dtype=np.float64):
    """Matrices, biases, the scale and shift of a norm, and a table that is the head's matrix too."""
    shapes = {"table": (50, C), "w1": (HIDDEN, C), "b1": (HIDDEN,), "w2": (C, HIDDEN), "b2": (C,), "g": (C,), "s": (C,)}
    return {name: draw(i, *shape, dtype=dtype) for i, (name, shape) in enumerate(shapes.items())}


def loss_of(p, part, functional=F, take=lambda a: a):
    """A small language model, whose x has three uses and w1 two."""
    ids, targets = np.random.default_rng(part).integers(0, 50, (2, 3, 7))
    x = functional.embedding(take(ids), p["table"]) if functional is not F else F.embedding(ids, p["table"])
    h = functional.linear(x, p["w1"], p["b1"])
    h = functional.linear(functional.gelu(h), p["w2"], p["b2"])
    more = functional.linear(functional.linear(x, p["w1"]), p["w2"])
    y = functional.layer_norm(x + h + more, (C,), p["g"], p["s"]) if functional is not F else None
    if functional is F:
        y = F.layer_norm(x + h + more, p["g"], p["s"])
        return F.linear_cross_entropy(y, p["table"], targets)
    return functional.cross_entropy((y @ p["table"].T).reshape(-1, 50), take(targets).reshape(-1))


@pytest.fixture
def leaves(backend):
    return {name: Tensor(a, requires_grad=True) for name, a in parameters().items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("weights", [(1, 1, 1), (0.5, 0.25, 0.25)])
def test_parts_add_up_to_the_gradients_of_pytorch(weights, dtype, backend):
    ours = {name: Tensor(a, requires_grad=True) for name, a in parameters(dtype).items()}
    theirs = {name: torch.tensor(a, requires_grad=True) for name, a in parameters(dtype).items()}
    arrays = {}
    for part, weight in enumerate(weights):
        loss = loss_of(ours, part)
        loss.backward(np.asarray(weight, dtype))
        (weight * loss_of(theirs, part, torch.nn.functional, torch.tensor)).backward()
        for name, p in ours.items():
            assert_close(p.grad, theirs[name].grad.numpy(), AGAINST_PYTORCH[dtype], name)
            assert arrays.setdefault(name, p.grad) is p.grad  # the array stays


def test_no_second_set_of_gradients_is_held(backend):
    """By NumPy's own count: a stack of linear layers, whose gradients are far more than all else."""
    ws = [Tensor(draw(i, 256, 256, dtype=np.float32), requires_grad=True) for i in range(8)]
    x = draw(9, 16, 256, dtype=np.float32)

    def walk():
        h = x
        for w in ws:
            h = F.linear(h, w)
        loss = h.sum()
        tracemalloc.start()
        try:
            loss.backward()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    walk()
    every = sum(w.grad.nbytes for w in ws)
    # The reference makes one, and adds it while the one before is not gone yet; BLAS needs one for its product.
    most = {"numpy": 3, "numba": 2, "cython": 1}[backend] / len(ws)
    assert walk() < most * every


def gradients(leaves):
    return {name: p.grad.copy() for name, p in leaves.items()}


def test_a_walk_that_fails_leaves_gradients_as_they_were(leaves):
    """The first op of the forward, whose backward comes last, misses the matrix as it was."""
    first = Tensor(draw(99, C, C), requires_grad=True)
    p = leaves | {"first": first}

    def loss():
        return loss_of(leaves | {"table": F.linear(p["table"], first)}, 0)

    loss().backward()
    before, late = gradients(p), loss()
    first.writable()[0] += 1
    with pytest.raises(RuntimeError, match="linear: its backward needs an array"):
        late.backward()
    for name in p:
        np.testing.assert_array_equal(p[name].grad, before[name], name)


def test_a_second_walk_through_freed_arrays_leaves_gradients_as_they_were(leaves):
    x = F.linear(leaves["table"], leaves["w1"])
    one = x.sum()
    two = (F.linear(np.tanh(x), leaves["w2"]) * 2.0).sum()
    one.backward()
    two_before = gradients({"w1": leaves["w1"], "table": leaves["table"]})
    with pytest.raises(RuntimeError, match="a second time"):
        two.backward()
    assert leaves["w2"].grad is None
    for name, before in two_before.items():
        np.testing.assert_array_equal(leaves[name].grad, before)


def test_a_hook_that_fails_leaves_gradients_as_they_were(leaves):
    loss_of(leaves, 0).backward()
    before = gradients(leaves)
    x = F.linear(leaves["table"], leaves["w1"])
    y = F.linear(x, leaves["w2"]).sum()

    def fails(grad):
        raise OSError("no more")

    x.register_hook(fails)
    with pytest.raises(OSError, match="no more"):
        y.backward()
    for name, p in leaves.items():
        np.testing.assert_array_equal(p.grad, before[name], name)


def test_a_hook_of_a_leaf_sees_the_gradient_of_this_walk_alone(leaves):
    loss_of(leaves, 0).backward()
    before, seen = gradients(leaves), []
    leaves["w1"].register_hook(lambda grad: seen.append(grad.copy()))
    loss_of(leaves, 0).backward()
    assert_close(seen[0], before["w1"], AGAINST_PYTORCH[np.float64])
    assert_close(leaves["w1"].grad, 2 * before["w1"], AGAINST_PYTORCH[np.float64])


@pytest.mark.parametrize("way", ["dy", "a view of it", "an input"])
def test_a_gradient_that_the_walk_reads_is_not_written_to_before(way, leaves):
    """By dy = g, the gradient that w has; or by w g, whose op reads g last, since it came first in the forward."""
    w = leaves["w2"]
    (w * w).sum().backward()  # 2 w
    g, v = w.grad.copy(), draw(5, HIDDEN, HIDDEN)
    if way == "an input":
        first = (w * Tensor(w.grad)).sum()
        (F.linear(w, v).sum() + first).backward()
        want = np.ones_like(g) @ v + g
    else:
        F.linear(w, v).backward(w.grad if way == "dy" else w.grad[:])
        want = g @ v
    assert_close(w.grad, g + want, AGAINST_PYTORCH[np.float64])


def test_a_part_that_is_run_again_adds_to_the_same_gradients(leaves):
    """The walk inside the walk ends first; w1 and w2 are used in both, and in the first part nothing is there yet."""

    def loss(p, part, run):
        ids = np.random.default_rng(part).integers(0, 50, (3, 7))
        x = F.embedding(ids, p["table"])
        y = run(lambda a: F.linear(F.gelu(F.linear(a, p["w1"], p["b1"])), p["w2"], p["b2"]), x)
        return (F.linear(F.linear(y, p["w1"]), p["w2"]) * y).sum()

    plain = {name: Tensor(a, requires_grad=True) for name, a in parameters().items()}
    for part in range(3):
        loss(leaves, part, recompute).backward()
        loss(plain, part, lambda f, *args: f(*args)).backward()
        for name in ("table", "w1", "b1", "w2", "b2"):
            assert_close(leaves[name].grad, plain[name].grad, AGAINST_PYTORCH[np.float64], name)


def test_gradients_in_one_array_stay_there(leaves):
    """As a user lays them out who sends them somewhere in one piece."""
    whole = np.zeros(sum(p.size for p in leaves.values()))
    at = 0
    for p in leaves.values():
        p.grad = whole[at : at + p.size].reshape(p.shape)
        at += p.size
    for part in range(2):
        loss_of(leaves, part).backward()
    again = {name: Tensor(a, requires_grad=True) for name, a in parameters().items()}
    for part in range(2):
        loss_of(again, part).backward()
    assert_close(whole, np.concatenate([p.grad.ravel() for p in again.values()]), AGAINST_PYTORCH[np.float64])


def test_gradients_that_cannot_be_written_to_are_replaced(leaves):
    w = leaves["w1"]
    w.grad = np.broadcast_to(1.0, w.shape)
    (w * 3.0).sum().backward()
    np.testing.assert_array_equal(w.grad, np.full(w.shape, 4.0))


def test_a_product_adds_to_the_gradient_of_its_input(backend, monkeypatch):
    """Three layers that share their input, as queries, keys and values do: one array, no sums of arrays."""
    kernel, met = registry.load("linear", backend), []

    def backward(dy, saved, needs, into=(None, None, None)):
        grads = kernel.backward(dy, saved, needs, into) if kernel.adds else kernel.backward(dy, saved, needs)
        met.append(grads[0] is into[0])
        return grads

    counted = registry.Kernel("linear", backend, kernel.forward, backward)
    monkeypatch.setattr(F, "kernel", lambda op: counted if op == "linear" else registry.load(op, backend))
    x = Tensor(draw(0, 5, C), requires_grad=True)
    ws = [draw(i, HIDDEN, C) for i in range(3)]
    dy = [draw(9 + i, 5, HIDDEN) for i in range(3)]
    sum((F.linear(x, w) * d).sum() for w, d in zip(ws, dy, strict=True)).backward()
    assert_close(x.grad, sum(d @ w for d, w in zip(dy, ws, strict=True)), AGAINST_PYTORCH[np.float64])
    assert met == ([False] * 3 if backend == "numpy" else [False, True, True])
