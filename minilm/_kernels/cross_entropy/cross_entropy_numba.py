"""The loops of cross_entropy, for Numba.

The mathematics and the names are those of cross_entropy.py.  The gradient may be written over z.
"""

import numpy as np
from numba import boolean, float32, float64, int64, njit, prange, types, void

from ..vecmath_numba import EXACT, decay, exponentials, largest, total


def _read(kind, dimensions):
    return types.Array(kind, dimensions, "C", readonly=True)


def _forward(real):
    of = types.Tuple((float64, int64))
    return of(_read(real, 2), _read(int64, 1), int64, float64, real[::1], real[::1])


def _backward(real):
    return void(_read(real, 2), _read(int64, 1), _read(real, 1), _read(real, 1), int64, float64, real[:, ::1])


def _both(real):
    return void(real[:, ::1], _read(int64, 1), float64, float64, real[::1], boolean)


@njit(**EXACT)
def _forward_row(z, t, label_smoothing):
    real, top = z.dtype.type, largest(z)
    if top == -np.inf:
        top = real(0)
    sum = exponentials(z, top)
    L = real(top + np.log(sum if sum != 0 else 1.0))
    loss = L - (1 - label_smoothing) * z[t]
    return (loss - label_smoothing / len(z) * total(z) if label_smoothing != 0 else loss), L


@njit(**EXACT)
def _backward_row(z, t, L, w, label_smoothing, dz):
    real = z.dtype.type
    everywhere, hit = real(label_smoothing / len(z)), real(1 - label_smoothing)
    z_t = z[t]
    for c in range(len(z)):
        dz[c] = z[c]
    for c in range(len(z)):  # of one array: a loop that reads z is not vectorised where dz is written over z
        dz[c] = w * (decay(dz[c] - L) - everywhere)
    dz[t] = w * (decay(z_t - L) - hit - everywhere)


@njit([_forward(float32), _forward(float64)], parallel=True, cache=True, error_model="numpy")
def forward_rows(z, target, ignore_index, label_smoothing, loss, L):
    """Return the sum of the losses, taken in order, and how many rows count."""
    for i in prange(len(z)):
        if target[i] == ignore_index:
            loss[i] = L[i] = 0
        else:
            loss[i], L[i] = _forward_row(z[i], target[i], label_smoothing)
    total, counted = 0.0, 0
    for i in range(len(z)):
        total += loss[i]
        counted += target[i] != ignore_index
    return total, counted


@njit([_backward(float32), _backward(float64)], parallel=True, cache=True, error_model="numpy")
def backward_rows(z, target, L, w, ignore_index, label_smoothing, dz):
    """w has one number for each row, or one for all."""
    for i in prange(len(z)):
        if target[i] == ignore_index:
            dz[i] = 0
        else:
            _backward_row(z[i], target[i], L[i], w[i] if len(w) > 1 else w[0], label_smoothing, dz[i])


@njit([_both(float32), _both(float64)], parallel=True, cache=True, error_model="numpy")
def loss_and_gradient(z, target, label_smoothing, w, loss, gradient):
    """Write the loss of every row, all of which count, and with ``gradient`` w times its gradient over the row."""
    share = z.dtype.type(w)  # in the array's type, or the whole gradient would be computed in float64
    for i in prange(len(z)):
        loss[i], L = _forward_row(z[i], target[i], label_smoothing)
        if gradient:
            _backward_row(z[i], target[i], L, share, label_smoothing, z[i])
