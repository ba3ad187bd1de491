"""Heads: split, split out of one product, and merged again, against NumPy; and what does not fit."""

import numpy as np
import pytest

from minilm import Tensor
from minilm.nn import merge_heads, split_fused_heads, split_heads

B, T, H, D = 2, 3, 4, 5


def given(width):
    return np.random.default_rng(0).standard_normal((B, T, width))


def test_heads_are_split_and_merged():
    x = given(H * D)
    heads = split_heads(Tensor(x), H)
    np.testing.assert_array_equal(heads.data, np.stack(np.split(x, H, axis=-1), axis=1))
    np.testing.assert_array_equal(merge_heads(heads).data, x)


@pytest.mark.parametrize("by_head", [False, True])
def test_queries_keys_and_values_are_split_out_of_one_product(by_head):
    x = given(3 * H * D)
    columns = np.arange(3 * H * D).reshape((H, 3, D) if by_head else (3, H, D))
    parts = split_fused_heads(Tensor(x), H, by_head=by_head)
    for i, part in enumerate(parts):
        for h in range(H):
            np.testing.assert_array_equal(part.data[:, h], x[..., columns[h, i] if by_head else columns[i, h]])
        assert np.shares_memory(part.data, x)


@pytest.mark.parametrize("by_head", [False, True])
def test_gradients_of_the_parts_come_back_where_they_belong(by_head):
    x = Tensor(given(3 * H * D), requires_grad=True)
    weights = np.random.default_rng(1).standard_normal((3, B, H, T, D))
    q, _, v = split_fused_heads(x, H, by_head=by_head)
    (merge_heads(q * weights[0]).sum() + (v * weights[2]).sum()).backward()  # nobody used the keys
    weights[1] = 0
    order = (1, 3, 2, 0, 4) if by_head else (1, 3, 0, 2, 4)
    np.testing.assert_array_equal(x.grad, weights.transpose(order).reshape(x.shape))


def test_heads_that_do_not_divide_the_width_are_refused():
    for call in (
        lambda: split_heads(Tensor(given(10)), 4),
        lambda: split_heads(Tensor(given(10)), 0),
        lambda: split_fused_heads(Tensor(given(10)), 5),
    ):
        with pytest.raises(ValueError, match=r"^split.*last axis must be a multiple of (4|0|15); got 10"):
            call()
