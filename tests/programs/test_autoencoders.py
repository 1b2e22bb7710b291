"""Autoencoders that are no plain VAE: points, corrupted inputs, codebooks and their priors."""

import json
import math

import pytest
import torch
from common import small_vae
from families import MLP
from torch.nn.functional import mse_loss
from torch.utils.flop_counter import FlopCounterMode

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.evaluation.importance import log_joint
from pyro_vae.evaluation.reconstruction import squared_error
from pyro_vae.networks import Corrupted
from pyro_vae.runtime.traces import importance_traces
from pyro_vae.testing import check_network, check_program
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("quick_figures")


def autoencoder(scale=1.0, event=(1, 8, 8), latent=2, prior=pv.priors.Flat):
    return pv.VAE(
        prior(latent),
        pv.likelihoods.Normal(event, MLP(latent, [16]), scale=scale),
        pv.posteriors.Delta(latent, MLP(event, [16])),
    )


# points and noise


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_the_loss_of_an_autoencoder_is_the_squared_error(scale, float64):
    """-log p(x | z) = D / (2 s^2) mse + D (log s + log(2 pi) / 2): value and gradient."""
    program, x = autoencoder(scale), torch.rand(7, 1, 8, 8)
    loss = pv.objectives.ELBO().differentiable_loss(program.model, program.guide, x) / len(x)
    entries = x[0].numel()
    by_torch = mse_loss(program.likelihood(program.posterior(x).mean).mean, x)
    constant = entries * (torch.tensor(scale).log() + 0.5 * torch.tensor(2 * torch.pi).log())
    factor = entries / (2 * scale**2)
    torch.testing.assert_close(loss, factor * by_torch + constant, rtol=1e-12, atol=0)
    torch.testing.assert_close(log_joint(program, x).values.mean(), -loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        squared_error(program, x).values.mean(), by_torch, rtol=1e-12, atol=0
    )
    gradients = [
        torch.autograd.grad(value, list(program.parameters()), retain_graph=True)
        for value in (loss, factor * by_torch)
    ]
    for ours, torchs in zip(*gradients):
        torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-12)


def test_what_a_point_does_not_have_is_refused_in_one_sentence(tmp_path):
    program, x = autoencoder(), torch.rand(40, 1, 8, 8)
    for ask in (pv.elbo, pv.log_likelihood):
        with pytest.raises(InvalidInput, match="a Delta guide on a continuous latent"):
            ask(program, x)
    with pytest.raises(InvalidInput, match="a draw from a flat prior"):
        pv.generate(program, 2)
    # Stopping early asks for the loss instead of the ELBO that there is not.
    history = pv.fit(program, x, epochs=3, validation=x[:10], patience=1, progress=False)
    assert history["validation_elbo"][-1] == pytest.approx(log_joint(program, x[:10]).mean)


def test_a_posterior_with_a_density_needs_a_prior_with_one():
    program = pv.VAE(
        pv.priors.Flat(2),
        pv.likelihoods.Normal(3, MLP(2, [8])),
        pv.posteriors.DiagonalNormal(2, MLP(3, [8])),
    )
    with pytest.raises(InvalidInput, match="under a prior with one over nothing, for it is flat"):
        pv.fit(program, torch.rand(5, 3), progress=False)


def test_the_commands_serve_an_autoencoder(tmp_path, capsys, monkeypatch):
    run = str(tmp_path / "run")
    common = [
        "--prior",
        "Flat",
        "--posterior",
        "Delta",
        "--likelihood",
        "Normal",
        "--binarize",
        "none",
        "--latent",
        "3",
        "--encoder.hidden",
        "[8]",
        "--decoder.hidden",
        "[8]",
        "--epochs",
        "2",
        "--validation",
        "100",
        "--limit",
        "50",
    ]
    assert (
        main(
            [
                "train",
                *common,
                "--out",
                run,
                "--corruption",
                "GaussianNoise",
                "--corruption.scale",
                "0.2",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "neither an ELBO nor a log p(x)" in out
        and "no samples: prior: got a draw from a flat prior" in out
    )
    program = pv.load(run)
    assert program.posterior.network.corruption.scale == 0.2
    assert main(["evaluate", run, "--limit", "50"]) == 0
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    _, test = pv.datasets.load("digits", binarize="none")
    assert result["elbo"] is None and "a Delta guide" in result["refused"]
    assert result["squared_error"]["mean"] == pytest.approx(
        squared_error(program, test[:50]).mean, rel=1e-5
    )
    assert result["log_joint"]["mean"] == pytest.approx(
        log_joint(program, test[:50]).mean, rel=1e-5
    )
    assert main(["sample", run]) == 2 and capsys.readouterr().err.count("\n") == 1
    other = str(tmp_path / "other")
    assert main(["train", *common, "--out", other]) == 0
    assert main(["compare", run, other]) == 2 and "--score log_joint" in capsys.readouterr().err
    assert main(["compare", run, other, "--score", "squared_error"]) == 0


CORRUPTIONS = [getattr(pv.networks.corruptions, name) for name in pv.networks.corruptions.__all__]


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corruption_acts_in_training_on_what_the_encoder_sees_only(corruption, float64):
    program = small_vae().double()
    program.posterior.network = Corrupted(program.posterior.network, corruption())
    x = torch.bernoulli(torch.rand(5, 1, 8, 8))
    clean = program.eval().posterior(x).mean
    assert torch.equal(clean, program.posterior(x).mean)
    program.train()
    assert not torch.equal(clean, program.posterior(x).mean) and not torch.equal(
        program.posterior(x).mean, program.posterior(x).mean
    )
    trace = importance_traces(program, x)[1]
    assert torch.equal(trace.nodes["x"]["value"], x), "the likelihood scores the data as they are"
    check_program(program.float(), x.float())


class Shown(torch.nn.Module):
    """Gives back what it is shown: the values and the mask of `WithMask`."""

    out_shape, takes_draws = (12,), True

    def forward(self, x, context=None):
        return x


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_gaps_stay_gaps_under_a_corruption(corruption):
    torch.manual_seed(0)
    x = torch.rand(500, 6) + 0.1
    x[torch.rand(500, 6) < 0.3] = torch.nan
    network = Corrupted(pv.networks.WithMask(6, Shown()), corruption())
    for is_training in (True, False):
        values, mask = network.train(is_training)(x).chunk(2, -1)
        assert torch.equal(mask == 1, ~x.isnan()) and (values[x.isnan()] == 0).all()
    assert torch.equal(values, x.nan_to_num(0))
    assert not torch.equal(network.train()(x)[:, :6], values), "the others are corrupted"


def test_probabilities_of_corruptions_are_what_they_say():
    x = torch.full((2000, 50), 0.5)
    masked, salted = (
        pv.networks.corruptions.Masking(0.3)(x),
        pv.networks.corruptions.SaltAndPepper(0.3)(x),
    )
    bound = 5 * (0.3 * 0.7 / x.numel()) ** 0.5
    assert abs((masked == 0).float().mean() - 0.3) < bound and set(masked.unique().tolist()) == {
        0.0,
        0.5,
    }
    for end in (0.0, 1.0):
        assert abs((salted == end).float().mean() - 0.15) < bound
    with pytest.raises(InvalidInput, match=r"probability: got 1\.0"):
        pv.networks.corruptions.Masking(1.0)


# codebooks


def vqvae(prior=pv.priors.UniformCodes, grid=(2, 2), codes=4, event=(1, 8, 8), **options):
    latent = (3, *grid)
    return pv.VAE(
        prior(latent),
        pv.likelihoods.Bernoulli(event, MLP(latent, [16])),
        pv.posteriors.Codebook(latent, MLP(event, [16]), codes=codes, **options),
    )


def small_pixelcnn(latent, **options):
    return pv.priors.PixelCNN(latent, width=8, layers=2, reach=2, **options)


def digits(num=60):
    return torch.bernoulli(torch.rand(num, 1, 8, 8, dtype=torch.get_default_dtype()))


def test_the_loss_is_reconstruction_codes_and_commitment_and_its_gradient_straight_through(float64):
    program, x = vqvae(commitment=0.7).train(), digits(5)
    q = program.posterior
    features = q._encode(x, None)
    entries = q.codebook[q.indices(features)].movedim(-1, 1)
    z = entries.clone().detach().requires_grad_()
    reconstruction = -program.likelihood(z).log_prob(x).sum()
    commitment = 0.7 * (features - entries).square().sum()
    expected = reconstruction + 5 * 4 * torch.tensor(4.0).log() + commitment
    loss = pv.objectives.ELBO().differentiable_loss(program.model, program.guide, x)
    torch.testing.assert_close(loss, expected)
    # What reaches the encoder's features is the decoder's gradient at the entries, unchanged, and
    # the commitment's.
    encoder = list(q.network.parameters()) + list(q.head.parameters())
    (at_entries,) = torch.autograd.grad(reconstruction, z)
    by_hand = torch.autograd.grad((features * at_entries).sum() + commitment, encoder)
    for ours, theirs in zip(torch.autograd.grad(loss, encoder), by_hand):
        torch.testing.assert_close(ours, theirs)


def test_scores_leave_the_commitment_out_and_count_the_codes(float64):
    program, x = vqvae(commitment=1e3), digits(6)
    scores = pv.evaluation.evaluate(program, x, num_samples=3)
    z = pv.encode(program, x)["z"]
    expected = program.likelihood(z).log_prob(x) - 4 * torch.tensor(4.0).log()
    for score in scores.values():
        torch.testing.assert_close(score.values, expected.detach())
        torch.testing.assert_close(score.mc_se, torch.zeros(6))
    assert (
        pv.fit(program, x, epochs=1, objective=pv.objectives.IWAE(2), progress=False)["objective"][
            0
        ]
        < expected.mean()
    )


def test_entries_follow_the_vectors_that_chose_them_once_a_step_and_never_in_evaluation(float64):
    program, x = vqvae(decay=0.9, restart=0.0), digits(20)
    q = program.posterior
    before = {name: value.clone() for name, value in program.state_dict().items()}
    pv.elbo(program, x), pv.generate(program, 3), pv.reconstruct(program, x), pv.encode(program, x)
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())
    program.train()
    codes = q.indices(q._encode(x, None)).flatten()
    vectors = q._vectors(q._encode(x, None)).detach()
    q(x)
    for v in range(4):
        chosen = vectors[codes == v]
        torch.testing.assert_close(q.counts[v], 0.9 + 0.1 * torch.tensor(float(len(chosen))))
        torch.testing.assert_close(
            q.sums[v], 0.9 * before["posterior.codebook"][v] + 0.1 * chosen.sum(0)
        )
    torch.testing.assert_close(q.codebook, before["posterior.codebook"])
    q(x)  # the next step sees what the last one learnt
    torch.testing.assert_close(
        q.codebook * 1.0,
        (
            0.9 * before["posterior.codebook"]
            + 0.1 * torch.stack([vectors[codes == v].sum(0) for v in range(4)])
        )
        / (0.9 + 0.1 * torch.bincount(codes, minlength=4)).unsqueeze(1),
    )
    # A frozen encoder has frozen entries: a prior can be trained on its codes.
    frozen = q.requires_grad_(False).codebook.clone()
    q(x), q(x)
    assert torch.equal(q.codebook, frozen)


def test_entries_start_at_data_and_one_that_nobody_chooses_starts_anew(float64):
    program, x = vqvae(codes=8), digits(200)
    program.initialize(x)
    q = program.posterior
    vectors = q._vectors(q._encode(x, None))
    assert torch.cdist(q.codebook, vectors).min(1).values.max() < 0.2 * vectors.std()
    q.counts[3], q.sums[3] = 0.05, 5.0  # far from everything
    q.train()(x)
    assert q.counts[3] == 1.0 and torch.cdist(q.sums[3:4], vectors).min() < 1e-9


def test_a_vqvae_keeps_the_contract_of_a_program_and_resumes_to_the_bit(tmp_path):
    x = digits()
    for prior in (pv.priors.UniformCodes, small_pixelcnn):
        program = vqvae(prior)
        if (
            prior is pv.priors.UniformCodes
        ):  # a likelihood's gradient reaches all of it; a PixelCNN's first entry may be unused
            check_program(program, x)
        torch.manual_seed(1)
        straight, parts = vqvae(prior), vqvae(prior)
        parts.load_state_dict(straight.state_dict())
        folder = tmp_path / prior.__name__
        pv.fit(straight, x, epochs=4, batch_size=20, progress=False)
        pv.fit(parts, x, epochs=2, batch_size=20, out=folder, progress=False)
        pv.fit(parts, x, epochs=4, batch_size=20, out=folder, resume=True, progress=False)
        for name, value in straight.state_dict().items():
            assert torch.equal(value, parts.state_dict()[name]), name
        again = pv.load(folder)
        torch.testing.assert_close(pv.elbo(again, x, 1).values, pv.elbo(parts, x, 1).values)


# the autoregressive prior


def pixelcnn(grid, codes, context=0, **options):
    torch.manual_seed(3)
    program = vqvae(
        lambda latent: small_pixelcnn(latent, context=context, **options), grid=grid, codes=codes
    )
    with torch.no_grad():
        for parameter in program.prior.parameters():
            parameter.mul_(2.0)  # far from uniform
    return program.prior.double()


@pytest.mark.parametrize("grid", [(), (3,), (2, 3)])
@pytest.mark.parametrize("context", [0, 2])
def test_the_masses_of_all_grids_sum_to_one_and_draws_follow_them(grid, context):
    prior = pixelcnn(grid, codes=3, context=context)
    density = prior.forward(
        context=torch.randn(2, 2, dtype=torch.float64) if context else None
    ).codes
    states = torch.cartesian_prod(*[torch.arange(3)] * math.prod(grid)).reshape(
        -1, *([1] if context else []), *grid
    )
    masses = density.log_prob(states).exp().detach()
    torch.testing.assert_close(masses.sum(0), torch.ones_like(masses[0]))
    draws = density.sample((4000,)).reshape(4000, *density.batch_shape, -1).double()
    values = (
        states.expand(-1, *density.batch_shape, *grid)
        .reshape(len(states), *density.batch_shape, -1)
        .double()
    )
    mean = (masses.unsqueeze(-1) * values).sum(0)
    spread = (masses.unsqueeze(-1) * (values - mean).square()).sum(0)
    assert ((draws.mean(0) - mean).abs() < 5 * (spread / 4000).sqrt()).all()


@pytest.mark.parametrize("context", [0, 2])
def test_a_place_sees_all_places_before_it_and_none_after(context):
    prior, features = (
        pixelcnn((4, 5), codes=3, context=context),
        torch.randn(1, 2, dtype=torch.float64) if context else None,
    )
    codes = torch.randint(3, (1, 4, 5))
    logits = prior.logits(codes, features)
    seen = torch.zeros(20, 20, dtype=torch.bool)
    for place in range(20):
        other = codes.clone()
        other.view(-1)[place] = (other.view(-1)[place] + 1) % 3
        seen[:, place] = (prior.logits(other, features) != logits).any(1).flatten()
    assert not seen.triu().any(), "a place depends on itself or on one after it"
    assert seen[6, [5, 1, 0, 2]].all() and seen[12, [11, 7, 6, 8]].all(), (
        "there is a blind spot among the neighbours"
    )


@pytest.mark.parametrize("context", [0, 2])
def test_cached_sampling_is_sampling_place_by_place(context):
    prior, features = (
        pixelcnn((4, 3), codes=5, context=context),
        torch.randn(6, 2, dtype=torch.float64) if context else None,
    )
    torch.manual_seed(0)
    cached = prior.draw(6, features)
    torch.manual_seed(0)
    naive = torch.zeros(6, 4, 3, dtype=torch.long)
    for i in range(4):
        for j in range(3):
            logits = prior.logits(naive, features)[:, :, i, j]
            naive[:, i, j] = torch.distributions.Categorical(logits=logits.detach()).sample()
    assert torch.equal(cached, naive)


def test_sampling_is_proportional_to_the_number_of_places():
    def operations(side):
        with FlopCounterMode(display=False) as counter:
            pixelcnn((side, side), codes=4).draw(1, None)
        return counter.get_total_flops()

    # Linear is four times as much for four times the places; place by place anew would be sixteen
    # times.
    assert operations(16) < 4.5 * operations(8)


def test_a_prior_is_swapped_in_after_training_and_lowers_the_bound_of_structured_codes():
    """Images of one of two halves: the codes say which twice, and PixelCNN learns the second."""
    halves = torch.zeros(200, 1, 8, 8)
    halves[::2, :, :, 4:], halves[1::2, :, :, :4] = 1.0, 1.0
    trained = vqvae(grid=(1, 2), codes=4)
    pv.fit(trained, halves, epochs=20, batch_size=50, learning_rate=1e-2, progress=False)
    program = pv.VAE(
        small_pixelcnn((3, 1, 2)),
        trained.likelihood.requires_grad_(False),
        trained.posterior.requires_grad_(False),
    )
    codes = program.posterior.indices(pv.encode(program, halves)["z"])
    pv.fit(program, halves, epochs=20, batch_size=50, learning_rate=1e-2, progress=False)
    assert torch.equal(codes, program.posterior.indices(pv.encode(program, halves)["z"])), (
        "the codes stay what they were"
    )
    gain = pv.elbo(program, halves, 1).mean - pv.elbo(trained, halves, 1).mean
    assert gain == pytest.approx(
        2 * torch.tensor(4.0).log().item() - torch.tensor(2.0).log().item(), abs=0.1
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: pv.networks.ConvTranspose((3, 7, 7), (28, 28), [8, 4], hidden=[]),
        lambda: pv.networks.ResidualConvTranspose((3, 7, 7), (28, 28), [8, 4], hidden=[]),
        lambda: pv.networks.ConvTranspose1d((3, 25), 100, [8, 4], hidden=[]),
    ],
)
def test_a_latent_that_is_a_map_is_decoded_place_by_place(build):
    """No dense layer in between: what a code changes lies around its own place."""
    network = build()
    check_network(network, torch.randn(2, *network.in_shape))
    z = torch.randn(1, *network.in_shape)
    other = z.clone()
    other[..., 0] += 1.0
    changed = (network(other) - network(z)).abs().flatten(0, -2).amax(0) > 0
    assert changed[:3].all() and not changed[network.out_shape[-1] // 2 :].any()


def test_a_recipe_trains_codes_on_a_grid(tmp_path):
    run = tmp_path / "run"
    assert (
        main(
            [
                "train",
                "--latent",
                "[[4,2,2]]",
                "--prior",
                "PixelCNN",
                "--prior.width",
                "8",
                "--prior.layers",
                "1",
                "--posterior",
                "Codebook",
                "--posterior.codes",
                "8",
                "--encoder",
                "Conv",
                "--encoder.channels",
                "[8,8]",
                "--encoder.hidden",
                "[]",
                "--decoder",
                "ConvTranspose",
                "--decoder.channels",
                "[8,8]",
                "--decoder.hidden",
                "[]",
                "--epochs",
                "1",
                "--limit",
                "20",
                "--num-samples",
                "2",
                "--out",
                str(run),
            ]
        )
        == 0
    )
    result = json.loads((run / "evaluation.json").read_text())
    program, (_, test) = pv.load(run), pv.datasets.load("digits", binarize="none")
    by_hand = -pv.elbo(program, test[:20], 1).mean / (64 * math.log(2))
    assert result["bits_per_dim"] == pytest.approx(by_hand, rel=1e-5)
    assert main(["sample", str(run), "--num", "4"]) == 0


def test_code_priors_need_a_codebook():
    for prior in (pv.priors.UniformCodes, pv.priors.PixelCNN):
        with pytest.raises(InvalidInput, match="outside a program"):
            prior((2, 3, 3))()
        program = pv.VAE(
            prior((2, 3)),
            pv.likelihoods.Bernoulli(4, MLP((2, 3), [4])),
            pv.posteriors.Delta((2, 3), MLP(4, [4])),
        )
        with pytest.raises(
            InvalidInput, match=f"{prior.__name__} with a posterior Delta.*choose a Codebook"
        ):
            pv.fit(program, torch.zeros(4, 4), progress=False)
    with pytest.raises(InvalidInput, match="codes: got 1"):
        pv.posteriors.Codebook((2, 3), MLP(4, [4]), codes=1)
    with pytest.raises(InvalidInput, match=r"latent: got \(2, 3, 3, 3\)"):
        pv.priors.PixelCNN((2, 3, 3, 3))


def test_latents_of_an_autoencoder_are_decoded_though_its_prior_has_no_draws():
    program = autoencoder()
    z = torch.randn(3, 2)
    mean = program.likelihood(z).mean
    assert torch.allclose(pv.decode(program, z), mean, atol=1e-5)
