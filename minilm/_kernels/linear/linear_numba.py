"""The one loop of linear, for Numba: the bias.  The product itself is BLAS's, see linear.py."""

from numba import njit, prange


@njit(parallel=True, cache=True, error_model="numpy")
def add_bias(y, b):
    for n in prange(y.shape[0]):
        for f in range(y.shape[1]):
            y[n, f] += b[f]
