import numpy as np
import pytest

from minilm.config import ModelConfig
from minilm.data import Bigram, DataError, Windows, fixed_windows
from minilm.optim import global_norm
from minilm.tasks import causal_lm

SHAPE = ModelConfig(n_layer=2, n_head=2, n_embd=8, bias=True)
TOKENS = np.random.default_rng(0).integers(11, size=500).astype(np.uint16)


def model(shape=SHAPE, dtype=np.float32):
    return causal_lm.build(shape, 11, 6, None, np.random.default_rng(1)).astype(dtype)


def gradients(model):
    found = {name: p.grad.copy() for name, p in model.named_parameters()}
    model.zero_grad()
    return found


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_accumulation_is_one_big_batch(parts, dtype, rtol):
    one = model(dtype=dtype)
    batch = next(Windows(TOKENS, 6, 6, seed=0))
    loss = causal_lm.accumulate(one, batch, 1)
    norm = global_norm(one.parameters())
    whole = gradients(one)
    assert causal_lm.accumulate(one, batch, parts) == pytest.approx(loss, rel=rtol)
    for name, gradient in gradients(one).items():
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient, whole[name], rtol=0, atol=rtol * norm, err_msg=name)


def test_the_loss_is_that_of_every_target():
    one = model()
    inputs, targets = next(Windows(TOKENS, 6, 3, seed=0))
    logits = one(inputs).logits.data.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_p, targets[..., None], -1).mean()
    assert causal_lm.loss(one, inputs, targets).item() == pytest.approx(expected, rel=1e-5)


def test_evaluation_weighs_by_targets_and_draws_no_dropout():
    one = model(ModelConfig(n_layer=2, n_head=2, n_embd=8, dropout=0.5))
    batches = list(fixed_windows(TOKENS, 6, 4, 3, seed=0))
    uneven = [batches[0], tuple(part[:1, :2] for part in batches[1])]
    before = one.rng.bit_generator.state
    assert causal_lm.evaluate(one, batches) == causal_lm.evaluate(one, batches)
    assert one.rng.bit_generator.state == before
    assert one.training
    one.eval()
    sums = [causal_lm.loss(one, *batch).item() * batch[1].size for batch in uneven]
    assert causal_lm.evaluate(one, uneven) == pytest.approx(sum(sums) / (24 + 2))


@pytest.mark.parametrize(("limit", "targets"), [(0, 99), (40, 40), (3, 3), (1000, 99)])
def test_final_losses_are_of_the_same_targets(monkeypatch, limit, targets):
    train, validation = TOKENS[:400], TOKENS[400:]
    seen = []

    def evaluate(_, batches):
        seen.extend(np.concatenate([targets.ravel() for _, targets in batches]))
        return 1.5

    monkeypatch.setattr(causal_lm, "evaluate", evaluate)
    losses = causal_lm.final_losses(model(), train, validation, 6, limit)
    np.testing.assert_array_equal(seen, validation[1 : targets + 1])
    assert losses == (1.5, Bigram(train, 11).loss(validation[: targets + 1]))


def test_ids_outside_the_vocabulary():
    causal_lm.check_ids(TOKENS, 11)
    with pytest.raises(DataError, match=r"token ids must lie in \[0, 10\); got 10; was it encoded"):
        causal_lm.check_ids(TOKENS, 10)


def test_weights_have_the_names_of_the_published_checkpoint():
    names = set(model().state_dict())
    of_block = {"ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"}
    expected = {f"transformer.h.{i}.{part}.{kind}" for i in (0, 1) for part in of_block for kind in ("weight", "bias")}
    expected |= {f"transformer.{name}" for name in ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")}
    assert names == expected  # lm_head.weight is wte.weight: not stored twice
