"""Add a gradient to the one that is there, in place; or keep the first one, as a copy.

    to ← to + r x        to ← r x, where there is none

The weight r is 1 unless it is given.  This is what a leaf of the tape does when several gradients reach it, in one
backward or in one after another.  The compiled form does it on all threads, which a long array needs to be as fast as
the memory: NumPy adds and copies on one.
Why every order gives the same bits: accumulate.md.
"""

import numpy as np


def accumulate(to, x, r=1):  # of one shape -> to, or a new array
    rx = x if r == 1 else x * x.dtype.type(r)
    if to is None:
        return np.array(rx)
    to += rx
    return to


def accumulate_compiled(loops):
    """Wrap the compiled ``loops``, which take arrays of one dtype in C order; the reference does the rest."""

    def update(to, x, r=1):
        if x.dtype.char not in "fd" or not x.flags.c_contiguous:
            return accumulate(to, x, r)
        if to is None:
            to = np.empty(x.shape, x.dtype)
            loops.scale(to, x, r)
        elif to.dtype == x.dtype and to.shape == x.shape and to.flags.c_contiguous:
            loops.add(to, x, r)
        else:
            accumulate(to, x, r)
        return to

    return update
