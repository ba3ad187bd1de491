"""What all optimizers share: groups of parameters, the step over them, and what a checkpoint holds of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar

import numpy as np

from .. import guard
from ..tensor import Tensor
from .checks import gradient, number
from .saved import load, save

Ready = tuple[np.ndarray, np.ndarray, dict[str, Any]]  # a parameter's array, its gradient, its state


class Optimizer(ABC):
    """An update rule and the parameters that it is applied to.

    ``params`` is, as in torch.optim, an iterable of Tensors, of (name, Tensor) pairs as ``model.named_parameters()``
    gives them, or of dicts {"params": one of these two, and any option of the rule that differs in this group}.
    Without names a parameter is called by its number, "0", "1", ...; names are what a checkpoint goes by.

    ``param_groups`` is a list of dicts: "params", "param_names" and every option.  Options may be changed between
    steps: ``group["lr"] = 1e-4``.  ``state[name]`` is what the rule remembers of a parameter from step to step, in the
    parameter's dtype; nothing before its first step.  Its arrays may be parts of one buffer for the whole group.

    ValueError for no parameters, one that does not require a gradient or was computed, a tensor or a name that occurs
    twice, an option that does not exist or is out of its range; TypeError for what is not a Tensor.
    """

    slots: ClassVar[dict[str, type]]  # what state[name] holds: np.ndarray of the parameter's shape, or int

    def __init__(self, params: Any, **defaults: Any):
        self._who = type(self).__name__
        self._defaults = self._checked(**defaults)
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[str, dict[str, Any]] = {}
        self._checked_arrays: dict[str, np.ndarray] = {}  # parameters that fitted their state when last looked at
        for group in self._as_groups(params):
            self.add_param_group(group)
        if not any(group["params"] for group in self.param_groups):
            raise ValueError(f"{self._who}: there must be a parameter to optimize, got an empty list.")

    @abstractmethod
    def _checked(self, **options: Any) -> dict[str, Any]:
        """Return all options, each in the type and range that it must have, or raise."""

    @abstractmethod
    def _update(self, ready: list[Ready], **options: Any) -> None:
        """Apply the rule in place to each parameter and its state; ``options`` are the group's, and grad_scale."""

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add {"params": ..., and any options that differ from the defaults}, as torch.optim does; copies the dict."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f'{self._who}: a group must be a dict with "params", got {group!r}.')
        options = {name: value for name, value in group.items() if name != "params"}
        self._refuse_unknown(options)
        names, tensors = self._named(group["params"])
        self.param_groups.append(
            {"params": tensors, "param_names": names, **self._checked(**(self._defaults | options))}
        )

    def step(self, grad_scale: float = 1.0) -> None:
        """Update every parameter in place from its ``grad``, multiplied by ``grad_scale``; skip those without one.

        Everything is checked before anything is written.  Raises ValueError or TypeError, naming the parameter, for a
        gradient that does not have the parameter's shape and dtype, a parameter that is read-only or has changed its
        shape or dtype since its first step, and for an option out of its range.  A parameter whose array is the one of
        the last step is not held against its state again.
        """
        grad_scale = number(self._who, "grad_scale", grad_scale)
        groups = [(list(self._gradients(group)), self._options(group)) for group in self.param_groups]
        for gradients, options in groups:
            ready = [(p._data, g, self.state.setdefault(name, {})) for name, p, g in gradients]
            if ready:
                guard.wrote(*[p for p, _, _ in ready])
                self._update(ready, grad_scale=grad_scale, **options)

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def state_dict(self, *, copy: bool = True) -> dict[str, np.ndarray | int | float]:
        """Return all that ``load_state_dict`` needs to go on bit for bit, as one flat dict.

        Arrays go by "exp_avg.<parameter>", "momentum_buffer.<parameter>" and the like: they fit in a safetensors file.
        All else is Python numbers, which JSON keeps exactly.  With copy=False the arrays are the optimizer's own, which
        the next step writes into: for a checkpoint that is written at once.
        """
        options = [self._options(group) for group in self.param_groups]
        return save(self._who, self.slots, self.param_groups, options, self.state, copy)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over the options and the state that ``state_dict`` of the same class gave for the same groups.

        The arrays are copied.  ValueError or TypeError, before anything is changed, when the class, the names of the
        parameters, their groups, shapes or dtypes are not those of this optimizer.
        """
        options, state = load(self._who, self.slots, self.param_groups, self._defaults, saved)
        checked = [self._checked(**one) for one in options]
        for group, new in zip(self.param_groups, checked, strict=True):
            group.update(new)
        self.state = state
        self._checked_arrays.clear()

    def __repr__(self) -> str:
        groups = []
        for group in self.param_groups:
            options = ", ".join(f"{name}={group[name]}" for name in self._defaults)
            groups.append(f"{len(group['params'])} parameters: {options}")
        return f"{self._who}({'; '.join(groups)})"

    def _as_groups(self, params: Any) -> list[Any]:
        if isinstance(params, (Tensor, Mapping, set, frozenset)):
            raise TypeError(
                f"{self._who}: params must be a list of Tensors, (name, Tensor) pairs or dicts, got a "
                f"{type(params).__name__}. Try [tensor], model.parameters() or [group]."
            )
        params = list(params)
        return params if params and isinstance(params[0], Mapping) else [{"params": params}]

    def _named(self, params: Any) -> tuple[list[str], list[Tensor]]:
        """Return the names and the tensors of a group, checked against those of the groups before."""
        if isinstance(params, (set, frozenset)):
            raise TypeError(f"{self._who}: params must be in an order that lasts, got a set. Use a list.")
        params = [params] if isinstance(params, Tensor) else list(params)
        known: dict[str, Tensor] = {}
        for group in self.param_groups:
            known |= zip(group["param_names"], group["params"], strict=True)
        owners = {id(p): name for name, p in known.items()}
        before = len(known)
        for item in params:
            pair = isinstance(item, tuple) and len(item) == 2
            name, p = item if pair else (str(len(known)), item)
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"{self._who}: parameters must be Tensors or (name, Tensor) pairs, got {item!r}. "
                    "Try model.parameters() or model.named_parameters()."
                )
            if not isinstance(name, str):
                raise TypeError(f"{self._who}: the name of a parameter must be a string, got {name!r}.")
            if not (p.requires_grad and p.is_leaf):
                what = "one computed from others" if p.requires_grad else "one that does not"
                raise ValueError(
                    f"{self._who}: parameter {name} must require a gradient and be made by hand, got {what}. "
                    "Set p.requires_grad = True, or leave it out."
                )
            if id(p) in owners:
                raise ValueError(
                    f"{self._who}: a tensor must be listed once, but {name} is {owners[id(p)]} again. "
                    "Are weights tied? Take each from model.parameters() once."
                )
            if name in known:
                raise ValueError(
                    f"{self._who}: names must differ, got {name} for two parameters. Name all of them or none."
                )
            known[name], owners[id(p)] = p, name
        return list(known)[before:], list(known.values())[before:]

    def _gradients(self, group: dict[str, Any]) -> Iterator[tuple[str, Tensor, np.ndarray]]:
        for name, p in zip(group["param_names"], group["params"], strict=True):
            if (g := gradient(self._who, name, p)) is None:
                continue
            array = p._data
            if not array.flags.writeable:
                raise ValueError(f"{self._who}: parameter {name} must be writable, got a read-only array. Copy it.")
            if array is not self._checked_arrays.get(name):
                self._check_state(name, array)
                self._checked_arrays[name] = array
            yield name, p, g

    def _check_state(self, name: str, array: np.ndarray) -> None:
        for kept in self.state.get(name, {}).values():
            if isinstance(kept, np.ndarray) and (kept.shape != array.shape or kept.dtype != array.dtype):
                raise ValueError(
                    f"{self._who}: parameter {name} must stay {kept.dtype} of shape {kept.shape} as at its first "
                    f"step, got {array.dtype} of shape {array.shape}. Make a new optimizer when parameters change."
                )

    def _options(self, group: dict[str, Any]) -> dict[str, Any]:
        """Return the group's options, which may have been changed by hand, checked anew."""
        options = {name: value for name, value in group.items() if name not in ("params", "param_names")}
        if options.keys() != self._defaults.keys():
            self._refuse_unknown(options)
            raise ValueError(
                f"{self._who}: a group must have every option, got no {min(self._defaults.keys() - options.keys())}."
            )
        return self._checked(**options)

    def _refuse_unknown(self, options: dict[str, Any]) -> None:
        for name in options:
            if name not in self._defaults:
                hint = "".join(f" Did you mean {match!r}?" for match in get_close_matches(str(name), self._defaults, 1))
                raise ValueError(
                    f"{self._who}: the options of a group are {', '.join(self._defaults)}, got {name!r}.{hint}"
                )
