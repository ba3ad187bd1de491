"""What every op must do on every backend.  A new op is judged here as soon as it is in OPS and SIZES.

What optimizers compute is judged in optim/test_updates.py.

The four judges of DESIGN: differences, the tape's own derivative of the reference, PyTorch (test_pytorch.py), and each
backend against the reference.
"""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from minilm import Tensor, decomposed, no_grad
from minilm import functional as F
from minilm._kernels import registry
from minilm.tensor import apply
from minilm.testing import (
    AGAINST_REFERENCE,
    AGAINST_TAPE,
    MODEL_SIZES,
    SIZES,
    assert_close,
    check_grad,
    joined,
    outputs,
    sample,
    uses,
)

CASES = [(op, size) for op in registry.OPS for size in SIZES[op] if size not in MODEL_SIZES]
every_case = pytest.mark.parametrize(("op", "size"), CASES, ids=lambda part: part.replace(" ", "-"))
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


def floating(arrays):
    return [a is not None and a.dtype.kind == "f" for a in arrays]


def dout(out, used):
    """Return the gradient that a backward is given where only some outputs are used; always the same numbers."""
    rng = np.random.default_rng(1)
    drawn = [np.asarray(rng.standard_normal(a.shape)).astype(a.dtype) for a in outputs(out)]
    return [dy if i in used else None for i, dy in enumerate(drawn)] if type(out) is tuple else drawn[0]


def forward_backward(op, size, kernel, arrays, static):
    """Return {name: array} of the outputs, and of the gradients for each choice of used outputs."""
    out, saved = kernel.forward(*arrays, **static)
    results = {f"out {i}": np.asarray(a) for i, a in enumerate(outputs(out))}
    for used in uses(len(outputs(out))):
        grads = kernel.backward(dout(out, used), saved, tuple(floating(arrays)))
        results |= {f"d{name} of {used}": g for name, g in zip(SIZES[op][size][0], grads, strict=True)}
    return {name: a for name, a in results.items() if a is not None}


def applied(op, tensors, static, arrays):
    """Apply the op.  The row padding_idx gets no gradient although the output depends on it: it is held constant."""
    if op == "embedding" and (row := static["padding_idx"]) is not None:
        w = tensors[0]
        tensors = [np.where(np.arange(len(w))[:, None] == row, arrays[0], w), *tensors[1:]]
    return apply(registry.kernel(op), *tensors, **static)


def on_tensors(op, arrays, static):
    """Apply the op to float arrays as leaves of the tape; return the leaves and the output."""
    leaves = [None if a is None else Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    return leaves, applied(op, leaves, static, arrays)


@every_case
def test_gradient_agrees_with_differences(op, size, backend):
    arrays, static = sample(op, size)

    def function(*tensors):
        given = iter(tensors)
        return applied(op, [None if a is None else next(given) for a in arrays], static, arrays)

    given = [a for a in arrays if a is not None]
    with no_grad():
        outs = outputs(function(*map(Tensor, given)))
    for used in uses(len(outs)):
        check_grad(lambda *tensors, used=used: joined(function(*tensors), used), *given)


@every_case
def test_backward_agrees_with_the_tape_through_the_reference(op, size, backend):
    arrays, static = sample(op, size)
    _, first = on_tensors(op, arrays, static)
    for used in uses(len(outputs(first))):
        leaves, out = on_tensors(op, arrays, static)
        whole = joined(out, used)
        dy = np.asarray(np.random.default_rng(1).standard_normal(whole.shape))
        whole.backward(dy)
        with decomposed():
            through, in_parts = on_tensors(op, arrays, static)
        with np.errstate(invalid="ignore"):  # a mask of -inf meets 0 on the way through the parts
            joined(in_parts, used).backward(dy)
        for i, (mine, its) in enumerate(zip(outputs(out), outputs(in_parts), strict=True)):
            assert_close(mine.data, its.data, AGAINST_TAPE, f"out {i}")
        for name, ours, theirs in zip(SIZES[op][size][0], leaves, through, strict=True):
            if ours is not None and ours.requires_grad:
                assert (ours.grad is None) == (theirs.grad is None), f"d{name} of {used}"
                if ours.grad is not None:
                    assert_close(ours.grad, theirs.grad, AGAINST_TAPE, f"d{name} of {used}")


@every_case
@every_dtype
def test_backend_agrees_with_reference(op, size, dtype, backend):
    arrays, static = sample(op, size, dtype)
    got = forward_backward(op, size, registry.load(op, backend), arrays, static)
    want = forward_backward(op, size, registry.load(op, "numpy"), arrays, static)
    assert got.keys() == want.keys()
    for name, array in got.items():
        assert array.dtype == dtype, name
        assert_close(array, want[name], AGAINST_REFERENCE[dtype], name)


@every_case
def test_inputs_are_not_written_and_any_layout_is_accepted(op, size, backend):
    arrays, static = sample(op, size)
    kernel = registry.load(op, backend)
    plain = forward_backward(op, size, kernel, arrays, static)
    strided = [None if a is None else np.repeat(a[..., None], 2, axis=-1)[..., 0] for a in arrays]
    for a in strided:
        if a is not None:
            a.setflags(write=False)
    got = forward_backward(op, size, kernel, strided, static)
    for name, array in got.items():
        # BLAS may sum in another order for another layout: only the ops that are BLAS's get the tolerance.
        assert_close(array, plain[name], AGAINST_REFERENCE[np.float64], name)
        for a in strided:
            assert a is None or not np.shares_memory(array, a), f"{name} aliases an input"


@every_case
def test_gradient_that_is_not_needed_is_not_computed(op, size, backend):
    arrays, static = sample(op, size)
    kernel = registry.load(op, backend)
    out, saved = kernel.forward(*arrays, **static)
    for used in uses(len(outputs(out))):
        given = dout(out, used)
        all_at_once = kernel.backward(given, saved, tuple(floating(arrays)))
        there = [g is not None for g in all_at_once]
        assert there == floating(arrays) or len(used) < len(outputs(out))  # an output may depend on some inputs only
        for i, is_float in enumerate(floating(arrays)):
            if is_float:
                needs = tuple(j == i for j in range(len(arrays)))
                grads = kernel.backward(given, saved, needs)
                assert [g is not None for g in grads] == [j == i and there[j] for j in range(len(arrays))]
                if there[i]:
                    assert_close(grads[i], all_at_once[i], AGAINST_REFERENCE[np.float64])


def test_every_op_has_sizes_and_a_derivation():
    from pathlib import Path

    folder = Path(registry.__file__).parent
    assert set(SIZES) == set(registry.OPS + registry.UPDATES)
    for op in SIZES:
        assert (folder / op / f"{op}.md").is_file(), f"{op} has no derivation"


BITS = """
import sys, hashlib, numpy as np
from minilm._kernels import registry, threads
from minilm.testing import SIZES, MODEL_SIZES, outputs, sample
threads.set_num_threads(int(sys.argv[1]))
digest = hashlib.sha256()
for op in registry.OPS:
    if op == "linear_cross_entropy":  # sums of BLAS's, which cuts them by the number of threads
        continue
    for size in SIZES[op]:
        if size in MODEL_SIZES and size != "nanogpt":
            continue
        arrays, static = sample(op, size, np.float32)
        kernel = registry.load(op, sys.argv[2])
        out, saved = kernel.forward(*arrays, **static)
        rng = np.random.default_rng(0)
        dout = [np.asarray(rng.standard_normal(np.shape(a))).astype(np.float32) for a in outputs(out)]
        dout = dout if type(out) is tuple else dout[0]
        needs = tuple(a is not None and a.dtype.kind == "f" for a in arrays)
        if op == "linear":  # of its results one is no product of BLAS's: the gradient of the bias
            out, needs = (), (False, False, needs[2])
        grads = kernel.backward(dout, saved, needs)
        for a in (*outputs(out), *grads):
            if a is not None:
                digest.update(np.ascontiguousarray(a).tobytes())
print(digest.hexdigest())
"""


def test_bits_do_not_depend_on_the_number_of_threads(backend):
    """Of the compiled loops: the reference's matrix products are BLAS's, which promises no order of summation."""

    def run(n):
        return subprocess.run([sys.executable, "-c", BITS, str(n), backend], check=True, capture_output=True).stdout

    assert backend == "numpy" or run(1) == run(2)


def test_logits_are_never_held_together(backend, monkeypatch):
    """By NumPy's own count of bytes: the logits would be 4 MB, a hundred rows of them are 0.2 MB."""
    if backend == "numpy":
        return  # the reference does hold them
    monkeypatch.setattr(F, "LOGITS", 100 * 500 * 4)
    rng = np.random.default_rng(0)
    x, w = (
        Tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True) for shape in ((2000, 8), (500, 8))
    )
    target = rng.integers(0, 500, 2000)
    F.linear_cross_entropy(x, w, target).backward()  # loads the loops
    tracemalloc.start()
    try:
        loss = F.linear_cross_entropy(x, w, target)
        loss.backward()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2000 * 500 * 4 / 4


ADDED = {  # by the compiled forms, where it costs less than to make a gradient and to add it
    "embedding": ("w",),
    "gelu_linear": ("w",),
    "linear": ("x", "w"),
    "linear_cross_entropy": ("x", "w", "b"),
    "swiglu_linear": ("w",),
}


def test_which_ops_add_to_a_gradient_that_is_there(backend):
    """The reference does where making another would cost most: a table, mostly of zeros."""
    found = {op for op in registry.OPS if registry.load(op, backend).adds}
    assert found == ({"embedding"} if backend == "numpy" else set(ADDED))


@pytest.mark.parametrize(("op", "size"), [case for case in CASES if case[0] in ADDED])
@every_dtype
@pytest.mark.parametrize("layout", ["plain", "fortran", "other dtype"])
@pytest.mark.parametrize("backend", ["numba", "cython"], indirect=True)
def test_a_gradient_is_added_to_the_one_that_is_there(op, size, layout, dtype, backend):
    """What comes back is either that array, or the gradient alone, which the tape adds."""
    kernel = registry.load(op, backend)
    arrays, static = sample(op, size, dtype)
    needs, rng = tuple(floating(arrays)), np.random.default_rng(2)
    out, saved = kernel.forward(*arrays, **static)
    dy = dout(out, (0,))
    alone = kernel.backward(dy, saved, needs)
    there = [None if g is None else np.asarray(rng.standard_normal(g.shape)).astype(dtype) for g in alone]
    laid = {"fortran": lambda a: np.array(a, order="F"), "other dtype": lambda a: a.astype(np.float16)}
    into = tuple(None if a is None else laid.get(layout, np.copy)(a) for a in there)
    _, saved = kernel.forward(*arrays, **static)
    got = kernel.backward(dy, saved, needs, into)
    for name, g, one, a, to in zip(SIZES[op][size][0], got, alone, there, into, strict=True):
        if one is None:
            assert g is None, name
        elif layout == "other dtype" and op == "linear_cross_entropy" and g is to:  # whose sum takes any array
            assert_close(g.astype(dtype), one + a, 2e-3, f"d{name}")  # float16 has 11 bits
        else:
            assert_close(g, one + a if g is to else one, AGAINST_REFERENCE[dtype], f"d{name}")
            assert g.dtype == dtype, name
        if one is not None and layout == "plain":
            assert (g is to) == (name in ADDED[op]), name


@pytest.mark.parametrize("scale", [1.0, -0.25])
def test_a_second_backward_through_the_head_is_right(scale, backend):
    arrays, static = sample("linear_cross_entropy", "chunks")
    leaves, loss = on_tensors("linear_cross_entropy", arrays, static)
    loss.backward(np.asarray(scale), retain_graph=True)
    first = [leaf.grad.copy() for leaf in leaves[:3]]
    loss.backward(np.asarray(2.0))  # adds to the gradients of the first
    for leaf, one in zip(leaves, first, strict=False):
        assert_close(leaf.grad, (scale + 2.0) / scale * one, AGAINST_REFERENCE[np.float64])


def test_the_head_computes_no_gradient_that_nobody_asked_for(backend, monkeypatch):
    arrays, _ = sample("linear_cross_entropy", "odd")
    kernel = registry.load("linear_cross_entropy", backend)
    asked = []

    def forward(*arrays, **static):
        asked.append(static["gradients"])
        return kernel.forward(*arrays, **static)

    monkeypatch.setattr(F, "kernel", lambda op: registry.Kernel(op, backend, forward, kernel.backward))
    x, w, b, target = arrays
    hidden = Tensor(x, requires_grad=True)
    F.linear_cross_entropy(hidden, w, target, b).backward()
    with no_grad():
        F.linear_cross_entropy(hidden, w, target, b)
    assert asked == [(True, False, False), (False, False, False)]


def test_the_head_takes_any_leading_axes(backend):
    rng = np.random.default_rng(0)
    x, w, target = rng.standard_normal((2, 3, 4)), rng.standard_normal((5, 4)), rng.integers(0, 5, (2, 3))
    got = F.linear_cross_entropy(x, w, target, reduction="sum")
    want = F.cross_entropy(F.linear(x, w).reshape(6, 5), target.reshape(6), reduction="sum")
    assert_close(got.data, want.data, AGAINST_REFERENCE[np.float64])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": np.zeros(2, int)}, ValueError, r"input must be .* got input \(3, 4\).* target \(2,\)"),
        ({"weight": np.ones((4, 5))}, ValueError, r"weight \(V, C\).* weight \(4, 5\)"),
        ({"bias": np.ones(4)}, ValueError, r"and bias \(4,\)"),
        ({"bias": np.ones(5, np.float32)}, TypeError, "all must have one dtype"),
        ({"target": np.ones(3)}, TypeError, "target must be integers"),
        ({"target": np.array([0, 5, 1])}, IndexError, r"labels must lie in \[0, 5\); got 5"),
        ({"reduction": "none"}, ValueError, "reduction must be 'mean' or 'sum'; got 'none'"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must lie in \[0, 1\]; got 1.5"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused(change, error, message):
    given = {"input": np.ones((3, 4)), "weight": np.ones((5, 4)), "target": np.zeros(3, int)}
    with pytest.raises(error, match=message):
        F.linear_cross_entropy(**{**given, **change})


@pytest.mark.parametrize("causal", [True, False])
def test_packed_sequences_attend_as_each_does_alone(causal, backend):
    queries, keys = (3, 0, 1, 66, 5), (70, 2, 1, 64, 0)  # the last sees nothing
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((1, h, sum(n), 6)) for h, n in ((4, queries), (2, keys), (2, keys))]
    dy = rng.standard_normal((1, 4, sum(queries), 6))

    def run(arrays, dy, **static):
        leaves = [Tensor(a, requires_grad=True) for a in arrays]
        out = F.scaled_dot_product_attention(
            *leaves, is_causal=causal, query_offset=2, window=40, enable_gqa=True, **static
        )
        out.backward(dy)
        return [out.data, *(leaf.grad for leaf in leaves)]

    packed = run(arrays, dy, lengths=(queries, keys))
    t = s = 0
    for n, m in zip(queries, keys, strict=True):
        parts = [slice(t, t + n), slice(t, t + n), slice(s, s + m), slice(s, s + m)]  # of out, q, k and v
        one = run([a[:, :, part] for a, part in zip(arrays, parts[1:], strict=True)], dy[:, :, t : t + n])
        for name, expected, whole, part in zip(("out", "dq", "dk", "dv"), one, packed, parts, strict=True):
            assert_close(whole[:, :, part], expected, AGAINST_REFERENCE[np.float64], f"{name} of {n} and {m}")
        t, s = t + n, s + m


@pytest.mark.parametrize("queries", [1, 3, 70])  # a loop of its own, part of a block, two blocks
def test_probabilities_near_and_far(queries, backend):
    """Scores from 0 down to -100: every probability is right to the last digits, until it is nothing."""
    scores = np.linspace(0, -100, 257, dtype=np.float32)  # the largest comes first: all are measured from it
    q, k, v = np.ones((1, 1, queries, 1), np.float32), scores.reshape(1, 1, -1, 1), np.eye(257, dtype=np.float32)
    with np.errstate(under="ignore"):
        out = F.scaled_dot_product_attention(q, k, v[None, None], scale=1.0)
    expected = np.exp(scores.astype(np.float64))
    expected /= expected.sum()
    np.testing.assert_allclose(out.data[0, 0], np.tile(expected, (queries, 1)), rtol=1e-6, atol=1e-37)


def test_nan_reaches_those_who_see_it_and_no_other(backend):
    x = np.random.default_rng(0).standard_normal((1, 1, 70, 8)).astype(np.float32)
    k = x.copy()
    k[0, 0, 66] = np.nan
    with np.errstate(invalid="ignore"):
        out = F.scaled_dot_product_attention(x, k, x, is_causal=True).data[0, 0]
    assert np.isnan(out[66:]).all()
    assert np.isfinite(out[:66]).all()


def test_no_memory_and_no_time_for_pairs_of_sequences(backend):
    """A hundred thousand rows would be ten billion scores: 40 GB of them, and minutes."""
    if backend == "numpy":
        return  # the reference does compute them
    x = np.zeros((1, 1, 100_000, 8), np.float32)
    x[..., 0] = np.arange(x.shape[2])[::-1]  # the first key of each sequence is the largest
    out = F.scaled_dot_product_attention(np.ones_like(x), x, x, scale=9.0, lengths=[50] * 2_000)
    first = np.repeat(x[0, 0, ::50, 0], 50)
    assert_close(out.data[0, 0, :, 0], first, 1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": [3, 3]}, r"sum to 5 queries and 5 keys; got 2 of 6 queries"),
        ({"lengths": [7, -2]}, r"none negative.*the shortest -2"),
        ({"lengths": ([5], [2, 3])}, r"as many of queries as of keys.*got 1 of 5 queries and 2 of 5 keys"),
        ({"window": 0}, r"window must be at least 1, or None; got 0"),
    ],
)
def test_lengths_and_windows_that_make_no_sense_are_refused(change, message):
    x = np.ones((1, 1, 5, 2))
    with pytest.raises(ValueError, match=message):
        F.scaled_dot_product_attention(x, x, x, **change)


@pytest.mark.parametrize("shapes", [((3, 4), (3, 3)), ((3, 4), (2, 2)), ((4,), (3, 2)), ((3, 4), (3, 1), (3, 2))])
def test_angles_that_do_not_fit_are_refused(shapes):
    x, cos, sin = (np.ones(shape) for shape in (*shapes, shapes[-1])[:3])
    with pytest.raises(ValueError, match=r"rotary: cos and sin must broadcast to \(..., T, R/2\)"):
        F.rotary(x, cos, sin)


def test_rotary_keeps_the_layout_of_its_input(backend):
    """Heads are turned as they lie after the projection, (B, T, H, D), and come back so: no copy before or after."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 3, 8)).swapaxes(1, 2)
    out = F.rotary(x, *rng.standard_normal((2, 5, 4)))
    assert backend == "numpy" or out.data.strides == x.strides


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": np.ones((1, 4))}, ValueError, r"x and y must have one shape; got x \(3, 4\) and y \(1, 4\)"),
        ({"y": np.ones((3, 4), np.float32)}, TypeError, "all must have one dtype; got x float64, y float32"),
        ({"weight": np.ones(3)}, ValueError, r"shape of the last axis of input \(3, 4\); got weight \(3,\)"),
        ({"weight": np.ones(4, np.float32)}, TypeError, "all must have one dtype"),
    ],
)
@pytest.mark.parametrize("function", [F.add_layer_norm, F.add_rms_norm])
def test_a_residual_that_does_not_fit_is_refused(function, change, error, message):
    with pytest.raises(error, match=message):
        function(**{"x": np.ones((3, 4)), "y": np.ones((3, 4)), **change})


def test_a_shift_of_another_dtype_is_refused():
    with pytest.raises(TypeError, match="all must have one dtype"):
        F.add_layer_norm(np.ones((3, 4)), np.ones((3, 4)), bias=np.ones(4, np.float32))


@pytest.mark.parametrize("function", [F.add_layer_norm, F.add_rms_norm])
def test_a_row_normalizes_alike_alone_and_among_others(function, backend):
    """Rows whose vectors are full and rows with a rest, long ones too; every last digit."""
    rng = np.random.default_rng(0)
    for C in (1, 63, 64, 100, 768, 5003):
        x, y = rng.standard_normal((2, 9, C)).astype(np.float32)
        s, n = function(x, y)
        for i in range(9):
            alone = function(x[i : i + 1], y[i : i + 1])
            np.testing.assert_array_equal(alone[0].data[0], s.data[i])
            assert_close(alone[1].data[0], n.data[i], 0.0 if backend != "numpy" else AGAINST_REFERENCE[np.float32])


@pytest.mark.parametrize("norm", [F.layer_norm, F.rms_norm])
def test_long_rows_far_from_zero_are_exact(norm, backend):
    """A million numbers around 100: sums in float32 alone would be off in the third digit."""
    rng = np.random.default_rng(0)
    x, dy = (100 + rng.standard_normal((2, 1 << 20))).astype(np.float32), rng.standard_normal((2, 1 << 20))
    leaf, wide = Tensor(x, requires_grad=True), Tensor(x.astype(np.float64), requires_grad=True)
    got, want = norm(leaf), norm(wide)
    got.backward(dy.astype(np.float32))
    want.backward(dy.astype(np.float32).astype(np.float64))
    most = 1e-5 if norm is F.layer_norm else 2e-7  # the mean itself is rounded, 100 / 2**24; there is none in rms_norm
    assert_close(got.data.astype(np.float64), want.data, most)
    assert_close(leaf.grad.astype(np.float64), wide.grad, most)


def test_silu_far_out(backend):
    with np.errstate(all="ignore"):
        x = Tensor([-np.inf, -800.0, -90.0, 90.0, 800.0, np.inf, np.nan], requires_grad=True)
        y = F.silu(x)
        y.backward(np.ones(7))
    np.testing.assert_allclose(y.data, [0, 0, 0, 90, 800, np.inf, np.nan], atol=1e-30)
    np.testing.assert_allclose(x.grad, [0, 0, 0, 1, 1, 1, np.nan], atol=1e-30)


def test_a_gate_far_out(backend):
    """Each number in a row of its own, through a matrix of one 1."""
    far, one = [[-np.inf], [-800.0], [-90.0], [90.0], [800.0], [np.inf], [np.nan]], np.ones((1, 1))
    with np.errstate(all="ignore"):
        g, u = Tensor(far, requires_grad=True), Tensor(np.full((7, 1), 2.0), requires_grad=True)
        y = F.swiglu_linear(g, u, one)
        y.backward(np.ones((7, 1)))
    np.testing.assert_allclose(y.data[:, 0], [0, 0, 0, 180, 1600, np.inf, np.nan], atol=1e-30)
    np.testing.assert_allclose(g.grad[:, 0], [0, 0, 0, 2, 2, 2, np.nan], atol=1e-30)
    np.testing.assert_allclose(u.grad[:, 0], [0, 0, 0, 90, 800, np.inf, np.nan], atol=1e-30)


@every_dtype
def test_relu_at_its_edges_is_that_of_pytorch(dtype, backend):
    import torch

    edges = np.array([-np.inf, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, np.inf, np.nan] * 3, dtype)
    x, its = Tensor(edges, requires_grad=True), torch.tensor(edges, requires_grad=True)
    y, want = F.relu(x), torch.nn.functional.relu(its)
    dy = np.arange(1, 28, dtype=dtype)
    y.backward(dy)
    want.backward(torch.tensor(dy))
    np.testing.assert_array_equal(y.data, want.detach().numpy())
    np.testing.assert_array_equal(x.grad, its.grad.numpy())


def test_relu_keeps_no_second_array(backend):
    """What it saves is its output, which the layer that reads it saves too."""
    x = np.ones((50, 40), np.float32)
    y, saved = registry.load("relu", backend).forward(x)
    assert saved[0] is y
    assert len(saved) == 1


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_out(approximate, backend):
    far = np.array([-np.inf, -800.0, -40.0, 40.0, 800.0, np.inf, np.nan])
    for dtype in (np.float32, np.float64):
        with np.errstate(all="ignore"):
            x, b = Tensor(far.astype(dtype), requires_grad=True), np.zeros(7, dtype)
            y = F.bias_gelu(x, b, approximate)
            y.backward(np.ones(7, dtype))
            without = F.gelu(x, approximate)
        np.testing.assert_array_equal(y.data, [0, 0, 0, 40, 800, np.inf, np.nan])
        np.testing.assert_array_equal(without.data, y.data)
        np.testing.assert_array_equal(x.grad, [0, 0, 0, 1, 1, 1, np.nan])


@pytest.mark.parametrize("backend", ["numba", "cython"], indirect=True)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_compiled_gelu_keeps_its_digits_where_it_is_small(approximate, backend):
    """Against PyTorch's erfc and sigmoid in float64: 3 ULP, and what the argument of the exponential loses."""
    import torch

    x = np.linspace(-9, 9, 200_001).astype(np.float32)
    X = torch.tensor(x, dtype=torch.float64)
    u = np.sqrt(2 / np.pi) * (X + 0.044715 * X**3)
    Φ = 0.5 * torch.special.erfc(-X / np.sqrt(2)) if approximate == "none" else torch.sigmoid(2 * u)
    y, _ = registry.load("gelu", backend).forward(x, approximate=approximate)
    want = (X * Φ).numpy()
    ulp = 2.0**-23 * np.abs(want)
    assert (np.abs(y - want) <= 3 * ulp * (1 + np.square(X.numpy()) / 2)).all()


@pytest.mark.parametrize("backend", ["numba", "cython"], indirect=True)
def test_compiled_silu_keeps_its_digits_where_it_is_small(backend):
    """Against PyTorch in float64; the exponential's argument has lost |x| ULP, where it has not reached 0."""
    import torch

    x = np.linspace(-86, 86, 200_001).astype(np.float32)
    X = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    want = torch.nn.functional.silu(X)
    want.sum().backward()
    kernel = registry.load("silu", backend)
    y, saved = kernel.forward(x)
    (dx,) = kernel.backward(np.ones_like(x), saved, (True,))
    most = 2.0**-23 * (4 + np.abs(x))
    assert (np.abs(y - want.detach().numpy()) <= most * np.abs(want.detach().numpy())).all()
    assert (
        np.abs(dx - X.grad.numpy()) <= most * np.maximum(np.abs(X.grad.numpy()), np.exp(-np.abs(X.detach().numpy())))
    ).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bias": np.ones(3)}, ValueError, r"bias_gelu: bias must have the shape .* input \(2, 4\); got bias \(3,\)"),
        ({"bias": np.ones((2, 4))}, ValueError, r"got bias \(2, 4\)"),
        ({"bias": np.ones(4, np.float32)}, TypeError, "bias_gelu: all must have one dtype"),
        ({"input": np.ones((2, 4), int)}, TypeError, "bias_gelu: the input must be floating-point"),
        ({"approximate": "erf"}, ValueError, "approximate must be 'none' or 'tanh'; got 'erf'"),
    ],
)
def test_a_bias_that_does_not_fit_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        F.bias_gelu(**{"input": np.ones((2, 4)), "bias": np.ones(4), **change})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shift": np.ones(3)}, ValueError, r"gelu_linear: shift must have the shape .* \(2, 4\); got shift \(3,\)"),
        ({"shift": np.ones(4, np.float32)}, TypeError, "gelu_linear: all must have one dtype"),
        ({"input": np.ones((2, 4), int)}, TypeError, "gelu_linear: the input must be floating-point"),
        (
            {"weight": np.ones((3, 5))},
            ValueError,
            r"gelu_linear: .* weight \(F, C\) must agree in C; .* weight \(3, 5\)",
        ),
        ({"transposed": False}, ValueError, r"gelu_linear: input \(..., C\) and weight \(C, F\) must agree in C"),
        ({"weight": np.ones((3, 4), np.float32)}, TypeError, "gelu_linear: all must have one dtype"),
        ({"bias": np.ones(4)}, ValueError, r"gelu_linear: bias must have shape \(3,\), one per output; got \(4,\)"),
        ({"approximate": "erf"}, ValueError, "approximate must be 'none' or 'tanh'; got 'erf'"),
    ],
)
def test_what_does_not_fit_gelu_linear_is_refused(change, error, message):
    given = {"input": np.ones((2, 4)), "shift": np.ones(4), "weight": np.ones((3, 4)), "bias": np.ones(3)}
    with pytest.raises(error, match=message):
        F.gelu_linear(**given | change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"up": np.ones((2, 5))}, ValueError, r"gate and up must have one shape; got gate \(2, 4\) and up \(2, 5\)"),
        ({"up": np.ones((2, 4), np.float32)}, TypeError, "swiglu_linear: .* one dtype"),
        ({"weight": np.ones((3, 5))}, ValueError, r"swiglu_linear: .* must agree in C; .* weight \(3, 5\)"),
        ({"bias": np.ones(4)}, ValueError, r"swiglu_linear: bias must have shape \(3,\), one per output; got \(4,\)"),
    ],
)
def test_what_does_not_fit_swiglu_linear_is_refused(change, error, message):
    given = {"gate": np.ones((2, 4)), "up": np.ones((2, 4)), "weight": np.ones((3, 4)), "bias": np.ones(3)}
    with pytest.raises(error, match=message):
        F.swiglu_linear(**given | change)
