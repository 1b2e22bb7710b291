"""Every estimator of a bound or of log p(x) against its exact value: how far off, and how often its interval covers.

    python experiments/results/ground_truth.py OUT.json

Probabilistic PCA in closed form, curved decoders of one and two latent dimensions by quadrature,
and a finite mixture by enumeration, each with a guide that is wrong: too narrow and off the middle.
Float64.
"""

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.evaluation.importance import importance_weights
from pyro_vae.evaluation.proposals import Defensive, Guide, Refitted, Widened
from pyro_vae.evaluation.scores import Score, UnreliableEstimate

NUM_DATA, NUM_SAMPLES, CHAINS, TEMPERATURES = 200, 1000, 16, 100


@dataclass
class Case:
    """A program, data drawn from it, and the exact values (N,) of log p(x) and of the ELBO; ``truth`` gives log p of any x."""

    name: str
    program: pv.Program
    x: Tensor
    truth: Callable[[Tensor], Tensor]
    elbo: Tensor
    continuous: bool = True


def probabilistic_pca(latent: int = 5, noise: float = 0.7) -> Case:
    weight = torch.randn(latent + 3, latent)
    covariance = torch.linalg.inv(torch.eye(latent) + weight.T @ weight / noise**2)
    narrow = 0.8 * torch.linalg.cholesky(covariance)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(latent), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, noise).to_event(1), obs=x)

    def q(x):
        return dist.MultivariateNormal(0.9 * x @ weight @ covariance / noise**2, scale_tril=narrow)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x))

    marginal = dist.MultivariateNormal(
        torch.zeros(latent + 3), weight @ weight.T + noise**2 * torch.eye(latent + 3)
    )
    x = marginal.sample((NUM_DATA,))
    exact = dist.MultivariateNormal(x @ weight @ covariance / noise**2, covariance)
    elbo = marginal.log_prob(x) - torch.distributions.kl_divergence(q(x), exact)
    return Case(
        f"probabilistic PCA, {latent} dimensions",
        pv.Program(model, guide, event_shape=latent + 3),
        x,
        marginal.log_prob,
        elbo,
    )


def curved(latent: int) -> Case:
    """x is a bent function of z with noise; every integral over z is a sum over a grid."""
    line = torch.linspace(-7, 7, {1: 4001, 2: 561}[latent])
    grid, cell = (
        torch.cartesian_prod(*[line] * latent).reshape(-1, latent),
        (line[1] - line[0]) ** latent,
    )
    prior = dist.Normal(torch.zeros(latent), 1.0).to_event(1)

    def likelihood(z):
        return dist.Normal(torch.cat([z + 0.3 * z**2, torch.sin(z)], dim=-1), 0.5).to_event(1)

    def q(x):
        loc = torch.tanh(x[..., :latent]) * 0.9
        return dist.Normal(loc, torch.full_like(loc, 0.4)).to_event(1)

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", likelihood(pyro.sample("z", prior)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x))

    def on_grid(x):
        return prior.log_prob(grid) + likelihood(grid).log_prob(x)

    def truth(x):
        return torch.stack([on_grid(each).logsumexp(0) for each in x]) + math.log(cell)

    x = likelihood(prior.sample((NUM_DATA,))).sample()
    log_q = [q(each).log_prob(grid) for each in x]
    elbo = torch.stack(
        [(each.exp() * (on_grid(datum) - each)).sum() * cell for datum, each in zip(x, log_q)]
    )
    return Case(
        f"a curved decoder, {latent} dimension{'s' * (latent > 1)}",
        pv.Program(model, guide, event_shape=2 * latent),
        x,
        truth,
        elbo,
    )


def mixture(components: int = 6) -> Case:
    weights, locs = torch.rand(components).log_softmax(0), 1.5 * torch.randn(components, 2)

    def joint(x):
        return weights + dist.Normal(locs, 1.0).to_event(1).log_prob(x[:, None])

    def q(x):
        return dist.Categorical(logits=0.5 * joint(x))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample(
                "x",
                dist.Normal(locs[pyro.sample("z", dist.Categorical(logits=weights))], 1.0).to_event(
                    1
                ),
                obs=x,
            )

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x))

    x = dist.Normal(locs[dist.Categorical(logits=weights).sample((NUM_DATA,))], 1.0).sample()
    elbo = (q(x).probs * (joint(x) - q(x).logits)).sum(-1)
    return Case(
        f"a mixture of {components}",
        pv.Program(model, guide, event_shape=2),
        x,
        lambda x: joint(x).logsumexp(-1),
        elbo,
        False,
    )


def estimates(case: Case) -> Iterator[tuple[str, Score, Tensor, Tensor | None]]:
    """(name, score, what it should be, Pareto k) of each estimator; a bound is measured against the bound where that is known."""
    program, x = case.program, case.x
    log_p = case.truth(x)
    yield f"`elbo`, K = {NUM_SAMPLES}", pv.elbo(program, x, NUM_SAMPLES, seed=1), case.elbo, None
    weights = importance_weights(program, x, NUM_SAMPLES, seed=2)
    for k in (5, 50):  # each a mean of 1000 / k bounds of k draws
        bounds = weights.reshape(-1, k, len(x)).logsumexp(1) - math.log(k)
        yield (
            f"IWAE bound, k = {k}",
            Score(bounds.mean(0), bounds.std(0) / len(bounds) ** 0.5, k),
            log_p,
            None,
        )
    proposals = [Guide(), Widened(1.3), Defensive(0.1)]
    if case.continuous:
        proposals = [*proposals, Refitted(steps=100), Widened(1.2, of=Refitted(steps=100))]
    else:
        proposals = [Guide(), Defensive(0.1)]
    for proposal in proposals:
        score = pv.log_likelihood(program, x, NUM_SAMPLES, proposal=proposal, seed=3)
        yield f"`log_likelihood`, `{proposal}`", score, log_p, score.pareto_k
    if case.continuous:
        settings = {"num_chains": CHAINS, "num_temperatures": TEMPERATURES}
        for start in ("prior", "guide"):
            yield (
                f"`ais` from the {start}",
                pv.evaluation.ais(program, x, start=start, seed=4, **settings),
                log_p,
                None,
            )
        both = pv.evaluation.bdmc(program, NUM_DATA, seed=5, **settings)
        yield "`bdmc`, lower", both.lower, case.truth(both.x), None
        yield "`bdmc`, upper", both.upper, case.truth(both.x), None


def row(case: Case, name: str, score: Score, truth: Tensor, k: Tensor | None) -> dict:
    error = (score.values - truth).double()
    se = score.mean_mc_se
    return {
        "case": case.name,
        "estimator": name,
        "error": error.mean().item(),
        "mc_se": se,
        "in_errors": error.mean().item() / se,
        "root_mean_square": error.square().mean().sqrt().item(),
        "coverage": (error.abs() < 1.96 * score.mc_se).double().mean().item(),
        "pareto_k": None if k is None else k.median().item(),
        "exact": truth.mean().item(),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore", UnreliableEstimate)
    torch.manual_seed(0)
    rows = []
    for case in (probabilistic_pca(), curved(1), curved(2), mixture()):
        for name, *rest in estimates(case):
            rows.append(row(case, name, *rest))
            print(
                {
                    key: round(value, 4) if isinstance(value, float) else value
                    for key, value in rows[-1].items()
                },
                flush=True,
            )
    settings = {
        "num_data": NUM_DATA,
        "num_samples": NUM_SAMPLES,
        "chains": CHAINS,
        "temperatures": TEMPERATURES,
    }
    with open(sys.argv[1], "w") as file:
        json.dump(
            {**settings, "cpu_seconds": round(time.process_time(), 1), "rows": rows}, file, indent=1
        )
