"""A guide that takes one value of a discrete latent has a bound on log p(x), whatever its draws."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from commands import FEW, fails

import pyro_vae as pv
from pyro_vae.checks import all_checks
from pyro_vae.cli import main
from pyro_vae.evaluation import (
    Defensive,
    Guide,
    Refitted,
    Widened,
    inference_gap,
)
from pyro_vae.evaluation.importance_score import share_of_bounds
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")
MLP = pv.networks.MLP
NO_OTHER = "no draw of it reaches another"


def of_codes():
    """A VAE of three codes, data, and their log p(x), the sum over the codes."""
    torch.manual_seed(0)
    program = pv.VAE(
        pv.priors.UniformCodes(2),
        pv.likelihoods.Bernoulli(4, MLP(2, [8])),
        pv.posteriors.Codebook(2, MLP(4, [8]), codes=3),
    ).eval()
    x = torch.bernoulli(torch.rand(30, 4))
    with torch.no_grad():
        terms = [program.likelihood(code).log_prob(x) for code in program.posterior.codebook]
    return program, x, torch.stack(terms).logsumexp(0) - math.log(3)


def of_both_kinds():
    """A program with a code that the guide chooses and a normal latent, whose sum has a density."""
    steps = torch.tensor([-1.0, 0.0, 2.0])

    def model(x):
        with pyro.plate("data", len(x)):
            code = pyro.sample("code", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = (steps[code] + z).unsqueeze(-1)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(x):
        nearest = (x - steps).abs().argmin(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("code", dist.Delta(nearest))
            pyro.sample("z", dist.Normal((x[:, 0] - steps[nearest]) / 2, 0.5**0.5))

    x = torch.linspace(-3, 4, 30).unsqueeze(-1)
    exact = dist.Normal(steps, 2**0.5).log_prob(x).logsumexp(-1) - math.log(3)
    return pv.Program(model, guide, event_shape=1), x, exact


CASES = {"codes": of_codes, "both kinds": of_both_kinds}
WITHIN = [Guide(), Widened(1.2), Refitted(3), Widened(1.2, of=Refitted(3))]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("proposal", WITHIN, ids=str)
def test_its_score_is_a_bound_below_the_exact_value(case, proposal):
    program, x, exact = CASES[case]()
    score = pv.log_likelihood(program, x, 400, proposal=proposal)
    assert (score.values < exact).all() and (exact - score.values).mean() > 0.1
    assert score.is_bound.all() and share_of_bounds(score) == 1 and score.is_restricted
    assert (
        str(score).startswith(">=") and NO_OTHER in str(score) and NO_OTHER in score._repr_html_()
    )
    assert (score.interval()[1] == math.inf).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:Pareto k is above")  # of a few data whose code is not near
def test_mixed_with_the_prior_it_has_the_exact_value(case):
    program, x, exact = CASES[case]()
    score = pv.log_likelihood(program, x, 8000, proposal=Defensive(0.5))
    assert not score.is_restricted and not score.is_bound.all()
    off = (score.values - exact).abs()
    assert (off < 5 * score.mc_se)[~score.is_bound].all() and off.max() < 0.2


@pytest.mark.filterwarnings("ignore:Pareto k")
@pytest.mark.parametrize("case", CASES)
def test_its_inference_gap_needs_a_score_with_all_values(case):
    program, x, exact = CASES[case]()
    with pytest.raises(InvalidInput, match="takes one value of a discrete latent"):
        inference_gap(program, x, 50, refinement=Refitted(3))
    gap = inference_gap(program, x, 2000, refinement=Refitted(3), proposal=Defensive(0.5))
    lost = (exact - pv.elbo(program, x, 2000).values).mean().item()
    assert gap.inference.mean == pytest.approx(lost, abs=0.05)


def test_checks_of_its_weights_cannot_tell():
    program, x, _ = of_codes()
    names = (
        "Pareto k of the importance weights", "draws K of the reported log p(x)", "inference gap",
    )  # fmt: skip
    few = [each for each in all_checks() if each.name in names]
    found = pv.check(program, x, checks=few, minutes=1000)
    assert {verdict.name for verdict in found.verdicts} == set(names)
    assert all(verdict.passed is None and NO_OTHER in verdict.means for verdict in found.verdicts)


def test_a_posterior_that_draws_codes_has_no_such_bound():
    torch.manual_seed(0)
    program = pv.VAE(
        pv.priors.Categorical(3),
        pv.likelihoods.Bernoulli(4, MLP(3, [8])),
        pv.posteriors.EnumeratedCategorical(3, MLP(4, [8])),
    )
    assert not pv.log_likelihood(program, torch.bernoulli(torch.rand(9, 4)), 2000).is_restricted


def test_commands_say_so(tmp_path, capsys):
    codes = ["--prior", "UniformCodes", "--posterior", "Codebook", "--posterior.codes", "8"]
    run = str(tmp_path / "run")
    assert main(["train", "--epochs", "1", "--latent", "2", *codes, *FEW, "--out", run]) == 0
    assert main(["evaluate", run, "--num-samples", "100", "--limit", "30"]) == 0
    out = capsys.readouterr().out
    assert ">= -" in out and "unknown" in out and NO_OTHER in out
    assert main(["report", run]) == 0
    assert NO_OTHER in (tmp_path / "run/report.html").read_text()
    assert "takes one value" in fails(capsys, "gaps", run, "--limit", "5", "--steps", "2")
