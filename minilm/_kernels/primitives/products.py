"""Matrix products and Einstein sums."""

import math
from itertools import chain

import numpy as np

from .broadcasting import fit

# y = a @ b, over any leading batch axes; a vector is a row on the left, a column on the right


def matmul_forward(a, b):
    return a @ b, (a, b)


def matmul_backward(dy, saved, needs):
    a, b = saved
    da = db = None
    A = a.reshape(1, -1) if a.ndim == 1 else a  # (..., T, C)
    B = b.reshape(-1, 1) if b.ndim == 1 else b  # (..., C, F)
    if a.ndim == 1 or b.ndim == 1:
        batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
        dy = dy.reshape(*batch, A.shape[-2], B.shape[-1])
    if needs[0]:
        dA = dy @ B.swapaxes(-1, -2)
        da = fit(dA, A.shape, a.dtype).reshape(a.shape)
    if needs[1]:
        if B.ndim == 2 and A.ndim > 2:  # one product over all rows, not one per batch entry and a sum
            N = math.prod(A.shape[:-1])
            dB = A.reshape(N, A.shape[-1]).swapaxes(0, 1) @ dy.reshape(N, dy.shape[-1])
        else:
            dB = A.swapaxes(-1, -2) @ dy
        db = fit(dB, B.shape, b.dtype).reshape(b.shape)
    return da, db


# y = einsum(subscripts, x₁, x₂, ...): the gradient of xᵢ is the einsum of dy with the other operands


def einsum_forward(*operands, subscripts):
    return np.einsum(subscripts, *operands, optimize=len(operands) > 1), (*operands, subscripts)


def einsum_backward(dy, saved, needs):
    *operands, subscripts = saved
    inputs, output = spell_out(subscripts, [x.ndim for x in operands])
    return tuple(_einsum_gradient(i, dy, operands, inputs, output) if need else None for i, need in enumerate(needs))


def _einsum_gradient(i, dy, operands, inputs, output):
    x, labels = operands[i], inputs[i]
    terms = [(dy, output)] + [(y, inputs[j]) for j, y in enumerate(operands) if j != i]
    # A letter that stands twice in this operand reads a diagonal: the second gets its own letter, tied by a 1-matrix.
    target, spare = "", iter(letter for letter in _LETTERS if letter not in set(chain(output, *inputs)))
    for n, label in zip(x.shape, labels, strict=True):
        if label in target:
            other = next(spare)
            terms.append((np.eye(n, dtype=x.dtype), label + other))
            label = other
        target += label
    # A letter that stands nowhere else was summed over: every entry along it receives the same; so was a broadcast 1.
    known = set(chain(*(labels for _, labels in terms)))
    kept = "".join(label for label in target if label in known)
    grad = np.einsum(",".join(labels for _, labels in terms) + "->" + kept, *(t for t, _ in terms), optimize=True)
    lengths = {label: n for t, labels in terms for n, label in zip(t.shape, labels, strict=True) if n != 1}
    full = tuple(lengths.get(label, n) if label in known else n for n, label in zip(x.shape, target, strict=True))
    if kept != target:
        grad = grad.reshape(tuple(n if label in known else 1 for n, label in zip(full, target, strict=True)))
        grad = np.broadcast_to(grad, full)
    return fit(grad, x.shape, x.dtype)


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def spell_out(subscripts, ndims):
    """Return the letters of each operand and of the output, with "..." and an implied output written out.

    >>> spell_out("...ij,jk", [3, 2])
    (['aij', 'jk'], 'aik')
    """
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = left.split(",")
    free = [letter for letter in _LETTERS if letter not in subscripts]
    widest = max((n - len(t) + 3 for t, n in zip(inputs, ndims, strict=True) if "..." in t), default=0)
    dots = "".join(free[:widest])
    if not arrow:
        seen = "".join(inputs).replace("...", "")
        output = "..." + "".join(sorted(letter for letter in set(seen) if seen.count(letter) == 1))
    spelled = [
        t.replace("...", dots[widest - (n - len(t) + 3) :]) if "..." in t else t
        for t, n in zip(inputs, ndims, strict=True)
    ]
    return spelled, output.replace("...", dots)
