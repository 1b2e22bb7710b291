"""Components put together keep the contract of a program, and the checks can fail."""

import families
import pyro.distributions as dist
import pytest
import torch
from common import known_of, likelihood_of

import pyro_vae as pv
from pyro_vae.distributions import is_point_mass
from pyro_vae.evaluation.importance import evaluate
from pyro_vae.testing import check_network, check_prior, check_program
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP


def train_and_score(program):
    """A few steps and both scores, or the reason for which the pair was refused before any step."""
    data = families.data_of(program)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    try:
        pv.fit(program, data, epochs=1, batch_size=3, progress=False)
    except InvalidInput as refusal:
        assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())
        with pytest.raises(InvalidInput):
            pv.elbo(program, data)
        return str(refusal)
    x, context = data if isinstance(data, tuple) else (data, None)
    features = program.embed(context)
    if (
        is_point_mass(program.posterior(x, context=features))
        and not program.prior(context=features).support.is_discrete
    ):
        with pytest.raises(InvalidInput, match="a Delta guide"):
            pv.elbo(program, data)
        return None
    for name, score in evaluate(program, data, num_samples=5).items():
        assert score.values.isfinite().all(), name
    return None


@pytest.mark.parametrize("prior", pv.priors.__all__)
def test_every_pair_trains_and_scores_or_is_refused_with_a_reason(prior):
    refusals = {
        name: train_and_score(families.program(prior, name)) for name in pv.posteriors.__all__
    }
    assert None in refusals.values(), f"no posterior goes with {prior}"
    for posterior, reason in refusals.items():
        assert reason is None or (
            reason.count("; ") == 1 and "choose a " in reason and "\n" not in reason
        ), (posterior, reason)


@pytest.mark.parametrize("posterior", pv.posteriors.__all__)
def test_every_posterior_has_a_prior_and_keeps_the_contract_of_a_program(posterior):
    program = families.program_with(pv.posteriors, posterior)
    x = families.data_of(program)
    if not is_point_mass(program.posterior(x)):
        check_program(program, x)


@pytest.mark.triples
@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
@pytest.mark.parametrize("posterior", pv.posteriors.__all__)
@pytest.mark.parametrize("likelihood", pv.likelihoods.__all__)
@pytest.mark.parametrize("prior", pv.priors.__all__)
def test_every_triple_trains_and_scores_or_is_refused_with_a_reason(prior, likelihood, posterior):
    reason = train_and_score(families.program(prior, posterior, likelihood))
    print(f"{prior} x {likelihood} x {posterior}: {reason or 'trained and scored'}")


class OnTheCircle(torch.nn.Module):
    """Somebody's own posterior, whose support says no more than Pyro's does."""

    def forward(self, x, *, context=None):
        return dist.ProjectedNormal(x[..., :2] + 1.0)


def test_a_sphere_under_a_plane_is_refused_before_training():
    program = pv.VAE(
        pv.priors.StandardNormal(2), pv.likelihoods.Bernoulli(5, MLP(2, [8])), OnTheCircle()
    )
    with pytest.raises(
        InvalidInput,
        match="z: got a posterior with a density over the area of a sphere "
        "under a prior with one over volume",
    ):
        pv.fit(program, torch.zeros(4, 5), progress=False)
    program = pv.VAE(
        pv.priors.UniformOnSphere(2), pv.likelihoods.Bernoulli(5, MLP(2, [8])), OnTheCircle()
    )
    assert pv.elbo(program, torch.zeros(4, 5), num_samples=3).values.isfinite().all()


class OnAnInterval(torch.nn.Module):
    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, *args, context=None):
        batch = args[0].shape[:-1] if args else ()
        return dist.Uniform(torch.full((*batch, 2), self.low), self.high).to_event(1)


def test_an_interval_must_lie_inside_the_priors():
    def program(low, high):
        return pv.VAE(
            OnAnInterval(0.0, 1.0),
            pv.likelihoods.Bernoulli(5, MLP(2, [8])),
            OnAnInterval(low, high),
        )

    assert pv.elbo(program(0.2, 0.7), torch.zeros(4, 5), num_samples=3).values.isfinite().all()
    with pytest.raises(
        InvalidInput, match=r"upper_bound=1.2.* under a prior on Interval.*upper_bound=1.0"
    ):
        pv.elbo(program(0.2, 1.2), torch.zeros(4, 5))


@pytest.mark.parametrize("likelihood", pv.likelihoods.__all__)
def test_conditional_program(likelihood):
    likelihood = likelihood_of(likelihood, (1, 4, 4), MLP(2, [8], context=3))
    program = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=likelihood,
        posterior=pv.posteriors.DiagonalNormal(2, MLP(likelihood.event_shape, [8], context=3)),
        context=pv.networks.OneHot(3),
    )
    context, known = torch.tensor([0, 1, 2, 1]), known_of(likelihood, 4)
    context = {"labels": context, **known} if known else context
    check_program(program, pv.generate(program, 4, context=context, draws=True), context=context)


class Broken(torch.nn.Module):
    """A prior whose density is twice what it should be."""

    def __init__(self, latent):
        super().__init__()
        self.latent = latent

    def forward(self, *, context=None):
        class Doubled(torch.distributions.Normal):
            def log_prob(self, value):
                return super().log_prob(value) + 0.6931

        return torch.distributions.Independent(Doubled(torch.zeros(1, dtype=torch.float64), 1.0), 1)


class Forgetful(pv.priors.StandardNormal):
    """A prior that does not keep its argument."""

    def __init__(self, size):
        super().__init__(size)


def test_checks_can_fail():
    with pytest.raises(AssertionError, match="integrates to"):
        check_prior(Broken(1))
    with pytest.raises(InvalidInput, match="size = size"):
        check_prior(Forgetful(2))
    network = MLP(3, [4])
    network.out_shape = (5,)
    with pytest.raises(AssertionError, match="out_shape"):
        check_network(network, torch.randn(2, 3))


class Couples(torch.nn.Module):
    """A decoder that centres each batch, so that a datum's score depends on the others."""

    out_shape = (8,)

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 8)

    def forward(self, z, context=None):
        return self.layer(z - z.mean(-2, keepdim=True))


def test_a_program_whose_scores_depend_on_their_neighbours_is_told():
    program = families.program("StandardNormal", "DiagonalNormal")
    check_program(program, families.data_of(program))
    program.likelihood.network = Couples()
    with pytest.raises(AssertionError, match="depends on the other data"):
        check_program(program, families.data_of(program))
