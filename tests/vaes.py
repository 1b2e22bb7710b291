"""A small VAE, for tests and for the examples in docstrings."""

import torch

import pyro_vae as pv


def small_vae(latent: int = 2, hidden: int = 16, seed: int = 0) -> pv.VAE:
    """A VAE of the digits' event shape with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return pv.VAE(
            prior=pv.priors.StandardNormal(latent),
            likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(latent, [hidden])),
            posterior=pv.posteriors.DiagonalNormal(latent, pv.networks.MLP((1, 8, 8), [hidden])),
        )
