"""The loops of linear, for Numba: the bias and its gradient.  The products themselves are BLAS's, see linear.py."""

from numba import njit, prange


@njit(parallel=True, cache=True, error_model="numpy")
def add_bias(y, b):
    for n in prange(y.shape[0]):
        for f in range(y.shape[1]):
            y[n, f] += b[f]


@njit(parallel=True, cache=True, error_model="numpy")
def sum_rows(dy, db):
    """Add to each row of db the rows of one chunk of dy."""
    N, chunks = len(dy), len(db)
    for k in prange(chunks):
        for n in range(k * N // chunks, (k + 1) * N // chunks):
            for f in range(dy.shape[1]):
                db[k, f] += dy[n, f]
