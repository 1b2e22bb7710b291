"""The bias of a score from K draws is held against what is known of log p(x), by its proposal."""

import json

import pytest
import torch
from closed_forms import LinearGaussian
from test_checks import EXACT, normal, verdict

import pyro_vae as pv
from pyro_vae.checks import Claims
from pyro_vae.cli import check as command
from pyro_vae.evaluation import Defensive, Guide, Refitted, Widened
from pyro_vae.evaluation.proposals import recorded

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:Pareto k"),
]

NAME = "draws K of the reported log p(x)"


def looked(widen, num_samples, proposal=None, num=50):
    claims = Claims(num_samples=num_samples, proposal=proposal)
    return verdict(NAME, EXACT.program(widen=widen), normal(num), claims=claims)


@pytest.mark.parametrize("num_samples", [10, 50])
def test_the_bias_is_that_of_the_known_evidence(num_samples):
    """By 500 draws of a q half as wide alone, K = 50 looked good to 0.06 nats; it is off by 0.2."""
    found, x = looked(0.5, num_samples), normal(50)
    scores = [
        pv.log_likelihood(EXACT.program(widen=0.5), x, num_samples, seed=seed).mean
        for seed in range(1, 9)
    ]
    bias = EXACT.marginal.log_prob(x).mean().item() - sum(scores) / len(scores)
    assert found.numbers["bias in nats"] == pytest.approx(bias, rel=0.2, abs=0.03)
    assert found.passed is False and bias > 0.1
    assert found.numbers["widened by"] == 2.0 and "2 times as wide" in found.means
    assert found.numbers["of more draws alone"] < 0.85 * bias


def test_the_proposal_of_the_score_is_the_one_that_is_looked_at():
    assert looked(0.5, 50).faults == ("K is too small",)
    wide = looked(0.5, 50, Widened(2.0))
    assert wide.passed and abs(wide.numbers["bias in nats"]) < 0.02
    assert "draws of Widened(factor=2.0, of=None)" in wide.means
    mixed = looked(0.5, 50, Defensive(0.2))
    assert "Defensive" in mixed.means and mixed.numbers["bias in nats"] < 0.1


def test_where_no_proposal_reaches_log_p_it_could_not_tell(monkeypatch):
    monkeypatch.setattr("pyro_vae.checks.questions.draws.FACTORS", ())
    found = looked(0.35, 50, num=30)
    heavy = found.numbers["share of data with too heavy a tail"]
    assert heavy > 0.1 and found.passed is not True and "lower bound itself" in found.means


def test_a_program_whose_latent_cannot_be_widened_is_held_against_more_draws():
    vae = pv.VAE(
        pv.priors.UniformOnSphere(3),
        pv.likelihoods.Normal(4, pv.networks.MLP(3, [])),
        pv.posteriors.VonMisesFisher(3, pv.networks.MLP(4, [])),
    )
    found = verdict(NAME, vae, normal(20), claims=Claims(num_samples=50))
    assert found.numbers["widened by"] is None and "bias in nats" in found.numbers


@pytest.mark.parametrize(
    "proposal", [Guide(), Widened(1.3), Refitted(steps=7), Defensive(0.2, of=Widened(1.1))]
)
def test_a_proposal_is_read_as_it_was_recorded(proposal):
    settings = {name: str(value) for name, value in vars(proposal).items()}
    assert recorded({"name": type(proposal).__name__, **settings}) == proposal


@pytest.mark.parametrize(
    "record",
    [{}, {"name": "Mine"}, {"name": "Widened", "of": "__import__('os')"}, {"name": "dict"}],
)
def test_what_is_not_ours_is_not_made(record):
    assert recorded(record) is None


def test_the_command_hands_the_proposal_over(tmp_path, monkeypatch):
    written = {"log_likelihood": {"mean": 0.0, "se": 0.0, "num_samples": 70}}
    written |= {"proposal": {"name": "Widened", "factor": "1.5", "of": "None"}}
    (tmp_path / "evaluation.json").write_text(json.dumps(written))
    exact = LinearGaussian(1, 2)
    data = pv.datasets.Dataset(exact.data(5))
    monkeypatch.setattr(command, "read_data", lambda folder: data)
    monkeypatch.setattr(command, "recipe_of", lambda folder: {})
    claims = command._claims(tmp_path, data, data)
    assert (claims.proposal, claims.num_samples) == (Widened(1.5), 70)
    assert torch.is_tensor(data.tensor)
