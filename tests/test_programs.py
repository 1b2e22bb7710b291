import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import small_vae

import pyro_vae as pv
from pyro_vae.evaluation import UnreliableEstimate
from pyro_vae.validation import InvalidInput


def test_two_programs_in_one_process_both_train():
    """Under Pyro's global store the second would train the first one's tensors."""
    train, _ = pv.datasets.load("digits")
    programs = [small_vae(seed=1), small_vae(seed=2)]
    before = [copy.deepcopy(p.state_dict()) for p in programs]
    histories = [pv.fit(p, train, epochs=3, progress=False) for p in programs]
    for program, state, history in zip(programs, before, histories):
        assert history["objective"][-1] > history["objective"][0] + 1
        for name, value in program.state_dict().items():
            assert not torch.equal(value, state[name]), f"{name} did not move"
    assert not list(pyro.get_param_store().keys())


def test_pyro_svi_moves_nothing_without_param_sites():
    """The trap that `fit` avoids: SVI looks for parameters in the store and finds none."""
    vae = small_vae()
    before = copy.deepcopy(vae.state_dict())
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
    svi.step(torch.zeros(4, 1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def own_pair(scale=1.0):
    encoder, decoder = torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 0.3).to_event(1))

    return pv.Program(model, guide, modules={"encoder": encoder, "decoder": decoder})


def test_a_pair_of_ones_own_trains_scores_generates_and_reconstructs():
    program, x = own_pair(), torch.randn(50, 3)
    with pytest.raises(InvalidInput, match="event_shape"):
        pv.generate(program, 2)
    history = pv.fit(program, x, epochs=30, progress=False)
    assert history["objective"][-1] > history["objective"][0]
    with pytest.warns(UnreliableEstimate, match="of 50 data"):  # half the posterior's scale, and said so
        score = pv.log_likelihood(program, x, 500)
    assert score.mean > pv.elbo(program, x, 500).mean
    assert pv.generate(program, 2).shape == (2, 3)
    assert pv.reconstruct(program, x).shape == x.shape
    # Labels that come with the data are nothing to a pair that takes x alone.
    assert torch.equal(pv.elbo(program, (x, torch.arange(50))).values, pv.elbo(program, x).values)


@pytest.mark.parametrize("register", [lambda net: pyro.module("net", net), lambda net: pyro.param("w", torch.ones(()))])
def test_global_parameters_are_refused_with_the_rewrite(register):
    net = torch.nn.Linear(3, 2)

    def model(x):
        register(net)

    with pytest.raises(InvalidInput, match=r"modules=\.\.\."):
        pv.Program(model, model, modules=net).model(torch.zeros(2, 3))


def test_a_context_reaches_encoder_and_decoder():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(4, pv.networks.MLP(2, [8], context=3)),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [8], context=3)),
        context=pv.networks.OneHot(3),
    )
    x = torch.zeros(3, 4)
    means = pv.encode(vae, (x, torch.arange(3)))["z"]
    assert len({tuple(row.tolist()) for row in means}) == 3
    samples = pv.generate(vae, 3, context=[0, 1, 2])
    same = pv.generate(vae, 3, context=1)
    assert torch.equal(samples[1], same[1]) and not torch.equal(samples[0], same[0])


def test_continuous_covariates_condition_too():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(3, pv.networks.MLP(2, [8], context=2)),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [8], context=2)),
        context=torch.nn.Identity(),
    )
    data = (torch.randn(20, 3), torch.randn(20, 2))
    pv.fit(vae, data, epochs=2, progress=False)
    assert pv.elbo(vae, data).values.shape == (20,)
    assert pv.generate(vae, 5, context=torch.randn(5, 2)).shape == (5, 3)


@pytest.mark.parametrize("context, message", [
    (None, "context: got none"),
    (torch.tensor([0, 1, 2]), "got 3 entries"),
    (torch.tensor([0, 1, 2, 3]), "label 3"),
    (torch.tensor([0, -1, 2, 1]), "label -1"),
    (torch.tensor([0, 0.5, 2, 1]), "label 0.5"),
])
def test_bad_labels(context, message):
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(4, pv.networks.MLP(2, [8], context=3)),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [8], context=3)),
        context=pv.networks.OneHot(3),
    )
    for use in (pv.elbo, pv.fit, pv.log_likelihood, pv.reconstruct):
        with pytest.raises(InvalidInput, match=message):
            use(vae, (torch.zeros(4, 4), context) if context is None or len(context) == 4 else
                _unchecked_pair(torch.zeros(4, 4), context))


def _unchecked_pair(x, context):
    with pytest.raises(InvalidInput, match="3 labels"):
        pv.datasets.Dataset(x, context)
    data = pv.datasets.Dataset(x)
    data.context = context
    return data


@pytest.mark.parametrize("x, message", [
    (torch.full((3, 1, 8, 8), torch.nan), "NaN"),
    (torch.full((3, 1, 8, 8), torch.inf), "infinite"),
    (torch.full((3, 1, 8, 8), 0.5), "binarise grey values"),
    (torch.full((3, 1, 8, 8), 2.0), "support"),
    (torch.zeros(3, 64), "shape"),
    (torch.zeros(1, 8, 8), "batch dimension"),
    (torch.zeros(0, 1, 8, 8), "at least one datum"),
])
def test_bad_x(x, message):
    vae = small_vae()
    for use in (pv.elbo, pv.fit, pv.log_likelihood, pv.reconstruct, pv.encode):
        with pytest.raises(InvalidInput, match=message):
            use(vae, x)


def test_parts_of_the_wrong_size_say_so():
    network = pv.networks.MLP(3, [4], context=2)
    with pytest.raises(InvalidInput, match="2 features"):
        network(torch.zeros(5, 3))
    with pytest.raises(InvalidInput, match="none by this network"):
        pv.networks.MLP(3, [4])(torch.zeros(5, 3), context=torch.zeros(5, 2))
    with pytest.raises(InvalidInput, match="out_shape"):
        pv.posteriors.DiagonalNormal(2, torch.nn.Linear(3, 4))


def test_a_torch_module_is_a_network_once_it_states_its_shape():
    body = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh())
    body.out_shape = (7,)
    q = pv.posteriors.DiagonalNormal(2, body)
    assert q(torch.zeros(3, 5)).event_shape == (2,)


def test_plain_torch_distributions_are_components():
    class Plain(torch.nn.Module):
        event_shape = (3,)

        def forward(self, z, *, context=None):
            return torch.distributions.Independent(torch.distributions.Laplace(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.0), 1)

    vae = pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=Plain(),
                 posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4])))
    assert pv.elbo(vae, torch.randn(4, 3)).values.isfinite().all()
    assert pv.generate(vae, 4).shape == (4, 3)
