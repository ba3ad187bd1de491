"""Functions made from functions: their gradients, products with their Jacobians, of any order; and recomputation.

Each takes ``f``, a function of arrays or Tensors, and gives a function that can be given to any of them again.
Arguments may be arrays, Tensors, or dicts, lists and tuples of them; gradients have the same structure and are Tensors.
Ops run in their parts here, as the reference writes them (see ``minilm.decomposed``).  Training, which needs first
derivatives only, calls ``loss.backward()`` instead, where ops run on compiled kernels.

Notation: J is the Jacobian of f at its arguments, H the Hessian.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import autograd, seeds
from ._kernels.registry import Kernel
from .tensor import Tensor
from .tensor.core import as_tensor, wrap

Argnums = int | tuple[int, ...]


def grad(f: Callable, argnums: Argnums = 0) -> Callable:
    """Return a function that computes the gradient of ``f``, which must give one number.

    ``argnums`` says for which argument, or, as a tuple, for which ones.

    >>> grad(lambda x: (x**3).sum())(np.array([1.0, 2.0]))
    Tensor([ 3., 12.])
    >>> grad(grad(lambda x: x**3))(2.0)
    Tensor(12.)
    """
    both = value_and_grad(f, argnums)
    return lambda *args, **kwargs: both(*args, **kwargs)[1]


def value_and_grad(f: Callable, argnums: Argnums = 0) -> Callable:
    """Return a function that computes ``f`` and its gradient.  ValueError where ``f`` gives more than one number."""

    def value_and_gradient(*args, **kwargs):
        out, pull, gather, _ = _traced(f, args, kwargs, argnums)
        if not isinstance(out, Tensor) or out.size != 1:
            got = f"shape {out.shape}" if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"grad: the function must return a Tensor of one number, got {got}. Did you mean .sum(), or jacobian?"
            )
        return out, gather(pull(wrap(np.ones_like(out._data))))

    return value_and_gradient


def vjp(f: Callable, *args: Any) -> tuple[Tensor, Callable]:
    """Return f(*args), and the function v -> (vᵀJ for each argument, as a tuple).

    >>> y, pull = vjp(lambda x, y: x * y, np.array([2.0]), np.array([5.0]))
    >>> pull(np.array([1.0]))
    (Tensor([5.]), Tensor([2.]))
    """
    out, pull, gather, _ = _traced(f, args, {}, tuple(range(len(args))))
    _one_tensor("vjp", out)

    def product(v):
        v = as_tensor(v, like=out)
        if v.shape != out.shape:
            raise ValueError(f"vjp: v must have the shape of the output, {out.shape}, got {v.shape}.")
        return gather(pull(v))

    return out, product


def jvp(f: Callable, args: tuple, tangents: tuple) -> tuple[Tensor, Tensor]:
    """Return f(*args) and J·tangents, the change of the output as the arguments move along the tangents.

    vᵀJ is linear in v, so the derivative of ⟨vᵀJ, tangents⟩ with respect to v is J·tangents at any v: two backward
    walks make one forward product.

    >>> jvp(np.sin, (0.0,), (2.0,))
    (Tensor(0.), Tensor(2.))
    """
    out, pull, _, own = _traced(f, args, {}, tuple(range(len(args))))
    _one_tensor("jvp", out)
    v, node = _variable(wrap(np.zeros_like(out._data)))
    with autograd.enable_grad(), autograd.decomposed():
        paired = _inner("jvp", pull(v), tangents)
        moved = None
        if paired.node is not None:
            one = wrap(np.ones_like(paired._data))
            (moved,) = autograd.gradients(paired.node, one, [node], retain=True, as_tensor=wrap)
    own = own | {node}
    return tuple(_settled([out, wrap(np.zeros_like(out._data)) if moved is None else moved], own))


def hvp(f: Callable, args: tuple, tangents: tuple) -> Any:
    """Return H·tangents for the first argument: how the gradient of ``f`` changes as the arguments move.

    >>> hvp(lambda x: (x**3).sum(), (np.array([1.0, 2.0]),), (np.array([1.0, 1.0]),))
    Tensor([ 6., 12.])
    """

    def along(*xs):
        return _inner("hvp", _leaves(grad(f, tuple(range(len(xs))))(*xs)), tangents)

    return grad(along)(*args)


def jacobian(f: Callable, argnum: int = 0) -> Callable:
    """Return a function that computes J, of shape (*output, *argument), one walk back per output number.

    >>> jacobian(lambda x: x**2)(np.array([1.0, 2.0]))
    Tensor([[2., 0.],
            [0., 4.]])
    """

    def full(*args, **kwargs):
        if isinstance(args[argnum], (dict, list, tuple)):
            raise TypeError("jacobian: the argument must be one array. For a structure of arrays use vjp or jvp.")
        out, pull, gather, _ = _traced(f, args, kwargs, argnum)
        _one_tensor("jacobian", out)
        rows = []
        for i in range(out.size):
            v = np.zeros_like(out._data)
            v.reshape(-1)[i] = 1
            rows.append(gather(pull(wrap(v))))
        shape = (*out.shape, *np.shape(args[argnum]))
        return np.stack(rows).reshape(shape) if rows else wrap(np.zeros(shape, out.dtype))

    return full


def hessian(f: Callable, argnum: int = 0) -> Callable:
    """Return a function that computes H, of shape (*argument, *argument).

    >>> hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 2.0]))
    Tensor([[4., 2.],
            [2., 0.]])
    """
    return jacobian(grad(f, argnum), argnum)


def recompute(f: Callable, *args: Any) -> Tensor:
    """Return f(*args) without keeping what its ops save: the backward pass runs ``f`` again (activation checkpointing).

    Memory for time, one segment of a network at a time.  ``f`` gives one Tensor and must compute the same when it is
    called again; seeds that its dropouts draw are drawn again.  Gradients of tensors that ``f`` closes over (a
    module's parameters) go to their ``.grad``, as ever.  Source: Chen et al. (2016), arXiv:1604.06174.
    """
    if not autograd.recording() or autograd.is_decomposed():
        return f(*args)
    places = [i for i, a in enumerate(args) if isinstance(a, (Tensor, np.ndarray))]
    inputs = [as_tensor(args[i]) for i in places]

    def run(tensors):
        given = list(args)
        for i, tensor in zip(places, tensors, strict=True):
            given[i] = tensor
        return f(*given)

    with autograd.no_grad(), seeds.logged() as drawn:
        out = run([wrap(t._data) for t in inputs])
    _one_tensor("recompute", out)

    def run_again(dy, saved, needs):
        with autograd.enable_grad(), seeds.replayed(drawn):
            leaves = [wrap(a, autograd.Node() if need else None) for a, need in zip(saved, needs, strict=True)]
            again = run(leaves)
        if again.node is not None:
            autograd.backward(again.node, dy)
        return tuple(t.grad for t in leaves)

    kernel = Kernel("recompute", "numpy", f, run_again)
    node = autograd.Node(kernel, tuple(t.node for t in inputs), tuple(t._data for t in inputs))
    return wrap(out._data, node)


# ---- structures of arrays, and the traced run that all of the above share


def _leaves(tree: Any) -> list:
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in _leaves(tree[key])]
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [tree]


def _rebuilt(tree: Any, leaves: Any) -> Any:
    """Return the structure ``tree`` with the next of ``leaves``, an iterator, at each place."""
    if isinstance(tree, dict):
        return {key: _rebuilt(part, leaves) for key, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_rebuilt(part, leaves) for part in tree)
    return next(leaves)


def _variable(value: Any) -> tuple[Tensor, autograd.Node]:
    """Return a Tensor of the same numbers with a node of its own, whose past, if any, is that of ``value``."""
    tensor = as_tensor(value)
    if tensor.dtype.kind != "f":
        raise TypeError(f"grad: arguments must be floating-point to have a gradient, got {tensor.dtype}: {value!r}.")
    node = autograd.Node(_IDENTITY, (tensor.node,), ()) if tensor.node is not None else autograd.Node()
    if tensor.node is not None:
        node.places = ()
    elif (scope := _scope.get()) is not None:
        scope.add(node)
    return wrap(tensor._data, node), node


# The variables without a past that the call in progress, and the calls inside it, have made: nobody else holds them.
_scope: ContextVar[set[autograd.Node] | None] = ContextVar("minilm_derivative_scope", default=None)


def _one_tensor(op: str, out: Any) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"{op}: the function must return one Tensor, got {type(out).__name__}.")


def _inner(op: str, gradients: list, tangents: Any) -> Tensor:
    """Return Σ ⟨gradient, tangent⟩, of structures that must have the same shapes."""
    ts = [as_tensor(t, like=g) for g, t in zip(gradients, _leaves(tangents), strict=False)]
    shapes, got = [g.shape for g in gradients], [np.shape(t) for t in _leaves(tangents)]
    if shapes != got:
        raise ValueError(f"{op}: tangents must have the shapes of the arguments, {shapes}; got {got}.")
    return sum(((g * t).sum() for g, t in zip(gradients, ts, strict=True)), wrap(np.zeros((), gradients[0].dtype)))


def _traced(f, args, kwargs, argnums) -> tuple[Any, Callable, Callable, set[autograd.Node]]:
    """Run f on variables.

    Return its output, v -> gradients of ⟨v, output⟩, how to give them back in structure, and this call's own nodes.
    """
    chosen = argnums if isinstance(argnums, tuple) else (argnums,)
    if any(not -len(args) <= i < len(args) for i in chosen):
        raise ValueError(f"argnums must name positional arguments of the {len(args)} given; got {argnums}.")
    chosen = tuple(i % len(args) for i in chosen)
    trees = [args[i] for i in chosen]
    own: set[autograd.Node] = set()
    outer, token = _scope.get(), _scope.set(own)
    try:
        with autograd.enable_grad(), autograd.decomposed():
            pairs = [_variable(leaf) for leaf in _leaves(trees)]
            variables, wanted = [tensor for tensor, _ in pairs], [node for _, node in pairs]
            given = list(args)
            for i, tree in zip(chosen, _rebuilt(trees, iter(variables)), strict=True):
                given[i] = tree
            out = f(*given, **kwargs)
    finally:
        _scope.reset(token)
    if outer is not None:
        outer |= own

    def pull(v):
        if out.node is None:
            found: list[Any] = [None] * len(wanted)
        else:
            with autograd.enable_grad(), autograd.decomposed():
                found = autograd.gradients(out.node, v, wanted, retain=True, as_tensor=wrap)
        return [wrap(np.zeros_like(t._data)) if g is None else g for g, t in zip(found, variables, strict=True)]

    def gather(found):
        trees_out = _rebuilt(trees, iter(_settled(found, own)))
        return tuple(trees_out) if isinstance(argnums, tuple) else trees_out[0]

    return _settled([out], own)[0], pull, gather, own


def _settled(results: list, own: set[autograd.Node]) -> list:
    """Take results off the tape where all they lead back to are this call's own variables, which nobody else holds."""
    nodes = [t.node for t in results if isinstance(t, Tensor) and t.node is not None]
    kept = autograd.leading_beyond(nodes, own)
    return [t.detach() if isinstance(t, Tensor) and t.node is not None and t.node not in kept else t for t in results]


_IDENTITY = Kernel("identity", "numpy", lambda x: (x, ()), lambda dy, saved, needs: (dy,), primitive=True)
