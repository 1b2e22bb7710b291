"""Paths and planes of latents that are no real vectors, against closed forms."""

import math

import pytest
import torch
from decoders import Mean

import pyro_vae as pv
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.geometry import (
    geodesic,
    interpolate,
    manifold,
    path_length,
    tangent_planes,
    traverse,
)
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")
MLP, P, Q = pv.networks.MLP, pv.priors, pv.posteriors


PARTS = {
    "sphere": (P.UniformOnSphere, Q.VonMisesFisher),
    "simplex": (P.Dirichlet, Q.LogisticNormal),
    "bits": (P.Bernoulli, Q.EnumeratedBernoulli),
    "states": (P.Categorical, Q.EnumeratedCategorical),
    "relaxed bits": (P.RelaxedBernoulli, Q.RelaxedBernoulli),
    "relaxed states": (P.RelaxedCategorical, Q.RelaxedCategorical),
}


def decoder_on(kind, latent, function=lambda z: z, features=None):
    prior, posterior = PARTS[kind]
    features = features or torch.Size([latent] if isinstance(latent, int) else latent).numel()
    likelihood = Mean(function, features, 1 if isinstance(latent, int) else len(latent))
    return Decoder(pv.VAE(prior(latent), likelihood, posterior(latent, MLP(features, [4]))))


def unit(*entries):
    return torch.nn.functional.normalize(torch.tensor(entries, dtype=torch.float64), dim=0)


def assert_latents(decoder, z):
    assert decoder.support.check(z.reshape(-1, *decoder.event)).all()


@pytest.mark.parametrize("angle", [0.0, 1e-4, 0.5, math.pi / 2, 3.1, math.pi - 1e-9, math.pi])
def test_the_shortest_path_on_a_circle_is_an_arc(angle):
    decoder = decoder_on("sphere", 2)
    start, end = unit(1, 0), torch.tensor([math.cos(angle), math.sin(angle)])
    path = geodesic(decoder, start, end, points=64)
    assert path.length == pytest.approx(angle, rel=1e-3, abs=1e-12)  # chords are shorter
    assert path.straight == pytest.approx(angle, rel=1e-3, abs=1e-12)
    assert_latents(decoder, path.z)
    torch.testing.assert_close(path.z[[0, -1]], torch.stack([start, end]))


def test_the_shortest_path_on_a_stretched_sphere_is_that_on_the_ellipsoid():
    """Of an oblate spheroid between opposite points of its rim: over the pole, by an integral."""
    height, count = 0.3, 20_000
    decoder = decoder_on("sphere", 3, lambda z: z * torch.tensor([1.0, 1.0, height]))
    start, end = unit(1, 0, 0.0), unit(-1, 0, 0.2)
    # meridian of the ellipse (cos t, height sin t)
    t = torch.linspace(0, math.pi - math.atan2(0.2, 1), count)
    meridian = torch.stack([t.cos(), height * t.sin()], 1).diff(dim=0).norm(dim=1).sum().item()
    path = geodesic(decoder, start, end, points=60)
    assert path.length == pytest.approx(meridian, rel=2e-3)
    aside = geodesic(decoder, unit(1, 0, 0.4), unit(0, 1, 0.4), points=40)
    assert aside.length < 0.995 * aside.straight  # not a great circle
    for found in (path, aside):
        assert_latents(decoder, found.z)
        assert path_length(decoder, found.z).item() == pytest.approx(found.length)


def test_the_shortest_path_of_proportions_is_straight_for_the_identity():
    decoder = decoder_on("simplex", 3)
    for start, end in (
        ([0.98, 0.01, 0.01], [0.01, 0.01, 0.98]),
        ([0.2, 0.3, 0.5], [0.6, 0.3, 0.1]),
        ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]),
    ):
        a, b = torch.tensor(start), torch.tensor(end)
        path = geodesic(decoder, a, b)
        distance = (a - b).norm().item()
        assert path.length == pytest.approx(distance, rel=1e-5)
        assert path.straight == pytest.approx(distance)
        assert_latents(decoder, path.z)


def test_the_shortest_path_of_square_roots_of_proportions_has_the_length_of_fisher_and_rao():
    decoder = decoder_on("simplex", 4, lambda z: 2 * z.clamp_min(0).sqrt())
    for a, b in (
        (torch.tensor([0.7, 0.1, 0.1, 0.1]), torch.tensor([0.05, 0.05, 0.1, 0.8])),
        (torch.tensor([0.94, 0.02, 0.02, 0.02]), torch.tensor([0.02, 0.02, 0.94, 0.02])),
    ):
        truth = 2 * torch.acos((a * b).sqrt().sum()).item()
        path = geodesic(decoder, a, b, points=40)
        assert path.length == pytest.approx(truth, rel=1e-3) and path.straight > 1.003 * truth
        assert_latents(decoder, path.z)


def test_the_shortest_path_of_positive_entries_and_of_a_square_keeps_inside():
    decoder = decoder_on("relaxed bits", 2, lambda z: torch.cat([z, 4 * z.prod(-1, True)], -1), 3)
    path = geodesic(decoder, torch.tensor([0.02, 0.9]), torch.tensor([0.9, 0.02]))
    assert_latents(decoder, path.z)
    assert path.length < 0.97 * path.straight  # it bends to the corner, where the product is 0
    plain = decoder_on("relaxed bits", 2)
    ends = torch.tensor([[0.0, 1.0], [1.0, 1.0]])  # states, at the end of the support
    assert geodesic(plain, *ends).length == pytest.approx(1.0)


def test_interpolation_keeps_to_the_latents_of_a_decoder():
    sphere, simplex = decoder_on("sphere", 3), decoder_on("simplex", 3)
    a, b = torch.tensor([0.4, 0, 0]), torch.tensor([0, 0.9, 0])  # means, within the sphere
    for spherical in (False, True):
        path = interpolate(a, b, 3, spherical=spherical, decoder=sphere)
        torch.testing.assert_close(path, torch.stack([unit(1, 0, 0), unit(1, 1, 0), unit(0, 1, 0)]))
    opposite = interpolate(a, -a, 5, decoder=sphere)
    assert_latents(sphere, opposite)
    turns = (opposite[1:] * opposite[:-1]).sum(1).acos()
    torch.testing.assert_close(turns, torch.full((4,), math.pi / 4))
    c, d = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(
        interpolate(c, d, 3, decoder=simplex)[1], torch.tensor([0.25, 0.25, 0.5])
    )
    with pytest.raises(InvalidInput, match="spherical: got points off"):
        interpolate(c, d, decoder=simplex, spherical=True)
    likelihood, posterior = pv.likelihoods.Normal(2, MLP(3, [])), Q.DiagonalNormal(3, MLP(2, []))
    real = Decoder(pv.VAE(P.StandardNormal(3), likelihood, posterior))
    for spherical in (False, True):
        plain = interpolate(a, b, 7, spherical=spherical)
        assert torch.equal(interpolate(a, b, 7, spherical=spherical, decoder=real), plain)


@pytest.mark.parametrize("kind", ["bits", "states"])
def test_no_path_leads_between_states(kind):
    decoder = decoder_on(kind, 3)
    a, b = torch.eye(3)[:2]
    for call in (
        lambda: geodesic(decoder, a, b),
        lambda: interpolate(a, b, decoder=decoder),
    ):
        with pytest.raises(InvalidInput, match="a latent of discrete states"):
            call()


def test_the_volume_is_of_the_directions_that_a_latent_can_go():
    z = torch.randn(6, 4)
    on_sphere = tangent_planes(decoder_on("sphere", 4, lambda z: 3 * z), z)  # z is put there
    torch.testing.assert_close(on_sphere.volume, torch.full((6,), 3 * math.log(3.0)))
    assert on_sphere.held == 1 and on_sphere.local_dimension().tolist() == [3] * 6
    on_simplex = tangent_planes(decoder_on("simplex", 4, lambda z: 3 * z), z.softmax(1))
    torch.testing.assert_close(on_simplex.volume, torch.full((6,), 3 * math.log(3.0)))
    # of a map of two entries of a simplex the area of a triangle changes by 1 / sqrt(3)
    half = tangent_planes(decoder_on("simplex", 3, lambda z: z[..., :2], 2), z[:, :3].softmax(1))
    torch.testing.assert_close(half.volume, torch.full((6,), -0.5 * math.log(3.0)))
    several = decoder_on("sphere", (2, 3), lambda z: 2 * z.flatten(-2))
    planes = tangent_planes(several, torch.randn(6, 6))
    torch.testing.assert_close(planes.volume, torch.full((6,), 4 * math.log(2.0)))
    assert planes.held == 2 and planes.local_dimension().tolist() == [4] * 6
    flat = tangent_planes(decoder_on("sphere", 3, lambda z: 0 * z), z[:, :3])
    assert (flat.volume == -math.inf).all()


def test_the_derivative_on_a_sphere_is_along_it_at_the_nearest_latent():
    decoder = decoder_on("sphere", 2, lambda z: z.square())
    inside = 0.3 * unit(3, 4)[None]
    jacobian = tangent_planes(decoder, inside).jacobian
    torch.testing.assert_close(jacobian, tangent_planes(decoder, unit(3, 4)[None]).jacobian)
    along = torch.tensor([-0.8, 0.6])
    torch.testing.assert_close(jacobian[0] @ along, 2 * unit(3, 4) * along)


@pytest.mark.parametrize(
    "kind, latent, values",
    [
        ("sphere", 3, [-1.0, -0.3, 0.0, 1.0]),
        ("sphere", (2, 3), [-1.0, 0.5, 1.0]),
        ("simplex", 4, [0.0, 0.2, 1.0]),
        ("bits", 3, [0.0, 1.0]),
        ("relaxed bits", 3, [0.0, 0.5, 1.0]),
        ("relaxed states", 3, [0.0, 0.5, 1.0]),
    ],
)
def test_a_traversal_keeps_to_the_latents(kind, latent, values):
    decoder = decoder_on(kind, latent, lambda z: z.flatten(-2) if latent == (2, 3) else z)
    values = torch.tensor(values)
    start = decoder.space.nearest(torch.rand(5, decoder.dim))
    for z in (*start, torch.eye(decoder.dim)[0]):
        moved = traverse(decoder, z, range(decoder.dim), values)
        assert_latents(decoder, moved)
        for d in range(decoder.dim):
            torch.testing.assert_close(moved[d, :, d], values)
    for z in start[:2]:  # where it stands it stays
        moved = traverse(decoder, z, [1], z[1:2])
        torch.testing.assert_close(moved[0, 0], z)
    with pytest.raises(InvalidInput, match="values: got points off"):
        traverse(decoder, start[0], [0], torch.tensor([-2.5]))


def test_a_circle_and_two_proportions_are_no_plane():
    for kind in ("sphere", "simplex", "bits"):
        with pytest.raises(InvalidInput, match="fills no plane"):
            manifold(decoder_on(kind, 2))
