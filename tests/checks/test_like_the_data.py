"""Simulated data have all but their values in common with real ones: totals, bounds, gaps."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from test_checks import verdict

import pyro_vae as pv
from pyro_vae.checks import Subject
from pyro_vae.checks.leave_one_out import predicted
from pyro_vae.datasets import Dataset
from pyro_vae.distributions import NormalWithNoise
from pyro_vae.validation import InvalidInput

MLP, NUM = pv.networks.MLP, 300
OF_THE_FIT = [
    "data against generated data",
    "statistics of the data",
    "data given the context",
    "intervals of entries given the others",
]
OF_Q = ["ranks of simulated latents", "coverage of regions of q"]
WEIBULL = {
    "class_path": "Weibull",
    "init_args": {"concentration": 1.5, "learn_concentration": None},
}


def without_latents(likelihood):
    """A program whose latents do nothing, so that q is the prior: sound for data of it."""
    program = pv.VAE(
        pv.priors.StandardNormal(2), likelihood, pv.posteriors.DiagonalNormal(2, MLP(4, []))
    )
    with torch.no_grad():
        for name, parameter in program.named_parameters():
            if name.endswith("head.layer.weight"):
                parameter.zero_()
        program.posterior.head.layer.bias.zero_()
        program.posterior.head.layer.bias[2:] = torch.tensor(1.0).expm1().log()  # of softplus
    spread = program.posterior(torch.zeros(1, 4)).stddev
    torch.testing.assert_close(spread, torch.ones(1, 2), rtol=1e-3, atol=0)
    return program


def censored(scale=1.0, interval=False):
    likelihood = pv.likelihoods.Censored(4, MLP(2, []), of=WEIBULL, interval=interval)
    times = likelihood.part(torch.zeros(NUM, 2)).sample() * scale
    if interval:
        codes = torch.full((NUM, 4), 2)
        codes[:, :2] = 0
        known = {"censored": codes, "upper": times.floor() + 1}
        low = times.floor().clamp(min=1e-3)  # a time is larger than 0
        return without_latents(likelihood), (torch.where(codes == 2, low, times), known)
    ends = torch.distributions.Exponential(0.7).sample((NUM, 4)) * scale
    least = torch.full((NUM, 4), 0.2 * scale)  # below it, only that is known
    codes = (ends < times).long() - (times < least).long() * (times <= ends)
    return without_latents(likelihood), (
        torch.maximum(torch.minimum(times, ends), torch.where(codes == -1, least, 0.0)),
        {"censored": codes},
    )


def with_dead_pixels():
    program = without_latents(pv.likelihoods.NormalWithNoise(4, MLP(2, [])))
    scale = torch.rand(NUM, 4) * 2 + 0.1
    x = program.likelihood.head.layer.bias.detach() + scale * torch.randn(NUM, 4)
    dead = torch.rand(NUM, 4) < 0.1
    x[dead], scale[dead] = -99.0, torch.inf
    return program, (x, {"scale": scale})


def of_all_totals():
    program = without_latents(pv.likelihoods.Multinomial(4, MLP(2, [])))
    logits = program.likelihood.head.layer.bias.detach()
    totals = torch.randint(1, 30, (NUM,)).tolist()
    return program, torch.stack([dist.Multinomial(n, logits=logits).sample() for n in totals])


SOUND = {
    "times": censored,
    "intervals": lambda: censored(interval=True),
    "dead pixels": with_dead_pixels,
    "totals": of_all_totals,
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_program_fails_nothing(name, float64):
    program, data = SOUND[name]()
    for check in (*OF_THE_FIT, *OF_Q):
        found = verdict(check, program, data)
        assert found.passed is not False, (check, found.means)


@pytest.mark.parametrize("name", ["times", "intervals"])
def test_a_bound_is_as_likely_as_all_that_it_may_stand_for(name, float64):
    program, data = SOUND[name]()
    (part,) = predicted(Subject(program, pv.datasets.as_dataset(data)))
    counts = torch.histc(part.pit, 10, 0, 1)
    assert ((counts - counts.mean()).abs() < 5 * counts.mean().sqrt()).all()


def test_wrong_times_are_seen_though_some_are_bounds(float64):
    program, data = censored(scale=2.0)
    assert verdict("intervals of entries given the others", program, data).passed is False
    for check in ("statistics of the data", "data against generated data"):
        assert "bounds" in verdict(check, program, data).means


def test_columns_without_bounds_are_still_compared(float64):
    groups = [
        {"columns": [0], "class_path": "Censored", "init_args": {"of": WEIBULL}},
        {"columns": [1, 2, 3], "class_path": "Normal"},
    ]
    program = without_latents(pv.likelihoods.Mixed(4, MLP(2, []), groups=groups))
    x = program.likelihood(torch.zeros(NUM, 2), censored=torch.zeros(NUM)).sample()
    codes = torch.zeros(NUM, 4, dtype=torch.long)
    codes[::3, 0] = 1
    (entries,) = Subject(program, Dataset(x, {"censored": codes})).entries
    assert entries.places.tolist() == [1, 2, 3] and entries.real.shape == (NUM, 3)
    assert verdict("statistics of the data", program, (x, {"censored": codes})).passed
    far = x.clone()
    far[:, 2] *= 2
    found = verdict("statistics of the data", program, (far, {"censored": codes}))
    assert found.passed is False and "x[2]" in found.means


class Linear(torch.nn.Module):
    """x = w z + noise that is known, and the exact posterior: dead pixels weigh nothing."""

    event_shape, weights = (4,), (1.0, -0.5, 0.8, 0.3)

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(self.weights))

    def model(self, x, context=None):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", NormalWithNoise(self.w * z, context).to_event(1), obs=x)

    def guide(self, x, context=None):
        precision = 1 + (self.w**2 / context**2).sum(-1, keepdim=True)
        mean = (self.w * x / context**2).sum(-1, keepdim=True) / precision
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(mean, precision.rsqrt()).to_event(1))


def test_an_exact_guide_is_calibrated_on_data_like_the_real_ones(float64):
    scale = torch.rand(400, 4) * 2 + 0.1
    dead = torch.rand(400, 4) < 0.1
    x, scale = torch.where(dead, -99.0, torch.zeros(400, 4)), torch.where(dead, torch.inf, scale)
    found = pv.diagnostics.calibrate(Linear(), 400, 99, like=(x, scale))
    assert found.test_uniform().smallest > 0.01
    with pytest.raises(InvalidInput, match=r"it draws NaN; pass real data as like="):
        pv.diagnostics.calibrate(Linear(), 400, 99, context=scale)
    with pytest.raises(InvalidInput, match=r"beside like=.*pass like=\(x, context\)"):
        pv.diagnostics.calibrate(Linear(), 400, 99, like=(x, scale), context=scale)


def test_simulated_data_are_values_whatever_the_context_says(float64):
    """Exact posterior and bounds of x = z + noise, under a context of bounds."""
    likelihood = pv.likelihoods.Censored(
        1, MLP(1, []), of={"class_path": "Normal", "init_args": {"scale": 1.0}}
    )
    q = pv.posteriors.DiagonalNormal(1, MLP(1, []))
    with torch.no_grad():
        likelihood.part.head.layer.weight.fill_(1.0)
        likelihood.part.head.layer.bias.zero_()
        q.head.layer.weight.copy_(torch.tensor([[0.5], [0.0]]))
        q.head.layer.bias.copy_(torch.tensor([0.0, torch.tensor(0.5**0.5).expm1().log()]))
    program = pv.VAE(pv.priors.StandardNormal(1), likelihood, q)
    torch.testing.assert_close(q(torch.ones(1, 1)).mean, torch.tensor([[0.5]]))
    bounds = {"censored": torch.ones(500)}
    found = pv.diagnostics.calibrate(program, 500, 99, context=bounds)
    assert found.test_uniform().smallest > 0.01
    context = {"censored": torch.ones(20)}
    both = pv.evaluation.bdmc(program, 20, 8, 25, context=context)
    exact = torch.distributions.Normal(0.0, 2**0.5).log_prob(both.x)[:, 0]
    assert (both.context["censored"] == 0).all()
    assert ((both.lower.values - exact).mean() < 0.1) and (
        (both.upper.values - exact).mean() > -0.1
    )
    assert both.gap < 0.3


def test_simulated_data_miss_what_the_real_ones_miss(float64, quick_chains):
    networks = {"a": MLP(3, []), "b": MLP(4, [])}
    program = pv.MultimodalVAE(
        pv.priors.StandardNormal(2),
        {
            "a": pv.likelihoods.Normal(3, MLP(2, [])),
            "b": pv.likelihoods.Multinomial(4, MLP(2, [])),
        },
        pv.posteriors.ProductOfExperts(
            2, {name: pv.posteriors.DiagonalNormal(2, net) for name, net in networks.items()}
        ),
    )
    counts = torch.poisson(torch.full((60, 4), 3.0))
    counts[:20] = torch.nan
    data = Dataset({"a": torch.randn(60, 3), "b": counts}, missing=True)
    made = Subject(program, data).simulate(0)
    assert made["b"][:20].isnan().all() and not made["a"].isnan().any()
    assert torch.equal(made["b"][20:].sum(1), counts[20:].sum(1))
    alone = Dataset({"a": torch.randn(60, 3)}, missing=True)
    assert Subject(program, alone).simulate(0)["b"].isnan().all()
    for like in (data, alone):
        assert len(pv.diagnostics.calibrate(program, 30, 9, like=like).ranks) == 30
        both = pv.evaluation.bdmc(program, 4, 2, 4, like=like)
        assert both.x["b"].isnan().any() and both.lower.values.isfinite().all()


def test_what_was_not_measured_is_kept_beside_what_is_missing(float64):
    noise = pv.likelihoods.NormalWithNoise(4, MLP(2, []))
    groups = [{"columns": [0, 1], "class_path": "NormalWithNoise"}]
    groups += [{"columns": [2, 3], "class_path": "Normal"}]
    for likelihood in (noise, pv.likelihoods.Mixed(4, MLP(2, []), groups=groups)):
        program = pv.VAE(
            pv.priors.StandardNormal(2),
            pv.likelihoods.Missing(likelihood),
            pv.posteriors.DiagonalNormal(2, pv.networks.WithMask(4, MLP(8, []))),
        )
        x, scale = torch.zeros(9, 4), torch.full((9, 4), 0.2)
        scale[:, 0], x[:, 0], x[:, 1] = torch.inf, -99.0, torch.nan
        made = Subject(program, Dataset(x, {"scale": scale}, missing=True)).simulate(0)
        assert (made[:, 0] == -99).all() and made[:, 1].isnan().all()
        assert made[:, 2:].isfinite().all() and (made[:, 2:] != 0).all()
