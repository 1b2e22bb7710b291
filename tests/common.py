"""What many tests share: data, a small VAE, likelihoods by name and what they must be told."""

import math
import os
from pathlib import Path

import torch

import pyro_vae as pv
from pyro_vae.compilation import gradients
from pyro_vae.compilation.capture import Captured
from pyro_vae.compilation.gradients import shapes_of
from pyro_vae.contracts import known_by
from pyro_vae.distributions import entries_of
from pyro_vae.networks import as_shape
from pyro_vae.validation import InvalidInput

HAS_GPU = torch.cuda.is_available()
DATA = Path(os.environ["PYRO_VAE_DATA"]) if os.environ.get("PYRO_VAE_DATA") else None


def small_vae(latent: int = 2, hidden: int = 16, seed: int = 0) -> pv.VAE:
    """A VAE of the digits' event shape with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return pv.VAE(
            prior=pv.priors.StandardNormal(latent),
            likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(latent, [hidden])),
            posterior=pv.posteriors.DiagonalNormal(latent, pv.networks.MLP((1, 8, 8), [hidden])),
        )


def likelihood_of(name: str, event, network):
    """The likelihood of that name, its arguments left at their defaults.

    One that refuses the event's shape, and says that it is the shape, is given a vector of as many
    entries, at least two.
    """
    cls = getattr(pv.likelihoods, name)
    try:
        return cls(event, network)
    except InvalidInput as error:
        assert error.argument == "event_shape"
        return cls(max(2, math.prod(as_shape(event))), network)


def known_of(likelihood, num: int) -> dict[str, torch.Tensor]:
    """A value for each of ``num`` data of every known quantity that a likelihood takes."""
    values = {
        "size_factor": torch.full((num,), 3.0),
        "scale": torch.linspace(0.5, 1.5, num),
        "inverse_variance": torch.linspace(0.5, 1.5, num),
        "censored": torch.zeros(num),
        "upper": torch.zeros(num),
        "trials": torch.arange(num) + 2.0,
    }
    return {name: values[name] for name in known_by(likelihood)}


def has_entries(name: str) -> bool:
    """Whether the likelihood of that name has entries that are independent given z."""
    try:
        likelihood = likelihood_of(name, 3, pv.networks.MLP(2, [8]))
        return bool(entries_of(likelihood(torch.zeros(1, 2), **known_of(likelihood, 1))))
    except InvalidInput:
        return False


def share_graphs(monkeypatch):
    """The fits of one program share the graphs that the first of them captures."""
    captured = {}

    def captured_once(step, inputs):
        shapes = shapes_of(inputs)
        if shapes not in captured:
            captured[shapes] = Captured(step, inputs)
        return captured[shapes]

    monkeypatch.setattr(gradients, "Captured", captured_once)
