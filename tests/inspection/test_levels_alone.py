"""One level drawn anew, and draws at a temperature, against closed forms."""

import pytest
import torch
from ladders import LATENTS, LinearLadder, ladder

import pyro_vae as pv
from pyro_vae.runtime.conditioned import conditioned
from pyro_vae.runtime.temperature import tempered
from pyro_vae.validation import InvalidInput

X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round()


def test_a_level_that_is_drawn_anew_moves_x_as_its_prior_says(float64):
    """The others are fixed, so that the covariance of E[x | z] is A S A' of that level alone."""
    exact = LinearLadder()
    x = exact.data(2)
    found = pv.inspection.resample_levels(exact.program, x, 3000)
    assert list(found) == ["z4", "z3", "z2", "z1"]
    # In z_1 and x alone: z_1 is the only latent whose draw nothing below it depends on.
    place, total = exact.places[0], exact.total
    head = exact.program.likelihood.head.layer
    join = exact.program.path.joins[0].layer
    through = torch.kron((head.weight.flatten(1) @ join.weight.flatten(1)), torch.eye(4))
    given = exact.covariance[: place.start, : place.start]
    cross = exact.covariance[place, : place.start]
    noise = exact.covariance[place, place] - cross @ torch.linalg.solve(given, cross.T)
    expected = through @ noise @ through.T
    assert total == place.stop
    for datum in range(2):
        moved = found["z1"][:, datum].flatten(1).T.cov()
        torch.testing.assert_close(moved, expected, atol=0.1 * expected.max().item(), rtol=0.1)


def test_levels_that_are_kept_are_those_of_one_draw():
    program = ladder()
    found = pv.inspection.resample_levels(program, X, 3, seed=5)
    with conditioned(program, X, 5, scored=False) as given:
        kept = given.draw(given.guide, 1)
        again = given.observation(kept).mean[0]
    for x in found.values():
        assert x.shape == (3, 4, 1, 8, 8) and not torch.equal(x[0], x[1])
        assert (x - again).abs().max() < 1


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_new_data_at_a_temperature(temperature, float64):
    """Of linear normal levels the covariance of E[x | z] is that at 1 times its square."""
    exact = LinearLadder()
    x = pv.generate(exact.program, 4000, temperature=temperature).flatten(1)
    signal = exact.marginal.covariance_matrix - exact.noise**2 * torch.eye(4)
    expected = temperature**2 * signal
    torch.testing.assert_close(x.mean(0), exact.marginal.mean, atol=0.1 * temperature, rtol=0)
    torch.testing.assert_close(x.T.cov(), expected, atol=0.12 * expected.max().item(), rtol=0)


def test_at_temperature_one_nothing_changes_and_mixtures_have_one():
    program = ladder(
        top=pv.priors.GaussianMixture(LATENTS[-1], 3),
        prior=pv.posteriors.Mixture,
        posterior=pv.posteriors.DiagonalNormal,
    )
    assert torch.equal(pv.generate(program, 3), pv.generate(program, 3, temperature=1.0))
    assert not torch.equal(pv.generate(program, 3), pv.generate(program, 3, temperature=0.7))


TEMPERED = {
    "StudentT": lambda: pv.priors.StudentT(3, df=8.0, scale=2.0),
    "Laplace": lambda: pv.priors.Laplace(3),
    "GaussianMixture": lambda: pv.priors.GaussianMixture(3, 4),
    "Flow": lambda: pv.priors.Flow(3, hidden=[8]),
    "ContinuousFlow": lambda: pv.priors.ContinuousFlow(3, width=8),
    "FullRankNormal": lambda: of_zeros(pv.posteriors.FullRankNormal),
    "LowRankNormal": lambda: of_zeros(pv.posteriors.LowRankNormal),
    "Mixture": lambda: of_zeros(pv.posteriors.Mixture),
}


def of_zeros(family):
    posterior = family(3, pv.networks.MLP(1, [4]))
    return lambda: posterior(torch.zeros(1))


@pytest.mark.parametrize("name", TEMPERED)
def test_a_temperature_keeps_the_middle_and_narrows_the_rest(name, float64):
    """As the temperature falls draws come to the middle, as fast as it falls; at 1 none moves."""
    torch.manual_seed(0)
    density = TEMPERED[name]()()
    draws = {}
    for temperature in (1.0, 0.02, 0.01):
        torch.manual_seed(1)
        narrowed = tempered(density, temperature)
        draws[temperature] = narrowed.sample((500,)).reshape(500, -1)
        assert narrowed.log_prob(narrowed.sample((4,))).isfinite().all()
    torch.manual_seed(1)
    torch.testing.assert_close(draws[1.0], density.sample((500,)).reshape(500, -1))
    if "Mixture" not in name:  # the parts of a mixture stay apart
        ratio = draws[0.02].std(0) / draws[0.01].std(0)
        torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0), rtol=0.05, atol=0)
    assert (draws[0.01].std(0) < draws[1.0].std(0)).all()


def test_what_has_no_temperature_says_so():
    program = ladder(top=pv.priors.LogisticNormal(LATENTS[-1]))
    with pytest.raises(InvalidInput, match=r"temperature: got 0\.7 with a density"):
        pv.generate(program, 2, temperature=0.7)
    with pytest.raises(InvalidInput, match="temperature: got 0"):
        pv.generate(program, 2, temperature=0.0)
