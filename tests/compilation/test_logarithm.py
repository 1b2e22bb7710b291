"""The short series for log(1 + exp(-|x|)), and where it stands in a graph."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.compilation.logarithm import our_logarithm

EVERYWHERE = torch.cat([torch.linspace(-20, 20, 40_001), torch.tensor([-90.0, 0.0, 90.0, 1e30])])


def rewritten(function, x):
    """The function's graph after the pass, and how many of torch's logarithms are left in it."""
    graph = make_fx(function)(x)
    our_logarithm()(graph.graph)
    graph.recompile()
    left = [node for node in graph.graph.nodes if node.target is torch.ops.aten.log1p.default]
    return graph, len(left)


def of_logits(x):
    return torch.log1p(torch.exp(-x.abs()))


def test_the_series_is_right_to_two_units_of_the_last_place():
    series, left = rewritten(of_logits, EVERYWHERE)
    assert left == 0
    exact = torch.log1p(torch.exp(-EVERYWHERE.abs()).double())
    error = (series(EVERYWHERE) - exact).abs()
    assert (error <= 2 * torch.finfo(torch.float32).eps * exact).all()


@pytest.mark.parametrize(
    "function, x",
    [
        (of_logits, EVERYWHERE.double()),
        (lambda x: torch.log1p(torch.exp(x)), EVERYWHERE),
        (lambda x: torch.log1p(torch.exp(-x)), EVERYWHERE),
        (lambda x: torch.log1p(x.abs()), EVERYWHERE),
    ],
    ids=["double precision", "a large argument", "of either sign", "no exponential"],
)
def test_other_logarithms_stay(function, x):
    graph, left = rewritten(function, x)
    assert left == 1
    assert torch.equal(graph(x), function(x))
