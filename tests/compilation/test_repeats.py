"""A graph in parts computes what the graph does, whatever is cut."""

import copy
import shutil

import pytest
import torch
from cases import CASES, case
from torch import nn

import pyro_vae as pv
from pyro_vae.compilation import repeats
from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.gradients import LossAndGradients
from pyro_vae.compilation.repeats import Parts, parts_of

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler on this machine"
)


@pytest.fixture
def uncompiled(monkeypatch):
    """Graphs that are captured, and not compiled."""
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: None)


@pytest.fixture
def all_is_cut(monkeypatch):
    """Any graph is cut, into parts as small as four operations."""
    monkeypatch.setattr(repeats, "FEWEST_OPERATIONS", 1)
    monkeypatch.setattr(repeats, "LARGEST_SHARE", 10)
    monkeypatch.setattr(repeats, "SHORTEST", 4)


def interpreted(captured, *inputs):
    """The parts of a captured function, each run as it is."""
    parts = parts_of(captured.graph, [*inputs, *captured.lifted])
    assert parts is not None, "nothing was cut"
    for part in parts.different:
        part.call = lambda values, graph=part.graph: graph(*values)
    return parts


def results(call, captured, *inputs):
    """What a call returns, and what it leaves in the graph's own tensors."""
    before = [tensor.clone() for tensor in captured.lifted]
    torch.manual_seed(3)
    with torch.no_grad():
        found = [tensor.clone() for tensor in call([*inputs, *captured.lifted])]
    found += [tensor.clone() for tensor in captured.lifted]
    for tensor, value in zip(captured.lifted, before):
        tensor.copy_(value)
    return found


def assert_equal(captured, *inputs, **tolerance):
    parts = interpreted(captured, *inputs)
    expected = results(lambda values: captured.graph(*values), captured, *inputs)
    got = results(parts, captured, *inputs)
    torch.testing.assert_close(got, expected, **tolerance)
    assert [a.stride() for a in expected] == [b.stride() for b in got]
    return parts


class Block(nn.Module):
    """A residual block with what may go wrong: noise, views, halves, statistics that it writes."""

    def __init__(self, size):
        super().__init__()
        self.linear, self.norm = nn.Linear(size, 2 * size), nn.BatchNorm1d(size)
        self.register_buffer("mean", torch.zeros(size))

    def forward(self, x):
        location, scale = self.linear(self.norm(x)).chunk(2, dim=-1)
        self.mean.mul_(0.9).add_(location.detach().mean(0), alpha=0.1)
        noise = torch.empty_like(x).normal_()
        noise[:, 0] = self.mean[0]
        return x + (location + noise * torch.sigmoid(scale)).T.contiguous().T * self.mean.exp()


def of_blocks(number, size=4):
    torch.manual_seed(0)
    net = nn.Sequential(*[Block(size) for _ in range(number)], nn.Linear(size, 1)).double()
    return net, torch.randn(6, size, dtype=torch.float64)


def captured_step(net, x):
    step = LossAndGradients(lambda x: net(x).square().mean(), list(net.parameters()), bool, net)
    return step.captured(x)


@pytest.mark.usefixtures("uncompiled")
def test_a_deep_step_in_parts_has_the_bits_of_the_whole():
    net, x = of_blocks(26)
    parts = assert_equal(captured_step(net, x), x, rtol=0, atol=0)
    assert len(parts.places) > 2 * len(parts.different)


@pytest.mark.usefixtures("uncompiled")
def test_what_is_compiled_does_not_grow_with_depth():
    left = []
    for number in (24, 48):
        net, x = of_blocks(number)
        captured = captured_step(net, x)
        different = interpreted(captured, x).different
        left.append(sum(len(part.graph.graph.nodes) - len(part.inputs) for part in different))
        assert left[-1] < captured.size / 3
    assert left[1] <= 1.2 * left[0]


@needs_compiler
@pytest.mark.least_torch
def test_a_deep_step_compiled_in_parts_is_the_eager_one():
    net, x = of_blocks(26)
    own = copy.deepcopy(net)
    eager = LossAndGradients(lambda x: own(x).square().mean(), list(own.parameters()))
    compiled = captured_step(net, x)
    assert isinstance(compiled.call, Parts)
    for seed in range(2):
        torch.manual_seed(seed)
        loss, gradients = eager(x)
        torch.manual_seed(seed)
        torch.testing.assert_close(compiled(x), (loss, *gradients))
    for buffer, other in zip(net.buffers(), own.buffers()):
        torch.testing.assert_close(buffer, other)


@pytest.mark.usefixtures("uncompiled", "all_is_cut")
@pytest.mark.parametrize("family, name", CASES)
def test_the_step_of_every_program_and_part_is_that_of_the_whole(family, name):
    program, (x, *context) = case(family, name)
    objective = pv.objectives.ELBO()
    objective.loss(program.model, program.guide, x, *context)
    names = list(context[0]) if context and isinstance(context[0], dict) else None
    given = context if names is None else list(context[0].values())

    def loss(x, *values):
        context = values if names is None else [dict(zip(names, values))]
        return objective.differentiable_loss(program.model, program.guide, x, *context)

    parameters = [p for p in program.parameters() if p.requires_grad]
    step = LossAndGradients(loss, parameters, bool, program)
    # A sum over entries that one part gives to another laid out anew has another order.
    assert_equal(step.captured(x, *given), x, *given, rtol=1e-5, atol=1e-6)


def random_function(seed):
    """Operations drawn at random and repeated, with views and writes among them."""
    draw = torch.Generator().manual_seed(seed)

    def choose(options):
        return options[int(torch.randint(len(options), (1,), generator=draw))]

    operations = [choose(OPERATIONS) for _ in range(12)]
    sources = [choose(range(1, 4)) for _ in range(12)]

    def function(x, buffer):
        values = [x + 1, x * 2, x.sin()]
        for _ in range(6):
            for operation, back in zip(operations, sources):
                values.append(operation(values[-1], values[-back], buffer))
        return values[-1], values[-5], sum(value.sum() for value in values)

    return function


OPERATIONS = [
    lambda a, b, c: a + b.T,
    lambda a, b, c: (a + 0).mul_(0.5) if a._base is not None else a.mul_(0.5),
    lambda a, b, c: b[:, 1:].add_(a[:, :-1]).sum() + a,
    lambda a, b, c: c.add_(a.mean()) + b,
    lambda a, b, c: torch.empty_like(a).normal_() * b.tanh(),
    lambda a, b, c: a.T,
    lambda a, b, c: torch.cat(torch.cat([a, b]).chunk(4)[1:3]),
    lambda a, b, c: a[:2].repeat(2, 1) if a.is_contiguous() else a + 1,
    lambda a, b, c: a.reshape(-1).view(4, 4),
    lambda a, b, c: b.diagonal().expand(4, 4) + 0 * a,
    lambda a, b, c: c.clone().mul_(a).cos(),
    lambda a, b, c: torch.max(b, 1).values.unsqueeze(1) - a,
]


@pytest.mark.usefixtures("uncompiled", "all_is_cut")
@pytest.mark.parametrize("seed", range(40))
def test_random_functions_in_parts_have_the_bits_of_the_whole(seed):
    x = torch.rand(4, 4, dtype=torch.float64)
    buffer = torch.rand(4, 4, dtype=torch.float64)
    function = random_function(seed)
    try:
        function(x.clone(), buffer.clone())
    except RuntimeError:
        pytest.skip("these operations cannot follow one another")
    captured = Captured(lambda x: function(x, buffer), [x])
    parts = assert_equal(captured, x, rtol=0, atol=0)
    assert len(parts.places) > len(parts.different)


def test_what_is_small_or_repeats_too_little_stays_whole():
    x = torch.rand(3, 3)
    small = Captured(lambda x: (x * 2).sum(), [x])
    assert parts_of(small.graph, [x, *small.lifted]) is None

    def unlike(x):
        for i in range(600):
            x = x.reshape(1, -1)[:, : 600 - i].clone() * i
        return x

    wide = torch.rand(1, 600)
    large = Captured(unlike, [wide])
    assert large.size > repeats.FEWEST_OPERATIONS
    assert parts_of(large.graph, [wide, *large.lifted]) is None


@pytest.mark.usefixtures("uncompiled")
def test_tensors_that_no_later_part_needs_are_let_go():
    net, x = of_blocks(26)
    parts = interpreted(captured_step(net, x), x)
    freed = {node for place in parts.places for node in place.frees}
    given = {node for place in parts.places for node, _ in filter(None, place.gives)}
    assert given - freed <= set(parts.outputs)
