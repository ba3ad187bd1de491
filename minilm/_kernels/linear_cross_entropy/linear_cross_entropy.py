"""The loss of a language model from its last hidden states: the head's product and its cross-entropy in one op.

With x of N rows and C columns, the head's matrix W (V, C), kept as in torch.nn.Linear, and a target t for every row:

    z = x Wᵀ + b        loss = cross_entropy(z, t)

Backward, with dz as in cross_entropy.py:

    dx = dz W        dW = dzᵀ x        db = Σ_rows dz

The N V logits are most of the memory of a training step, and need not exist: a row's loss and dz depend on that row
alone, so the compiled form goes through chunks of at most ``rows`` rows, whose logits become dz in place, in one
buffer.  ``gradients`` says which of dx, dW, db will be asked for: they are then made while a chunk's logits are there,
for a loss whose gradient is 1, and the backward only scales them.  A row whose target is ``ignore_index`` is left out.
Saves the inputs and those gradients.
Derivation, and why the logits are not computed twice: linear_cross_entropy.md.
"""

import numpy as np

from ..accumulate.accumulate import accumulate_compiled
from ..cross_entropy.cross_entropy import cross_entropy_backward, cross_entropy_forward
from ..linear.linear import linear_backward, linear_forward, product_of

LINE = 64  # bytes, of the caches
LOOPS = "cross_entropy", "linear", "accumulate"  # the ops whose loops these are


def linear_cross_entropy_forward(  # (N, C), (V, C), (V,), (N,) -> ()
    x, w, b, target, *, ignore_index, label_smoothing, reduction, rows, gradients
):
    z, of_linear = linear_forward(x, w, b, transposed=True)  # (N, V)
    loss = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "reduction": reduction}
    out, of_loss = cross_entropy_forward(z, target, **loss)
    return out, (*of_linear, *of_loss)


def linear_cross_entropy_backward(dloss, saved, needs):
    dz, _ = cross_entropy_backward(dloss, saved[3:], (True, False))
    return *linear_backward(dz, saved[:3], needs[:3]), None


def linear_cross_entropy_compiled(loops, loops_of_linear, loops_of_accumulate):
    """Wrap the ``loops`` of these ops: a chunk's logits are a product, which become its loss and gradient in place."""
    product, accumulate = product_of(loops_of_linear), accumulate_compiled(loops_of_accumulate)

    def walk(x, w, b, target, ignore_index, label_smoothing, reduction, rows, needs):
        """Return the loss, and of its gradients in x, w and b those that are needed."""
        counts = target != ignore_index
        every = bool(counts.all())
        t = np.ascontiguousarray(target if every else target[counts], np.int64)
        x = x if every else x[counts]
        (N, C), V = x.shape, len(w)
        share = 1 / max(N, 1) if reduction == "mean" else 1.0
        loss = np.empty(N, x.dtype)
        dx = np.empty((N, C), x.dtype) if needs[0] else None
        dw = (np.empty if N else np.zeros)((V, C), x.dtype) if needs[1] else None
        db = np.zeros(V, x.dtype) if needs[2] else None
        chunk = max(1, -(-N // max(1, -(-N // rows))))  # rows, or fewer, so that no chunk is a small rest
        # Rows begin with a line of the cache, so that the product may write past it whole lines.
        apart = -(-V * x.itemsize // LINE) * LINE // x.itemsize if loops_of_linear.GEMM else V
        logits = np.empty((min(chunk, N), apart), x.dtype)[:, :V]
        for start in range(0, N, chunk):
            part = slice(start, start + chunk)
            z = logits[: len(t[part])]
            product(x[part], w.T, z, b)
            loops.loss_and_gradient(z, t[part], label_smoothing, share, loss[part], any(needs))  # z is dz now
            if dx is not None:
                product(z, w, dx[part])
            if dw is not None:
                product(z.T, x[part], dw, add=start > 0)
            if db is not None:
                db += np.ones(len(z), z.dtype) @ z
        if dx is not None and not every:
            whole = np.zeros((len(target), C), x.dtype)
            whole[counts] = dx
            dx = whole
        return loss.sum() * share, (dx, dw, db)

    def forward(x, w, b, target, *, ignore_index, label_smoothing, reduction, rows, gradients):
        given = (x, w, b, target, ignore_index, label_smoothing, reduction, rows)
        out, made = walk(*given, gradients)
        return out, (*given, [made])

    def backward(dloss, saved, needs, into=(None,) * 4):
        *given, made = saved
        # They are given away, scaled in place: another pass through a graph that was retained makes them anew.
        grads = made.pop() if made else (None, None, None)
        if any(need and g is None for need, g in zip(needs[:3], grads, strict=True)):
            _, grads = walk(*given, needs[:3])
        grads = [g if need else None for need, g in zip(needs[:3], grads, strict=True)]
        for i, (g, there) in enumerate(zip(grads, into, strict=False)):
            if g is not None and there is not None:
                grads[i] = accumulate(there, g, dloss)
            elif g is not None and dloss != 1:
                loops_of_accumulate.scale(g, g, dloss)
        return *grads, None

    return forward, backward
