"""How a graph is compiled on the CPU."""

import pytest
import torch

from pyro_vae.compilation.capture import Captured


@pytest.mark.parametrize(
    "shape, processor, expected",
    [
        ((200, 50, 40), "AVX512", True),  # eight of forty are left
        ((200, 50, 40), "AVX2", False),
        ((200, 50, 40), "DEFAULT", False),
        ((200, 50, 48), "AVX512", False),
        ((20, 500, 500), "AVX512", False),  # four of five hundred
        ((20, 5, 40), "AVX512", False),  # small
    ],
)
def test_ends_of_many_short_loops_are_vectors(shape, processor, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    x = torch.ones(shape[-1])
    graph = Captured(lambda x: (x.expand(shape) + x).sum(-1), [x])
    assert graph.has_odd_rows == expected


def test_a_graph_of_many_short_loops_has_the_same_numbers():
    x, y = torch.randn(200, 1, 40), torch.randn(50, 40)

    def distances(x, y):
        return ((x - y) / y.exp()).square().sum(-1).logsumexp(-1)

    graph = Captured(distances, [x, y])
    graph.compile([x, y])
    torch.testing.assert_close(graph(x, y)[0], distances(x, y))
