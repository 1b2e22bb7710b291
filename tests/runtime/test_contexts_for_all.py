"""One context for all data means the same whatever the sizes of latent, context and data are."""

import itertools

import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.runtime.blocks import BLOCK_BYTES

SIZES = list(itertools.product([1, 2, 3, 4], repeat=3))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a thousand rows, of which four are data, take a quarter off the time of a call."""
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 2**18)


def program(latent, features, context):
    torch.manual_seed(0)
    found = pv.VAE(
        pv.priors.StandardNormal(latent),
        pv.likelihoods.Normal(3, pv.networks.MLP(latent, [6], context=features)),
        pv.posteriors.DiagonalNormal(latent, pv.networks.MLP(3, [5], context=features)),
        context=context,
    )
    for parameter in found.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return found


@pytest.mark.parametrize("number, latent, features", SIZES)
@pytest.mark.parametrize("context", [nn.Identity, pv.networks.Covariates])
def test_one_vector_of_covariates_is_of_all_data(number, latent, features, context):
    vae = program(latent, features, context())
    one = torch.randn(features)
    each, z = one.expand(number, features), torch.randn(2, number, latent)
    if features > 1 or context is not nn.Identity:  # which makes no features of a number
        found = pv.generate(vae, number, context=one.tolist())
        torch.testing.assert_close(found, pv.generate(vae, number, context=each))
        for latents in (z[0], z):
            found = pv.decode(vae, latents, context=one)
            torch.testing.assert_close(found, pv.decode(vae, latents, context=each))
    torch.testing.assert_close(
        Decoder(vae, context=one)(z[0]), pv.decode(vae, z[0], context=each), rtol=1e-5, atol=1e-5
    )
    x = pv.generate(vae, number, context=each)
    assert pv.reconstruct(vae, (x, each)).shape == x.shape


@pytest.mark.parametrize("number, latent", [*itertools.product([1, 2, 3, 4], repeat=2)])
def test_a_number_for_each_datum_stays_one_for_each(number, latent):
    vae = program(latent, 1, pv.networks.Covariates())
    each, z = torch.randn(number), torch.randn(3, number, latent)
    for made in (
        lambda context: pv.generate(vae, number, context=context),
        lambda context: pv.decode(vae, z[0], context=context),
        lambda context: pv.decode(vae, z, context=context),
    ):
        torch.testing.assert_close(made(each), made(each[:, None]))
        torch.testing.assert_close(made(0.5), made(torch.full((number, 1), 0.5)))


@pytest.mark.parametrize("number, latent, classes", SIZES)
def test_labels_are_one_for_each_datum(number, latent, classes):
    vae = program(latent, classes, pv.networks.OneHot(classes))
    labels, z = torch.arange(number) % classes, torch.randn(2, number, latent)
    alone = [pv.decode(vae, z[0, n : n + 1], context=int(label)) for n, label in enumerate(labels)]
    for given in (labels, labels.float(), labels.tolist()):
        found = pv.decode(vae, z[0], context=given)
        torch.testing.assert_close(found, torch.cat(alone))
        torch.testing.assert_close(pv.decode(vae, z, context=given)[0], found)
        assert pv.generate(vae, number, context=given).shape == (number, 3)
    all_alike = torch.zeros(number, dtype=torch.int64)
    for made in (
        lambda context: pv.generate(vae, number, context=context),
        lambda context: pv.decode(vae, z, context=context),
    ):
        torch.testing.assert_close(made(0), made(all_alike))
    with pytest.raises(pv.InvalidInput, match=f"label {classes}, expected one integer from 0"):
        pv.decode(vae, z[0], context=labels + classes)
    with pytest.raises(pv.InvalidInput, match=f"context: got {number + 5} entries"):
        pv.generate(vae, number, context=torch.zeros(number + 5))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_entry_of_several_is_read_by_the_part_that_takes_it(number):
    parts = {"batch": pv.networks.OneHot(2), "age": nn.Identity()}
    vae = program(2, 4, pv.networks.Covariates(parts))
    labels, age, z = torch.arange(number) % 2, torch.randn(2), torch.randn(number, 2)
    for made in (
        lambda context: pv.generate(vae, number, context=context),
        lambda context: pv.decode(vae, z, context=context),
    ):
        found = made({"batch": labels, "age": age})
        torch.testing.assert_close(found, made({"batch": labels, "age": age.expand(number, 2)}))
