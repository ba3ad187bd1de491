"""Learning rates against nanoGPT's and transformers' formulas, written down here, the latter run by PyTorch."""

import math

import pytest
import torch

from minilm.optim import schedules

T = 40


def by_pytorch(lr, factor, steps):
    """The learning rates of torch's LambdaLR for steps 0, 1, ..."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def ramp(then, w):
    """transformers' warm-up: lr grows from 0 at step 0 to its full size at step w."""
    return lambda step: step / max(1, w) if step < w else then(step)


@pytest.mark.parametrize("w", [0, 1, 7])
def test_transformers_constant(w):
    rate = schedules.constant(3e-4, warmup=w, from_zero=True)
    assert [rate(t) for t in range(T)] == by_pytorch(3e-4, ramp(lambda t: 1.0, w), T)


@pytest.mark.parametrize("w", [0, 1, 7, 30])
def test_transformers_linear(w):
    rate = schedules.linear(3e-4, steps=30, warmup=w, from_zero=True)
    assert [rate(t) for t in range(T)] == by_pytorch(3e-4, ramp(lambda t: max(0.0, (30 - t) / max(1, 30 - w)), w), T)


@pytest.mark.parametrize("w", [0, 1, 7, 30])
def test_transformers_cosine(w):
    def half_a_wave(t, cycles=0.5):
        progress = (t - w) / max(1, 30 - w)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * progress)))

    rate = schedules.cosine(3e-4, steps=30, warmup=w, from_zero=True)
    expected = by_pytorch(3e-4, ramp(half_a_wave, w), T)
    last = 30 if w < 30 else 29  # with steps = w theirs is still at its top there, ours at its end
    assert [rate(t) for t in range(last + 1)] == expected[: last + 1]
    assert [rate(t) for t in range(30, T)] == [0.0] * 10


@pytest.mark.parametrize(("w", "timescale"), [(0, None), (1, None), (7, None), (7, 100), (0, 5)])
def test_transformers_inverse_sqrt(w, timescale):
    s = timescale or w or 10_000
    rate = schedules.inverse_sqrt(3e-4, warmup=w, timescale=timescale, from_zero=True)
    expected = by_pytorch(3e-4, ramp(lambda t: 1.0 / math.sqrt((t + (s - w)) / s), w), T)
    assert [rate(t) for t in range(T)] == expected


def test_the_first_transformer():
    d_model, w = 512, 4000
    rate = schedules.inverse_sqrt(1 / math.sqrt(d_model * w), warmup=w, from_zero=True)
    for t in (1, 100, 3999, 4000, 4001, 100_000):
        assert rate(t) == pytest.approx(d_model**-0.5 * min(t**-0.5, t * w**-1.5), rel=1e-14)


@pytest.mark.parametrize(("w", "min_lr"), [(0, 0.0), (1, 6e-5), (7, 6e-5), (29, 1e-3)])
def test_nanogpt(w, min_lr):
    learning_rate, decay = 1e-3, 30

    def get_lr(it):
        if it < w:
            return learning_rate * (it + 1) / (w + 1)
        if it > decay:
            return min_lr
        ratio = (it - w) / (decay - w)
        return min_lr + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (learning_rate - min_lr)

    rate = schedules.cosine(learning_rate, steps=decay, warmup=w, min_lr=min_lr)
    assert [rate(t) for t in range(T)] == [get_lr(t) for t in range(T)]


NAMES = {
    "constant": lambda **o: schedules.constant(1.0, **o),
    "linear": lambda **o: schedules.linear(1.0, steps=20, min_lr=0.25, **o),
    "cosine": lambda **o: schedules.cosine(1.0, steps=20, min_lr=0.25, **o),
    "inverse_sqrt": lambda **o: schedules.inverse_sqrt(1.0, **o),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_warm_up_climbs_evenly_and_meets_lr(name):
    rate = NAMES[name](warmup=4)
    assert [rate(t) for t in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], rel=1e-15)
    rate = NAMES[name](warmup=4, from_zero=True)
    assert [rate(t) for t in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert rate(4) >= rate(5) >= rate(19) >= rate(20) >= rate(1000)
    assert NAMES[name]()(0) == 1.0
    if name in ("linear", "cosine"):
        assert rate(20) == rate(1000) == 0.25
        assert rate(12) == pytest.approx(0.625)  # half way


@pytest.mark.parametrize("name", NAMES)
def test_refused(name):
    with pytest.raises(ValueError, match=f"^{name}: the step must be 0 or more, got -1"):
        NAMES[name]()(-1)
    with pytest.raises(ValueError, match=f"^{name}: warmup must be 0 or more, got -3"):
        NAMES[name](warmup=-3)


def test_refused_numbers():
    with pytest.raises(ValueError, match="linear: lr must be 0 or more, got -1"):
        schedules.linear(-1, steps=3)
    with pytest.raises(ValueError, match=r"cosine: min_lr must not be above lr, got min_lr=0.2 and lr=0.1"):
        schedules.cosine(0.1, steps=3, min_lr=0.2)
    with pytest.raises(ValueError, match="cosine: steps must not be below warmup, got steps=3 and warmup=4"):
        schedules.cosine(0.1, steps=3, warmup=4)
    with pytest.raises(ValueError, match="inverse_sqrt: timescale must be positive, got 0"):
        schedules.inverse_sqrt(0.1, timescale=0)
    with pytest.raises(TypeError, match="constant: lr must be a number, got '1e-3'"):
        schedules.constant("1e-3")
