"""Measure by Pareto k how often nominal 95% intervals cover the exact log p(x).

    python experiments/evaluation/coverage.py [--num-samples 1000] [--num-data 2000]

Probabilistic PCA, whose log p(x) is known, scored with its exact posterior scaled by factors from
1.3 down to 0.3, in one, two, five and twenty dimensions. Prints a table in Markdown.
"""

import argparse
import itertools
import warnings

import pyro
import pyro.distributions as dist
import torch

import pyro_vae as pv
from pyro_vae.evaluation.importance_score import UnreliableEstimate

parser = argparse.ArgumentParser()
parser.add_argument("--num-samples", type=int, default=1000)
parser.add_argument("--num-data", type=int, default=1000, help="for each dimension and scale")
options = parser.parse_args()
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
warnings.simplefilter("ignore", UnreliableEstimate)


def scored(latent, scale):
    """Pareto k, whether the interval covers, and the error of the estimate, for each datum."""
    weight, noise = torch.randn(latent + 3, latent), 0.7
    covariance = torch.linalg.inv(torch.eye(latent) + weight.T @ weight / noise**2)
    tril = torch.linalg.cholesky(covariance)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(latent), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, noise).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample(
                "z",
                dist.MultivariateNormal(
                    x @ weight @ covariance / noise**2, scale_tril=scale * tril
                ),
            )

    marginal = dist.MultivariateNormal(
        torch.zeros(latent + 3), weight @ weight.T + noise**2 * torch.eye(latent + 3)
    )
    x = marginal.sample((options.num_data,))
    score = pv.log_likelihood(
        pv.Program(model, guide, event_shape=latent + 3), x, options.num_samples
    )
    error = score.values - marginal.log_prob(x)
    typical = score.pareto_k.median().expand(len(x))
    return torch.stack(
        [score.pareto_k, typical, (error.abs() < 1.96 * score.mc_se).double(), error, score.mc_se]
    )


scales = (1.3, 1.1, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
parts = torch.cat([scored(latent, scale) for latent in (1, 2, 5, 20) for scale in scales], dim=1)
own, typical, covered, error, stated = parts
print(f"K = {options.num_samples}, {parts.shape[1]} estimates")
edges = [-torch.inf, 0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.5, torch.inf]
for title, k in (
    ("Pareto k of the estimate itself", own),
    ("median Pareto k of all estimates with that guide", typical),
):
    print(
        f"\n| {title} | estimates | coverage of the 95% interval | mean error (nats) | mean "
        "stated error |"
    )
    print("|---|---|---|---|---|")
    for low, high in itertools.pairwise(edges):
        here = (k > low) & (k <= high)
        if here.any():
            print(
                f"| {low:.1f} to {high:.1f} | {int(here.sum())} | "
                f"{100 * covered[here].mean():.1f}% | {error[here].mean():+.3f} | "
                f"{stated[here].mean():.3f} |"
            )
