"""Known quantities are in the units of x, also where those are changed."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.contracts import Quantity, known_by
from pyro_vae.datasets.named import load, load_whole
from pyro_vae.datasets.units import OF_X
from pyro_vae.validation import InvalidInput

RNG = np.random.default_rng(0)
X = RNG.normal(1000.0, (50.0, 5.0), (60, 2))
NOISE = RNG.uniform(5.0, 20.0, (60, 2))
CODES = RNG.integers(-1, 3, (60, 2))


class Own(nn.Module):
    """A normal likelihood around the standardised mean, whose known quantity we do not know."""

    event_shape = (2,)

    def __init__(self, has_units=True):
        super().__init__()
        self.known = {"error": Quantity("numbers > 0", lambda e, x: e > 0, has_units)}

    def forward(self, z, *, context=None, error):
        return torch.distributions.Independent(torch.distributions.Normal(z[..., :1], error), 1)


class AsThePrior(nn.Module):
    def forward(self, x, *, context=None):
        return dist.Normal(x.new_zeros(*x.shape[:-1], 1), 1.0).to_event(1)


def flat(likelihood, **arguments):
    """A program whose likelihood does not look at z, and is at the origin; q is the prior."""
    p = likelihood(2, pv.networks.MLP(1, []), **arguments)
    program = pv.VAE(pv.priors.StandardNormal(1), p, AsThePrior())
    for parameter in program.parameters():
        nn.init.zeros_(parameter)
    return program


def log_px(likelihood, data, **arguments):
    return pv.log_likelihood(flat(likelihood, **arguments), data, 400, seed=0).mean


def rows(data):
    return torch.tensor(data.frame().to_numpy(float))


@pytest.mark.parametrize("size", [(60, 2), (60, 1), (60,)], ids=str)
@pytest.mark.parametrize("noise", ["scale", "inverse_variance"])
def test_noise_is_in_the_units_of_standardised_columns(float64, noise, size):
    """The density of standardised data, less their Jacobian, is that of the data."""
    scales = NOISE[:, : size[1]] if len(size) > 1 else NOISE[:, 0]
    given = scales if noise == "scale" else scales**-2.0
    train, test = load((X, {noise: given, "group": np.arange(60) % 2}), standardize=True)
    right = torch.tensor(scales).reshape(60, -1)
    whole = load_whole((X, {noise: given}), like=train.columns)
    center, _ = train.columns.units()
    expected = torch.distributions.Normal(center, right).log_prob(torch.tensor(X)).sum(1).mean()
    got = log_px(pv.likelihoods.NormalWithNoise, whole, noise=noise) - train.columns.log_scale
    torch.testing.assert_close(got, expected.item(), rtol=1e-9, atol=0)
    assert test.context["group"].dtype == torch.int64  # labels stay
    assert train.notes[-1].endswith(f"; {noise} of the context likewise")


def test_bounds_of_intervals_are_in_the_units_of_standardised_columns(float64):
    context = {"censored": CODES, "upper": X + NOISE}
    data = load_whole((X, context), standardize=True)
    center, scale = data.columns.units()
    torch.testing.assert_close(
        data.columns.restore(data.context["upper"]), torch.tensor(X + NOISE), rtol=1e-12, atol=0
    )
    assert torch.equal(data.context["censored"], torch.tensor(CODES))
    raw, own = torch.tensor(X), torch.distributions.Normal(center, scale)
    below, above = own.cdf(raw), own.cdf(torch.tensor(X + NOISE))
    right = {0: own.log_prob(raw), 1: (1 - below).log(), -1: below.log(), 2: (above - below).log()}
    expected = sum(right[code][torch.tensor(code == CODES)].sum() for code in right) / len(X)
    normal = {"class_path": "Normal", "init_args": {"scale": 1.0}}
    got = log_px(pv.likelihoods.Censored, data, of=normal, interval=True)
    seen = torch.tensor(CODES == 0).double() @ scale.log()  # a probability has no units
    torch.testing.assert_close(got - seen.mean().item(), expected.item(), rtol=1e-9, atol=0)


def test_what_divides_x_divides_its_noise(float64):
    read = {"scale": NOISE, "inverse_variance": NOISE**-2.0, "upper": X, "size_factor": NOISE[:, 0]}
    data = load_whole((X, read), scale=10.0)
    factors = {"scale": 0.1, "inverse_variance": 100.0, "upper": 0.1, "size_factor": 1}
    for name, factor in factors.items():
        torch.testing.assert_close(data.context[name], factor * torch.tensor(read[name]))
    both = load_whole((X, {"scale": NOISE}), scale=10.0, standardize=True)
    once = load_whole((X, {"scale": NOISE}), standardize=True)
    torch.testing.assert_close(both.context["scale"], once.context["scale"])


def test_whole_numbers_infinities_and_sizes_without_units():
    noise = np.full((60, 2), 10)
    data = load_whole((X, {"scale": noise, "censored": CODES}), standardize=True)
    assert data.context["scale"].is_floating_point() and (data.context["scale"] < 10).all()
    gone = load_whole((X, {"scale": np.where(noise > 0, np.inf, 1.0)}), standardize=True)
    assert torch.isinf(gone.context["scale"]).all()
    assert load_whole((X, {"scale": noise})).context["scale"].dtype == torch.int64  # as read


def test_every_known_quantity_has_its_rule():
    """Each in the units of x is in the table, by which data sets convert it."""
    make, two = pv.networks.MLP(1, []), 2
    L = pv.likelihoods
    made = [
        L.NormalWithNoise(two, make), L.NormalWithNoise(two, make, noise="inverse_variance"),
        L.Censored(two, make), L.Censored(two, make, interval=True),
        L.Poisson(two, make, size_factor="exposure"), L.Multinomial(two, make, size_factor="total"),
        L.Binomial(two, make, trials=True),
    ]  # fmt: skip
    known = {name: quantity for each in made for name, quantity in known_by(each).items()}
    assert {name for name, quantity in known.items() if quantity.has_units} == set(OF_X)
    assert {"censored", "size_factor", "trials"} == set(known) - set(OF_X)


def test_a_quantity_that_no_data_set_knows_is_refused_in_other_units():
    q = pv.posteriors.DiagonalNormal(1, pv.networks.MLP(2, []))
    own = pv.VAE(pv.priors.StandardNormal(1), Own(), q)
    given = (X, {"error": NOISE})
    for changed in ({"standardize": True}, {"scale": 10.0}):
        train, test = load(given, **changed)
        for act, data in ((pv.elbo, test), (pv.fit, train)):
            with pytest.raises(InvalidInput, match=r"context\['error'\]: got numbers as they were"):
                act(own, data)
    divided = train.with_context({"error": train.context["error"] / 10.0})
    assert np.isfinite(pv.elbo(own, divided[:5]).mean)
    assert np.isfinite(pv.elbo(own, load(given)[1]).mean)
    without = pv.VAE(pv.priors.StandardNormal(1), Own(has_units=False), q)
    assert np.isfinite(pv.elbo(without, train).mean)


def test_training_and_scores_agree_with_the_same_data_divided_by_hand(float64):
    train, test = load((X, {"scale": NOISE}), standardize=True)
    center, scale = train.columns.units()
    by_hand = (rows(test) - center) / scale, {"scale": test.context["scale"]}
    program = flat(pv.likelihoods.NormalWithNoise)
    pv.fit(program, train, epochs=1, seed=0, progress=False)
    of_set, of_hand = (pv.elbo(program, data, seed=0).mean for data in (test, by_hand))
    torch.testing.assert_close(of_set, of_hand)
    assert torch.equal(test[:3].context["scale"], test.context["scale"][:3])
