"""Compare importance sampling, annealing and bidirectional bounds on data from a trained VAE.

    python experiments/evaluation/agreement.py [--run RUN] [--data mnist] [--latent 10] [--epochs 5]
    [--num-data 30]

Without --run it trains a small VAE first. Prints a table in Markdown: means in nats, and the
difference of each to the lower bound of the bidirectional sandwich, paired datum by datum, with its
standard error over data.
"""

import argparse
import warnings

import torch

import pyro_vae as pv
from pyro_vae.evaluation.comparison import compare
from pyro_vae.evaluation.importance_score import ImportanceScore, UnreliableEstimate
from pyro_vae.evaluation.proposals import Defensive, Guide, Refitted, Widened

parser = argparse.ArgumentParser()
parser.add_argument("--run", help="a run's folder; without it a VAE is trained")
parser.add_argument("--data", default="mnist")
parser.add_argument("--latent", type=int, default=10)
parser.add_argument("--hidden", type=int, default=200)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--num-data", type=int, default=30)
parser.add_argument("--num-samples", type=int, default=5000)
parser.add_argument("--num-chains", type=int, default=8)
parser.add_argument("--num-temperatures", type=int, default=500)
parser.add_argument("--num-leapfrog", type=int, default=5)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

if options.run:
    program = pv.load(options.run)
else:
    train, _ = pv.datasets.load(options.data)
    torch.manual_seed(options.seed)
    shape = train.event_shape
    program = pv.VAE(
        prior=pv.priors.StandardNormal(options.latent),
        likelihood=pv.likelihoods.Bernoulli(
            shape, pv.networks.MLP(options.latent, [options.hidden])
        ),
        posterior=pv.posteriors.DiagonalNormal(
            options.latent, pv.networks.MLP(shape, [options.hidden])
        ),
    )
    pv.fit(program, train, epochs=options.epochs, seed=options.seed)

annealing = {
    "num_chains": options.num_chains,
    "num_temperatures": options.num_temperatures,
    "num_leapfrog": options.num_leapfrog,
    "progress": True,
}
bounds = pv.evaluation.bdmc(
    program, options.num_data, start="guide", seed=options.seed, **annealing
)
rows = {
    "BDMC from the guide, lower": bounds.lower,
    "BDMC from the guide, upper": bounds.upper,
    "AIS from the prior": pv.evaluation.ais(
        program, (bounds.x, bounds.context), start="prior", seed=options.seed + 3, **annealing
    ),
    "AIS from the guide": pv.evaluation.ais(
        program, (bounds.x, bounds.context), start="guide", seed=options.seed + 1, **annealing
    ),
}
warnings.simplefilter("ignore", UnreliableEstimate)
for proposal in (
    Guide(),
    Widened(1.2),
    Defensive(0.1),
    Refitted(steps=300),
    Widened(1.2, of=Refitted(steps=300)),
):
    rows[f"importance sampling, K = {options.num_samples}, `{proposal}`"] = pv.log_likelihood(
        program,
        (bounds.x, bounds.context),
        options.num_samples,
        proposal=proposal,
        seed=options.seed + 2,
    )

print(bounds)
print(
    "| | mean log p(x) | Monte Carlo error | less BDMC's lower bound | Pareto k, median (above "
    "the threshold) |"
)
print("|---|---|---|---|---|")
for name, score in rows.items():
    paired = compare(score, bounds.lower)
    k = (
        f"{score.pareto_k.median():.2f} ({score.above_threshold})"
        if isinstance(score, ImportanceScore)
        else ""
    )
    print(
        f"| {name} | {score.sign} {score.mean:.3f} | {score.error} | {paired.mean:+.3f} +- "
        f"{paired.se:.3f} | {k} |"
    )
