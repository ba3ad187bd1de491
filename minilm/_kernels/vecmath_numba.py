"""Exponentials, tails of the normal distribution and sums of rows, for the loops of Numba.

libm's functions are calls, which LLVM does not vectorise.  In float32 these are the polynomials of vecmath.h, and every
special case is done on the bits; in float64 they are libm's, as there: double is for checking.  Errors in float32, in
units in the last place: exp and decay 1.02; normal_tail 4.6, beside that of its e.

Which of LLVM's liberties a loop gets:

    EXACT   "contract": a product and a sum may be one fused instruction, as in C
    SUM     also "reassoc", for loops that do nothing but add up: only so is a sum made in several lanes.  The lanes
            depend on the length of the row alone, so the bits are the same on any number of threads

Nothing assumes that numbers are finite.  Sums of float32 go into a double every ``PART`` numbers.  Numba's cache looks
at the file of the loop that was called, not at this one: after a change here, delete the cache.
"""

import math
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic, overload

EXACT: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}
SUM: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "reassoc"}}
BLOCK = 2048  # elements that one thread takes at a time, on any number of threads
PART = 1024


def exp(x):
    """e^x = 2^n e^r with n the integer nearest to x / ln 2; 2^n goes in as two factors, as in vecmath.h."""
    return math.exp(x)


def decay(x):
    """e^x for x <= 88.  In float32 it is 0 below e^-87: a hidden score of -inf must not cost what denormals do."""
    return math.exp(x)


def normal_tail(a, e):
    """The probability that a standard normal number is above a >= 0, given e = exp(-a²/2)."""
    return 0.5 * math.erfc(a * math.sqrt(0.5))


def largest(x):
    """The largest number of a row, which has one.

    It is found among the bits, read as integers that grow as the numbers do: those know no NaN, which would be in the
    way of a maximum in lanes.  A NaN in the row may be passed over: its exponential is NaN all the same.
    """
    return x.max()


@njit
def _bits(x):
    return np.float32(x).view(np.int32)


@njit
def _from_bits(bits):
    return np.int32(bits).view(np.float32)


@njit(**EXACT)
def _exp(x):
    bits, one, shift = _bits(x), np.int32(127), np.int32(23)
    size = np.int32(bits & np.int32(0x7FFFFFFF))  # Numba makes int64 of every sum of int32: half as many to a vector
    c = _from_bits(np.int32(min(size, np.int32(0x42D00000))) | (bits & np.int32(-0x80000000)))  # x held within ±104
    n = np.int32(np.rint(c * np.float32(1.44269504088896341)))
    half = n >> np.int32(1)
    r = (c - np.float32(n) * np.float32(0.693359375)) - np.float32(n) * np.float32(-2.12194440e-4)
    p = np.float32(0.0013820136664435267)
    p = p * r + np.float32(0.008368685841560364)
    p = p * r + np.float32(0.04166827350854874)
    p = p * r + np.float32(0.1666652113199234)
    p = p * r + np.float32(0.4999999403953552)
    p = p * (r * r) + r + np.float32(1)
    p = p * _from_bits((half + one) << shift) * _from_bits((n - half + one) << shift)
    return _from_bits(
        _bits(p) | (np.int32(np.int32(0x7F800000) - size) >> np.int32(31))
    )  # all bits set, where x is NaN


@njit(**EXACT)
def _decay(x):
    far = x * np.float32(1.44269504088896341) + np.float32(12582912)  # 1.5 2²³: n in its last bits
    n = far - np.float32(12582912)
    r = (x - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    p = np.float32(0.0013820136664435267)
    p = p * r + np.float32(0.008368685841560364)
    p = p * r + np.float32(0.04166827350854874)
    p = p * r + np.float32(0.1666652113199234)
    p = p * r + np.float32(0.4999999403953552)
    p = p * (r * r) + r + np.float32(1)
    p = p * _from_bits((_bits(far) << np.int32(23)) + np.int32(127 << 23))
    return np.float32(0) if x < np.float32(-87) else p


@njit(**EXACT)
def _normal_tail(a, e):
    a = min(a, np.float32(13.27))  # beyond it e is 0
    p, q = np.float32(0.004017623141407967), np.float32(0.010070543736219406)
    p = p * a + np.float32(0.03996676579117775)
    q = q * a + np.float32(0.10018923133611679)
    p = p * a + np.float32(0.18125492334365845)
    q = q * a + np.float32(0.4642435312271118)
    p = p * a + np.float32(0.43561598658561707)
    q = q * a + np.float32(1.1942683458328247)
    p = p * a + np.float32(0.5)
    q = q * a + np.float32(1.6691168546676636)
    return e * p / (q * a + np.float32(1))


@overload(exp)
def _exp_of(x):
    return (lambda x: _exp(x)) if x == types.float32 else (lambda x: math.exp(x))


@overload(decay)
def _decay_of(x):
    return (lambda x: _decay(x)) if x == types.float32 else (lambda x: math.exp(x))


@overload(normal_tail)
def _normal_tail_of(a, e):
    if a == types.float32:
        return lambda a, e: _normal_tail(a, e)
    return lambda a, e: 0.5 * math.erfc(a * 0.7071067811865476)


@overload(largest)
def _largest_of(x):
    real, integer, sign = (np.float32, np.int32, 31) if x.dtype == types.float32 else (np.float64, np.int64, 63)
    shift, size, least = integer(sign), integer(2**sign - 1), integer(-(2**sign))

    def of(x):
        bits, top = x.view(integer), least
        for i in range(len(bits)):
            top = max(top, bits[i] ^ ((bits[i] >> shift) & size))
        return integer(top ^ ((top >> shift) & size)).view(real)

    return of


@njit(**SUM)
def _part_of_total(x):
    sum = x.dtype.type(0)
    for i in range(len(x)):
        sum += x[i]
    return sum


@njit(**SUM)
def _part_of_dot(x, y):
    sum = x.dtype.type(0)
    for i in range(len(x)):
        sum += x[i] * y[i]
    return sum


@njit(**SUM)
def _part_of_exponentials(x, top):
    sum = x.dtype.type(0)
    for i in range(len(x)):
        sum += decay(x[i] - top)
    return sum


@njit
def total(x):
    """Σ x, a double."""
    sum = 0.0
    for i in range(0, len(x), PART):
        sum += _part_of_total(x[i : i + PART])
    return sum


@njit
def dot(x, y):
    """Σ x y, a double."""
    sum = 0.0
    for i in range(0, len(x), PART):
        sum += _part_of_dot(x[i : i + PART], y[i : i + PART])
    return sum


@njit
def exponentials(x, top):
    """Σ exp(x - top), a double; no x is above top."""
    sum = 0.0
    for i in range(0, len(x), PART):
        sum += _part_of_exponentials(x[i : i + PART], top)
    return sum


@intrinsic
def contiguous(typing, row):
    """Tell the compiler that a row lies without gaps, which the type of an array of any layout does not say."""

    def code(context, builder, signature, arguments):
        return impl_ret_borrowed(context, builder, signature.return_type, arguments[0])

    return row.copy(layout="C")(row), code
