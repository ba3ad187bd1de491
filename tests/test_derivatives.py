"""Functions made from functions: against torch.func, against differences, to fourth order, through every op."""

import numpy as np
import pytest
import torch

import minilm
from minilm import Tensor, grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from minilm import functional as F

TF = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
BAR = 1e-10


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def same(actual, expected, bar=BAR):
    """Compare Tensors, or dicts, lists and tuples of them, with those of torch, relative to the largest entry."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        actual, expected = list(actual.values()), list(expected.values())
    if isinstance(expected, (list, tuple)):
        assert type(actual) is type(expected)
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            same(a, e, bar)
        return
    assert isinstance(actual, Tensor)
    assert not actual.requires_grad  # nothing is left on the tape
    expected = expected.detach().numpy()
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=bar * scale)


def to_torch(tree):
    if isinstance(tree, dict):
        return {key: to_torch(part) for key, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(to_torch(part) for part in tree)
    return torch.tensor(tree)


def torch_layer_norm(x, w, b):
    """In parts: torch 2.13's own layer_norm has a wrong third derivative, as differences of its second show."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-5) * w + b


# ---- functions written once, for both: ``m`` is numpy or torch


def wave(m, x):
    return (m.sin(x) * m.exp(-x * x) + x**3).sum()


def bowl(m, x, y):
    return m.tanh(x @ y) * m.sqrt((x * x).sum() + 1)


X, Y = numbers(3, 4), numbers(4, 2, seed=1)


def test_grad_and_value():
    same(grad(lambda x: wave(np, x))(X), torch.func.grad(lambda x: wave(torch, x))(to_torch(X)))
    value, gradient = value_and_grad(lambda x: wave(np, x))(X)
    expected = torch.func.grad_and_value(lambda x: wave(torch, x))(to_torch(X))
    same((gradient, value), expected)


@pytest.mark.parametrize("argnums", [0, 1, -1, (0, 1), (1, 0), (1,)])
def test_argnums(argnums):
    ours = grad(lambda x, y: bowl(np, x, y).sum(), argnums)(X, Y)
    positive = tuple(i % 2 for i in argnums) if isinstance(argnums, tuple) else argnums % 2
    same(ours, torch.func.grad(lambda x, y: bowl(torch, x, y).sum(), positive)(to_torch(X), to_torch(Y)))


def test_structures_of_arguments_come_back_as_gradients():
    tree = {"w": [X, (Y, np.array(2.0))], "b": numbers(2, seed=3), "none": []}

    def f(m):
        def loss(p, x):
            w, (v, scale) = p["w"]
            return (m.tanh(x @ w @ v * scale + p["b"]) ** 2).sum()

        return loss

    x = numbers(5, 3, seed=4)
    same(grad(f(np))(tree, x), torch.func.grad(f(torch))(to_torch(tree), to_torch(x)))
    same(grad(f(np), (1, 0))(tree, x), torch.func.grad(f(torch), (1, 0))(to_torch(tree), to_torch(x)))


def test_vjp_and_jvp():
    y, pull = vjp(lambda x, y: bowl(np, x, y), X, Y)
    expected, pull_torch = torch.func.vjp(lambda x, y: bowl(torch, x, y), to_torch(X), to_torch(Y))
    v = numbers(3, 2, seed=5)
    same(y, expected)
    same(pull(v), pull_torch(to_torch(v)))
    same(pull(2 * v), pull_torch(to_torch(2 * v)))  # a second time
    tangents = numbers(3, 4, seed=6), numbers(4, 2, seed=7)
    ours = jvp(lambda x, y: bowl(np, x, y), (X, Y), tangents)
    same(ours, torch.func.jvp(lambda x, y: bowl(torch, x, y), to_torch((X, Y)), to_torch(tangents)))


def test_hvp_jacobian_and_hessian():
    x, t = numbers(4), numbers(4, seed=1)
    H = torch.func.hessian(lambda x: wave(torch, x))(to_torch(x))
    same(hessian(lambda x: wave(np, x))(x), H)
    same(hvp(lambda x: wave(np, x), (x,), (t,)), H @ to_torch(t))
    f = lambda m: lambda x: m.stack([m.cumsum(x, 0), m.sin(x) * x[0]])  # noqa: E731
    same(jacobian(f(np))(x), torch.func.jacrev(f(torch))(to_torch(x)))
    same(jacobian(jacobian(f(np)))(x), torch.func.jacrev(torch.func.jacrev(f(torch)))(to_torch(x)))
    g = lambda m: lambda x, y: m.tanh(x @ y)  # noqa: E731
    same(jacobian(g(np), 1)(X, Y), torch.func.jacrev(g(torch), 1)(to_torch(X), to_torch(Y)))
    assert jacobian(lambda x: x[:0])(x).shape == (0, 4)


def test_orders_up_to_four():
    ours, theirs = lambda x: np.tanh(x) * np.exp(x * 0.5), lambda x: torch.tanh(x) * torch.exp(x * 0.5)
    for _ in range(4):
        ours, theirs = grad(ours), torch.func.grad(theirs)
        same(ours(0.7), theirs(torch.tensor(0.7, dtype=torch.float64)))


def test_differences_confirm_the_fourth_order():
    third = grad(grad(grad(lambda x: np.log(x) * np.sin(x) ** 2)))
    h = 1e-3
    expected = (8 * (third(1.3 + h) - third(1.3 - h)) - third(1.3 + 2 * h) + third(1.3 - 2 * h)) / (12 * h)
    np.testing.assert_allclose(grad(third)(1.3).item(), expected.item(), rtol=1e-9, atol=0)


def test_compositions_of_different_kinds():
    x, t = numbers(3), numbers(3, seed=2)
    T = to_torch
    ours, theirs = lambda x: wave(np, x), lambda x: wave(torch, x)
    along = lambda f: lambda x: jvp(grad(f), (x,), (t,))[1]  # noqa: E731
    same(along(ours)(x), torch.func.hessian(theirs)(T(x)) @ T(t))
    same(jacobian(along(ours))(x), torch.func.jacrev(lambda x: torch.func.hessian(theirs)(x) @ T(t))(T(x)))
    same(
        grad(lambda x: hvp(ours, (x,), (t,)).sum())(x),
        torch.func.grad(lambda x: (torch.func.hessian(theirs)(x) @ T(t)).sum())(T(x)),
    )


def test_a_derivative_inside_a_function_does_not_take_the_outer_variable_off_the_tape():
    def f(m, d):
        return lambda y: (
            d(lambda x: (x * x * y).sum())(m.ones(3) if m is np else m.ones(3, dtype=m.float64)) * y
        ).sum()

    same(grad(f(np, grad))(2.0), torch.func.grad(f(torch, torch.func.grad))(torch.tensor(2.0, dtype=torch.float64)))


def test_what_does_not_depend_has_gradient_zero():
    assert grad(lambda x, y: (x * x).sum() + 0 * y[:0].sum(), 1)(X, Y).tolist() == np.zeros_like(Y).tolist()
    assert grad(lambda x: Tensor(3.0))(2.0).item() == 0.0
    assert grad(lambda x: (x > 0).astype(float).sum())(X).tolist() == np.zeros_like(X).tolist()
    assert jvp(lambda x: Tensor(np.ones(2)), (X,), (X,))[1].tolist() == [0.0, 0.0]


def test_one_array_in_two_places_is_two_variables():
    a = np.array([2.0, 3.0])
    assert grad(grad(lambda x: x * x.detach()))(3.0).item() == 0.0
    assert grad(grad(lambda x, y: x * y**3, 1), 1)(a[0], a[0]).item() == 6 * 2.0**2
    same(
        jacobian(lambda y: grad(lambda x: (x * y * y).sum())(a), 0)(a),
        torch.func.jacrev(lambda y: torch.func.grad(lambda x: (x * y * y).sum())(to_torch(a)))(to_torch(a)),
    )


def test_dtypes_are_kept():
    x = X.astype(np.float32)
    for derivative in (grad, hessian):
        assert derivative(lambda x: wave(np, x))(x).dtype == np.float32
    assert jvp(np.sin, (x,), (x,))[1].dtype == np.float32
    assert hvp(lambda x: wave(np, x), (x,), (x,)).dtype == np.float32
    both = grad(lambda x, y: bowl(np, x, y).sum(), (0, 1))(x, Y)
    assert [g.dtype for g in both] == [np.float32, np.float64]


# ---- closures over recorded parameters


def test_a_gradient_penalty_reaches_the_weights():
    W, v, x = numbers(4, 5), numbers(5, seed=1), numbers(6, 4, seed=2)

    def penalty(m, gradient, W, v):
        norm = m.sqrt((gradient**2).sum(1))
        return ((norm - 1) ** 2).mean() + (W * W).sum() * 0.1 + v.sum()

    w1, v1 = Tensor(W, requires_grad=True), Tensor(v, requires_grad=True)
    gradient = grad(lambda x: (np.tanh(x @ w1) @ v1).sum())(x)
    assert gradient.requires_grad
    loss = penalty(np, gradient, w1, v1)
    loss.backward()
    w2, v2, x2 = (torch.tensor(a, requires_grad=True) for a in (W, v, x))
    (g2,) = torch.autograd.grad((torch.tanh(x2 @ w2) @ v2).sum(), x2, create_graph=True)
    expected = penalty(torch, g2, w2, v2)
    expected.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-12, atol=0)
    np.testing.assert_allclose(w1.grad, w2.grad.numpy(), rtol=BAR, atol=BAR)
    np.testing.assert_allclose(v1.grad, v2.grad.numpy(), rtol=BAR, atol=BAR)


def test_an_inner_step_of_descent_is_differentiated():
    w = Tensor(numbers(3), requires_grad=True)
    x = numbers(5, 3, seed=1)
    inner = grad(lambda w: ((x @ w) ** 2).mean())(w)
    ((x @ (w - 0.1 * inner)) ** 2).sum().backward()
    w2, x2 = torch.tensor(w.data, requires_grad=True), torch.tensor(x)
    (g2,) = torch.autograd.grad(((x2 @ w2) ** 2).mean(), w2, create_graph=True)
    ((x2 @ (w2 - 0.1 * g2)) ** 2).sum().backward()
    np.testing.assert_allclose(w.grad, w2.grad.numpy(), rtol=BAR, atol=BAR)


def test_ops_that_lead_to_no_argument_are_not_walked_through():
    w = Tensor(numbers(3), requires_grad=True)
    h = np.exp(w)
    h.sum().backward()  # what exp saved is gone
    np.testing.assert_array_equal(np.asarray(grad(lambda x: (x * h).sum())(numbers(3)).detach()), h.data)


def test_gradients_of_arguments_leave_grad_alone():
    w = Tensor(numbers(3), requires_grad=True)
    value_and_grad(lambda x: (x * w).sum())(w)
    assert w.grad is None


# ---- through every op of the library

IDS, LABELS = np.array([[1, 3, 1], [0, 2, 4]]), np.array([2, 0, -100, 1, 2])
S = 7**-0.5
_mask = np.random.default_rng(9).random((3, 3)) < 0.6
_mask[1] = True
MASK = np.where(_mask | np.eye(3, dtype=bool), 0.0, -np.inf)

OPS = {
    "linear": (lambda x, w, b: F.linear(x, w, b), lambda x, w, b: TF.linear(x, w, b), [(2, 3), (4, 3), (4,)]),
    "embedding": (lambda w: F.embedding(IDS, w), lambda w: TF.embedding(torch.tensor(IDS), w), [(5, 3)]),
    "layer_norm": (F.layer_norm, torch_layer_norm, [(3, 5), (5,), (5,)]),
    "add_rms_norm": (
        lambda x, y, w: np.add(*F.add_rms_norm(x, y, w, 1e-5)),
        lambda x, y, w: x + y + TF.rms_norm(x + y, (5,), w, 1e-5),
        [(3, 5), (3, 5), (5,)],
    ),
    "rms_norm": (
        lambda x, w: F.rms_norm(x, w, 1e-5),
        lambda x, w: TF.rms_norm(x, (5,), w, 1e-5),
        [(3, 5), (5,)],
    ),
    "gelu": (F.gelu, TF.gelu, [(3, 5)]),
    "gelu tanh": (
        lambda x: F.gelu(x, "tanh"),
        lambda x: TF.gelu(x, approximate="tanh"),
        [(3, 5)],
    ),
    "gelu_linear": (
        F.gelu_linear,
        lambda x, s, w, b: TF.linear(TF.gelu(x + s), w, b),
        [(3, 5), (5,), (4, 5), (4,)],
    ),
    "relu": (F.relu, TF.relu, [(3, 5)]),
    "sigmoid": (F.sigmoid, torch.sigmoid, [(3, 5)]),
    "silu": (F.silu, TF.silu, [(3, 5)]),
    "swiglu_linear": (
        F.swiglu_linear,
        lambda g, u, w, b: TF.linear(TF.silu(g) * u, w, b),
        [(3, 5), (3, 5), (4, 5), (4,)],
    ),
    "softmax": (lambda x: F.softmax(x, 1), lambda x: TF.softmax(x, 1), [(2, 4, 3)]),
    "log_softmax": (F.log_softmax, lambda x: TF.log_softmax(x, -1), [(2, 4, 3)]),
    "cross_entropy": (
        lambda z: F.cross_entropy(z, LABELS, label_smoothing=0.1),
        lambda z: TF.cross_entropy(z, torch.tensor(LABELS), label_smoothing=0.1),
        [(5, 4)],
    ),
    "linear_cross_entropy": (
        lambda x, w, b: F.linear_cross_entropy(x, w, LABELS, b, label_smoothing=0.1),
        lambda x, w, b: TF.cross_entropy(TF.linear(x, w, b), torch.tensor(LABELS), label_smoothing=0.1),
        [(5, 2), (4, 2), (4,)],
    ),
    "mse_loss": (F.mse_loss, TF.mse_loss, [(2, 3), (2, 3)]),
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: TF.scaled_dot_product_attention(q, k, v, is_causal=True),
        [(2, 2, 3, 4)] * 3,
    ),
    "attention, masked": (
        lambda q, k, v, b: F.scaled_dot_product_attention(q, k, v, b + MASK, scale=0.3),
        lambda q, k, v, b: TF.scaled_dot_product_attention(q, k, v, b + torch.tensor(MASK), scale=0.3),
        [(2, 2, 3, 4), (2, 2, 3, 4), (2, 2, 3, 2), (2, 1, 3, 3)],
    ),
    "attention, grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        lambda q, k, v: TF.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        [(1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)],
    ),
}


@pytest.fixture
def math_attention():
    """torch's other attention kernels have no second derivative."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        yield


def along(gradients, tangents):
    return sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))


def check_orders(ours, theirs, points, orders=3):
    """Compare the gradient in every argument, that of its product with tangents, and once more."""
    every = tuple(range(len(points)))
    tangents = [numbers(*p.shape, seed=20 + i) for i, p in enumerate(points)]
    for order in range(orders):
        same(grad(ours, every)(*points), torch.func.grad(theirs, every)(*to_torch(list(points))), BAR * 10**order)
        ours, theirs = (
            lambda *xs, f=ours: along(grad(f, every)(*xs), tangents),
            lambda *xs, f=theirs: along(torch.func.grad(f, every)(*xs), to_torch(tangents)),
        )


@pytest.mark.usefixtures("math_attention")
@pytest.mark.parametrize("op", OPS)
def test_three_orders_through_every_op_against_torch(op):
    ours, theirs, shapes = OPS[op]
    points = [numbers(*shape, seed=i) for i, shape in enumerate(shapes)]
    weights = numbers(*ours(*points).shape, seed=10)
    check_orders(
        lambda *xs: (np.sin(ours(*xs)) * weights).sum(),
        lambda *xs: (torch.sin(theirs(*xs)) * torch.tensor(weights)).sum(),
        points,
    )


@pytest.mark.parametrize("op", ["dropout", "attention with dropout"])
def test_second_order_through_dropout_of_a_fixed_seed(op):
    def f(*xs):
        rng = np.random.default_rng(3)
        if op == "dropout":
            return (np.sin(F.dropout(xs[0], 0.4, rng=rng)) * xs[0]).sum()
        return np.sin(F.scaled_dot_product_attention(*xs, dropout_p=0.4, is_causal=True, rng=rng)).sum()

    points = [numbers(1, 2, 3, 4, seed=i) for i in range(1 if op == "dropout" else 3)]
    tangents = [numbers(1, 2, 3, 4, seed=10 + i) for i in range(len(points))]
    every, h = tuple(range(len(points))), 1e-3
    second = grad(lambda *xs: along(grad(f, every)(*xs), tangents), every)(*points)

    def first(t):
        leaves = [Tensor(p + t * d, requires_grad=True) for p, d in zip(points, tangents, strict=True)]
        f(*leaves).backward()
        return [x.grad for x in leaves]

    steps = [first(t) for t in (-2 * h, -h, h, 2 * h)]
    for got, a, b, c, d in zip(second, *steps, strict=True):
        np.testing.assert_allclose(got._data, (8 * (c - b) - (d - a)) / (12 * h), rtol=1e-8, atol=1e-8)


def transformer_block(m, x, p):
    """Two residual branches: attention of two heads, and a GELU network; ``m`` holds the functions of one library."""
    B, T, C = x.shape
    h = m.layer_norm(x, p["g1"], p["b1"])
    q, k, v = (m.linear(h, w, b).reshape(B, T, 2, C // 2).swapaxes(1, 2) for w, b in zip(p["w"], p["b"], strict=True))
    o = m.attention(q, k, v).swapaxes(1, 2).reshape(B, T, C)
    x = x + m.linear(o, p["wo"], None)
    h = m.layer_norm(x, p["g2"], p["b2"])
    return x + m.linear(m.gelu(m.linear(h, p["w1"], p["c1"])), p["w2"], p["c2"])


class Ours:
    layer_norm, linear = staticmethod(F.layer_norm), staticmethod(F.linear)
    gelu = staticmethod(lambda x: F.gelu(x, "tanh"))
    attention = staticmethod(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))


class Theirs:
    layer_norm, linear = staticmethod(torch_layer_norm), staticmethod(TF.linear)
    gelu = staticmethod(lambda x: TF.gelu(x, approximate="tanh"))
    attention = staticmethod(lambda q, k, v: TF.scaled_dot_product_attention(q, k, v, is_causal=True))


@pytest.mark.usefixtures("math_attention")
def test_three_orders_through_a_transformer_block_against_torch():
    C, hidden = 4, 6
    shapes = {"g1": (C,), "b1": (C,), "wo": (C, C), "g2": (C,), "b2": (C,)}
    shapes |= {"w1": (hidden, C), "c1": (hidden,), "w2": (C, hidden), "c2": (C,)}
    p = {name: numbers(*shape, seed=i) * 0.5 for i, (name, shape) in enumerate(shapes.items())}
    p |= {"w": [numbers(C, C, seed=30 + i) * 0.5 for i in range(3)], "b": [numbers(C, seed=40 + i) for i in range(3)]}
    x, weights = numbers(2, 3, C, seed=50), numbers(2, 3, C, seed=51)
    t = {name: [0.5 * v[0]] * 3 if isinstance(v, list) else numbers(*v.shape, seed=61) for name, v in p.items()}

    def inner(gradients):
        flat = [g for v in gradients.values() for g in (v if isinstance(v, list) else [v])]
        tangents = [d for v in t.values() for d in (v if isinstance(v, list) else [v])]
        return along(flat, tangents if isinstance(flat[0], Tensor) else to_torch(tangents))

    ours = lambda p, x: (transformer_block(Ours, x, p) * weights).sum()  # noqa: E731
    theirs = lambda p, x: (transformer_block(Theirs, x, p) * torch.tensor(weights)).sum()  # noqa: E731
    q, y = to_torch(p), torch.tensor(x)
    same(grad(ours, (0, 1))(p, x), torch.func.grad(theirs, (0, 1))(q, y))
    first, first_torch = (lambda p, x: inner(grad(ours)(p, x))), (lambda p, x: inner(torch.func.grad(theirs)(p, x)))
    second = torch.func.grad(first_torch, (0, 1))(q, y)
    same(grad(first, (0, 1))(p, x), second)
    same(hvp(ours, (p, x), (t, np.zeros_like(x))), second[0])
    then, then_torch = (lambda p, x: inner(grad(first)(p, x))), (lambda p, x: inner(torch.func.grad(first_torch)(p, x)))
    same(grad(then, (0, 1))(p, x), torch.func.grad(then_torch, (0, 1))(q, y))


@pytest.mark.parametrize("on", ["numpy", "numba", "cython"])
def test_derivatives_are_the_same_whichever_backend_is_chosen(on):
    x = numbers(3, 5)
    with minilm.use_backend(on):
        got = hvp(lambda x: F.softmax(F.gelu(x)).max(), (x,), (x,))
    np.testing.assert_array_equal(got, hvp(lambda x: F.softmax(F.gelu(x)).max(), (x,), (x,)))


# ---- what is said when they are misused


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: grad(lambda x: x * 2)(X), ValueError, r"one number, got shape \(3, 4\).*\.sum\(\)"),
        (lambda: grad(lambda x: (x, x))(X), ValueError, "a Tensor of one number, got tuple"),
        (lambda: grad(lambda x: np.exp(1.0))(X), ValueError, "a Tensor of one number, got float64"),
        (lambda: grad(lambda x: x.sum())(3), TypeError, "floating-point.*int64"),
        (lambda: grad(lambda x: x.sum(), 1)(X), ValueError, "argnums.*1 given; got 1"),
        (lambda: vjp(lambda x: x, X)[1](Y), ValueError, r"vjp.*\(3, 4\), got \(4, 2\)"),
        (lambda: vjp(lambda x: [x], X), TypeError, "vjp.*one Tensor, got list"),
        (lambda: jvp(lambda x: x, (X,), (X[:1],)), ValueError, r"jvp.*\(3, 4\).*\(1, 4\)"),
        (lambda: jvp(lambda x, y: x, (X, Y), (X,)), ValueError, "jvp.*tangents"),
        (lambda: jvp(lambda x: 1.0, (X,), (X,)), TypeError, "jvp.*one Tensor, got float"),
        (lambda: hvp(lambda x: x.sum(), (X,), (Y,)), ValueError, "hvp.*tangents"),
        (lambda: jacobian(lambda x: 3.0)(X), TypeError, "jacobian.*one Tensor, got float"),
        (lambda: jacobian(lambda x: x[0])([X]), TypeError, "jacobian.*one array.*vjp or jvp"),
        (lambda: hessian(lambda x: x)(X), ValueError, "one number"),
    ],
)
def test_misuse_says_what_must_hold(call, error, words):
    with pytest.raises(error, match=words):
        call()
    assert minilm.autograd.recording()
    assert not minilm.autograd.is_decomposed()
