"""Undo broadcasting, in one place."""


def fit(grad, shape, dtype=None):
    """Sum ``grad`` down to ``shape``, the adjoint of broadcasting, and cast it to ``dtype``, that of promotion."""
    if grad.shape != shape:
        lead = grad.ndim - len(shape)
        axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and grad.shape[lead + i] != 1)
        if axes:
            grad = grad.sum(axis=axes, keepdims=True)
        grad = grad.reshape(shape)
    return grad if dtype is None or grad.dtype == dtype else grad.astype(dtype)
