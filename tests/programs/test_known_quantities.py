"""What is known of each datum reaches the likelihood; the rest of a context, its module."""

import pytest
import torch
from common import known_of
from torch import nn

import pyro_vae as pv
from pyro_vae.contracts import known_by
from pyro_vae.networks import Covariates, OneHot
from pyro_vae.runtime.blocks import BLOCK_BYTES
from pyro_vae.testing import check_program
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP
NUM = 6


def normal(latent, network):
    return pv.posteriors.DiagonalNormal(latent, network)


def counts(context=0):
    return pv.likelihoods.NegativeBinomial(4, MLP(2, [8], context=context), size_factor="total")


def vae(context=0, module=None):
    encoder = MLP(4, [8], context=context)
    return pv.VAE(pv.priors.StandardNormal(2), counts(context), normal(2, encoder), module)


PROGRAMS = {
    "VAE": vae,
    "with covariates": lambda: vae(4, Covariates({"batch": OneHot(3), "age": nn.Identity()})),
    "with labels": lambda: vae(3, OneHot(3)),
    "HierarchicalVAE": lambda: pv.HierarchicalVAE(
        [normal(2, MLP(2, [8])), pv.priors.StandardNormal(2)],
        counts(),
        [normal(2, MLP(4, [8])), normal(2, MLP(2, [8]))],
    ),
    "SemiSupervisedVAE": lambda: pv.SemiSupervisedVAE(
        pv.priors.StandardNormal(2), counts(3), normal(2, MLP(4, [8], context=3)), OneHot(3), [8]
    ),
    "Refined": lambda: pv.Refined(vae(), steps=2),
    "Missing": lambda: pv.VAE(
        pv.priors.StandardNormal(2), pv.likelihoods.Missing(counts()), normal(2, MLP(4, [8]))
    ),
}


def context_of(name, size):
    covariates = {"batch": torch.arange(NUM) % 3, "age": torch.rand(NUM)}
    entries = {
        "with covariates": covariates,
        "with labels": {"batch": covariates["batch"]},
        "SemiSupervisedVAE": {"labels": covariates["batch"]},
    }
    return {**entries.get(name, {}), "size_factor": size}


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_passes_them_on(name):
    program = PROGRAMS[name]()
    assert set(known_by(program)) == {"size_factor"}
    x, size = torch.poisson(torch.full((NUM, 4), 3.0)), torch.linspace(1.0, 50.0, NUM)
    context = context_of(name, size)
    check_program(program, x, context=context)
    torch.testing.assert_close(pv.reconstruct(program, (x, context)).sum(1), size)
    torch.testing.assert_close(pv.generate(program, NUM, context=context).sum(1), size)
    error = pv.evaluation.squared_error(program, (x, context)).values
    expected = (pv.reconstruct(program, (x, context)) - x).square().mean(1)
    torch.testing.assert_close(error, expected.to(error))
    pv.fit(program, (x, context), epochs=1, batch_size=4, progress=False)
    for wrong in ({**context, "size_factor": -size}, {**context, "size_factor": size[:2]}):
        with pytest.raises(InvalidInput, match="size_factor"):
            pv.elbo(program, (x, wrong))
    with pytest.raises(InvalidInput, match="size_factor"):
        pv.elbo(program, x if len(context) == 1 else (x, context["size_factor"]))
    with pytest.raises(InvalidInput, match="size_factor"):
        pv.generate(program, 2)


def test_one_context_for_all_that_are_generated():
    program = PROGRAMS["with covariates"]()
    x = pv.generate(program, 3, context={"batch": 1, "age": 0.5, "size_factor": 20.0})
    torch.testing.assert_close(x.sum(1), torch.full((3,), 20.0))


def test_entries_that_the_context_module_does_not_take():
    x, size = torch.ones(NUM, 4), torch.ones(NUM)
    labels = {"batch": torch.zeros(NUM), "size_factor": size}
    with pytest.raises(InvalidInput, match="expected 'batch', 'age'"):
        pv.elbo(PROGRAMS["with covariates"](), (x, labels))
    with pytest.raises(InvalidInput, match=r"expected one entry; .*networks.Covariates"):
        pv.elbo(PROGRAMS["with labels"](), (x, {**labels, "age": size}))
    with pytest.raises(InvalidInput, match=r"context\['batch'\]: got label 4"):
        pv.elbo(PROGRAMS["with covariates"](), (x, {**labels, "batch": 3 + size, "age": size}))


def test_data_beyond_their_trials_are_refused():
    likelihood = pv.likelihoods.Binomial(2, MLP(2, [8]), trials=True)
    program = pv.VAE(pv.priors.StandardNormal(2), likelihood, normal(2, MLP(2, [8])))
    x = torch.tensor([[1.0, 9.0], [3.0, 3.0]])
    assert pv.elbo(program, (x, {"trials": torch.tensor([9, 3])})).values.isfinite().all()
    with pytest.raises(InvalidInput, match=r"context\['trials'\].*datum 1.*at least x"):
        pv.elbo(program, (x, {"trials": torch.tensor([9, 2])}))
    means = pv.generate(program, 3, context={"trials": 7})
    torch.testing.assert_close(pv.generate(program, 3, context={"trials": 14}), 2 * means)


class Exact(nn.Module):
    """q(z | x, c) of a linear model at the inverse variances c of its noise."""

    def __init__(self, linear):
        super().__init__()
        self.linear = [linear]  # the likelihood's own

    def forward(self, x, *, context):
        weight, bias = self.linear[0].weight.detach(), self.linear[0].bias.detach()
        weighted = context[..., None] * weight
        precision = torch.eye(2) + weighted.mT @ weight
        loc = torch.linalg.solve(precision, weighted.mT @ (x - bias)[..., None])[..., 0]
        return torch.distributions.MultivariateNormal(loc, precision_matrix=precision)


def test_known_noise_gives_the_exact_marginal(float64):
    """Of a linear model whose noise differs from entry to entry: log p(x) in closed form."""
    likelihood = pv.likelihoods.NormalWithNoise(5, pv.networks.WithoutContext(MLP(2, [])))
    linear = likelihood.head.layer
    program = pv.VAE(pv.priors.StandardNormal(2), likelihood, Exact(linear), nn.Identity())
    scale = torch.rand(40, 5) + 0.3
    scale[torch.rand(40, 5) < 0.2] = torch.inf
    x = likelihood(torch.randn(40, 2), scale=scale).sample().nan_to_num(-9.0).detach()
    weight, bias = linear.weight.detach(), linear.bias.detach()
    exact = [
        torch.distributions.MultivariateNormal(
            bias[seen], weight[seen] @ weight[seen].T + row[seen].square().diag()
        ).log_prob(datum[seen])
        for datum, row in zip(x, scale)
        for seen in [row.isfinite()]
    ]
    # The posterior is told of the noise by another entry.
    data = (x, {"scale": scale, "inverse_variance": scale**-2})
    for score in (pv.elbo(program, data, 5), pv.log_likelihood(program, data, 5)):
        torch.testing.assert_close(score.values, torch.stack(exact), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", pv.likelihoods.__all__)
def test_every_known_quantity_has_a_value_in_the_tests(name):
    """So that the contract tests cover a likelihood that states a new one."""
    likelihood = getattr(pv.likelihoods, name)(4, MLP(2, [8]))
    known = known_of(likelihood, 3)
    for quantity, value in known.items():
        assert known_by(likelihood)[quantity].holds(value, torch.zeros(3)).all()


def test_a_modality_has_its_size():
    parts = {"counts": counts(), "image": pv.likelihoods.Normal(3, MLP(2, [8]))}
    experts = {"counts": normal(2, MLP(4, [8])), "image": normal(2, MLP(3, [8]))}
    posterior = pv.posteriors.ProductOfExperts(2, experts)
    program = pv.MultimodalVAE(pv.priors.StandardNormal(2), parts, posterior)
    x = {"counts": torch.ones(NUM, 4), "image": torch.zeros(NUM, 3)}
    size = torch.full((NUM,), 4.0)
    scores = [pv.elbo(program, (x, {"size_factor": s})).values for s in (size, 9 * size)]
    assert (scores[0] > scores[1]).all()
    with pytest.raises(InvalidInput, match="size_factor"):
        pv.elbo(program, x)


# decoding


def test_latents_are_decoded_as_the_model_decodes_them(monkeypatch):
    program = PROGRAMS["with covariates"]()
    x, size = torch.poisson(torch.full((NUM, 4), 3.0)), torch.linspace(1.0, 50.0, NUM)
    context = context_of("with covariates", size)
    z = pv.encode(program, (x, context))["z"]
    features = program.context_features(context)
    expected = program.likelihood(z, context=features, size_factor=size).mean
    torch.testing.assert_close(pv.decode(program, z, context), expected)
    many = torch.randn(3, NUM, 2)
    expected = program.likelihood(many, context=features, size_factor=size).mean
    for budget in (2**24, 1):  # a datum at a time
        monkeypatch.setitem(BLOCK_BYTES, "cpu", budget)
        torch.testing.assert_close(pv.decode(program, many, context), expected)
    other = {**context, "batch": torch.zeros(NUM), "size_factor": torch.full((NUM,), 100.0)}
    as_if = pv.decode(program, z, {**context, "batch": 0, "size_factor": 100.0})
    torch.testing.assert_close(as_if, pv.decode(program, z, other))
    torch.testing.assert_close(as_if.sum(1), torch.full((NUM,), 100.0))
    drawn = pv.decode(program, z, context, draws=True)
    assert drawn.equal(drawn.round()) and not drawn.equal(
        pv.decode(program, z, context, draws=True, seed=1)
    )


def test_several_latents_are_decoded_by_name():
    program = PROGRAMS["HierarchicalVAE"]()
    x, context = torch.ones(NUM, 4), {"size_factor": torch.linspace(1.0, 50.0, NUM)}
    z = pv.encode(program, (x, context))
    expected = program.likelihood(z["z1"], size_factor=context["size_factor"]).mean
    torch.testing.assert_close(pv.decode(program, z, context), expected)
    with pytest.raises(InvalidInput, match="z: got a tensor, expected a dictionary of z2, z1"):
        pv.decode(program, z["z1"], context)
    with pytest.raises(InvalidInput, match=r"z\['z1'\]: got shape \(6, 1\)"):
        pv.decode(program, {**z, "z1": z["z1"][:, :1]}, context)


def test_each_entry_of_a_modality_may_have_a_quantity_of_its_own(float64):
    likelihoods = {
        "flux": pv.likelihoods.NormalWithNoise(6, MLP(2, [])),
        "counts": pv.likelihoods.Poisson(2, MLP(2, [])),
    }
    experts = {"flux": normal(2, MLP(6, [])), "counts": normal(2, MLP(2, []))}
    program = pv.MultimodalVAE(
        pv.priors.StandardNormal(2), likelihoods, pv.posteriors.ProductOfExperts(2, experts)
    )
    x = {"flux": torch.randn(20, 6), "counts": torch.poisson(torch.ones(20, 2))}
    one = pv.elbo(program, (x, {"scale": torch.full((20,), 0.5)}))
    each = pv.elbo(program, (x, {"scale": torch.full((20, 6), 0.5)}))
    torch.testing.assert_close(one.values, each.values)
    with pytest.raises(InvalidInput, match=r"shape \(20, 5\), expected shape \(N,\)"):
        pv.elbo(program, (x, {"scale": torch.ones(20, 5)}))
