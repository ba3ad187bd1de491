"""The base of everything with parameters: plain attributes, found by walking them in the order they were set."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import numpy as np

from .. import autograd
from ..tensor import Tensor


class Parameter(Tensor):
    """A Tensor that a module learns: it requires a gradient."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(data, requires_grad)


def parameter(array: np.ndarray) -> Parameter:
    """Box an array that the library has made itself as a parameter."""
    made = Parameter.__new__(Parameter)
    made._data, made.node = array, autograd.Node()
    return made


class Module:
    """A function with parameters: subclasses set attributes in ``__init__`` and define ``forward``.

    An attribute that is a Parameter, a Module, or a list of Modules is part of the module; its name is the name in
    ``state_dict``, as in a checkpoint.  Calling the module runs ``forward`` between its hooks.
    """

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__} defines no forward.")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hooks = self.__dict__.get("_hooks")
        return self.forward(*args, **kwargs) if not hooks else self._call_hooked(hooks, args, kwargs)

    # ---- what it is made of

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield (name, module) for each direct part; the parts of a list are named list.0, list.1, ..."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Module):
                yield from ((f"{name}.{i}", part) for i, part in enumerate(value))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield (dotted name, module) for this module, named "", and everything below it."""
        yield prefix, self
        for name, child in self.children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator["Module"]:
        return (module for _, module in self.named_modules())

    def named_parameters(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter); a shared one comes once, under its first name, unless told otherwise."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and not (remove_duplicate and id(value) in seen):
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def num_parameters(self) -> int:
        """Return how many numbers are learned; shared ones count once."""
        return sum(p.size for p in self.parameters())

    # ---- weights in and out

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return {name: array} of all parameters, shared ones once.  The arrays are the parameters' own, not copies."""
        return {name: p._data for name, p in self.named_parameters()}

    def load_state_dict(
        self, state: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> tuple[list[str], list[str]]:
        """Copy arrays into the parameters of the same names; return (missing names, unexpected names).

        With ``assign`` the parameters take the arrays themselves where their dtype is theirs: nothing is copied.
        Nothing is changed unless everything fits.  ``strict`` raises KeyError where a name is missing or unexpected.
        A shape that differs raises ValueError either way.  Arrays are cast to the parameters' dtype.
        """
        names = dict(self.named_parameters(remove_duplicate=False))
        first = {id(p): name for name, p in reversed(names.items())}
        given = {id(names[name]) for name in state if name in names}
        missing = [name for i, name in first.items() if i not in given][::-1]
        unexpected = [name for name in state if name not in names]
        if strict and (missing or unexpected):
            raise KeyError(self._name_mismatch(missing, unexpected, names))
        for name, array in state.items():
            if name in names and np.shape(array) != names[name].shape:
                raise ValueError(
                    f"load_state_dict: {name} must have shape {names[name].shape}, as in this "
                    f"{type(self).__name__}; got {np.shape(array)}. Was it saved with another configuration?"
                )
        for name, array in state.items():
            if name in names:
                p, value = names[name], array._data if isinstance(array, Tensor) else array
                if assign:
                    p._data = np.asarray(value, p.dtype)
                else:
                    p.writable()[...] = value
        return missing, unexpected

    def _name_mismatch(self, missing: list[str], unexpected: list[str], names: Mapping[str, Any]) -> str:
        parts = [f"load_state_dict: the names must be those of this {type(self).__name__}"]
        if missing:
            parts.append(f"missing {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''} ({len(missing)})")
        if unexpected:
            close = get_close_matches(unexpected[0], names, n=1)
            hint = f", is {unexpected[0]} meant to be {close[0]}?" if close else ""
            shown = f"{', '.join(unexpected[:5])}{', ...' if len(unexpected) > 5 else ''}"
            parts.append(f"unexpected {shown} ({len(unexpected)}){hint}")
        return "; ".join(parts) + ". strict=False loads what fits."

    # ---- how it behaves

    def train(self, mode: bool = True) -> "Module":
        """Switch dropout on, here and below; ``train(False)`` is ``eval()``.  Returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        return self.train(False)

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = None

    def requires_grad_(self, value: bool = True) -> "Module":
        """Learn all parameters below, or freeze them.  Returns the module."""
        for p in self.parameters():
            p.requires_grad = value
        return self

    def astype(self, dtype: Any) -> "Module":
        """Cast every floating-point parameter in place, dropping gradients.  Returns the module."""
        for p in self.parameters():
            p._data = p._data.astype(dtype)
            p.node = autograd.Node() if p.node is not None else None
        return self

    # ---- hooks

    def register_forward_pre_hook(self, hook: Callable[["Module", tuple], Any]) -> Callable[[], None]:
        """Call ``hook(module, args)`` before forward; what it returns, if not None, replaces the args."""
        return self._register("before", hook)

    def register_forward_hook(self, hook: Callable[["Module", tuple, Any], Any]) -> Callable[[], None]:
        """Call ``hook(module, args, output)`` after forward; what it returns, if not None, replaces the output."""
        return self._register("after", hook)

    def register_full_backward_pre_hook(self, hook: Callable[["Module", Any], Any]) -> Callable[[], None]:
        """Call ``hook(module, grad_output)`` before gradients enter; what it returns, if not None, replaces it."""
        return self._register("backward before", hook)

    def register_full_backward_hook(self, hook: Callable[["Module", tuple, Any], None]) -> Callable[[], None]:
        """Call ``hook(module, grad_inputs, grad_output)`` once the gradients of all inputs are known.

        The inputs are the Tensors among the positional arguments, None for one without a gradient; the output is one
        Tensor.  To change a gradient on its way use the pre-hook, or ``register_hook`` of a Tensor.
        """
        return self._register("backward", hook)

    def _register(self, kind: str, hook: Callable) -> Callable[[], None]:
        """Keep the hook; return a function that takes it away."""
        hooks = self.__dict__.setdefault("_hooks", {}).setdefault(kind, [])
        hooks.append(hook)
        return lambda: hooks.remove(hook) if hook in hooks else None

    def _call_hooked(self, hooks: dict[str, list[Callable]], args: tuple, kwargs: dict) -> Any:
        for hook in tuple(hooks.get("before", ())):
            if (changed := hook(self, args)) is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        watched = autograd.recording() and (hooks.get("backward") or hooks.get("backward before"))
        out = self._watched(hooks, args, kwargs) if watched else self.forward(*args, **kwargs)
        for hook in tuple(hooks.get("after", ())):
            if (changed := hook(self, args, out)) is not None:
                out = changed
        return out

    def _watched(self, hooks: dict[str, list[Callable]], args: tuple, kwargs: dict) -> Any:
        """Run forward on nodes of the inputs' own, so that other uses of the inputs do not count."""
        inner = [a.reshape(a.shape) if isinstance(a, Tensor) else a for a in args]
        inputs = [a for a in inner if isinstance(a, Tensor)]
        grads: list[Any] = [None] * (len(inputs) + 1)
        waiting = {i for i, t in enumerate(inputs) if t.requires_grad} | {len(inputs)}

        def arrived(i):
            def note(grad):
                grads[i] = grad
                waiting.discard(i)
                if not waiting:
                    for hook in tuple(hooks.get("backward", ())):
                        hook(self, tuple(grads[:-1]), grads[-1])

            return note

        out = self.forward(*inner, **kwargs)
        if isinstance(out, Tensor) and out.requires_grad:
            out = out.reshape(out.shape)
            for hook in tuple(hooks.get("backward before", ())):
                out.register_hook(lambda grad, hook=hook: hook(self, grad))
            out.register_hook(arrived(len(inputs)))
            for i, t in enumerate(inputs):
                if t.requires_grad:
                    t.register_hook(arrived(i))
        return out


@contextmanager
def swapped(module: Module, values: Mapping[str, Any]) -> Iterator[None]:
    """Run the body of a with-statement with other Tensors in place of the module's parameters of those names."""
    owners = {}
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, Parameter):
                owners[f"{prefix}.{name}" if prefix else name] = (part, name, value)
    if unknown := [name for name in values if name not in owners]:
        raise KeyError(f"functional_call: {unknown[0]} is no parameter of this {type(module).__name__}.")
    by_value: dict[int, list] = {}
    for part, name, value in owners.values():
        by_value.setdefault(id(value), []).append((part, name, value))
    places = [(place, new) for name, new in values.items() for place in by_value[id(owners[name][2])]]
    try:
        for (part, name, _), new in places:
            vars(part)[name] = new
        yield
    finally:
        for (part, name, old), _ in places:
            vars(part)[name] = old


def functional_call(module: Module, values: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``module`` with the Tensors ``values`` in place of its parameters, shared ones everywhere they are shared.

    With it a model is a function of its parameters, for ``minilm.grad`` and its siblings:
    ``grad(lambda p: functional_call(model, p, ids, labels=ids).loss)(dict(model.named_parameters()))``.
    """
    with swapped(module, values):
        return module(*args, **kwargs)
