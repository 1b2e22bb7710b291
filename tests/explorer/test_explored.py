"""What the explorer shows are the numbers that Python gives."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from closed_forms import LinearGaussian, TwoLevelGaussian
from common import small_vae
from families import data_of, program_with
from global_programs import conjugate
from PIL import Image

import pyro_vae as pv
from pyro_vae.datasets import Dataset
from pyro_vae.datasets.columns import Column, Columns
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.diagnostics.samplers import NUTS
from pyro_vae.explorer import Explored
from pyro_vae.explorer.colours import colourings
from pyro_vae.explorer.shown import Curves, Parts, Pictures, Rows, Sentences, shown_as
from pyro_vae.inspection import plane_of
from pyro_vae.validation import tensors_of

pytestmark = pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")


def images(count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(count, 1, 8, 8, generator=generator) > 0.5).float()
    return Dataset(x, torch.arange(count) % 3)


@pytest.fixture(scope="module")
def vae():
    return small_vae(latent=4)


@pytest.fixture(scope="module")
def run(vae):
    return Explored("a", vae, images(), num_samples=60, seed=3)


def test_what_is_decoded_and_scored_is_what_python_gives(run, vae):
    z = torch.randn(5, 4)
    assert torch.equal(run.decode(z, datum=0), pv.decode(vae, z, seed=3))
    assert torch.equal(run.means.float(), pv.encode(vae, images())["z"])
    score = pv.log_likelihood(vae, images(), 60, seed=3)
    assert torch.equal(run.score.values, score.values)
    facts = run.facts(7)
    assert facts["label"] == "1" and f"{score.values[7]:.2f}" in facts["log p(x)"]
    for n, is_bound in enumerate(score.is_bound.tolist()):
        said = run.facts(n)["log p(x)"]
        assert said.startswith(">= ") == is_bound and ("+-" in said) != is_bound
    assert facts["ESS"] == f"{score.ess[7]:.0f} of 60" and f"{score.pareto_k[7]:.2f}" in str(facts)


def test_draws_of_a_datum_are_those_of_its_posterior(run, vae):
    draws = run.draws(7, 4000)
    q = vae.posterior(images().x[7:8])
    error = q.stddev[0] / 4000**0.5
    assert ((draws.mean(0) - q.mean[0]).abs() < 5 * error).all()
    assert torch.allclose(draws.std(0).float(), q.stddev[0], rtol=0.1)


def test_draws_from_the_prior_are_normal_and_decoded(run, vae):
    drawn = run.prior(2000, datum=0, seed=1)
    assert drawn.z.mean(0).abs().max() < 0.12 and (drawn.z.std(0) - 1).abs().max() < 0.1
    assert torch.allclose(drawn.x, pv.decode(vae, drawn.z.float()), atol=1e-6)
    assert not torch.equal(run.prior(2, 0, seed=1).z, run.prior(2, 0, seed=2).z)


def test_a_place_of_the_map_is_a_latent_and_back(run):
    at = torch.tensor([0.3, -0.2], dtype=torch.float64)
    z = run.latent_at(at.tolist())
    assert torch.allclose(run.plane.project(z), at)
    through = run.means[4]
    walked = run.latent_at(at.tolist(), through=through)
    assert torch.allclose(run.plane.project(walked), at)
    off = through - run.plane.latent_at(run.plane.project(through))
    assert torch.allclose(walked - z, off)  # what lies outside of the map is kept
    assert run.datum_at(run.points[5].tolist()) == 5 and run.datum_at((99.0, 99.0)) is None


def test_the_map_is_of_the_first_principal_components():
    z = torch.randn(300, 5, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.1, 3.0, 0.2])
    plane = plane_of(z)
    shown = plane.project(z)
    values = torch.linalg.eigvalsh(z.T.cov())
    assert torch.allclose(shown.T.cov(), values[[-1, -2]].diag(), atol=1e-9)
    assert plane.shares == pytest.approx((values[-2:].flip(0) / values.sum()).tolist())
    assert torch.equal(plane_of(z[:, :2]).project(z[:, :2]), z[:, :2])
    assert plane_of(z[:, :1]).project(z[:, :1])[:, 1].abs().max() == 0


def test_nuts_draws_the_exact_posterior():
    exact = LinearGaussian(2, 3)
    x = exact.data(4)
    run = Explored("a", exact.program(shift=3.0), Dataset(x), num_samples=20)
    found = run.reference(1, NUTS(num_chains=2, warmup=60), 200)
    mean = exact.gain @ (x[1] - exact.mean)
    sd = exact.covariance.diag().sqrt()
    assert ((found.z.mean(0) - mean).abs() < sd).all()
    assert found.r_hat < 2 and found.test.accuracy > 0.8 and "R-hat" in str(found)


def test_the_active_units_are_those_that_move_with_the_data(run, vae):
    units = pv.evaluation.active_units(vae, images(), num_samples=20, seed=3)
    assert len(run.active()) == max(units.active, 1)
    share = units.share["z"][run.active()]
    assert share.tolist() == sorted(share.tolist(), reverse=True)


def test_a_label_in_place_of_the_datums_is_decoded_under():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(2, [8], context=3)),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [8], context=3)),
        context=pv.networks.OneHot(3),
    )
    run = Explored("a", vae, images(), num_samples=20)
    z = torch.randn(2, 2)
    assert run.num_classes == 3
    assert torch.equal(run.decode(z, datum=1), pv.decode(vae, z, context=1))
    assert torch.equal(run.decode(z, datum=1, label=2), pv.decode(vae, z, context=2))
    assert not torch.equal(run.prior(3, 1).x, run.prior(3, 1, label=2).x)


def test_a_label_goes_beside_what_is_known_of_a_datum():
    network = pv.networks.MLP(2, [8], context=3)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Poisson(4, network, size_factor="exposure"),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [8], context=3)),
        context=pv.networks.OneHot(3),
    )
    context = {"labels": torch.arange(6) % 3, "size_factor": torch.linspace(1.0, 5.0, 6)}
    run = Explored("a", vae, Dataset(torch.ones(6, 4), context), num_samples=20)
    z, sizes = torch.randn(2, 2), context["size_factor"][[1, 1]]
    for label in (None, 0, 2):
        labels = torch.full((2,), 1 if label is None else label)
        expected = pv.decode(vae, z, {"labels": labels, "size_factor": sizes})
        torch.testing.assert_close(run.decode(z, datum=1, label=label), expected)
        made = run.prior(2, 1, label)
        expected = pv.decode(vae, made.z.float(), {"labels": labels, "size_factor": sizes})
        torch.testing.assert_close(made.x, expected)


def test_a_label_that_is_a_latent_is_set():
    network = pv.networks.MLP(2, [8], context=3)
    vae = pv.SemiSupervisedVAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli(4, network),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [8], context=3)),
        pv.networks.OneHot(3),
        [8],
    )
    data = Dataset(torch.rand(6, 4).round(), torch.arange(6) % 4 - 1)
    run = Explored("a", vae, data, num_samples=20)
    z = torch.randn(2, 2)
    for datum in (0, 1):  # of which one has a label of its own
        for label in range(3):
            features = vae.context(torch.full((2,), label))
            expected = vae.likelihood(z, context=features).mean.detach()
            torch.testing.assert_close(run.decode(z, datum, label), expected)


MLP = pv.networks.MLP


def two_modalities():
    image, size = (1, 8, 8), 3
    experts = {
        "image": pv.posteriors.DiagonalNormal(2, MLP(image, [8])),
        "size": pv.posteriors.DiagonalNormal(2, MLP(size, [8])),
    }
    program = pv.MultimodalVAE(
        pv.priors.StandardNormal(2),
        {
            "image": pv.likelihoods.Bernoulli(image, MLP(2, [8])),
            "size": pv.likelihoods.Normal(size, MLP(2, [8])),
        },
        pv.posteriors.ProductOfExperts(2, experts),
    )
    return program, Dataset({"image": images().x, "size": torch.randn(12, size)})


def with_labels_to_infer():
    program = pv.SemiSupervisedVAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli((1, 8, 8), MLP(2, [8], context=3)),
        pv.posteriors.DiagonalNormal(2, MLP((1, 8, 8), [8], context=3)),
        pv.networks.OneHot(3),
        hidden=(8,),
    )
    return program, images()


def with_global_latents():
    program, data, _ = conjugate()
    return program, Dataset(*data)


def of(family, name):
    program = program_with(family, name)
    given = data_of(program)
    return program, Dataset(*given) if isinstance(given, tuple) else Dataset(given)


@pytest.mark.parametrize(
    "made",
    [
        two_modalities,
        with_labels_to_infer,
        with_global_latents,
        lambda: (TwoLevelGaussian().program(), Dataset(torch.randn(6, 4, dtype=torch.float64))),
        lambda: of(pv.priors, "Flat"),
        lambda: of(pv.posteriors, "VonMisesFisher"),
        lambda: of(pv.posteriors, "Codebook"),
        lambda: of(pv.posteriors, "EnumeratedCategorical"),
        lambda: of(pv.likelihoods, "NegativeBinomial"),
    ],
)
def test_any_kind_of_program_can_be_looked_at(made):
    program, data = made()
    run = Explored("a", program, data, num_samples=10)
    z = run.latent_at((0.1, 0.2))
    x, own = run.decode(z[None], datum=1), run.decode(run.means[1:2], datum=1)
    shown = shown_as(data)(x, 64)
    assert len(shown) == 1 and shown[0].startswith("<")
    assert run.draws(1, 4).shape == (4, run.means.shape[1])
    assert run.is_flat or (z == run.means).all(1).any()  # a datum's, which lies in the support
    for name, value in tensors_of(own).items():
        assert value.shape[1:] == tensors_of(data.x)[name].shape[1:]
    assert run.is_flat == bool(run.active())
    assert all(view().colours for view in colourings(run).values())


def test_colours_are_the_same_for_the_same_label_and_rise_with_a_score(run):
    found = colourings(run)
    assert list(found) == ["label", "log p(x)", "Pareto k", "ESS"]
    labels, colours = images().labels.tolist(), found["label"]().colours
    assert len({*zip(labels, colours)}) == 3 and len(set(colours)) == 3
    score = found["log p(x)"]().colours
    assert score[run.score.values.argmax()] == "#fde725"  # the last of viridis
    assert score[run.score.values.argmin()] == "#440154"  # the first


def decoded_png(tag):
    data = re.search(r"base64,([^\"]+)", tag)[1]
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_picture_has_the_pixels_of_its_datum():
    x = torch.rand(2, 1, 8, 8)
    pixels = decoded_png(Pictures(0.0, 1.0)(x, 32)[1])
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels[..., 0] / 255 - x[1, 0].numpy()).max() <= 0.5 / 255 + 1e-6
    colour = torch.rand(1, 3, 8, 8)
    assert np.abs(
        decoded_png(Pictures(0.0, 1.0)(colour, 32)[0]) / 255 - colour[0].permute(1, 2, 0).numpy()
    ).max() <= (0.5 / 255 + 1e-6)
    clips = Dataset(torch.rand(3, 5, 8, 8))
    assert decoded_png(shown_as(clips)(clips.x, 64)[0]).shape == (8, 5 * 9 - 1, 3)


def test_low_frequencies_of_a_spectrogram_are_at_the_bottom():
    x = torch.zeros(2, 129, 8)
    x[:, 0] = 5.0
    show = shown_as(Dataset(x))
    pixels = decoded_png(show(x, 64)[0]).astype(int).sum(-1)
    assert show.is_spectrogram and (pixels[-1] > pixels[0]).all()


def test_a_row_of_a_table_is_in_its_own_units_with_its_names():
    columns = Columns(
        (
            Column("mass", "real", center=4000.0, scale=800.0),
            Column("<script>", "binary", ("<b>f", "m")),
        )
    )
    data = Dataset(torch.tensor([[0.5, 0.0], [-0.5, 1.0], [torch.nan, 1.0]]), missing=True)
    data.columns = columns
    show = shown_as(data)
    first, _, last = show(data.x, 64)
    assert isinstance(show, Rows) and ">4400<" in first and "width:100%" in first
    assert "&lt;script&gt;" in first and "&lt;b&gt;f" in first and "<script" not in first
    assert ">missing<" in last


def test_text_is_no_markup():
    words = Vocabulary(["<script>alert(1)</script>"])
    x = words.encode([["<script>alert(1)</script>"]], 3)
    (shown,) = Sentences(words)(x, 64)
    assert "&lt;script&gt;" in shown and "<script" not in shown


def test_vectors_are_curves_and_parts_stand_under_their_names():
    (curve,) = Curves(0.0, 1.0)(torch.tensor([[0.0, 1.0, torch.nan]]), 64)
    assert re.search(r'points="16.7,47.0 50.0,3.0"', curve)
    (both,) = Parts({"<a>": Curves(0.0, 1.0)})({"<a>": torch.zeros(1, 3)}, 64)
    assert both.startswith("<div>&lt;a&gt;<br><svg")
