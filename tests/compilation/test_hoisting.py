"""What a graph makes of weights alone is computed once, and the results stay the same."""

import pytest
import torch
from cases import case, small_vae

import pyro_vae as pv
from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.cost import PRODUCTS
from pyro_vae.training import Callback


def products(graph):
    return sum(
        getattr(node.target, "overloadpacket", None) in PRODUCTS for node in graph.graph.nodes
    )


def stated(*layers):
    network = torch.nn.Sequential(*layers)
    network.out_shape = (16,)
    return network


NETWORKS = {
    "MLP": lambda: pv.networks.MLP((1, 8, 8), [16]),
    "convolutions": lambda: stated(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 16)
    ),
    "normalised": lambda: stated(
        torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16), torch.nn.GELU()
    ),
}


def with_pseudo_inputs(network="MLP"):
    torch.manual_seed(0)
    program = pv.VAE(
        prior=pv.priors.VampPrior(2, components=7),
        likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(2, [16])),
        posterior=pv.posteriors.DiagonalNormal(2, NETWORKS[network]()),
    )
    return program, torch.rand(20, 1, 8, 8).round()


def graphs_of(monkeypatch, score):
    """The graphs that a score captures, interpreted."""
    graphs = []
    monkeypatch.setattr(Captured, "compile", lambda self, inputs: graphs.append(self))
    return score(), graphs


@pytest.mark.parametrize("network", NETWORKS)
def test_pseudo_inputs_are_encoded_once(monkeypatch, network):
    program, x = with_pseudo_inputs(network)
    eager = pv.log_likelihood(program, x, 20, compile="off")
    score, (graph,) = graphs_of(
        monkeypatch, lambda: pv.log_likelihood(program, x, 20, compile="on")
    )
    assert score.values.equal(eager.values)
    assert products(graph.hoisted.before) == 2  # a layer and the head of location and scale
    assert products(graph.hoisted.rest) == 4  # and the decoder's


def test_annealing_encodes_them_once_too(monkeypatch):
    program, x = with_pseudo_inputs()
    sizes = dict(num_chains=2, num_temperatures=4)
    eager = pv.ais(program, x[:3], **sizes, compile="off")
    score, graphs = graphs_of(monkeypatch, lambda: pv.ais(program, x[:3], **sizes, compile="on"))
    torch.testing.assert_close(score.values, eager.values, rtol=1e-6, atol=1e-6)
    assert graphs and all(graph.hoisted is not None for graph in graphs)


def test_a_graph_without_such_products_stays_whole(monkeypatch):
    program, (x,) = case("program", "vae")
    _, graphs = graphs_of(monkeypatch, lambda: pv.log_likelihood(program, x, 5, compile="on"))
    assert graphs and all(graph.hoisted is None for graph in graphs)


def of_weights(fn, *weights):
    x = torch.randn(3, 4)
    captured = Captured(lambda x: fn(x, *weights), [x])
    captured.hoist()
    return captured, x


def test_new_weights_count_after_a_refresh():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    graph, x = of_weights(lambda x, w: x @ (w @ w).softmax(-1), weight)
    assert graph.hoisted is not None
    before = graph(x)[0]
    with torch.no_grad():
        weight.mul_(2)
    assert graph(x)[0].equal(before)
    graph.refresh()
    assert graph(x)[0].equal(x @ (weight @ weight).softmax(-1))


def test_what_a_graph_writes_to_is_no_constant():
    total = torch.zeros(4, 4)

    def adds(x, weight, total):
        total.view(16).add_((weight @ weight).view(16))
        return x @ total @ (weight @ total)

    weight = torch.randn(4, 4)
    graph, x = of_weights(adds, weight, total)
    for step in (1, 2):
        expected = x @ (step * (weight @ weight)) @ (weight @ (step * (weight @ weight)))
        torch.testing.assert_close(graph(x)[0], expected)


def test_random_numbers_are_drawn_in_each_run():
    weight = torch.randn(4, 4)
    graph, x = of_weights(lambda x, w: x @ (torch.randn_like(w @ w) + w @ w), weight)
    assert graph.hoisted is not None
    assert not graph(x)[0].equal(graph(x)[0])


def test_a_table_that_kernels_make_on_their_way_is_not_kept():
    weight = torch.randn(4, 4)
    graph, x = of_weights(
        lambda x, w: (x[:, None, None] - (w @ w)[:, None] - w).sum((1, 2)), weight
    )
    kept = graph.lifted[len(graph.weights) :]
    assert [tuple(each.shape) for each in kept] == [(4, 4)]
    torch.testing.assert_close(
        graph(x)[0], (x[:, None, None] - (weight @ weight)[:, None] - weight).sum((1, 2))
    )


@pytest.mark.parametrize("build", [lambda: with_pseudo_inputs()[0], small_vae])
@pytest.mark.parametrize("average", [None, 0.9])
def test_one_graph_scores_validation_data_after_every_epoch(build, average, tmp_path, monkeypatch):
    """Its weights are those of the epoch, and a resumed run has the same bits."""
    digits = pv.datasets.load("digits")[0]
    options = dict(validation=digits[100:150], batch_size=50, average=average)
    captured = []
    refreshed = Captured.refresh
    monkeypatch.setattr(Captured, "refresh", lambda self: (captured.append(self), refreshed(self)))

    def curve(compile, epochs=4, **more):
        torch.manual_seed(0)
        history = pv.fit(
            build(),
            digits[:100],
            epochs=epochs,
            learning_rate=1e-2,
            compile=compile,
            progress=False,
            **options,
            **more,
        )
        return history["validation_elbo"]

    eager = curve("off")
    assert not captured
    whole = curve("on")
    assert len({id(graph) for graph in captured}) == 1
    assert whole == pytest.approx(eager, rel=1e-5) and len(set(whole)) == 4
    curve("on", epochs=2, out=tmp_path)
    assert pv.checkpoint.read_state(tmp_path, "training")[1]["compiled_validation"]
    assert curve("on", out=tmp_path, resume=True) == whole


class Warms(Callback):
    """Change a number of the likelihood after each epoch."""

    def __init__(self, likelihood):
        self.likelihood = likelihood

    def epoch(self, training):
        self.likelihood.factor *= 2.0


class Heated(torch.nn.Module):
    """A normal whose scale is a plain number."""

    event_shape, factor = torch.Size((2,)), 1.0

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 2)

    def forward(self, z, *, context=None):
        return torch.distributions.Independent(
            torch.distributions.Normal(self.net(z), self.factor), 1
        )


def test_a_number_that_changes_between_epochs_is_followed():
    x = torch.randn(60, 2)

    def curve(compile):
        torch.manual_seed(0)
        program = pv.VAE(
            prior=pv.priors.StandardNormal(1),
            likelihood=Heated(),
            posterior=pv.posteriors.DiagonalNormal(1, pv.networks.MLP(2, [8])),
        )
        return pv.fit(
            program,
            x[:40],
            validation=x[40:],
            epochs=3,
            learning_rate=1e-12,
            compile=compile,
            callbacks=[Warms(program.likelihood)],
            progress=False,
        )

    with pytest.warns(UserWarning, match="likelihood.factor has changed since it was compiled"):
        found = curve("on")
    expected = curve("off")
    for name in ("objective", "validation_elbo"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_a_program_in_half_precision_is_scored_by_its_own_weights():
    """It is copied to single precision for each score."""
    digits = pv.datasets.load("digits")[0]

    def curve(compile):
        return pv.fit(
            small_vae().to(torch.bfloat16),
            digits[:100],
            validation=digits[100:150],
            epochs=3,
            batch_size=50,
            learning_rate=1e-1,
            compile=compile,
            progress=False,
        )["validation_elbo"]

    assert curve("on") == pytest.approx(curve("off"), rel=0.05)
