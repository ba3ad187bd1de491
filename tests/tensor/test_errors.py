"""What is said when a call does not fit: the op by name, what must hold, what was got."""

import numpy as np
import pytest

import minilm
from minilm import Tensor

X = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
I = Tensor(np.arange(3))
A = np.ones(4)

CALLS = {
    "add": (lambda: X + A, ValueError, r"^add: shapes must be equal, or 1.*got \(2, 3\) and \(4,\)"),
    "radd": (lambda: A + X, ValueError, r"^add: .*got \(4,\) and \(2, 3\)"),
    "np.add": (lambda: np.add(X, A), ValueError, r"^add: .*got \(2, 3\) and \(4,\)"),
    "less": (lambda: X < A, ValueError, r"^less: .*got \(2, 3\) and \(4,\)"),
    "hypot": (lambda: np.hypot(X, A), ValueError, r"^hypot: .*got \(2, 3\) and \(4,\)"),
    "where": (lambda: np.where(A > 0, X, 0.0), ValueError, r"^where: .*got \(4,\) and \(2, 3\) and \(\)"),
    "clip": (lambda: np.clip(X, A, None), ValueError, r"^clip: the bounds must broadcast.*\(2, 3\), \(4,\)"),
    "power": (lambda: I**-1, ValueError, "^power: Integers to negative integer powers"),
    "matmul": (lambda: X @ X, ValueError, r"^matmul: the last axis.*got \(2, 3\) and \(2, 3\)"),
    "np.matmul": (lambda: np.matmul(X, A), ValueError, r"^matmul: .*got \(2, 3\) and \(4,\)"),
    "matmul of a number": (lambda: X @ 2, ValueError, r"^matmul: .*got \(2, 3\) and \(\)"),
    "einsum": (lambda: np.einsum("ij,jk", X, X), ValueError, r"^einsum: 'ij,jk' must fit.*got \(2, 3\), \(2, 3\)"),
    "einsum of too many": (lambda: np.einsum("ij,j", X), ValueError, r"^einsum: 'ij,j' must fit"),
    "tensordot": (lambda: np.tensordot(X, X, 1), ValueError, r"^tensordot: .*equally long.*\(2, 3\) and \(2, 3\)"),
    "dot": (lambda: np.dot(X, A), ValueError, r"^matmul: .*got \(2, 3\) and \(4,\)"),
    "reshape": (lambda: X.reshape(4), ValueError, r"^reshape: .*hold 6 entries as \(2, 3\) does; got \(4,\)"),
    "np.reshape": (lambda: np.reshape(X, (-1, 4)), ValueError, r"^reshape: .*got \(-1, 4\)"),
    "transpose": (lambda: X.transpose(2, 0), IndexError, r"^transpose: axis must lie in \[-2, 2\).*got 2"),
    "transpose of some": (lambda: X.transpose(0), ValueError, r"^transpose: .*each of the 2 axes once; got \(0,\)"),
    "transpose twice": (lambda: X.transpose(0, 0), ValueError, "^transpose: an axis may be named once"),
    "swapaxes": (lambda: X.swapaxes(0, 2), IndexError, "^swapaxes: axis must lie"),
    "squeeze": (lambda: X.squeeze(0), ValueError, r"^squeeze: .*length 1; got axis 0 of shape \(2, 3\)"),
    "expand_dims": (lambda: np.expand_dims(X, 4), IndexError, r"^expand_dims: .*\[-3, 3\); got 4"),
    "broadcast_to": (lambda: np.broadcast_to(X, (3, 3)), ValueError, r"^broadcast_to: \(2, 3\) must.*got \(3, 3\)"),
    "moveaxis": (lambda: np.moveaxis(X, 0, 5), IndexError, "^moveaxis: axis must lie"),
    "moveaxis of two to one": (lambda: np.moveaxis(X, (0, 1), 0), ValueError, "^moveaxis: as many places"),
    "flip": (lambda: np.flip(X, 3), IndexError, "^flip: axis must lie"),
    "sum": (lambda: X.sum(axis=2), IndexError, r"^sum: axis must lie in \[-2, 2\) for shape \(2, 3\); got 2"),
    "np.mean": (lambda: np.mean(X, (0, -3)), IndexError, "^mean: axis must lie.*got -3"),
    "sum over one axis twice": (lambda: X.sum((0, -2)), ValueError, r"^sum: an axis may be named once; got \(0, -2\)"),
    "sum over a word": (lambda: X.sum("rows"), TypeError, "^sum: an axis must be an integer; got 'rows'"),
    "cumsum": (lambda: np.cumsum(X, 2), IndexError, "^cumsum: axis must lie"),
    "max of nothing": (lambda: X[:0].max(0), ValueError, r"^max: .*at least one entry.*got shape \(0, 3\), axis 0"),
    "np.min of nothing": (lambda: np.min(X[:0]), ValueError, "^min: .*at least one entry"),
    "concatenate": (lambda: np.concatenate([X, X.T]), ValueError, r"^concatenate: .*axis 0; got \(2, 3\), \(3, 2\)"),
    "concatenate of vectors": (lambda: np.concatenate([X, I], 1), ValueError, r"^concatenate: .*got \(2, 3\), \(3,\)"),
    "concatenate along": (lambda: np.concatenate([X, X], 2), IndexError, "^concatenate: axis must lie"),
    "concatenate of numbers": (lambda: np.concatenate([X.sum()]), IndexError, "^concatenate: axis must lie"),
    "vstack": (lambda: np.vstack([X, A]), ValueError, r"^concatenate: .*got \(2, 3\), \(1, 4\)"),
    "stack": (lambda: np.stack([X, I]), ValueError, r"^stack: shapes must be equal; got \(2, 3\), \(3,\)"),
    "stack along": (lambda: np.stack([X, X], 4), IndexError, r"^stack: a new axis must lie in \[-3, 2\]; got 4"),
    "split": (lambda: np.split(X, 2, 1), ValueError, "^split: axis 1 of length 3 must divide into 2.*array_split"),
    "split along": (lambda: np.split(X, 2, 2), IndexError, "^split: axis must lie"),
    "take": (lambda: np.take(X, 0, 2), IndexError, "^take: axis must lie"),
    "take_along_axis": (lambda: np.take_along_axis(X, np.array([0]), 1), ValueError, "^take_along_axis: as many axes"),
    "index too large": (lambda: X[2], IndexError, r"^index of a tensor of shape \(2, 3\): index 2 is out of bounds"),
    "indices too many": (lambda: X[0, 0, 0], IndexError, r"^index of a tensor of shape \(2, 3\): too many"),
    "index of an array": (lambda: X[np.array([0, 7])], IndexError, r"^index of a tensor of shape \(2, 3\): index 7"),
    "mask of another shape": (
        lambda: X[np.ones(3, bool)],
        IndexError,
        r"^index of a tensor of shape \(2, 3\): boolean",
    ),
    "index that is no index": (lambda: X[1.0], IndexError, r"^index of a tensor of shape \(2, 3\): only integers"),
    "unfit indices": (
        lambda: X[[0, 1], [0, 1, 2]],
        IndexError,
        r"^index of a tensor of shape \(2, 3\): shape mismatch",
    ),
    "write on the tape": (lambda: X.__setitem__(0, 1.0), RuntimeError, r"np\.where.*minilm\.no_grad"),
    "a word": (lambda: X + "a", TypeError, "expected a Tensor, an array or a number, got 'a'"),
    "nothing": (lambda: X * None, TypeError, "got None"),
    "a complex number": (lambda: X * 1j, TypeError, "got 1j"),
    "unknown function": (lambda: np.interp(X, A, A), TypeError, r"^np\.interp is not recorded.*x\.detach\(\)"),
    "unknown ufunc": (lambda: np.spacing(X), TypeError, r"^np\.spacing is not recorded"),
    "out": (lambda: np.exp(X, out=A), TypeError, r"^np\.exp with out is not recorded"),
    "dtype": (lambda: np.sum(X, 0, np.float32), TypeError, r"^np\.sum with dtype is not recorded"),
    "where in a sum": (lambda: np.sum(X, where=True), TypeError, r"^np\.sum with where is not recorded"),
    "order": (lambda: np.reshape(X, 6, order="F"), TypeError, r"^np\.reshape with order is not recorded"),
    "outer": (lambda: np.multiply.outer(X, X), TypeError, r"^np\.multiply\.outer is not recorded"),
    "reduce": (lambda: np.divide.reduce(X), TypeError, r"^np\.divide\.reduce is not recorded"),
    "norm": (lambda: np.linalg.norm(X, 2), TypeError, r"^np\.linalg\.norm with ord=2 over 2 axes is not recorded"),
    "pad": (lambda: np.pad(X, 1, mode="reflect"), TypeError, r"^np\.pad with mode='reflect' is not recorded"),
    "average": (
        lambda: np.average(X, 0, np.ones(3)),
        ValueError,
        r"^average: weights must fit.*got \(3,\) and \(2, 3\)",
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("parts", [False, True], ids=["", "in parts"])
def test_an_error_names_the_op_and_what_it_got(name, parts):
    call, error, words = CALLS[name]
    with pytest.raises(error, match=words), minilm.decomposed(parts):
        call()


def test_an_axis_error_is_numpys():
    with pytest.raises(np.exceptions.AxisError):
        X.sum(axis=3)
