"""The box around an array and its node on the tape, and ``apply``, which runs a kernel on boxes."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from .. import autograd, guard
from .._kernels import registry
from .._kernels.primitives import PRIMITIVES
from .._kernels.registry import Kernel
from .operators import Operators


class Tensor(Operators):
    """An array and, when it is to be differentiated, its node on the tape.

    ``data`` is anything that numpy.asarray takes; an array is shared, not copied.  Only floating-point tensors can
    require a gradient.  NumPy's functions work on tensors and are recorded.

    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> np.exp(x).sum().backward()
    >>> x.grad
    array([ 2.71828183,  7.3890561 , 20.08553692])
    """

    __slots__ = ("__weakref__", "_data", "node")
    _data: np.ndarray
    node: autograd.Node | None

    def __init__(self, data: Any, requires_grad: bool = False):
        if isinstance(data, Tensor):
            raise TypeError("Tensor: data must be an array, got a Tensor. Use it as it is, or take x.detach().")
        self._data = np.asarray(data)
        if self._data.dtype.hasobject:
            raise TypeError(f"Tensor: data must be numbers, got {data!r}. Nested lists must have equal lengths.")
        if self._data is data or self._data.base is not None:  # the caller holds this memory too
            guard.expose(self._data, given=True)
        self.node = None
        if requires_grad:
            self.requires_grad = True

    # ---- what it holds

    @property
    def data(self) -> np.ndarray:
        """The array itself, not a copy.  Writing into it after an op has saved it is caught at backward."""
        return guard.expose(self._data)

    @data.setter
    def data(self, array: Any) -> None:
        self._data = guard.expose(np.asarray(array))

    def numpy(self) -> np.ndarray:
        """Return the array itself, not a copy; the same as ``data``."""
        return self.data

    def writable(self) -> np.ndarray:
        """Return the array for writing in place, and let the tape know: an op that saved it refuses its backward."""
        guard.wrote(self._data)
        return self._data

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    def item(self) -> float | int | bool:
        """Return the only number of a tensor of size 1.  ValueError for any other size."""
        return self._data.item()

    def tolist(self) -> Any:
        return self._data.tolist()

    # ---- the tape

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this tensor.  Set it on tensors that were made by hand, not computed."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.node is not None and self.node.kernel is not None:
            raise RuntimeError(f"requires_grad: this tensor was computed by {self.node.kernel.op}; use x.detach().")
        if value and self._data.dtype.kind != "f":
            raise TypeError(
                f"requires_grad: only floating-point tensors have gradients, got {self._data.dtype}. "
                "Cast first: Tensor(x.astype(np.float32), requires_grad=True)."
            )
        if bool(value) != (self.node is not None):
            self.node = autograd.Node() if value else None

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was made by hand rather than computed on the tape."""
        return self.node is None or self.node.kernel is None

    @property
    def grad(self) -> Any:
        """The gradient gathered by ``backward``: an array of this tensor's shape and dtype, or None."""
        return self.node and self.node.grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if self.node is None:
            if value is None:
                return
            raise RuntimeError("grad: this tensor does not require a gradient.")
        if value is not None and np.shape(value) != self.shape:
            raise ValueError(f"grad: the shape must be that of the tensor, {self.shape}, got {np.shape(value)}.")
        self.node.grad = value if value is None or isinstance(value, Tensor) else np.asarray(value, self.dtype)

    def detach(self) -> "Tensor":
        """Return a tensor that shares this array and has no past."""
        return wrap(self._data)

    def backward(self, dy: Any = None, *, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Add to ``.grad`` of every leaf the gradient of ⟨dy, self⟩.

        ``dy`` has this tensor's shape and defaults to 1 for a single number.  ``retain_graph`` keeps what was saved
        for a second call.  ``create_graph`` makes the gradients Tensors on the tape; the forward pass must have run
        under ``minilm.decomposed()``.  RuntimeError where nothing requires a gradient, or a saved array was written to;
        no ``.grad`` is touched then.  Interrupted, or out of memory, it may leave a ``.grad`` that was there with a
        part of the new one added: set it to None before going on.
        """
        if self.node is None:
            raise RuntimeError("backward: nothing here requires a gradient. Was this computed under no_grad()?")
        if dy is None:
            if self.size != 1:
                raise ValueError(f"backward: a tensor of shape {self.shape} needs dy. Did you mean .sum().backward()?")
            dy = np.ones_like(self._data)
        dy = dy._data if isinstance(dy, Tensor) and not create_graph else dy
        if np.shape(dy) != self.shape:
            raise ValueError(f"backward: dy must have the tensor's shape {self.shape}, got {np.shape(dy)}.")
        if create_graph:
            dy = dy if isinstance(dy, Tensor) else wrap(np.asarray(dy, self.dtype))
            with autograd.decomposed():
                autograd.backward(self.node, dy, retain=True, as_tensor=wrap)
        else:
            autograd.backward(self.node, np.asarray(dy, self.dtype), retain=retain_graph)

    def register_hook(self, hook: Callable[[Any], Any]) -> Callable[[], None]:
        """Call ``hook(gradient)`` when this tensor's gradient is known; what it returns, if not None, replaces it.

        Returns a function that takes the hook away again.
        """
        if self.node is None:
            raise RuntimeError("register_hook: this tensor does not require a gradient.")
        hooks = self.node.hooks = self.node.hooks if self.node.hooks is not None else {}
        key = max(hooks, default=0) + 1
        hooks[key] = hook
        return lambda: void(hooks.pop(key, None))

    def retain_grad(self) -> None:
        """Keep this tensor's gradient in ``.grad`` although it was computed."""
        if self.node is None or self.node.kernel is None:
            return
        node = weakref.ref(self.node)  # a node that its own hook holds would outlive its graph

        def keep(grad: Any) -> None:
            if (held := node()) is not None:
                grad = grad if isinstance(grad, Tensor) else np.array(grad)
                held.grad = grad if held.grad is None else held.grad + grad

        if self.node.hooks is None:
            self.node.hooks = {}
        self.node.hooks[_KEEP] = keep

    # ---- NumPy's protocols

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.node is not None and autograd.recording():
            raise TypeError(
                "a Tensor on the tape cannot become an array: the gradient would be lost without a word. "
                "Use x.detach() or x.data, or work under minilm.no_grad()."
            )
        return np.array(self._data, dtype=dtype, copy=copy) if dtype is not None or copy else self.data

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from . import numpy_protocol

        return numpy_protocol.call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        from . import numpy_protocol

        return numpy_protocol.call_function(function, args, kwargs)

    # ---- Python's protocols

    def __repr__(self) -> str:
        text = np.array2string(self._data, separator=", ", prefix="Tensor(")
        dtype = "" if self.dtype in (np.float64, np.int64, np.bool_) else f", dtype={self.dtype}"
        return f"Tensor({text}{dtype}{', requires_grad=True' if self.node else ''})"

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator["Tensor"]:
        if not self.ndim:
            raise TypeError("a Tensor without axes has nothing to iterate over")
        return iter(primitive("unstack", self))

    def __bool__(self) -> bool:
        return bool(self._data)

    def __float__(self) -> float:
        return float(self._data)

    def __int__(self) -> int:
        return int(self._data)

    def __index__(self) -> int:
        return self._data.__index__()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self._data, self.node is not None)

    def __deepcopy__(self, memo: dict) -> "Tensor":
        return memo.setdefault(id(self), _rebuild(type(self), self._data.copy(), self.node is not None))

    def __setitem__(self, index: Any, value: Any) -> None:
        if autograd.recording() and (self.node is not None or getattr(value, "node", None) is not None):
            raise RuntimeError(
                "x[...] = value on the tape has no derivative. Build the result with np.where or np.concatenate, "
                "or write under minilm.no_grad()."
            )
        self.writable()[plain_index(index)] = value._data if isinstance(value, Tensor) else value


def apply(kernel: Kernel, *inputs: Tensor | None, **static: Any) -> Any:
    """Run ``kernel`` on the inputs' arrays, and put it on the tape if any input is on it.  None stays None.

    Returns a Tensor, or a tuple of them for an op of several outputs.
    """
    arrays: list[Any] = []
    parents: list[autograd.Node | None] = []
    for t in inputs:  # one loop: twice as fast as two comprehensions
        if t is None:
            arrays.append(None)
            parents.append(None)
        else:
            arrays.append(t._data)
            parents.append(t.node)
    if not (autograd.recording() and any(parents)):
        out, node = kernel.forward(*arrays, **static)[0], None
    elif not autograd.is_decomposed():
        out, saved = kernel.forward(*arrays, **static)
        node = autograd.Node(kernel, tuple(parents), saved)
    elif not kernel.primitive:
        return _in_parts(kernel.op, inputs, static)
    else:
        # One object per input, so that ``places`` can tell x from x in x * x.
        arrays = [None if a is None else a.view() for a in arrays]
        out, saved = kernel.forward(*arrays, **static)
        node = autograd.Node(kernel, tuple(parents), saved)
        node.places = tuple(_place(s, arrays, out) for s in saved)
    return _boxed(out, node) if type(out) is tuple else wrap(np.asarray(out), node)


def _boxed(out: tuple, node: autograd.Node | None) -> tuple[Tensor, ...]:
    """Box the outputs of an op that has several."""
    n = len(out)
    return tuple([wrap(np.asarray(a), node and autograd.Part(node, i, n)) for i, a in enumerate(out)])


def _in_parts(op: str, inputs: tuple[Tensor | None, ...], static: dict) -> Any:
    """Run the reference of ``op`` on Tensors, so that the tape records the primitives it is written in."""
    given = [t if t is None or t.dtype.kind == "f" else t._data for t in inputs]
    return registry.load(op, "numpy").forward(*given, **static)[0]


def _place(saved: Any, arrays: list, out: Any) -> int | None:
    if not isinstance(saved, (np.ndarray, np.generic)):
        return None
    return next((i for i, a in enumerate(arrays) if a is saved), autograd.OUTPUT if saved is out else None)


def wrap(array: np.ndarray, node: autograd.Node | None = None) -> Tensor:
    """Box an array that the library itself has made."""
    tensor = Tensor.__new__(Tensor)
    tensor._data = array
    tensor.node = node
    return tensor


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """Return ``value`` if it is a Tensor, else box it; a Python number takes the dtype that NumPy would give it.

    >>> as_tensor(2, like=Tensor(np.ones(1, np.float32))).dtype
    dtype('float32')
    """
    if isinstance(value, Tensor):
        return value
    if like is not None and type(value) in (bool, int, float):  # np.float64 is a float too, but keeps its dtype
        dtype = like._data.dtype
        return wrap(np.asarray(value, dtype if dtype.kind == "f" else np.result_type(dtype, value)))
    tensor = Tensor(value)
    if tensor.dtype.kind not in "biuf":
        raise TypeError(f"expected a Tensor, an array or a number, got {value!r}.")
    return tensor


def plain_index(index: Any) -> Any:
    """Return an index expression with arrays in place of Tensors; lists become arrays, as NumPy reads them."""
    if isinstance(index, tuple):
        return tuple(plain_index(part) for part in index)
    if isinstance(index, Tensor):
        return index._data
    if isinstance(index, list):
        array = np.asarray(index)
        return array if array.size else array.astype(np.intp)
    return index


def primitive(name: str, *inputs: Any, **static: Any) -> Any:
    """Apply a primitive by its name to Tensors, arrays and numbers."""
    like = next((t for t in inputs if isinstance(t, Tensor)), None)
    return apply(PRIMITIVES[name], *(as_tensor(t, like) for t in inputs), **static)


_KEEP = 0  # the key of the hook that retain_grad sets; others count from 1


def void(_: object) -> None:
    return None


def _rebuild(cls: type, array: np.ndarray, requires_grad: bool) -> Tensor:
    tensor: Tensor = cls.__new__(cls)  # type: ignore[call-overload]
    tensor._data, tensor.node = array, autograd.Node() if requires_grad else None
    return tensor


def unsupported(what: str) -> NoReturn:
    raise TypeError(
        f"{what} is not recorded on Tensors. Use a function that is (arithmetic, np.exp, np.sum, np.where, ...; see "
        "minilm/tensor/numpy_protocol.py), or x.detach() or x.data where no gradient is needed."
    )
