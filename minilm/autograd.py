"""Reverse-mode differentiation: the tape, and the walk back along it.

A Node remembers one application of a kernel.  The walk visits nodes from the output to the leaves, hands each the
gradient of its output, and passes what it returns to its parents.  Nothing here knows what a Tensor is: a gradient is
whatever ``dy`` is, an array or, when the walk itself is to be recorded, a Tensor.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from operator import attrgetter
from typing import Any

import numpy as np

from . import guard
from ._kernels import registry
from ._kernels.registry import Kernel

LITTLE = 1 << 16  # numbers that are added before a second thread would have begun

_numbers = count()
_recording = ContextVar("minilm_recording", default=True)
_decomposed = ContextVar("minilm_decomposed", default=False)
recording = _recording.get  # () -> whether operations are being put on the tape
is_decomposed = _decomposed.get  # () -> whether ops are recorded in their parts


class Node:
    """One kernel call on the tape, or, with no kernel, a leaf where gradients gather."""

    __slots__ = ("__weakref__", "grad", "hooks", "kernel", "number", "parents", "places", "saved", "seal")

    def __init__(self, kernel: Kernel | None = None, parents: tuple["Node | None", ...] = (), saved: Any = ()):
        self.kernel, self.parents, self.saved = kernel, parents, saved
        self.number = next(_numbers)  # greater than those of its parents
        self.grad: Any = None  # leaves only
        self.hooks: dict[int, Callable] | None = None
        self.places: tuple[int | None, ...] | None = None  # which input each saved array is; OUTPUT; None: static
        self.seal = guard.seal(saved)


class Part(Node):
    """One output of an op that has several.  Its only parent is the op's own node, which waits for all of them."""

    __slots__ = ("count", "place")

    def __init__(self, whole: Node, place: int, count: int):
        self.kernel, self.parents, self.saved = whole.kernel, (whole,), ()  # as in Node, which would seal what is saved
        self.number, self.seal = next(_numbers), whole.seal
        self.grad = self.hooks = self.places = None
        self.place, self.count = place, count


OUTPUT = -1  # in Node.places: the saved array is the op's own output


def backward(root: Node, dy: Any, *, retain: bool = False, as_tensor: Callable | None = None) -> None:
    """Add to ``leaf.grad`` the gradient of ⟨dy, root's output⟩, for every leaf under ``root``.

    ``retain`` keeps what was saved for another walk.  ``as_tensor(array, node)``, when given, makes the walk itself
    differentiable: saved arrays become Tensors again.  Raises RuntimeError, naming the op, where an op's arrays were
    freed by an earlier walk or written to since they were saved; no ``leaf.grad`` is touched then.  A walk that is
    interrupted, or runs out of memory, may leave those that were there with a part of theirs added.
    """
    for leaf, grad, owned in _walk(root, dy, (), retain, as_tensor):
        if grad is leaf.grad:  # was added to on the way
            continue
        if as_tensor is not None:
            leaf.grad = grad if leaf.grad is None else leaf.grad + grad
        elif leaf.grad is None:
            leaf.grad = np.asarray(grad) if owned else _gathered(None, np.asarray(grad))  # two may be handed one array
        elif isinstance(leaf.grad, np.ndarray) and leaf.grad.flags.writeable:
            leaf.grad = _gathered(leaf.grad, grad)
        else:
            leaf.grad = leaf.grad + grad


def gradients(root: Node, dy: Any, wanted: Sequence[Node], *, retain: bool, as_tensor: Callable | None) -> list[Any]:
    """Return the gradient of ⟨dy, root's output⟩ with respect to each ``wanted`` node, None where there is no path.

    No leaf's ``grad`` is touched.
    """
    found = {node: grad for node, grad, _ in _walk(root, dy, wanted, retain, as_tensor)}
    return [found.get(node) for node in wanted]


def _walk(root, dy, wanted, retain, as_tensor) -> Iterator[tuple[Node, Any, bool]]:
    """Yield (node, gradient, does nobody else hold this array) for the wanted nodes, or for every leaf."""
    stop, useful = frozenset(wanted), None
    order = _outputs_first(root, stop)
    if wanted:  # ops that lead to none of the wanted are not walked through
        useful = set(wanted)
        for node in reversed(order):
            if any(parent in useful for parent in node.parents):
                useful.add(node)
    owned: set[Node] = set() if wanted or as_tensor is not None else _growing(order, dy)
    grads: dict[Any, Any] = {leaf: leaf.grad for leaf in owned}
    grads[root], given = dy, [dy]  # given: arrays of others, which nobody may keep
    for node in order:
        if (grad := grads.pop(node, None)) is None:  # nothing came down this path
            continue
        if node.hooks:
            for hook in tuple(node.hooks.values()):
                if (changed := hook(grad)) is not None:
                    grad = _replaced(grad, changed, as_tensor)
                    owned.discard(node)
                    given.append(grad)
        kernel, parents = node.kernel, node.parents
        if kernel is None or (stop and node in stop):
            if node in stop or not stop:
                yield node, grad, node in owned or _last(grad, grads, given)
            continue
        if type(node) is Part:
            grads.setdefault(parents[0], [None] * node.count)[node.place] = grad
            continue
        saved = _saved(node, kernel, as_tensor)
        if not retain:
            node.saved = _FREED
        if useful is None:
            needs = tuple([p is not None for p in parents])
        else:
            needs = tuple([p is not None and p in useful for p in parents])
        if kernel.adds and as_tensor is None and not owned.isdisjoint(parents):
            into = tuple([grads[p] if p in owned else None for p in parents])
            parts = kernel.backward(grad, saved, needs, into)
        else:
            parts = kernel.backward(grad, saved, needs)
        for parent, part in zip(parents, parts, strict=True):
            if part is None or parent is None or (useful is not None and parent not in useful):
                continue
            held = grads.get(parent)
            if held is not None and parent in owned:
                if part is not held:  # which the op has added it to
                    grads[parent] = _gathered(held, part)
                continue
            # A backward may hand on its dy, a view of it, or one array twice; anything else is ours to write into.
            ours = type(part) is np.ndarray and part.base is None and part is not grad and _once(part, parts, grad)
            if held is None:
                grads[parent] = part
            elif ours and type(held) is np.ndarray and held.dtype == part.dtype:
                grads[parent] = _gathered(part, held)
            else:
                grads[parent] = held + part
                ours = isinstance(grads[parent], np.ndarray)  # NumPy's sum of numbers without axes is not
            if ours:
                owned.add(parent)


def _growing(order: list[Node], dy: Any) -> set[Node]:
    """Return the leaves under a root whose gradients the walk adds to on its way; else it does so in the end.

    On the way, nothing is held twice, and a product adds to the gradient that is there.  In the end, if something may
    fail before it (what was saved is no more, hooks run a user's code), or may read the gradient (dy, an op that was
    given it, a hook of the leaf).
    """
    found = set()
    for leaf in order:
        if leaf.kernel is not None or leaf.grad is None:
            continue
        grad = leaf.grad
        if not (isinstance(grad, np.ndarray) and grad.flags.writeable) or guard.is_exposed(grad):
            continue
        if not np.may_share_memory(grad, dy):
            found.add(leaf)
    if found and all(not node.hooks and _is_whole(node) for node in order):
        return found
    return set()


def _is_whole(node: Node) -> bool:
    return node.saved is not _FREED and guard.broken(node.saved, node.seal) is None


def _gathered(to: np.ndarray | None, grad: Any) -> np.ndarray:
    """Return ``to``, with ``grad`` added, or a copy of ``grad`` where there is none."""
    if grad.size >= LITTLE:
        return registry.kernel("accumulate").forward(to, grad)
    if to is None:
        return np.array(grad)
    to += grad
    return to


def _once(part: Any, parts: Sequence, grad: Any) -> bool:
    """Whether ``part`` is one of ``parts`` alone, and none of the gradients of an op of several outputs."""
    if len(parts) > 1:
        times = 0
        for p in parts:
            times += p is part
        if times > 1:
            return False
    return type(grad) is not list or all(part is not g for g in grad)


def _last(grad: Any, grads: dict, given: list) -> bool:
    """Whether ``grad``, which several were handed, waits for nobody else: who gets it last may keep it."""
    if type(grad) is not np.ndarray or grad.base is not None or any(g is grad for g in given):
        return False
    return not any(any(g is grad for g in held) if type(held) is list else held is grad for held in grads.values())


def _replaced(grad: Any, changed: Any, as_tensor: Callable | None) -> Any:
    """Return what a hook gave in place of ``grad``, as an array of the same dtype unless the walk is recorded."""
    if np.shape(changed) != np.shape(grad):
        raise ValueError(
            f"hook: it must return a gradient of shape {np.shape(grad)}, or None; got {np.shape(changed)}."
        )
    return changed if as_tensor is not None else np.asarray(changed, grad.dtype)


def _saved(node: Node, kernel: Kernel, as_tensor: Callable | None) -> tuple:
    saved = node.saved
    if saved is _FREED:
        raise RuntimeError(
            f"backward through {kernel.op} a second time: its saved arrays were freed by the first. "
            "Run the forward pass again, sum the losses and call backward once, or pass retain_graph=True."
        )
    if (array := guard.broken(saved, node.seal)) is not None:
        raise RuntimeError(
            f"{kernel.op}: its backward needs an array of shape {array.shape} and dtype {array.dtype} as it was in the "
            "forward pass, but it was written to since. Write into a copy, or call backward first."
        )
    if as_tensor is None:
        return saved
    if node.places is None:
        raise RuntimeError(
            f"{kernel.op}: a derivative of a derivative needs the op recorded in its parts. Use minilm.grad and its "
            "siblings, or run the forward pass under minilm.decomposed()."
        )
    return tuple(
        saved if place is None else as_tensor(saved, node if place == OUTPUT else node.parents[place])
        for saved, place in zip(node.saved, node.places, strict=True)
    )


def _outputs_first(root: Node, stop: frozenset[Node]) -> list[Node]:
    """Return every node from ``root`` to the leaves, or to ``stop``, after all the nodes that use it.

    Without recursion: graphs may be deeper than Python's stack.
    """
    found = {root}
    order = [root]
    for node in order:  # which grows meanwhile
        if stop and node in stop:
            continue
        for parent in node.parents:
            if parent is not None and parent not in found:
                found.add(parent)
                order.append(parent)
    order.sort(key=attrgetter("number"), reverse=True)
    return order


def leading_beyond(roots: Iterable[Node], own: set[Node]) -> set[Node]:
    """Return the nodes under ``roots`` from which a path leads to a leaf that is not in ``own``."""
    users: dict[Node, list[Node]] = {root: [] for root in roots}
    stack, beyond = list(users), []
    while stack:
        node = stack.pop()
        if node.kernel is None and node not in own:
            beyond.append(node)
        for parent in node.parents:
            if parent is None:
                continue
            if parent not in users:
                users[parent] = []
                stack.append(parent)
            users[parent].append(node)
    found = set(beyond)
    while beyond:
        for user in users[beyond.pop()]:
            if user not in found:
                found.add(user)
                beyond.append(user)
    return found


@contextmanager
def no_grad() -> Iterator[None]:
    """Run the body of a with-statement without a tape: nothing is saved, nothing can be differentiated."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def enable_grad() -> Iterator[None]:
    """Run the body of a with-statement with the tape on, inside a ``no_grad``."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def decomposed(on: bool = True) -> Iterator[None]:
    """Record every op as the primitives its reference is written in, so that it has derivatives of any order."""
    token = _decomposed.set(on)
    try:
        yield
    finally:
        _decomposed.reset(token)


_FREED = object()
