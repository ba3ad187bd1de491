"""Arrays from the addresses of places.py, for the loops of Numba."""

from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from .places import FLOAT as FLOAT


@intrinsic
def _pointer(typing_context, address):
    def as_pointer(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), as_pointer


@njit(cache=True)
def numbers(address, first, size, dtype):
    """Return the ``size`` numbers from number ``first`` of the array at ``address``."""
    return carray(_pointer(address), (first + size,), dtype)[first:]
