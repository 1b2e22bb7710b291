"""Missing entries: the observed ones alone are scored, and exactly; the rest is drawn."""

import json
import math

import numpy as np
import pytest
import torch
from closed_forms import LinearGaussian
from common import has_entries, known_of, likelihood_of
from torch import nn

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.named import load
from pyro_vae.distributions import entries_of
from pyro_vae.likelihoods import Missing
from pyro_vae.networks import MLP, Conv, WithMask
from pyro_vae.objectives import ELBO
from pyro_vae.testing import check_likelihood, check_network, check_program
from pyro_vae.validation import InvalidInput

TRUTH = LinearGaussian(latent=2, features=5)


def with_holes(x, fraction=0.4, seed=3):
    holes = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < fraction
    return torch.where(holes, torch.nan, x)


class ExactPosteriorOfObserved(nn.Module):
    """q(z | x_obs) of a linear-Gaussian model, exact for every pattern of missing entries."""

    def forward(self, x, *, context=None):
        observed = ~torch.isnan(x)
        weighted = TRUTH.weight * observed[..., None]  # (..., D, L), rows of missing entries zero
        precision = weighted.mT @ weighted / TRUTH.noise**2 + torch.eye(TRUTH.latent)
        residual = torch.where(observed, x - TRUTH.mean, 0.0)
        loc = torch.linalg.solve(precision, weighted.mT @ residual[..., None] / TRUTH.noise**2)[
            ..., 0
        ]
        return torch.distributions.MultivariateNormal(loc, precision_matrix=precision)


def exact_program():
    return pv.VAE(
        pv.priors.StandardNormal(TRUTH.latent).double(),
        Missing(TRUTH.program().likelihood),
        ExactPosteriorOfObserved(),
    )


def marginal_of_observed(row):
    """log N of the observed entries of one datum, under the marginal's blocks."""
    seen = (~torch.isnan(row)).nonzero().flatten()
    if not len(seen):
        return torch.zeros((), dtype=row.dtype)
    covariance = TRUTH.marginal.covariance_matrix[seen][:, seen]
    return torch.distributions.MultivariateNormal(TRUTH.mean[seen], covariance).log_prob(row[seen])


def test_the_log_likelihood_is_the_marginal_of_the_observed_entries(float64):
    x = with_holes(TRUTH.data(40))
    x[0], x[1] = torch.nan, TRUTH.data(2)[1]  # a datum without any, and one without holes
    data = Dataset(x, missing=True)
    exact = torch.stack([marginal_of_observed(row) for row in x])
    for score in (
        pv.log_likelihood(exact_program(), data, num_samples=7),
        pv.elbo(exact_program(), data, num_samples=7),
    ):
        torch.testing.assert_close(score.values, exact, rtol=1e-10, atol=1e-10)
        # Of equal draws, such as those of a datum without entries, no spread is known.
        known = ~torch.isnan(score.mc_se)
        assert (score.mc_se[known] < 1e-6).all() and known.any()


def test_imputations_are_draws_from_the_conditional(float64):
    row = TRUTH.data(1)[0]
    missing, seen = torch.tensor([1, 3]), torch.tensor([0, 2, 4])
    holed = row.clone()
    holed[missing] = torch.nan
    num = 20_000
    completed = pv.reconstruct(
        exact_program(), Dataset(holed.expand(num, -1), missing=True), seed=4
    )
    assert torch.equal(completed[:, seen], row[seen].expand(num, -1))
    covariance = TRUTH.marginal.covariance_matrix
    gain = covariance[missing][:, seen] @ torch.linalg.inv(covariance[seen][:, seen])
    mean = TRUTH.mean[missing] + gain @ (row - TRUTH.mean)[seen]
    spread = covariance[missing][:, missing] - gain @ covariance[seen][:, missing]
    draws = completed[:, missing]
    assert ((draws.mean(0) - mean).abs() < 5 * (spread.diagonal() / num).sqrt()).all()
    torch.testing.assert_close(draws.T.cov(), spread, rtol=0.05, atol=0.02)


def missing_program(name, event=6):
    likelihood = likelihood_of(name, event, MLP(2, [8]))
    network = WithMask(likelihood.event_shape, MLP(WithMask.doubled(likelihood.event_shape), [8]))
    return pv.VAE(
        pv.priors.StandardNormal(2), Missing(likelihood), pv.posteriors.DiagonalNormal(2, network)
    )


ENTRYWISE = [name for name in pv.likelihoods.__all__ if has_entries(name)]


DEPENDENT = {
    "AutoregressiveBernoulli": "AutoregressiveBits",
    "CoupledLogisticMixture": "CoupledLogistics",
    "Multinomial": "MultinomialGivenTotal",
    "AutoregressiveCategorical": "AutoregressiveSequences",
}


def test_all_but_these_have_entries_to_leave_out():
    assert set(pv.likelihoods.__all__) - set(ENTRYWISE) == set(DEPENDENT)
    for name, distribution in DEPENDENT.items():
        with pytest.raises(InvalidInput, match=f"{distribution}, whose entries depend"):
            pv.elbo(missing_program(name), Dataset(with_holes(torch.ones(4, 6)), missing=True))


@pytest.mark.parametrize("name", ENTRYWISE)
def test_every_likelihood_counts_the_observed_entries_only(name, float64):
    program = missing_program(name)
    z, known = torch.randn(5, 2), known_of(program.likelihood, 5)
    likelihood = program.likelihood
    check_likelihood(likelihood, z, known=known)
    p, whole = likelihood(z, **known), likelihood.likelihood(z, **known)
    complete, entries = p.sample(), entries_of(whole)
    x = with_holes(complete)
    each = torch.where(torch.isnan(x), 0.0, entries.log_prob(complete)).sum(-1)
    torch.testing.assert_close(p.log_prob(x), each)
    torch.testing.assert_close(p.log_prob(complete), whole.log_prob(complete))
    assert p.support.check(x).all() and p.support.is_discrete == whole.support.is_discrete
    # Different masks in one batch: as one by one, in values and in gradients, which are finite.
    ones = [slice(i, i + 1) for i in range(len(x))]
    rows = [likelihood(z[i], **{k: v[i] for k, v in known.items()}).log_prob(x[i]) for i in ones]
    torch.testing.assert_close(p.log_prob(x), torch.cat(rows))
    loss = ELBO().differentiable_loss(program.model, program.guide, x, known)
    loss.backward()
    assert loss.isfinite() and all(
        parameter.grad.isfinite().all() for parameter in program.parameters()
    )


@pytest.mark.parametrize("name", ENTRYWISE)
def test_programs_for_missing_entries_train_score_and_complete(name, tmp_path):
    program = missing_program(name)
    known = known_of(program.likelihood, 20)
    context = known or None
    complete = pv.generate(program, 20, context=context, draws=True)
    check_program(program, complete, context=context)
    data = Dataset(with_holes(complete), context, missing=True)
    pv.fit(program, data, epochs=2, progress=False)
    filled = pv.reconstruct(program, data)
    assert torch.equal(filled[~data.x.isnan()], data.x[~data.x.isnan()]) and filled.isfinite().all()
    assert not torch.equal(filled, pv.reconstruct(program, data, seed=1))
    assert program.likelihood(torch.zeros(20, 2), **known).support.check(filled).all()
    pv.save(program, tmp_path)
    assert torch.equal(pv.elbo(pv.load(tmp_path), data).values, pv.elbo(program, data).values)


def test_what_fills_a_hole_is_nothing_to_the_score_or_its_gradient():
    """A gradient through a filled entry would be 0 * inf where the density is infinite there."""
    z = torch.zeros(1, 2, requires_grad=True)
    p = Missing(pv.likelihoods.Beta(2, MLP(2, [8])))(z)
    value = p.log_prob(torch.tensor([[torch.nan, torch.nan]]))
    value.sum().backward()
    assert value.item() == 0 and torch.equal(z.grad, torch.zeros(1, 2))


def test_the_encoder_sees_zeros_and_the_mask():
    x = torch.tensor([[1.5, torch.nan, 0.0]])
    assert WithMask(3, MLP(6, []))(x).tolist() == [[1.5, 0.0, 0.0, 1.0, 0.0, 1.0]]
    check_network(WithMask(3, MLP(6, [8], context=2)), torch.randn(4, 3), context=torch.randn(4, 2))
    image = WithMask((3, 7, 5), Conv(WithMask.doubled((3, 7, 5)), [4], hidden=[8]))
    check_network(image, torch.randn(4, 3, 7, 5))
    assert image(with_holes(torch.randn(2, 4, 3, 7, 5))).isfinite().all()


def test_nan_is_an_error_until_the_data_say_otherwise():
    x = with_holes(torch.randn(6, 3))
    plain = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(3, MLP(2, [8])),
        pv.posteriors.DiagonalNormal(2, MLP(3, [8])),
    )
    for program in (plain, missing_program("Normal", 3)):
        for use in (pv.elbo, pv.fit, pv.reconstruct):
            with pytest.raises(InvalidInput, match="missing=True"):
                use(program, x)
    for use in (pv.elbo, pv.fit, pv.reconstruct):
        with pytest.raises(
            InvalidInput, match=r"likelihoods\.Missing and the encoder in pv\.networks\.WithMask"
        ):
            use(plain, Dataset(x, missing=True))
    with pytest.raises(InvalidInput, match="infinite"):
        pv.elbo(missing_program("Normal", 3), Dataset(x / 0, missing=True))
    with pytest.raises(InvalidInput, match="outside the likelihood's support"):
        pv.elbo(missing_program("Bernoulli", 3), Dataset(x, missing=True))


def test_parts_of_data_with_missing_entries_have_them_too():
    grey = with_holes(torch.rand(50, 4))
    for binarize in ("none", "fixed", "dynamic"):
        data = Dataset(grey, binarize=binarize, missing=True)
        for part in (data, data[:50], data.to("cpu", torch.float64), data.hold_out(10)[0]):
            assert (
                part.missing
                and torch.isnan(part.x).any()
                and torch.isnan(part.batch(torch.arange(5))[0]).any()
            )
        assert torch.equal(data.x.isnan(), grey.isnan())
    other = (
        torch.tensor([torch.nan]).view(torch.int32).add(1).view(torch.float32)
    )  # another of the many NaNs
    assert (
        Dataset(torch.tensor([1.0, torch.nan]), missing=True).sha256
        == Dataset(torch.cat([torch.ones(1), other]), missing=True).sha256
    )


def test_entries_are_removed_by_a_seed():
    train, test = load("wine", missing_fraction=0.3)
    assert (
        train.missing
        and test.missing
        and train.sha256 == load("wine", missing_fraction=0.3)[0].sha256
    )
    share = train.x.isnan().float().mean().item()
    assert abs(share - 0.3) < 5 * math.sqrt(0.3 * 0.7 / train.x.numel())
    assert train.sha256 != load("wine", missing_fraction=0.3, seed=1)[0].sha256
    whole = load("wine")[0]
    assert not whole.missing and torch.equal(whole.x[~train.x.isnan()], train.x[~train.x.isnan()])
    with pytest.raises(InvalidInput, match=r"\[0, 1\)"):
        load("wine", missing_fraction=1.0)


RECIPE = """
data: wine_and_class
missing_fraction: 0.2
latent: 2
likelihood:
  class_path: Mixed
  init_args:
    groups:
    - columns: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
      class_path: StudentT
      init_args: {df: 5, learn_scale: per_feature}
    - {columns: [13], class_path: Categorical, init_args: {categories: 3}}
encoder: {class_path: MLP, init_args: {hidden: [16]}}
decoder: {class_path: MLP, init_args: {hidden: [16]}}
epochs: 2
"""


def test_a_recipe_with_missing_entries_and_mixed_columns(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = tmp_path / "run"
    assert (
        main(["train", str(tmp_path / "recipe.yaml"), "--out", str(run), "--num-samples", "20"])
        == 0
    )
    assert (
        main(["train", "--resume", "--epochs", "3", "--out", str(run), "--num-samples", "20"]) == 0
    )
    assert main(["evaluate", str(run), "--num-samples", "20"]) == 0
    result = json.loads((run / "evaluation.json").read_text())
    program, (_, test) = pv.load(run), load("wine_and_class", missing_fraction=0.2)
    assert (
        isinstance(program.likelihood.likelihood, pv.likelihoods.Mixed)
        and program.likelihood.likelihood.parts[0].df == 5
    )
    assert result["elbo"]["mean"] == pytest.approx(pv.elbo(program, test, 20).mean)
    assert result["data"]["sha256"] == test.sha256 and result["bits_per_dim"] is None


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
def test_an_npz_with_nan_and_bits_per_observed_entry(tmp_path, capsys):
    x = np.random.default_rng(0).integers(0, 2, (60, 5)).astype(np.float32)
    x[::3, 1] = np.nan
    np.savez(tmp_path / "mine.npz", x=x)
    flags = [
        "--data",
        str(tmp_path / "mine.npz"),
        "--latent",
        "2",
        "--encoder.hidden",
        "[8]",
        "--decoder.hidden",
        "[8]",
        "--epochs",
        "1",
        "--num-samples",
        "20",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["train", *flags]) == 2 and "--missing true" in capsys.readouterr().err
    assert main(["train", *flags, "--missing", "true"]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--split", "train", "--num-samples", "20"]) == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    train = load(str(tmp_path / "mine.npz"), missing=True)[0]
    observed = (~train.x.isnan()).sum().item()
    assert result["bits_per_dim"] == pytest.approx(
        -result["log_likelihood"]["mean"] * len(train) / observed / math.log(2)
    )


def test_a_vamp_prior_starts_from_data_with_holes():
    program = missing_program("Normal", 3)
    vamp = pv.VAE(pv.priors.VampPrior(2, components=4), program.likelihood, program.posterior)
    data = Dataset(with_holes(torch.randn(30, 3)), missing=True)
    pv.fit(vamp, data, epochs=2, progress=False)
    assert all(parameter.isfinite().all() for parameter in vamp.parameters())
    assert pv.elbo(vamp, data).values.isfinite().all()
