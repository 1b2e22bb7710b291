"""Categories are names: what represents them is the most likely one, never a number between."""

import pandas as pd
import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.datasets import Dataset
from pyro_vae.distributions import representative_of
from pyro_vae.inspection import Decoder, tangent_planes

MLP, SHARES = pv.networks.MLP, torch.tensor([0.45, 0.1, 0.45 + 1e-6])


def of_shares(likelihood, head):
    """A program whose categories have these shares, whatever z is."""
    size = likelihood.event_shape[0]
    program = pv.VAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Missing(likelihood),
        pv.posteriors.DiagonalNormal(1, pv.networks.WithMask(size, MLP(2 * size, []))),
    )
    with torch.no_grad():
        head.layer.weight.zero_()
        head.layer.bias.copy_(SHARES.log().repeat_interleave(len(head.layer.bias) // 3))
    return program


def alone():
    likelihood = pv.likelihoods.Categorical(2, MLP(1, []), categories=3)
    return of_shares(likelihood, likelihood.head)


def in_a_table():
    groups = [
        {"columns": [0], "class_path": "Categorical", "init_args": {"categories": 3}},
        {"columns": [1], "class_path": "Normal"},
    ]
    likelihood = pv.likelihoods.Mixed(2, MLP(1, []), groups=groups)
    return of_shares(likelihood, likelihood.parts[0].head)


@pytest.mark.parametrize("build", [alone, in_a_table])
def test_the_most_likely_category_represents_them(build, float64):
    program = build()
    x = torch.tensor([[0.0, 1.0]] * 20)
    data = Dataset(x, missing=True)
    made = [pv.generate(program, 20), pv.decode(program, torch.zeros(20, 1))]
    for each in (*made, representative_of(program.likelihood(torch.zeros(20, 1)))):
        assert (each[:, 0] == 2).all()
    data.missing = False
    assert (pv.reconstruct(program, data)[:, 0] == 2).all()
    drawn = pv.generate(program, 4000, draws=True)[:, 0]
    assert ((torch.bincount(drawn.long()) / 4000 - SHARES).abs() < 0.04).all()


@pytest.mark.parametrize("build", [alone, in_a_table])
def test_the_most_frequent_category_is_filled_in(build, float64):
    x = torch.tensor([[torch.nan, 1.0]] * 20)
    filled = pv.impute(build(), Dataset(x, missing=True), num_draws=200)
    assert torch.isin(filled.x[:, 0], torch.tensor([0.0, 2.0])).all()


def test_a_table_shows_names(float64):
    frame = pd.DataFrame({"kind": ["ant", "bee", "cat"] * 10, "size": [0.1 * i for i in range(30)]})
    data = pv.datasets.load_whole(frame)
    shown = data.columns.frame(pv.generate(in_a_table(), 8))
    assert set(shown["kind"]) == {"cat"}


def test_the_plane_of_a_latent_with_more_entries_than_x_is_flat(float64):
    program = pv.VAE(
        pv.priors.StandardNormal(3),
        pv.likelihoods.Normal(2, MLP(3, [])),
        pv.posteriors.DiagonalNormal(3, MLP(2, [])),
    )
    plane = tangent_planes(Decoder(program), torch.zeros(4, 3))
    assert plane.singular_values.shape == (4, 3) and (plane.singular_values[:, 2] == 0).all()
    assert (plane.volume == -torch.inf).all()
    assert (plane.local_dimension() == 2).all()


@pytest.mark.parametrize(
    ("density", "value"),
    [
        (dist.Categorical(logits=SHARES.log().expand(4, 3)).to_event(1), 2.0),
        (dist.HalfCauchy(torch.ones(4)).to_event(1), 0.0),
        (dist.Cauchy(torch.full((4,), 3.0), 1.0).to_event(1), 3.0),
        (dist.StudentT(torch.tensor([1.0, 0.5, 2.0, 3.0]), 3.0, 1.0).to_event(1), 3.0),
    ],
)
def test_the_mode_represents_what_has_no_mean(density, value):
    assert (representative_of(density) == value).all()
