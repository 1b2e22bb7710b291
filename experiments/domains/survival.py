"""Censored times to arrest: lifelines' own fit to the last digits, and a latent frailty on top.

    pip install lifelines
    python experiments/domains/survival.py

Rossi, Berk and Lenihan's 432 released convicts, followed for 52 weeks; 318 were not arrested, so
their time is known to be longer. Without a latent, the likelihood `Censored(of="Weibull")` at
lifelines' estimates must give lifelines' log-likelihood. With one latent z, a Weibull regression
with frailty, log p(time | covariates) is an integral over z: importance sampling and quadrature.
"""

from __future__ import annotations

import math

import lifelines
import torch
from lifelines.datasets import load_rossi
from numpy.polynomial.hermite_e import hermegauss
from torch import nn

import pyro_vae as pv

COVARIATES = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]


class Given(nn.Module):
    """A network whose features are its input."""

    out_shape, takes_draws = (1,), True

    def forward(self, x, context=None):
        return x


def identity(likelihood):
    """A likelihood whose network's number is its parameter."""
    nn.init.ones_(likelihood.part.head.layer.weight)
    nn.init.zeros_(likelihood.part.head.layer.bias)
    return likelihood


def lifelines_agreement(rossi, week, censored) -> None:
    for name, fitter, scale_of in (
        ("Weibull", lifelines.WeibullAFTFitter(), ("lambda_", "rho_", "concentration")),
        ("LogNormal", lifelines.LogNormalAFTFitter(), ("mu_", "sigma_", "scale")),
    ):
        fitter.fit(rossi, duration_col="week", event_col="arrest")
        location, spread, argument = scale_of
        by_covariate = fitter.params_[location]
        linear = sum(by_covariate[c] * rossi[c].to_numpy() for c in COVARIATES)
        linear = torch.as_tensor(linear + by_covariate["Intercept"])[:, None]
        inner = {argument: math.exp(fitter.params_[spread]["Intercept"]), f"learn_{argument}": None}
        of = {"class_path": name, "init_args": inner}
        likelihood = identity(pv.likelihoods.Censored(1, Given(), of=of)).double()
        raw = 20 * torch.atanh(linear / 20)  # what a network would compute for these scales
        ours = likelihood(raw, censored=censored).log_prob(week).sum().item()
        print(f"{name}: ours {ours:.9f}, lifelines {fitter.log_likelihood_:.9f}")


def frailty(rossi, week, censored) -> None:
    features = torch.as_tensor(rossi[COVARIATES].to_numpy()).double()
    features = (features - features.mean(0)) / features.std(0)
    context = {"covariates": features, "censored": censored}
    order = torch.randperm(len(week), generator=torch.Generator().manual_seed(0))
    train, test = order[:332], order[332:]

    def rows(index):
        return week[index], {name: value[index] for name, value in context.items()}

    network = pv.networks.MLP
    program = pv.VAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Censored(1, network(1, [], context=7), of="Weibull"),
        pv.posteriors.DiagonalNormal(1, network(1, [16], context=7)),
        nn.Identity(),
    ).double()
    nn.init.constant_(program.likelihood.part.head.layer.bias, 5.0)
    pv.fit(program, rows(train), epochs=60, batch_size=332, seed=0, progress=False)
    x, given = rows(test)
    score = pv.log_likelihood(program, (x, given), num_samples=2000)
    # The same integral by 200-point Gauss-Hermite quadrature.
    nodes, weights = map(torch.as_tensor, hermegauss(200))
    with torch.no_grad():
        z = nodes.expand(len(x), -1).T[..., None]
        at_nodes = program.likelihood(z, context=given["covariates"], censored=given["censored"])
        log_weights = (weights / math.sqrt(2 * math.pi)).log()[:, None]
        exact = (at_nodes.log_prob(x) + log_weights).logsumexp(0)
    off = (score.values - exact).abs().max()
    print(
        f"frailty, {len(x)} held out: {score.sign} {score.mean:.4f} nats per person by 2,000 draws,"
    )
    print(f"  {exact.mean():.4f} by quadrature; largest difference of a person {off:.4f}")
    plain = lifelines.WeibullAFTFitter().fit(rossi.iloc[train.numpy()], "week", "arrest")
    held_out = plain.score(rossi.iloc[test.numpy()], scoring_method="log_likelihood")
    print(f"  lifelines' Weibull regression, the same split: {held_out:.4f}")


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    rossi = load_rossi()
    week = torch.as_tensor(rossi["week"].to_numpy()).double()[:, None]
    censored = torch.as_tensor(1 - rossi["arrest"].to_numpy()).double()
    lifelines_agreement(rossi, week, censored)
    frailty(rossi, week, censored)
