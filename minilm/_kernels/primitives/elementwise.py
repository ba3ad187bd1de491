"""Functions of one number, or of two numbers with broadcasting."""

import math

import numpy as np

from ..special import erf as _erf
from .broadcasting import fit

# ---- of two arrays


def add_forward(a, b):
    return a + b, (a.shape, a.dtype, b.shape, b.dtype)


def add_backward(dy, saved, needs):
    a_shape, a_dtype, b_shape, b_dtype = saved
    return fit(dy, a_shape, a_dtype) if needs[0] else None, fit(dy, b_shape, b_dtype) if needs[1] else None


def subtract_forward(a, b):
    return a - b, (a.shape, a.dtype, b.shape, b.dtype)


def subtract_backward(dy, saved, needs):
    a_shape, a_dtype, b_shape, b_dtype = saved
    return fit(dy, a_shape, a_dtype) if needs[0] else None, fit(-dy, b_shape, b_dtype) if needs[1] else None


def multiply_forward(a, b):
    return a * b, (a, b)


def multiply_backward(dy, saved, needs):
    a, b = saved
    return (
        fit(dy * b, a.shape, a.dtype) if needs[0] else None,
        fit(dy * a, b.shape, b.dtype) if needs[1] else None,
    )


def divide_forward(a, b):
    return a / b, (a, b)


def divide_backward(dy, saved, needs):
    a, b = saved
    return (
        fit(dy / b, a.shape, a.dtype) if needs[0] else None,
        fit(-(dy / b) * (a / b), b.shape, b.dtype) if needs[1] else None,  # b² may not fit the dtype where b does
    )


def power_forward(a, b):
    return a**b, (a, b)


def power_backward(dy, saved, needs):  # d(aᵇ)/da = b aᵇ⁻¹, which is 0 where b is 0, even at a = 0
    a, b = saved
    one = np.ones((), dy.dtype)  # of the wider dtype, in which b - 1 and log a are taken
    da = db = None
    if needs[0]:
        da = fit(dy * b * a ** np.where(b == 0, one, b - one), a.shape, a.dtype)
    if needs[1]:  # d(aᵇ)/db = aᵇ log a, taken as 0 at a = 0; where a < 0 there is no real derivative
        db = fit(dy * a**b * np.log(np.where(a != 0, a, one)), b.shape, b.dtype)
    return da, db


def maximum_forward(a, b):
    return np.maximum(a, b), (a, b)


def maximum_backward(dy, saved, needs):  # a tie gives half to each
    return _pick(dy, *saved, np.greater, needs)


def minimum_forward(a, b):
    return np.minimum(a, b), (a, b)


def minimum_backward(dy, saved, needs):
    return _pick(dy, *saved, np.less, needs)


def _pick(dy, a, b, wins, needs):
    first = (wins(a, b) + 0.5 * (a == b)).astype(dy.dtype)
    return (
        fit(dy * first, a.shape, a.dtype) if needs[0] else None,
        fit(dy * (1 - first), b.shape, b.dtype) if needs[1] else None,
    )


def remainder_forward(a, b):
    return np.remainder(a, b), (a, b)


def remainder_backward(dy, saved, needs):  # a - b ⌊a / b⌋
    a, b = saved
    return (
        fit(dy, a.shape, a.dtype) if needs[0] else None,
        fit(-dy * np.floor_divide(a, b), b.shape, b.dtype) if needs[1] else None,
    )


def hypot_forward(a, b):
    y = np.hypot(a, b)
    return y, (a, b, y)


def hypot_backward(dy, saved, needs):
    a, b, y = saved
    return (
        fit(dy * (a / y), a.shape, a.dtype) if needs[0] else None,
        fit(dy * (b / y), b.shape, b.dtype) if needs[1] else None,
    )


def arctan2_forward(a, b):
    return np.arctan2(a, b), (a, b)


def arctan2_backward(dy, saved, needs):
    a, b = saved
    r = np.hypot(a, b)
    g = dy / r
    return (
        fit(g * (b / r), a.shape, a.dtype) if needs[0] else None,
        fit(-g * (a / r), b.shape, b.dtype) if needs[1] else None,
    )


def logaddexp_forward(a, b):
    y = np.logaddexp(a, b)
    return y, (a, b, y)


def logaddexp_backward(dy, saved, needs):
    a, b, y = saved
    return (
        fit(dy * np.exp(a - y), a.shape, a.dtype) if needs[0] else None,
        fit(dy * np.exp(b - y), b.shape, b.dtype) if needs[1] else None,
    )


def where_forward(a, b, *, condition):
    return np.where(condition, a, b), (condition, a.shape, a.dtype, b.shape, b.dtype)


def where_backward(dy, saved, needs):
    condition, a_shape, a_dtype, b_shape, b_dtype = saved
    zero = np.zeros((), dy.dtype)
    return (
        fit(np.where(condition, dy, zero), a_shape, a_dtype) if needs[0] else None,
        fit(np.where(condition, zero, dy), b_shape, b_dtype) if needs[1] else None,
    )


# ---- of one array


def negative_forward(x):
    return -x, ()


def negative_backward(dy, saved, needs):
    return (-dy,)


def absolute_forward(x):
    return np.absolute(x), (x,)


def absolute_backward(dy, saved, needs):  # 0 at 0
    (x,) = saved
    return (dy * np.sign(x),)


def square_forward(x):
    return np.square(x), (x,)


def square_backward(dy, saved, needs):
    (x,) = saved
    return (2 * dy * x,)


def sqrt_forward(x):
    y = np.sqrt(x)
    return y, (y,)


def sqrt_backward(dy, saved, needs):
    (y,) = saved
    return (0.5 * dy / y,)


def reciprocal_forward(x):
    y = np.reciprocal(x)
    return y, (y,)


def reciprocal_backward(dy, saved, needs):
    (y,) = saved
    return (-dy * y * y,)


def exp_forward(x):
    y = np.exp(x)
    return y, (y,)


def exp_backward(dy, saved, needs):
    (y,) = saved
    return (dy * y,)


def exp2_forward(x):
    y = np.exp2(x)
    return y, (y,)


def exp2_backward(dy, saved, needs):
    (y,) = saved
    return (dy * y * math.log(2),)


def expm1_forward(x):
    y = np.expm1(x)
    return y, (y,)


def expm1_backward(dy, saved, needs):
    (y,) = saved
    return (dy * (y + 1),)


def log_forward(x):
    return np.log(x), (x,)


def log_backward(dy, saved, needs):
    (x,) = saved
    return (dy / x,)


def log2_forward(x):
    return np.log2(x), (x,)


def log2_backward(dy, saved, needs):
    (x,) = saved
    return (dy / (x * math.log(2)),)


def log10_forward(x):
    return np.log10(x), (x,)


def log10_backward(dy, saved, needs):
    (x,) = saved
    return (dy / (x * math.log(10)),)


def log1p_forward(x):
    return np.log1p(x), (x,)


def log1p_backward(dy, saved, needs):
    (x,) = saved
    return (dy / (1 + x),)


def sin_forward(x):
    return np.sin(x), (x,)


def sin_backward(dy, saved, needs):
    (x,) = saved
    return (dy * np.cos(x),)


def cos_forward(x):
    return np.cos(x), (x,)


def cos_backward(dy, saved, needs):
    (x,) = saved
    return (-dy * np.sin(x),)


def tan_forward(x):
    y = np.tan(x)
    return y, (y,)


def tan_backward(dy, saved, needs):
    (y,) = saved
    return (dy * (1 + y * y),)


def arctan_forward(x):
    return np.arctan(x), (x,)


def arctan_backward(dy, saved, needs):
    (x,) = saved
    return (dy / (1 + x * x),)


def arcsin_forward(x):
    return np.arcsin(x), (x,)


def arcsin_backward(dy, saved, needs):
    (x,) = saved
    return (dy / np.sqrt((1 - x) * (1 + x)),)


def arccos_forward(x):
    return np.arccos(x), (x,)


def arccos_backward(dy, saved, needs):
    (x,) = saved
    return (-dy / np.sqrt((1 - x) * (1 + x)),)


def sinh_forward(x):
    return np.sinh(x), (x,)


def sinh_backward(dy, saved, needs):
    (x,) = saved
    return (dy * np.cosh(x),)


def cosh_forward(x):
    return np.cosh(x), (x,)


def cosh_backward(dy, saved, needs):
    (x,) = saved
    return (dy * np.sinh(x),)


def tanh_forward(x):
    y = np.tanh(x)
    return y, (y,)


def tanh_backward(dy, saved, needs):
    (y,) = saved
    return (dy * (1 - y * y),)


def arcsinh_forward(x):
    return np.arcsinh(x), (x,)


def arcsinh_backward(dy, saved, needs):
    (x,) = saved
    return (dy / np.sqrt(x * x + 1),)


def arccosh_forward(x):
    return np.arccosh(x), (x,)


def arccosh_backward(dy, saved, needs):
    (x,) = saved
    return (dy / np.sqrt((x - 1) * (x + 1)),)


def arctanh_forward(x):
    return np.arctanh(x), (x,)


def arctanh_backward(dy, saved, needs):
    (x,) = saved
    return (dy / ((1 - x) * (1 + x)),)


def erf_forward(x):
    return _erf(x), (x,)


def erf_backward(dy, saved, needs):
    (x,) = saved
    return (dy * (2 / math.sqrt(math.pi)) * np.exp(-x * x),)


def clip_forward(x, *, low, high):  # bounds are constants that broadcast to x
    return np.clip(x, low, high), (x, low, high)


def clip_backward(dy, saved, needs):  # as in PyTorch: at a bound the gradient passes
    x, low, high = saved
    inside = True if low is None else x >= low
    inside = inside & (True if high is None else x <= high)
    return (fit(np.where(inside, dy, np.zeros((), dy.dtype)), x.shape, x.dtype),)


def astype_forward(x, *, dtype):
    return x.astype(dtype), (x.dtype,)


def astype_backward(dy, saved, needs):
    return (dy.astype(saved[0]),)
