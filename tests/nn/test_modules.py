"""Modules: what they are made of, weights in and out, hooks, and layers against PyTorch's."""

import numpy as np
import pytest
import torch

import minilm
from minilm import Tensor, nn
from minilm import functional as F
from minilm.testing import AGAINST_PYTORCH, assert_close


def rng(seed=0):
    return np.random.default_rng(seed)


class Net(nn.Module):
    def __init__(self, dtype=np.float64):
        self.first = nn.Linear(3, 4, rng=rng(), dtype=dtype)
        self.blocks = [nn.Linear(4, 4, rng=rng(i), dtype=dtype) for i in (1, 2)]
        self.norm = nn.LayerNorm(4, dtype=dtype)
        self.drop = nn.Dropout(0.5, rng=rng(3))
        self.last = nn.Linear(4, 4, bias=False, rng=rng(4), dtype=dtype)
        self.last.weight = self.blocks[0].weight  # tied

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = np.tanh(block(x))
        return self.last(self.drop(self.norm(x)))


NAMES = ["first.weight", "first.bias", "blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]


def test_parameters_are_found_in_the_order_they_were_set_and_shared_ones_once():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [*NAMES, "norm.weight", "norm.bias"]
    assert [name for name, _ in net.named_parameters(remove_duplicate=False)][-1] == "last.weight"
    assert net.num_parameters() == 12 + 4 + 2 * 20 + 8
    assert [name for name, _ in net.named_modules()] == ["", "first", "blocks.0", "blocks.1", "norm", "drop", "last"]


def test_state_goes_out_and_in_bit_for_bit():
    net, other = Net(), Net()
    for p in net.parameters():
        p.writable()[...] = rng(9).standard_normal(p.shape)
    assert other.load_state_dict(net.state_dict()) == ([], [])
    for (name, a), b in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert not np.shares_memory(a, b)


def test_a_state_that_does_not_fit_changes_nothing_and_says_why():
    net = Net()
    state = {name: array + 1 for name, array in net.state_dict().items()}
    before = {name: array.copy() for name, array in net.state_dict().items()}
    wrong = {**state, "first.wieght": np.zeros(3)}
    with pytest.raises(KeyError, match=r"unexpected first.wieght \(1\), is first.wieght meant to be first.weight\?"):
        net.load_state_dict(wrong)
    del state["norm.bias"]
    with pytest.raises(KeyError, match=r"missing norm.bias \(1\)"):
        net.load_state_dict(state)
    with pytest.raises(ValueError, match=r"first.weight must have shape \(4, 3\).*got \(3, 4\)"):
        net.load_state_dict({**state, "first.weight": np.zeros((3, 4))}, strict=False)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert net.load_state_dict({**state, "more": np.zeros(1)}, strict=False) == (["norm.bias"], ["more"])
    assert (net.first.weight.data == before["first.weight"] + 1).all()


def test_a_tied_weight_may_come_under_either_name():
    net = Net()
    state = dict(net.state_dict())
    state["last.weight"] = state.pop("blocks.0.weight") * 2
    assert net.load_state_dict(state) == ([], [])
    np.testing.assert_array_equal(net.blocks[0].weight.data, state["last.weight"])


def test_loading_between_forward_and_backward_is_caught():
    net = Net()
    loss = net(Tensor(rng(5).standard_normal((2, 3)))).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match="linear: its backward needs an array of shape"):
        loss.backward()


def test_train_and_eval_reach_every_part():
    net, x = Net(), Tensor(rng(5).standard_normal((2, 3)))
    assert (net.eval()(x).data == net(x).data).all()
    assert not net.drop.training
    assert (net.train()(x).data != net(x).data).any()


def test_freezing():
    net = Net()
    net.blocks[1].requires_grad_(False)
    net.eval()(Tensor(rng(5).standard_normal((2, 3)))).sum().backward()
    assert net.blocks[1].weight.grad is None
    assert net.first.weight.grad is not None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_forward_hooks_see_and_replace_and_go_away():
    layer, x = nn.Linear(3, 2, rng=rng()), Tensor(np.ones((1, 3), np.float32))
    plain = layer(x).data.copy()
    seen = []
    remove = [
        layer.register_forward_pre_hook(lambda module, args: (args[0] * 2.0,)),
        layer.register_forward_hook(lambda module, args, out: seen.append((module, args[0].data.copy()))),
        layer.register_forward_hook(lambda module, args, out: out - module.bias),
    ]
    np.testing.assert_allclose(layer(x).data, 2 * (plain - layer.bias.data), rtol=1e-6)
    assert seen[0][0] is layer
    np.testing.assert_array_equal(seen[0][1], 2 * x.data)
    for r in remove:
        r()
    np.testing.assert_array_equal(layer(x).data, plain)


def test_backward_hooks_agree_with_pytorch():
    ours, theirs = nn.Linear(3, 2, rng=rng(), dtype=np.float64), torch.nn.Linear(3, 2, dtype=torch.float64)
    theirs.load_state_dict({n: torch.tensor(a) for n, a in ours.state_dict().items()})
    x = rng(1).standard_normal((4, 3))
    got, want = [], []
    ours.register_full_backward_hook(lambda m, grad_in, grad_out: got.extend([grad_in[0], grad_out]))
    theirs.register_full_backward_hook(lambda m, grad_in, grad_out: want.extend([grad_in[0], grad_out[0]]))
    mine, its = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    ((ours(mine) ** 2).sum() + (mine**3).sum()).backward()  # the other use of x is not the module's
    ((theirs(its) ** 2).sum() + (its**3).sum()).backward()
    assert len(got) == len(want) == 2
    for a, b in zip(got, want, strict=True):
        assert_close(a, b.numpy(), AGAINST_PYTORCH[np.float64])
    assert_close(mine.grad, its.grad.numpy(), AGAINST_PYTORCH[np.float64])


def test_a_backward_pre_hook_replaces_the_gradient():
    layer, x = nn.Linear(3, 2, rng=rng(), dtype=np.float64), Tensor(np.ones((1, 3)), requires_grad=True)
    layer(x).sum().backward()
    once = x.grad.copy()
    x.grad = None
    layer.register_full_backward_pre_hook(lambda module, grad: 10 * grad)
    layer(x).sum().backward()
    np.testing.assert_allclose(x.grad, 10 * once, rtol=1e-14)


def test_functional_call_uses_the_values_given_everywhere_and_puts_the_parameters_back():
    net, x = Net().eval(), rng(5).standard_normal((2, 3))
    own = dict(net.named_parameters())
    values = {name: Tensor(p.data * 0.5) for name, p in own.items()}
    got = nn.functional_call(net, values, Tensor(x)).data
    other = Net().eval()
    other.load_state_dict({name: p.data * 0.5 for name, p in own.items()})
    np.testing.assert_array_equal(got, other(Tensor(x)).data)
    assert all(p is own[name] for name, p in net.named_parameters())
    with pytest.raises(KeyError, match="nope is no parameter"):
        nn.functional_call(net, {"nope": x}, Tensor(x))
    gradient = minilm.grad(lambda w: nn.functional_call(net, w, Tensor(x)).sum())(own)
    net(Tensor(x)).sum().backward()
    for name, p in own.items():
        assert_close(gradient[name].data, p.grad, 1e-12, name)


def test_sequential():
    net = nn.Sequential(nn.Linear(3, 4, rng=rng()), np.tanh, nn.Linear(4, 2, rng=rng(1)))
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    x = Tensor(np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(net(x).data, getattr(net, "2")(np.tanh(getattr(net, "0")(x))).data)


def test_layers_agree_with_pytorch(backend):
    x = rng(1).standard_normal((2, 5, 8))
    pairs = [
        (nn.Linear(8, 3, rng=rng(), dtype=np.float64), torch.nn.Linear(8, 3)),
        (nn.LayerNorm(8, 1e-4, dtype=np.float64), torch.nn.LayerNorm(8, 1e-4)),
        (nn.LayerNorm(8, bias=False, dtype=np.float64), torch.nn.LayerNorm(8, bias=False)),
        (nn.LayerNorm(8, elementwise_affine=False), torch.nn.LayerNorm(8, elementwise_affine=False)),
        (nn.RMSNorm(8, dtype=np.float64), torch.nn.RMSNorm(8, eps=1e-6)),
    ]
    for ours, theirs in pairs:
        theirs = theirs.double()
        theirs.load_state_dict({n: torch.tensor(a) for n, a in ours.state_dict().items()})
        assert_close(ours(Tensor(x)).data, theirs(torch.tensor(x)).detach().numpy(), AGAINST_PYTORCH[np.float64])
    table = nn.Embedding(7, 4, padding_idx=2, rng=rng())
    assert (table.weight.data[2] == 0).all()
    table(np.array([[2, 3]])).sum().backward()
    assert (table.weight.grad[2] == 0).all()
    assert (table.weight.grad[3] == 1).all()


# Each initialiser with the mean and the standard deviation that its paper gives for shape (200, 300).
INITIALISERS = {
    "normal": (lambda: nn.init.normal(rng(), (200, 300), 0.5, 0.1), 0.5, 0.1),
    "uniform": (lambda: nn.init.uniform(rng(), (200, 300), -1.0, 3.0), 1.0, 4 / 12**0.5),
    "trunc_normal": (lambda: nn.init.trunc_normal(rng(), (200, 300)), 0.0, 0.8796),  # of N(0, 1) within ±2
    "xavier_uniform": (lambda: nn.init.xavier_uniform(rng(), (200, 300), gain=2.0), 0.0, 2 * (2 / 500) ** 0.5),
    "xavier_normal": (lambda: nn.init.xavier_normal(rng(), (200, 300)), 0.0, (2 / 500) ** 0.5),
    "kaiming_uniform": (lambda: nn.init.kaiming_uniform(rng(), (200, 300)), 0.0, (2 / 300) ** 0.5),
    "kaiming_normal": (lambda: nn.init.kaiming_normal(rng(), (200, 300), a=1.0), 0.0, (1 / 300) ** 0.5),
    "Linear": (lambda: nn.Linear(300, 200, rng=rng()).weight.data, 0.0, (1 / 900) ** 0.5),
    "Embedding": (lambda: nn.Embedding(200, 300, std=0.02, rng=rng()).weight.data, 0.0, 0.02),
    "Conv1D": (lambda: nn.Conv1D(200, 300, rng=rng()).weight.data, 0.0, 0.02),
}


@pytest.mark.parametrize("layer", [nn.Linear, nn.Conv1D])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["gelu", "gelu_new", "silu"])
def test_a_linear_layer_and_its_activation_agree_with_pytorch(layer, bias, name, backend):
    linear, act = layer(5, 5, bias, rng=rng(), dtype=np.float64), nn.ACTIVATIONS[name]
    if bias:
        linear.bias.writable()[...] = rng(1).standard_normal(5)
    x = Tensor(rng(2).standard_normal((2, 3, 5)), requires_grad=True)
    theirs = {key: torch.tensor(p.data, requires_grad=True) for key, p in linear.named_parameters()}
    its = torch.tensor(x.data, requires_grad=True)
    w = theirs["weight"] if layer is nn.Linear else theirs["weight"].T
    h = torch.nn.functional.linear(its, w, theirs.get("bias"))
    want = {
        "gelu": torch.nn.functional.gelu,
        "gelu_new": lambda h: torch.nn.functional.gelu(h, approximate="tanh"),
        "silu": torch.nn.functional.silu,
    }[name](h)
    want.sum().backward()
    out = nn.linear_act(x, linear, act)
    out.sum().backward()
    assert_close(out.data, want.detach().numpy(), AGAINST_PYTORCH[np.float64], "out")
    assert_close(x.grad, its.grad.numpy(), AGAINST_PYTORCH[np.float64], "dx")
    for key, p in linear.named_parameters():
        assert_close(p.grad, theirs[key].grad.numpy(), AGAINST_PYTORCH[np.float64], f"d{key}")


def test_a_layer_with_hooks_is_called_before_its_activation():
    linear, seen = nn.Linear(3, 4, rng=rng()), []
    x = Tensor(rng(1).standard_normal((2, 3)).astype(np.float32))
    fused = nn.linear_act(x, linear, nn.ACTIVATIONS["gelu"])
    linear.register_forward_hook(lambda module, args, out: seen.append(out))
    watched = nn.linear_act(x, linear, nn.ACTIVATIONS["gelu"])
    assert_close(seen[0].data, linear(x).data, 1e-6)
    assert_close(fused.data, watched.data, 1e-6)


@pytest.mark.parametrize("layer", [nn.Linear, nn.Conv1D])
@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", ["gelu", "gelu_new", "silu"])
def test_feed_forward_agrees_with_pytorch(layer, biases, name, backend):
    sizes, act = [(5, 6), (6, 3)] if layer is nn.Linear else [(6, 5), (3, 6)], nn.ACTIVATIONS[name]
    up, down = (layer(*size, bias, rng=rng(), dtype=np.float64) for size, bias in zip(sizes, biases, strict=True))
    for i, part in enumerate((up, down)):
        if part.bias is not None:
            part.bias.writable()[...] = rng(2 + i).standard_normal(part.bias.shape)
    x = Tensor(rng(4).standard_normal((2, 3, 5)), requires_grad=True)
    ours = [x, *up.parameters(), *down.parameters()]
    its, *theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    h, rest = its, iter(theirs)
    for part in (up, down):
        w, b = next(rest), next(rest) if part.bias is not None else None
        h = torch.nn.functional.linear(h, w if layer is nn.Linear else w.T, b)
        if part is up:
            exact = "tanh" if name == "gelu_new" else "none"
            h = torch.nn.functional.silu(h) if name == "silu" else torch.nn.functional.gelu(h, approximate=exact)
    out = nn.feed_forward(x, up, act, down)
    dy = rng(5).standard_normal(out.shape)
    out.backward(dy)
    h.backward(torch.tensor(dy))
    assert_close(out.data, h.detach().numpy(), AGAINST_PYTORCH[np.float64], "out")
    for i, (mine, other) in enumerate(zip(ours, (its, *theirs), strict=True)):
        assert_close(mine.grad, other.grad.numpy(), AGAINST_PYTORCH[np.float64], f"d{i}")


@pytest.mark.parametrize("watched", [0, 1])
def test_layers_with_hooks_are_called_in_a_feed_forward(watched):
    layers, seen = (nn.Linear(3, 4, rng=rng()), nn.Linear(4, 2, rng=rng(2))), []
    x, act = Tensor(rng(1).standard_normal((2, 3)).astype(np.float32)), nn.ACTIVATIONS["gelu"]
    fused = nn.feed_forward(x, layers[0], act, layers[1])
    layers[watched].register_forward_hook(lambda module, args, out: seen.append(out))
    called = nn.feed_forward(x, layers[0], act, layers[1])
    assert_close(seen[0].data, (layers[0](x) if watched == 0 else called).data, 1e-6)
    assert_close(fused.data, called.data, 1e-6)


@pytest.mark.parametrize(
    ("p", "training", "watched", "op"),
    [
        (0.5, True, False, "linear"),
        (0.5, False, False, "gelu_linear"),
        (0.0, True, False, "gelu_linear"),
        (0.5, False, True, "linear"),
    ],
)
def test_a_dropout_inside_a_feed_forward_is_left_out_when_it_drops_nothing(p, training, watched, op):
    up, down, act = nn.Linear(5, 60, rng=rng()), nn.Linear(60, 3, rng=rng(2)), nn.ACTIVATIONS["gelu"]
    x, seen = Tensor(rng(1).standard_normal((7, 5)).astype(np.float32), requires_grad=True), []
    one, other = nn.Dropout(p, rng=rng(3)).train(training), nn.Dropout(p, rng=rng(3)).train(training)
    if watched:
        one.register_forward_hook(lambda module, args, out: seen.append(out))
    out, want = nn.feed_forward(x, up, act, down, one), down(other(act(up(x))))
    assert out.node.kernel.op == op
    assert len(seen) == watched
    assert_close(out.data, want.data, 1e-6)
    assert (np.abs(want.data - nn.feed_forward(x, up, act, down).data).max() > 0.1) == (p > 0 and training)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_blocks_that_leave_their_last_sum_to_the_next_norm(blocks, norm, backend):
    """Against the sums written out, with what each block is given, and every state kept."""
    layers = [(norm(5, dtype=np.float64), nn.Linear(5, 5, rng=rng(i), dtype=np.float64)) for i in range(blocks)]
    last = norm(5, dtype=np.float64)
    for p in (*(p for pair in layers for part in pair for p in part.parameters()), *last.parameters()):
        p.writable()[...] += rng(7).standard_normal(p.shape)
    x, want, seen = Tensor(rng(9).standard_normal((4, 5))), [], []

    def block(layer):
        def run(x, update, number):
            seen.append(number)
            x, n = nn.add_and_norm(x, update, layer[0])
            return x, layer[1](n)

        return run

    out, states = nn.through_blocks(x, map(block, layers), last, 3, keep=True)
    none, nothing = nn.through_blocks(x, map(block, layers), last, 3, keep=False)
    h = x.data
    for own, linear in layers:
        want.append(h)
        h = h + linear(own(Tensor(h))).data
    assert seen == [3] * 2 * blocks
    assert nothing == []
    np.testing.assert_array_equal(none.data, out.data)
    assert_close(out.data, last(Tensor(h)).data, AGAINST_PYTORCH[np.float64])
    for got, state in zip(states, want, strict=True):
        assert_close(got.data, state, AGAINST_PYTORCH[np.float64])


@pytest.mark.parametrize("hook", [None, 0, 1, 2])
@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_a_gated_feed_forward_agrees_with_pytorch(name, hook, backend):
    gate, up, down = (nn.Linear(*size, rng=rng(i), dtype=np.float64) for i, size in enumerate([(5, 6), (5, 6), (6, 3)]))
    x, seen = Tensor(rng(4).standard_normal((2, 3, 5)), requires_grad=True), []
    ours = [x, *gate.parameters(), *up.parameters(), *down.parameters()]
    its, *theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    if hook is not None:
        (gate, up, down)[hook].register_forward_hook(lambda module, args, out: seen.append(out))
    out = nn.gated_feed_forward(x, gate, nn.ACTIVATIONS[name], up, down)
    linear, act = torch.nn.functional.linear, getattr(torch.nn.functional, name)
    want = linear(act(linear(its, *theirs[:2])) * linear(its, *theirs[2:4]), *theirs[4:])
    dy = rng(5).standard_normal(out.shape)
    out.backward(dy)
    want.backward(torch.tensor(dy))
    assert len(seen) == (hook is not None)
    assert_close(out.data, want.detach().numpy(), AGAINST_PYTORCH[np.float64], "out")
    for i, (mine, other) in enumerate(zip(ours, (its, *theirs), strict=True)):
        assert_close(mine.grad, other.grad.numpy(), AGAINST_PYTORCH[np.float64], f"d{i}")


def test_a_gated_feed_forward_keeps_its_two_inputs_alone():
    """By what the node saves: what the gate lets through is made again."""
    gate, up, down = (nn.Linear(*size, rng=rng(i)) for i, size in enumerate([(5, 6), (5, 6), (6, 3)]))
    x = Tensor(rng(4).standard_normal((7, 5)).astype(np.float32))
    out = nn.gated_feed_forward(x, gate, nn.ACTIVATIONS["silu"], up, down)
    kept = [a for a in out.node.saved if isinstance(a, np.ndarray) and a.shape == (7, 6)]
    assert [node.kernel.op for node in out.node.parents[:2]] == ["linear", "linear"]
    assert len(kept) == 2


@pytest.mark.parametrize("name", INITIALISERS)
def test_first_values_have_the_published_mean_and_deviation(name):
    make, mean, std = INITIALISERS[name]
    values = make()
    assert values.dtype == np.float32
    n = values.size
    assert abs(values.mean() - mean) < 5 * std / n**0.5  # five standard errors
    assert abs(values.std() - std) < 5 * std / (2 * n) ** 0.5
    np.testing.assert_array_equal(values, make())


def test_initialisers_refuse_what_cannot_be():
    with pytest.raises(ValueError, match=r"\[low, high\] must hold likely values"):
        nn.init.trunc_normal(rng(), (3,), low=50.0, high=51.0)
    with pytest.raises(ValueError, match="2 or more axes"):
        nn.init.xavier_normal(rng(), (3,))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint64])
@pytest.mark.parametrize("V", [3, 127, 128, 200, 40_000])
def test_ids_out_of_range_are_refused_whatever_their_dtype(dtype, V):
    table = np.zeros((V, 1))
    info = np.iinfo(dtype)
    inside = np.array([0, min(V - 1, info.max)], dtype)
    F.embedding(inside[::-1], table)
    for bad in (-1, -V, info.min, V, info.max):
        if info.min <= bad <= info.max and not 0 <= bad < V:
            with pytest.raises(IndexError, match=rf"must lie in \[0, {V}\); got {bad}"):
                F.embedding(np.array([[0, bad], [0, 0]], dtype).T, table)
