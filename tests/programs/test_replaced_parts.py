"""A part that is replaced by assignment is replaced everywhere: trained, saved and scored."""

import copy

import families
import pytest
import torch
from families import MLP

import pyro_vae as pv
from pyro_vae.testing import check_program
from pyro_vae.validation import InvalidInput

X = (torch.arange(5) < torch.arange(40).unsqueeze(1) % 6).float()


def vamp(components=4):
    return pv.VAE(
        prior=pv.priors.VampPrior(2, components=components),
        likelihood=pv.likelihoods.Bernoulli(5, MLP(2, [8])),
        posterior=posterior(),
    )


def posterior(latent=2, event=5, **options):
    return pv.posteriors.DiagonalNormal(latent, MLP(event, [8], **options))


def codes(number=6):
    return pv.posteriors.Codebook((2, 2, 2), MLP(5, [8]), codes=number)


def with_codes(prior):
    return pv.VAE(prior, pv.likelihoods.Bernoulli(5, MLP((2, 2, 2), [8])), codes())


def top_down(**options):
    prior = pv.priors.VampPrior(2, components=4)
    return pv.HierarchicalVAE(
        priors=[posterior(3, 2), prior],
        likelihood=pv.likelihoods.Bernoulli(5, MLP(3, [8])),
        posteriors=[posterior(3, 5, context=2), posterior(2, 5)],
        inference="top_down",
        **options,
    )


def semi_supervised():
    return pv.SemiSupervisedVAE(
        prior=SharesThePosterior(),
        likelihood=pv.likelihoods.Bernoulli(5, MLP(2, [8], context=3)),
        posterior=posterior(context=3),
        context=pv.networks.OneHot(3),
        hidden=[8],
    )


class SharesThePosterior(torch.nn.Module):
    """Somebody's own prior, which keeps the posterior that it was given, and lies at its bias."""

    def bind(self, program):
        self.kept = [program.posterior]

    def forward(self, *, context=None):
        loc = self.kept[0].head.layer.bias[:2]
        return torch.distributions.Independent(torch.distributions.Normal(loc, 1.0), 1)


def replace_posterior(program):
    program.posterior = posterior()


def replace_prior(program):
    program.prior = pv.priors.VampPrior(2, components=3)


def replace_codes(program):
    program.posterior = codes(number=9)


def replace_code_prior(program):
    program.prior = pv.priors.PixelCNN((2, 2, 2), width=4, layers=2)


def replace_top_posterior(program):
    program.posteriors[-1] = posterior()


def replace_top_prior(program):
    program.priors[-1] = pv.priors.VampPrior(2, components=3)


def replace_labelled_posterior(program):
    program.posterior = posterior(context=3)


def replace_inside(program):
    program.program.posterior = posterior()


def levels_of_codes():
    latents = [(3, 2, 2), (2, 2, 2)]
    return pv.HierarchicalVAE(
        priors=[lower_code_prior(), pv.priors.PixelCNN(latents[1], width=4, layers=2)],
        likelihood=pv.likelihoods.Bernoulli(5, MLP((3, 2, 2), [8], context=8)),
        posteriors=[
            pv.posteriors.Codebook(latents[0], MLP(5, [8], context=8), codes=6),
            pv.posteriors.Codebook(latents[1], MLP(5, [8]), codes=3),
        ],
        inference="top_down",
        skip=True,
    )


def lower_code_prior():
    return pv.priors.PixelCNN((3, 2, 2), MLP((2, 2, 2), [8]), width=4, layers=2)


def replace_lower_codes(program):
    program.posteriors[0] = pv.posteriors.Codebook((3, 2, 2), MLP(5, [8], context=8), codes=9)


def replace_lower_code_prior(program):
    program.priors[0] = lower_code_prior()


CASES = [
    (vamp, replace_posterior),
    (vamp, replace_prior),
    (lambda: with_codes(pv.priors.PixelCNN((2, 2, 2), width=4, layers=2)), replace_codes),
    (lambda: with_codes(pv.priors.UniformCodes((2, 2, 2))), replace_codes),
    (lambda: with_codes(pv.priors.UniformCodes((2, 2, 2))), replace_code_prior),
    (levels_of_codes, replace_lower_codes),
    (levels_of_codes, replace_lower_code_prior),
    (top_down, replace_top_posterior),
    (top_down, replace_top_prior),
    (semi_supervised, replace_labelled_posterior),
    (lambda: pv.Refined(vamp(), steps=1), replace_inside),
]


@pytest.mark.parametrize("build, replace", CASES)
def test_what_is_trained_is_what_is_saved_is_what_is_scored(build, replace, tmp_path):
    program = build()
    data = (X, torch.arange(40) % 3) if hasattr(program, "weight") else X
    pv.fit(program, data, epochs=2, progress=False)
    replace(program)
    pv.elbo(program, data, 2)  # a level that was replaced in a list is bound when it first runs
    before = copy.deepcopy(program.state_dict())
    pv.fit(program, data, epochs=2, learning_rate=0.01, progress=False)
    after = program.state_dict()
    still = [
        name
        for name, parameter in program.named_parameters()
        if torch.equal(before[name], after[name])
    ]
    assert not still, f"{still} did not move"
    expected = pv.elbo(program, data, 5).values
    pv.save(program, tmp_path)
    assert torch.equal(pv.elbo(pv.load(tmp_path), data, 5).values, expected)
    copied = copy.deepcopy(program)
    assert torch.equal(pv.elbo(copied, data, 5).values, expected)
    replace(copied)
    assert torch.equal(pv.elbo(program, data, 5).values, expected)
    pointers = [value.data_ptr() for value in after.values() if value.numel()]
    assert len(pointers) == len(set(pointers)), "a tensor is saved twice"


def test_the_vampprior_is_the_mixture_of_the_posterior_that_the_program_has_now(float64):
    program, z = vamp(), torch.randn(6, 2)
    inputs = program.prior.pseudo_inputs.clone()
    program.posterior = posterior()
    assert torch.equal(program.prior.pseudo_inputs, inputs), "they stay as they were trained"
    by_hand = torch.stack([program.posterior(u).log_prob(z) for u in inputs]).logsumexp(0)
    torch.testing.assert_close(program.prior().log_prob(z), by_hand - torch.tensor(4.0).log())


def test_somebodys_own_part_is_bound_anew():
    program = semi_supervised()
    for new in (posterior(context=3), posterior(context=3)):
        program.posterior = new
        assert program.prior.kept[0] is new
    program = top_down()
    program.priors[-1] = SharesThePosterior()
    program.posteriors[-1] = new = posterior()
    pv.elbo(program, X, 2)
    assert program.priors[-1].kept[0] is new


def test_a_prior_that_another_program_has_trained_goes_on_there_with_what_it_has_learned():
    first = vamp()
    pv.fit(first, X, epochs=1, progress=False)
    inputs = first.prior.pseudo_inputs.detach().clone()
    second = pv.VAE(first.prior, first.likelihood, posterior())
    assert torch.equal(second.prior.pseudo_inputs, inputs)
    check_program(second, X)


@pytest.mark.parametrize("prior", [lambda: pv.priors.VampPrior(2, 4), SharesThePosterior])
def test_a_prior_that_two_programs_share_is_that_of_the_one_that_runs(prior, float64):
    shared, x = prior(), X.double()
    decoder = pv.likelihoods.Bernoulli(5, MLP(2, [8]))
    first = pv.VAE(shared, decoder, posterior())
    before = pv.elbo(first, x, 5).values
    second = pv.VAE(shared, decoder, posterior())
    assert not torch.equal(pv.elbo(second, x, 5).values, before)
    assert torch.equal(pv.elbo(first, x, 5).values, before)


@pytest.mark.parametrize(
    "assign, message",
    [
        (lambda: setattr(vamp(), "prior", None), "prior: got NoneType"),
        (lambda: setattr(vamp(), "likelihood", pv.priors.StandardNormal(2)), "with event_shape"),
        (lambda: setattr(top_down(), "posterior", posterior()), r"write program\.posteriors\[-1\]"),
        (
            lambda: setattr(pv.Refined(vamp()), "posterior", posterior()),
            r"write refined\.program\.posterior",
        ),
    ],
)
def test_an_assignment_that_would_replace_nothing_is_refused(assign, message):
    with pytest.raises(InvalidInput, match=message):
        assign()


def test_a_part_that_does_not_fit_after_it_was_replaced_is_named():
    program = with_codes(pv.priors.UniformCodes((2, 2, 2)))
    program.posterior = posterior()
    with pytest.raises(InvalidInput, match="UniformCodes with a posterior DiagonalNormal"):
        pv.fit(program, X, progress=False)
    program = families.program("VampPrior", "DiagonalNormal")
    program.posterior = pv.posteriors.Delta(2, MLP(5, [8]))
    with pytest.raises(InvalidInput, match="VampPrior with a Delta posterior"):
        pv.elbo(program, X)


def test_weights_that_are_computed_from_others_are_said_when_saved_and_loaded_into_their_like(
    tmp_path,
):
    def normed():
        program = vamp()
        torch.nn.utils.parametrizations.weight_norm(program.likelihood.head.layer)
        return program

    program = normed()
    with pytest.warns(UserWarning, match="likelihood.head.layer: its weights were parametrised"):
        pv.fit(program, X, epochs=1, compile="off", progress=False, out=tmp_path / "run")
    with pytest.raises(InvalidInput, match=r"pv.load\(folder, program="):
        pv.load(tmp_path / "run")
    loaded = pv.load(tmp_path / "run", program=normed())
    assert pv.elbo(loaded, X, 5).mean == pv.elbo(program, X, 5).mean
