"""Inspection against scikit-learn and closed forms, on programs with a known geometry."""

import math

import numpy as np
import pytest
import torch
from closed_forms import LinearGaussian, TwoLevelGaussian
from common import small_vae
from decoders import Mean
from families import data_of, program_with
from sklearn.metrics import roc_auc_score

import pyro_vae as pv
from pyro_vae.distributions import has_mean
from pyro_vae.inspection.anomaly import _auroc, anomaly
from pyro_vae.inspection.coherence import Coherence
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.embedding import embed, neighbours, prior_draws
from pyro_vae.inspection.geometry import (
    geodesic,
    interpolate,
    manifold,
    path_length,
    tangent_planes,
    traverse,
)
from pyro_vae.inspection.probes import knn_accuracy, linear_probe
from pyro_vae.runtime.blocks import BLOCK_BYTES
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("float64")


def decoder_of(function, latent, features, prior=None, posterior=None):
    posterior = posterior or pv.posteriors.DiagonalNormal(latent, pv.networks.MLP(features, [4]))
    return Decoder(
        pv.VAE(prior or pv.priors.StandardNormal(latent), Mean(function, features), posterior)
    )


def to_sphere(z):
    """The plane onto the unit sphere, by stereographic projection."""
    square = z.square().sum(-1, keepdim=True)
    return torch.cat([2 * z, square - 1], -1) / (square + 1)


# embeddings


def test_embeddings_are_the_guides_means_or_draws_whatever_the_chunks(monkeypatch):
    exact = LinearGaussian(3, features=5)
    program, x = exact.program(), exact.data(400)
    means = (x - exact.mean) @ exact.gain.T
    torch.testing.assert_close(embed(program, x, draws=False), means)
    residual = embed(program, x, draws=True) - means
    torch.testing.assert_close(torch.cov(residual.T), exact.covariance, rtol=0, atol=0.1)
    with monkeypatch.context() as patch:
        patch.setattr("pyro_vae.runtime.memory.bytes_allocated", lambda run: 1)
        patch.setitem(BLOCK_BYTES, "cpu", 7)
        torch.testing.assert_close(embed(program, x, draws=False), means)
        drawn = embed(program, x, draws=True)
        assert not torch.equal(drawn[:7], drawn[7:14])
    # the aggregated posterior of an exact guide is the prior
    aggregated, prior = (
        embed(program, exact.data(1000), draws=True),
        prior_draws(program, exact.data(1000)),
    )
    assert abs(pv.diagnostics.two_sample_test(aggregated.numpy(), prior.numpy()).z_score) < 3


def test_sites_by_name_and_the_one_nearest_to_x():
    exact = TwoLevelGaussian()
    x = exact.marginal.sample((5,))
    program = exact.program()
    assert embed(program, x, draws=True).shape == (5, 3) and embed(
        program, x, draws=True, site="z2"
    ).shape == (5, 2)
    with pytest.raises(InvalidInput, match="site"):
        embed(program, x, draws=True, site="z3")
    torch.testing.assert_close(
        tangent_planes(Decoder(program), torch.randn(4, 3)).jacobian, exact.W.expand(4, -1, -1)
    )
    assert (
        tangent_planes(Decoder(program, site="z2"), torch.randn(4, 2)).jacobian.abs().max() == 0
    )  # z1 is held


def test_neighbours_are_those_of_all_distances():
    z = torch.randn(50, 3)
    found = neighbours(z, k=4)
    distance, index = torch.cdist(z, z).fill_diagonal_(math.inf).topk(4, largest=False)
    torch.testing.assert_close(found.distance, distance)
    assert found.index.tolist() == index.tolist() and found.of(7) == index[7].tolist()
    graph = found.graph().toarray()
    assert ((graph > 0).sum(1) == 4).all() and graph[3, found.of(3)[0]] == pytest.approx(
        distance[3, 0].item()
    )
    assert (
        neighbours(torch.tensor([[0.0], [1.0], [5.0], [6.0]]), 1).agreement(
            torch.tensor([0, 0, 1, 0])
        )
        == 0.5
    )
    with pytest.raises(InvalidInput, match="k: got 50"):
        neighbours(z, 50)


def test_probes_read_what_is_there_and_nothing_else():
    labels = torch.arange(600) % 3
    z = torch.eye(3)[labels] * 6 + torch.randn(600, 3)
    for accuracy in (
        linear_probe(z[:300], labels[:300], z[300:], labels[300:]),
        knn_accuracy(z[:300], labels[:300], z[300:], labels[300:]),
    ):
        assert accuracy.value > 0.97 and accuracy.num_data == 300
    noise = linear_probe(torch.randn(300, 3), labels[:300], torch.randn(300, 3), labels[300:])
    assert abs(noise.value - 1 / 3) < 4 * noise.se and "of 300" in str(noise)


Z, LABELS = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("probe", [linear_probe, knn_accuracy])
@pytest.mark.parametrize(
    "bad, said",
    [
        ({"train": Z.tolist()}, r"train: got a list, expected a tensor \(N, D\)"),
        ({"test": Z[:, 0]}, r"test: got shape \(6,\), expected a tensor"),
        ({"train": Z * torch.nan}, "train: got 12 NaN or infinite entries"),
        ({"test": Z / 0}, "test: got 12 NaN or infinite entries"),
        ({"train_labels": LABELS[:5]}, r"train_labels: got shape \(5,\), expected a tensor of 6"),
        ({"test_labels": LABELS.tolist()}, "test_labels: got a list"),
        ({"train_labels": LABELS + 0.5}, "train_labels: got numbers that are not whole"),
        ({"test": Z[:, :1]}, "test: got 1 columns, expected 2"),
        ({"test": Z[:0], "test_labels": LABELS[:0]}, r"test: got shape \(0, 2\)"),
    ],
)
def test_a_probe_says_what_it_cannot_read(probe, bad, said):
    given = {"train": Z, "train_labels": LABELS, "test": Z, "test_labels": LABELS} | bad
    with pytest.raises(InvalidInput, match=f"^{said}"):
        probe(**given, **({"k": 3} if probe is knn_accuracy else {}))


def test_a_probe_needs_two_labels_and_as_many_data_as_neighbours():
    with pytest.raises(InvalidInput, match="train_labels: got the label 0 alone"):
        linear_probe(Z, torch.zeros(6), Z, LABELS)
    with pytest.raises(InvalidInput, match="k: got 7, expected at most the 6 training data"):
        knn_accuracy(Z, LABELS, Z, LABELS, k=7)
    for bad in (Z.tolist(), Z * torch.nan, Z[0]):
        with pytest.raises(InvalidInput, match="embedding: got "):
            neighbours(bad, 2)


@pytest.mark.parametrize("score", ["elbo", "log_likelihood", "reconstruction"])
def test_an_auroc_is_scikit_learns_and_its_error_is_the_bootstraps(score):
    exact = LinearGaussian(2, features=4)
    program, x = exact.program(), exact.data(150)
    result = anomaly(
        program, x[:100], x[100:] + torch.tensor([1.5, -1.5, 1.5, 0.0]), score, num_samples=50
    )
    if score != "reconstruction":  # q is exact: both are log p(x)
        torch.testing.assert_close(result.inside, exact.marginal.log_prob(x[:100]))
    labels, scores = (
        np.repeat([1, 0], [100, 50]),
        torch.cat([result.inside, result.outside]).numpy(),
    )
    assert result.auroc == pytest.approx(roc_auc_score(labels, scores)) and result.auroc > 0.6
    random = np.random.default_rng(0)
    draws = [
        roc_auc_score(
            labels,
            np.concatenate([random.choice(result.inside, 100), random.choice(result.outside, 50)]),
        )
        for _ in range(200)
    ]
    assert result.se == pytest.approx(np.std(draws), rel=0.25)
    tied = anomaly(program, x, x, lambda *_: torch.tensor([1.0, 1.0, 2.0]))
    assert tied.auroc == 0.5
    with pytest.raises(InvalidInput, match="score"):
        anomaly(program, x, x, "nothing")


# geometry


def test_the_tangent_plane_of_a_linear_decoder_is_the_column_space_of_its_weights():
    exact = LinearGaussian(3, features=6)
    planes = tangent_planes(Decoder(exact.program()), torch.randn(5, 3))
    torch.testing.assert_close(planes.jacobian, exact.weight.expand(5, -1, -1))
    projection = exact.weight @ torch.linalg.inv(exact.weight.T @ exact.weight) @ exact.weight.T
    torch.testing.assert_close(planes.basis @ planes.basis.mT, projection.expand(5, -1, -1))
    torch.testing.assert_close(
        planes.singular_values, torch.linalg.svdvals(exact.weight).expand(5, -1)
    )
    torch.testing.assert_close(
        planes.volume, torch.logdet(exact.weight.T @ exact.weight).expand(5) / 2
    )
    assert planes.local_dimension().tolist() == [3] * 5


@pytest.mark.parametrize("name", pv.likelihoods.__all__)
def test_a_decoder_needs_no_datum_in_the_support(name):
    program = program_with(pv.likelihoods, name)
    given = data_of(program, 1)
    known = given[1] if isinstance(given, tuple) else None
    z = torch.randn(4, 2)
    contexts = {key: value.expand(4, *value.shape[1:]) for key, value in (known or {}).items()}
    mean = Decoder(program, context=known)(z)
    density = program.likelihood(z, context=None, **contexts)
    if has_mean(density):
        torch.testing.assert_close(mean, density.mean)
    else:  # a mode, or a draw
        assert mean.shape == (4, 5) and torch.isfinite(density.log_prob(mean)).all()


def test_the_jacobian_is_that_of_finite_differences_and_parameters_are_left_alone():
    vae = small_vae(latent=3)
    decoder, z = Decoder(vae), torch.randn(4, 3)
    step = 1e-6 * torch.eye(3)
    numeric = torch.stack(
        [(decoder(z + step[d]) - decoder(z - step[d])).flatten(1) / 2e-6 for d in range(3)], -1
    )
    torch.testing.assert_close(
        tangent_planes(decoder, z).jacobian, numeric.detach(), rtol=0, atol=1e-7
    )
    assert all(p.requires_grad and p.grad is None for p in vae.parameters())


def test_the_local_dimension_of_a_sphere():
    z = torch.randn(10, 3)
    ball = decoder_of(
        lambda z: torch.nn.functional.normalize(z, dim=-1), 3, 3
    )  # three coordinates, two dimensions
    assert tangent_planes(ball, z).local_dimension().tolist() == [2] * 10
    assert (
        tangent_planes(decoder_of(to_sphere, 2, 3), z[:, :2]).local_dimension().tolist() == [2] * 10
    )
    # a latent that lives on a sphere can move along it only, whatever the decoder does off it
    on_sphere = decoder_of(
        lambda z: 2 * z,
        3,
        3,
        pv.priors.UniformOnSphere(3),
        pv.posteriors.VonMisesFisher(3, pv.networks.MLP(3, [4])),
    )
    planes = tangent_planes(on_sphere, torch.nn.functional.normalize(z, dim=-1))
    assert planes.local_dimension().tolist() == [2] * 10
    torch.testing.assert_close(planes.singular_values, torch.tensor([2.0, 2.0, 0.0]).expand(10, 3))


def test_a_geodesic_of_the_sphere_is_an_arc_of_a_great_circle():
    decoder = decoder_of(to_sphere, 2, 3)
    start, end = torch.tensor([-1.5, 0.4]), torch.tensor([1.2, 0.9])
    path = geodesic(decoder, start, end, points=40, steps=300)
    arc = torch.acos(to_sphere(start) @ to_sphere(end)).item()
    assert path.length == pytest.approx(arc, rel=1e-3) and path.straight > 1.02 * arc
    assert torch.equal(path.z[0], start) and torch.equal(path.z[-1], end)
    steps = to_sphere(path.z).diff(dim=0).norm(dim=1)
    assert steps.std() < 0.02 * steps.mean()  # of constant speed
    flat = geodesic(Decoder(LinearGaussian(2, features=3).program()), start, end)
    assert flat.length == pytest.approx(flat.straight)
    assert path_length(decoder, interpolate(start, end, 2001)).item() == pytest.approx(
        path.straight, rel=1e-3
    )


def test_interpolation_on_a_line_and_on_an_arc():
    a, b = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(
        interpolate(a, b, 5), torch.lerp(a, b, torch.linspace(0, 1, 5)[:, None])
    )
    arc = interpolate(a, b, 5, spherical=True)
    torch.testing.assert_close(arc.norm(dim=1), torch.linspace(3, 1, 5))
    directions = torch.nn.functional.normalize(arc, dim=1)
    torch.testing.assert_close(
        (directions[1:] * directions[:-1]).sum(1), torch.full((4,), math.cos(math.pi / 8))
    )
    torch.testing.assert_close(
        interpolate(a, -a, 3, spherical=True)[1], torch.zeros(3)
    )  # no arc is the shortest


def test_traversals_and_the_manifold():
    exact = LinearGaussian(2, features=3)
    decoder, z, values = (
        Decoder(exact.program()),
        torch.tensor([0.3, -0.2]),
        torch.linspace(-1, 1, 4),
    )
    moved = traverse(decoder, z, [1], values)
    expected = torch.stack([torch.full((4,), 0.3), values], 1) @ exact.weight.T + exact.mean
    torch.testing.assert_close(moved[0], expected)
    grid = manifold(decoder, 3, draws=20_000).reshape(3, 3, 3)
    quantiles = torch.distributions.Normal(0, 1).icdf(torch.tensor([1 / 6, 1 / 2, 5 / 6]))
    corner = torch.stack(
        [quantiles[0], quantiles[2]]
    )  # first row: second dimension high; first column: first low
    torch.testing.assert_close(grid[0, 0], exact.weight @ corner + exact.mean, rtol=0, atol=0.1)


def test_a_conditional_decoder_asks_for_its_context():
    MLP = pv.networks.MLP
    cvae = pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli((1, 8, 8), MLP(2, [8], context=10)),
        pv.posteriors.DiagonalNormal(2, MLP((1, 8, 8), [8], context=10)),
        pv.networks.OneHot(10),
    )
    z = torch.randn(3, 2)
    direct = cvae.likelihood(z, context=cvae.embed(torch.tensor([4, 4, 4]))).mean
    torch.testing.assert_close(Decoder(cvae, context=4)(z), direct)
    with pytest.raises(InvalidInput, match="context: got none"):
        Decoder(cvae)
    for call, message in (
        (lambda d: geodesic(d, torch.zeros(3), torch.zeros(3)), "start"),
        (lambda d: traverse(d, z[0], [2], z[0]), "dimensions"),
        (lambda d: manifold(d, 0), "size"),
    ):
        with pytest.raises(InvalidInput, match=message):
            call(Decoder(cvae, context=4))
    with pytest.raises(InvalidInput, match="decoder"):
        manifold(Decoder(LinearGaussian(3, features=4).program()))
    with pytest.raises(InvalidInput, match="event_shape"):
        Decoder(pv.Program(lambda x: None, lambda x: None))


def test_an_auroc_of_data_far_apart_has_an_error_all_the_same():
    random, times, covered = np.random.default_rng(0), 300, 0
    truth = 0.5 * (1 + math.erf(3.0 / 2))  # of two normals 3 apart
    for _ in range(times):
        high, low = (torch.from_numpy(random.normal(mean, 1, 10)) for mean in (3.0, 0.0))
        area, error = _auroc(high, low)
        covered += abs(area - truth) < 2 * error
        assert error > 0
    assert covered / times > 0.9
    with pytest.raises(InvalidInput, match="scores: got NaN"):
        _auroc(torch.tensor([1.0, torch.nan]), torch.tensor([0.0]))


def test_a_share_of_all_or_none_has_an_error_too():
    for agrees in (torch.ones(20, dtype=torch.bool), torch.zeros(20, dtype=torch.bool)):
        assert Coherence(agrees).se == pytest.approx((21 / 22**2 / 20) ** 0.5)
    assert Coherence(torch.arange(20) < 15).se == pytest.approx((0.75 * 0.25 / 20) ** 0.5)
