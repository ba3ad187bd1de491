"""Many arrays for one call of a compiled loop: where each of them lies, and their numbers counted through.

A loop that is called once an array pays for the call, and for waking the threads, once an array.  Loops that take these
tables cut the numbers of all arrays together into chunks, which threads share evenly whatever the arrays' sizes.
"""

import numpy as np

FLOAT, DOUBLE = ord("f"), ord("d")  # the kinds, by the letters of dtype.char


def table(columns, written):  # k lists of n arrays -> (k + 1, n), (n + 1,), the columns
    """Return the places of the arrays, their starts, and the columns as they were laid out.

    Row i of every list belongs together: arrays of one size and dtype, float32 or float64.  ``written``: for each list,
    whether the loop writes into it.  A list that holds an array that is not C-contiguous is replaced by one of copies.

    places[j, i] is the address of array i in list j; the last row is the kind, FLOAT or DOUBLE.  starts[i] is how many
    numbers come before array i, and starts[n] how many there are.
    """
    n = len(columns[0])
    places = np.empty((len(columns) + 1, n), np.int64)
    starts = np.zeros(n + 1, np.int64)
    laid = []
    for j, arrays in enumerate(columns):
        if not _fits(arrays, written[j], j, places, starts):
            arrays = [np.ascontiguousarray(a) for a in arrays]
            if not _fits(arrays, written[j], j, places, starts):
                raise ValueError(
                    f"arrays of a list must be {n}, of float32 or float64, and have the size and dtype of those in the "
                    f"first list, {_described(columns[0])}; got {_described(columns[j])} in list {j}; where the loop "
                    "writes they must be writable"
                )
        laid.append(arrays)
    return places, starts, laid


def _fits(arrays, writable, j, places, starts):
    return len(arrays) == places.shape[1] and _LOCATE(arrays, writable, j == 0, places[j], starts, places[-1])


def _locate(arrays, writable, first, addresses, starts, kinds):
    """Write down the addresses; of the first list also starts and kinds.  False where an array does not fit."""
    for i, a in enumerate(arrays):
        kind = ord(a.dtype.char) if a.dtype.isnative else 0
        if first:
            starts[i + 1] = starts[i] + a.size
            kinds[i] = kind
        if kind not in (FLOAT, DOUBLE) or not a.flags.c_contiguous or (writable and not a.flags.writeable):
            return False
        if a.size != starts[i + 1] - starts[i] or kind != kinds[i]:
            return False
        addresses[i] = a.ctypes.data
    return True


def _described(arrays):
    return ", ".join(f"{a.dtype} {a.shape}" for a in arrays[:3]) + (", ..." if len(arrays) > 3 else "")


try:
    from .machine_cython import locate as _LOCATE
except ImportError:  # Numba runs without it
    _LOCATE = _locate
