"""Every prior in `__all__` keeps its contract; a new class is tested without being listed."""

import copy

import families
import pytest
import scipy.stats
import torch
from families import MLP

import pyro_vae as pv
from pyro_vae.testing import check_prior
from pyro_vae.validation import InvalidInput


@pytest.mark.parametrize("latent", [1, 2, (2, 3)])
@pytest.mark.parametrize("name", pv.priors.__all__)
def test_prior(name, latent):
    contexts = [
        c
        for c in (0, 3)
        if (c and families.takes_context(name)) or not (c or families.needs_context(name))
    ]
    for context in contexts:
        if families.refusal_of(lambda context=context: families.prior(name, latent, context)):
            assert latent == 1, "every prior has a latent of two entries"
        else:
            check_prior(
                families.prior(name, latent, context),
                context=torch.randn(4, context) if context else None,
            )


def log_prob(prior, value):
    return prior.double()().log_prob(torch.as_tensor(value, dtype=torch.float64)).item()


def test_densities_are_scipys():
    z = [0.3, -1.7]
    assert log_prob(pv.priors.Laplace(2, scale=0.7), z) == pytest.approx(
        scipy.stats.laplace(scale=0.7).logpdf(z).sum()
    )
    assert log_prob(pv.priors.StudentT(2, df=3.0, scale=2.0), z) == pytest.approx(
        scipy.stats.t(3, scale=2).logpdf(z).sum()
    )
    assert log_prob(pv.priors.UniformOnSphere(4), [0.5] * 4) == pytest.approx(
        -scipy.stats.vonmises_fisher([1, 0, 0, 0], 1e-9).entropy()
    )
    w = [0.2, 0.3, 0.5]
    assert log_prob(pv.priors.Dirichlet(3, concentration=0.4), w) == pytest.approx(
        scipy.stats.dirichlet([0.4] * 3).logpdf(w)
    )
    assert log_prob(pv.priors.Bernoulli(2), [1.0, 0.0]) == pytest.approx(
        2 * scipy.stats.bernoulli(0.5).logpmf(1)
    )


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: pv.priors.Laplace(2, scale=0.0), "scale: got 0.0"),
        (lambda: pv.priors.StudentT(2, df=-1.0), "df: got -1.0"),
        (lambda: pv.priors.Dirichlet(2, concentration=float("nan")), "concentration"),
        (lambda: pv.priors.Flow(1, kind="coupling"), "2 entries or more"),
        (lambda: pv.priors.Flow(2, kind="spine"), "did you mean 'spline'"),
        (lambda: pv.priors.VampPrior(2, components=0), "components"),
        (lambda: pv.priors.VampPrior(2)(), "outside a program"),
        (lambda: pv.priors.ConditionalNormal(2, context=3)(), "context: got none"),
    ],
)
def test_arguments_that_cannot_be(build, message):
    with pytest.raises(InvalidInput, match=message):
        build()


@pytest.mark.parametrize("kind", ["autoregressive", "coupling", "spline"])
def test_every_kind_of_flow(kind):
    check_prior(pv.priors.Flow(2, kind=kind, transforms=2, hidden=[8]))


def vamp(components=4, context=0):
    return pv.VAE(
        prior=pv.priors.VampPrior(2, components=components, context=context),
        likelihood=pv.likelihoods.Bernoulli(5, MLP(2, [8], context=context)),
        posterior=pv.posteriors.DiagonalNormal(2, MLP(5, [8], context=context)),
        context=pv.networks.OneHot(context) if context else None,
    )


def test_the_vampprior_is_the_mixture_of_the_programs_posteriors(float64):
    program, z = vamp(), torch.randn(6, 2)
    by_hand = torch.stack(
        [program.posterior(u).log_prob(z) for u in program.prior.pseudo_inputs]
    ).logsumexp(0)
    torch.testing.assert_close(program.prior().log_prob(z), by_hand - torch.tensor(4.0).log())
    program.prior().log_prob(z).sum().backward()
    assert all(p.grad is not None for p in program.posterior.parameters()), (
        "the posterior learns through the prior too"
    )


def test_the_vampprior_holds_nothing_twice_and_its_copy_has_its_own_posterior():
    program = vamp()
    assert [key for key in program.state_dict() if key.startswith("prior")] == [
        "prior.pseudo_inputs",
        "prior.initialized",
    ]
    copied = copy.deepcopy(program)
    with torch.no_grad():
        copied.posterior.head.layer.bias.add_(5.0)
    z = torch.zeros(2)
    assert copied.prior().log_prob(z) < program.prior().log_prob(z)


@pytest.mark.parametrize("context", [0, 3])
def test_pseudo_inputs_start_at_data_once_and_a_resumed_run_is_the_run(context, tmp_path):
    x = torch.bernoulli(torch.rand(40, 5))
    data = (x, torch.arange(40) % 3) if context else x
    program = vamp(context=context)
    program.initialize(*(data if context else (x, None)))
    nearest = torch.cdist(program.prior.pseudo_inputs, x).min(1).values
    assert (nearest > 0).all() and (nearest < 0.1).all()
    if context:
        labels = program.prior.pseudo_contexts.detach().round()
        assert torch.equal(labels.sum(1), torch.ones(4))
    before = program.prior.pseudo_inputs.clone()
    program.initialize(*(data if context else (x, None)))
    assert torch.equal(program.prior.pseudo_inputs, before)

    torch.manual_seed(1)
    straight = vamp(context=context)
    parts = copy.deepcopy(straight)
    pv.fit(straight, data, epochs=4, progress=False)
    pv.fit(parts, data, epochs=2, out=tmp_path / "run", progress=False)
    pv.fit(parts, data, epochs=4, out=tmp_path / "run", resume=True, progress=False)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_a_vampprior_and_its_program_agree_on_the_context():
    with pytest.raises(InvalidInput, match="if and only if"):
        pv.VAE(
            prior=pv.priors.VampPrior(2),
            likelihood=pv.likelihoods.Bernoulli(5, MLP(2, [8], context=3)),
            posterior=pv.posteriors.DiagonalNormal(2, MLP(5, [8], context=3)),
            context=pv.networks.OneHot(3),
        )


def test_a_conditional_prior_learns_where_each_label_lies():
    """Where data are their label, p(z | y) differs between labels, and generation follows it."""
    labels = torch.arange(300) % 3
    x = 3.0 * torch.nn.functional.one_hot(labels, 3) + 0.1 * torch.randn(300, 3)
    program = pv.VAE(
        prior=pv.priors.ConditionalNormal(2, context=3, hidden=[16]),
        likelihood=pv.likelihoods.Normal(3, MLP(2, [16]), scale=0.3),
        posterior=pv.posteriors.DiagonalNormal(2, MLP(3, [16])),
        context=pv.networks.OneHot(3),
    )
    program.likelihood.network = IgnoresContext(program.likelihood.network)
    program.posterior.network = IgnoresContext(program.posterior.network)
    pv.fit(program, (x, labels), epochs=60, batch_size=50, learning_rate=1e-2, progress=False)
    for label in range(3):
        assert pv.generate(program, 20, context=label).mean(0).argmax() == label


class IgnoresContext(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.out_shape = network, network.out_shape

    def forward(self, x, context=None):
        return self.network(x)


# Of a flow's or a chain's networks, weights of 1e4 leave nothing of a float; a flat prior has no
# draws; the parameters of a Bayesian mixture are those of its guide.
FRAGILE = {"BayesianMixture", "ContinuousFlow", "DeepMarkov", "Flat", "Flow"}
AT_ANY_SIZE = sorted({*pv.priors.__all__} - FRAGILE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", AT_ANY_SIZE)
def test_parameters_of_1e4_leave_a_density_at_the_priors_own_draws(name, dtype):
    own = families.program_with(pv.priors, name).to(dtype)
    for sign in (1, -1, 0):
        for parameter in own.prior.parameters():
            signs = torch.full_like(parameter, sign) if sign else torch.randn_like(parameter).sign()
            parameter.data = 1e4 * signs
        context = torch.eye(3, dtype=dtype)[0] if own.context is not None else None
        p = own.prior(context=context)
        draws = p.sample((6,))
        log_prob = p.log_prob(draws)
        assert torch.isfinite(draws).all() and torch.isfinite(log_prob).all()
        if log_prob.requires_grad:
            parameters = [*own.prior.parameters()]
            slopes = torch.autograd.grad(log_prob.sum(), parameters, allow_unused=True)
            assert all(torch.isfinite(slope).all() for slope in slopes if slope is not None)


def test_a_chain_of_a_large_gain_has_the_density_of_double_precision():
    prior = pv.priors.GaussianMarkov((4, 2))
    for parameter in prior.parameters():
        parameter.data.fill_(1e4)
    path = prior().sample((6,))
    found = prior().log_prob(path)
    exact = copy.deepcopy(prior).double()().log_prob(path.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "prior",
    [
        pv.priors.Categorical(5),
        pv.priors.RelaxedCategorical(5),
        pv.priors.GaussianMixture(2, components=5),
    ],
    ids=lambda prior: type(prior).__name__,
)
@pytest.mark.parametrize("level", [-1e4, 1e4])
def test_logits_of_any_size_keep_their_digits(prior, level):
    """In float32, by the density in float64: only differences of logits count."""
    prior = copy.deepcopy(prior)
    logits = level + torch.tensor([0.0, 0.5, -0.25, 2.0, -1.0])
    is_code = isinstance(prior, pv.priors.Categorical)
    value = torch.eye(5)[2] if is_code else prior().sample()
    with torch.no_grad():
        prior.logits.copy_(logits)
    found = prior().log_prob(value)
    (gradient,) = torch.autograd.grad(found, prior.logits)
    exact = copy.deepcopy(prior).double()
    with torch.no_grad():
        exact.logits.copy_(logits - level)
    right = exact().log_prob(value.double())
    (right_gradient,) = torch.autograd.grad(right, exact.logits)
    torch.testing.assert_close(found.double(), right, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), right_gradient, rtol=1e-4, atol=1e-5)
