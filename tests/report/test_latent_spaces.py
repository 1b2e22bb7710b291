"""The figures of a decoder show latents that there are, on whatever support."""

import pytest
import torch

import pyro_vae as pv
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.report.gallery import inspect

pytestmark = pytest.mark.usefixtures("quick_figures")

P, Q = pv.priors, pv.posteriors
ALL = {"tangent.png", "interpolation.png", "traversals.png"}
ON_A_PLANE = {"manifold.png", "metric.png", "paths.png"}


def network(out=(1, 4, 4), hidden=()):
    return pv.networks.MLP(out, [*hidden])


@pytest.mark.parametrize(
    "prior, posterior, latent, drawn, said",
    [
        (P.StandardNormal, Q.DiagonalNormal, 2, ALL | ON_A_PLANE, "from -2.5 to 2.5"),
        (P.UniformOnSphere, Q.VonMisesFisher, 2, ALL | {"paths.png"}, "from -1 to 1"),
        (P.UniformOnSphere, Q.VonMisesFisher, (2, 2), ALL, "from -1 to 1"),
        (P.Dirichlet, Q.LogisticNormal, 2, ALL | {"paths.png"}, "from 0 to 1"),
        (P.Dirichlet, Q.LogisticNormal, 3, ALL, "from 0 to 1"),
        (P.Bernoulli, Q.EnumeratedBernoulli, 2, {"tangent.png", "traversals.png"}, "from 0 to 1"),
        (P.Categorical, Q.EnumeratedCategorical, 3, {"tangent.png"}, None),
        (P.RelaxedBernoulli, Q.RelaxedBernoulli, 2, ALL | ON_A_PLANE, "from 0 to 1"),
        (P.RelaxedCategorical, Q.RelaxedCategorical, 3, ALL, "from 0 to 1"),
    ],
)
def test_what_is_decoded_is_a_latent(prior, posterior, latent, drawn, said, tmp_path, monkeypatch):
    program = pv.VAE(
        prior(latent),
        pv.likelihoods.Bernoulli((1, 4, 4), pv.networks.MLP(latent, [8])),
        posterior(latent, network()),
    )
    decode, decoded = Decoder.__call__, []

    def seen(self, z):
        event = z.detach().to(torch.get_default_dtype()).reshape(len(z), *self.event)
        decoded.append(bool(self.support.check(event).all()))
        return decode(self, z)

    monkeypatch.setattr(Decoder, "__call__", seen)
    data = pv.datasets.Dataset(torch.rand(40, 1, 4, 4).round(), torch.arange(40) % 3)
    gallery = inspect(program, data, data, tmp_path, reference=0)
    assert all(decoded)
    figures = ALL | ON_A_PLANE
    assert figures & set(gallery.captions) == drawn
    assert said is None or said in gallery.captions["traversals.png"]
    left_out = " ".join(gallery.warnings)
    if prior is P.UniformOnSphere and latent == 2:
        assert "the decoded manifold and its metric" in left_out
        assert "great circle" in gallery.captions["interpolation.png"]
    if "interpolation.png" not in drawn:
        assert "between two data" in left_out
    if "traversals.png" not in drawn:
        assert "one latent dimension at a time" in left_out
