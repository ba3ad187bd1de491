"""The ops that NumPy already does well: forward and backward, side by side.

These have no compiled siblings.  ``dy`` is the gradient arriving at the output; each backward returns one gradient
per array input.  The name of a primitive is the name of NumPy's function where NumPy has one.

A primitive's backward can itself be differentiated: the tape runs it on Tensors instead of arrays.  For this it is
written in operations that are primitives too, and ``saved`` holds only inputs, the output and static values, so that
the tape can put the Tensor in place of the array that was saved.
"""

from types import ModuleType

from ..registry import Kernel
from . import elementwise, indexing, products, reductions, shapes


def _table(*modules: ModuleType) -> dict[str, Kernel]:
    """Pair every foo_forward of the modules with its foo_backward."""
    table = {}
    for module in modules:
        functions = vars(module)
        for name in functions:
            if name.endswith("_forward"):
                op = name.removesuffix("_forward")
                table[op] = Kernel(op, "numpy", functions[name], functions[f"{op}_backward"], primitive=True)
    return table


PRIMITIVES = _table(elementwise, reductions, shapes, indexing, products)
