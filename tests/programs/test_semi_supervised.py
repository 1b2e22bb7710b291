"""Labels for some: sums over unknown ones, a CVAE for known ones, a classifier from both."""

import math

import pyro.distributions as dist
import pytest
import torch
from families import MLP

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.networks import WithoutContext
from pyro_vae.programs.semi_supervised import label_density
from pyro_vae.testing import check_program
from pyro_vae.validation import InvalidInput

pytestmark = pytest.mark.usefixtures("quick_figures")


def semi(
    classes=3,
    event=6,
    latent=2,
    posterior=pv.posteriors.Delta,
    prior=pv.priors.StandardNormal,
    hidden=(8,),
    **options,
):
    return pv.SemiSupervisedVAE(
        prior(latent),
        pv.likelihoods.Bernoulli(event, MLP(latent, [8], context=classes)),
        posterior(latent, MLP(event, [8], context=classes)),
        pv.networks.OneHot(classes),
        hidden=hidden,
        **options,
    )


def terms(program, x):
    """log p(x, z | y) at the encoder's point for every y (3, N), and log q(y | x) (N, 3)."""
    labels = torch.eye(3, dtype=x.dtype)
    joint = []
    for y in labels:
        z = program.posterior(x, context=y.expand(len(x), 3)).mean
        joint.append(
            program.prior().log_prob(z)
            + program.likelihood(z, context=y.expand(len(x), 3)).log_prob(x)
        )
    (logits,) = program.head(program.network(x))
    return torch.stack(joint), logits.log_softmax(-1)


def test_the_loss_sums_over_unknown_labels_and_conditions_on_known_ones(float64):
    program, x = semi(weight=7.0).train(), torch.bernoulli(torch.rand(5, 6))
    labels = torch.tensor([-1, 2, -1, 0, -1])
    joint, log_q = terms(program, x)
    uniform = torch.tensor(3.0).log()
    expected = torch.zeros(())
    for n, label in enumerate(labels.tolist()):
        if label == -1:
            expected = expected + (log_q[n].exp() * (joint[:, n] - uniform - log_q[n])).sum()
        else:
            expected = expected + joint[label, n] + 7.0 * log_q[n, label]
    objective = pv.objectives.EnumeratedELBO()
    loss = objective.differentiable_loss(program.model, program.guide, x, labels)
    torch.testing.assert_close(loss, -expected)
    parameters = list(program.parameters())
    for ours, by_hand in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(-expected, parameters)
    ):
        torch.testing.assert_close(ours, by_hand)
    # Scores see no classification.
    program.eval()
    torch.testing.assert_close(
        objective.differentiable_loss(program.model, program.guide, x, labels),
        -expected + 7.0 * (log_q[1, 2] + log_q[3, 0]),
    )


class LikeThePrior(torch.nn.Module):
    """N(0, I) whatever x is: weights with no heavy tail under an untrained decoder."""

    def __init__(self, latent, network):
        super().__init__()
        self.latent, self.network = latent, network

    def forward(self, x, *, context=None):
        batch = torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
        return dist.Normal(x.new_zeros(*batch, self.latent), 1.0).to_event(1)


def test_scores_of_unknown_labels_are_of_the_marginal(float64):
    """log p(x) by importance sampling over y and z is the log of the mean over y of p(x | y)."""
    program, x = semi(posterior=LikeThePrior), torch.bernoulli(torch.rand(4, 6))
    given = torch.stack(
        [pv.log_likelihood(program, (x, torch.full((4,), y)), 1500).values for y in range(3)]
    )
    alone = pv.log_likelihood(program, (x, torch.full((4,), -1)), 1500)
    torch.testing.assert_close(
        alone.values, given.logsumexp(0) - torch.tensor(3.0).log(), atol=0.1, rtol=0
    )


def clusters(posterior=pv.posteriors.DiagonalNormal, **options):
    """p(z | y) p(x | z), and q(z | x) p(y | z)."""
    return pv.SemiSupervisedVAE(
        pv.priors.ConditionalNormal(2, context=3, hidden=[8]),
        pv.likelihoods.Bernoulli(6, WithoutContext(MLP(2, [8]))),
        posterior(2, WithoutContext(MLP(6, [8]))),
        pv.networks.OneHot(3),
        hidden=None,
        **options,
    )


def test_with_labels_as_clusters_the_loss_is_that_of_a_mixture_and_known_labels_name_its_components(
    float64,
):
    program, x, labels = (
        clusters(pv.posteriors.Delta, weight=7.0).train(),
        torch.bernoulli(torch.rand(5, 6)),
        [-1, 2, -1, 0, -1],
    )
    z = program.posterior(x).mean
    given = program.prior(context=torch.eye(3)).log_prob(z.unsqueeze(1))
    of_x = program.likelihood(z).log_prob(x)
    expected = torch.zeros(())
    for n, label in enumerate(labels):
        if label == -1:
            expected = expected + of_x[n] + given[n].logsumexp(0) - torch.tensor(3.0).log()
        else:
            expected = expected + of_x[n] + given[n, label] + 7.0 * given[n].log_softmax(0)[label]
    loss = pv.objectives.EnumeratedELBO().differentiable_loss(
        program.model, program.guide, x, torch.tensor(labels)
    )
    torch.testing.assert_close(loss, -expected)
    parameters = list(program.parameters())
    for ours, by_hand in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(-expected, parameters)
    ):
        torch.testing.assert_close(ours, by_hand)


class OfClusters(torch.nn.Module):
    """The mixture of the labels' normals, every label alike."""

    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, *, context=None):
        return dist.MixtureSameFamily(
            dist.Categorical(logits=torch.zeros(3)), self.prior(context=torch.eye(3))
        )


def test_scores_of_clusters_are_those_of_the_vae_with_the_mixture_as_its_prior(float64):
    """q(y | z) is exact, so the label drawn has no part in any weight."""
    program, x = clusters().eval(), torch.bernoulli(torch.rand(4, 6))
    mixture = pv.VAE(OfClusters(program.prior), program.likelihood, program.posterior)
    ours = pv.elbo(program, (x, torch.full((4,), -1)), 1, seed=3)
    torch.testing.assert_close(ours.values, pv.elbo(mixture, x, 1, seed=3).values)


def test_labels_as_clusters_need_a_prior_that_knows_them():
    with pytest.raises(InvalidInput, match="hidden: got None with the prior StandardNormal"):
        semi(hidden=None)


@pytest.mark.parametrize("build", [lambda: semi(posterior=pv.posteriors.DiagonalNormal), clusters])
def test_it_keeps_the_contract_of_a_program(build):
    x, labels = torch.bernoulli(torch.rand(6, 6)), torch.tensor([0, -1, 2, 1, -1, 0])
    program = build()
    # The objective that draws labels and the one that sums over them both train it.
    for objective in (pv.objectives.ELBO(), pv.objectives.EnumeratedELBO()):
        pv.fit(program, (x, labels), epochs=1, objective=objective, progress=False)
    check_program(program.eval(), x, context=labels)
    assert torch.equal(pv.encode(program, (x, labels))["y"][0], torch.eye(3)[0])
    samples = pv.generate(program, 4, context=[0, 1, 2, -1], seed=1)
    assert torch.equal(samples[1], pv.generate(program, 4, context=[1, 1, 1, 1], seed=1)[1])
    with pytest.raises(InvalidInput, match="label -2"):
        pv.elbo(program, (x, labels - 1))
    with pytest.raises(InvalidInput, match="context: got none, expected OneHot"):
        pv.SemiSupervisedVAE(program.prior, program.likelihood, program.posterior)


def test_some_labels_are_kept_as_many_of_each():
    train, test = pv.datasets.load("digits", labelled=30)
    whole, _ = pv.datasets.load("digits")
    known = train.context >= 0
    assert torch.equal(torch.bincount(train.context[known]), torch.full((10,), 3))
    assert (
        torch.equal(train.context[known], whole.context[known])
        and (train.context[~known] == -1).all()
    )
    assert train.num_classes == 10 and (test.context >= 0).all() and torch.equal(train.x, whole.x)
    others = pv.datasets.load("digits", labelled=30, labelled_seed=1)[0]
    assert not torch.equal(others.context >= 0, known) and torch.equal(others.x, train.x)
    for labelled in (25, 0, 10_000):
        with pytest.raises(InvalidInput, match=f"labelled: got {labelled}"):
            pv.datasets.load("digits", labelled=labelled)
    with pytest.raises(InvalidInput, match="which have no labels"):
        pv.datasets.load("topics", labelled=10)


def test_labels_are_kept_of_those_that_there_are():
    labels = torch.arange(60) % 3
    labels[:30:2] = -1
    data = pv.datasets.Dataset(torch.arange(60.0)[:, None], labels)
    train, test = pv.datasets.load((data.values, labels), labelled=6)
    known = train.context >= 0
    assert torch.bincount(train.context[known]).tolist() == [2, 2, 2]
    assert torch.equal(train.context[known], labels[train.x[known, 0].long()])
    assert torch.equal(test.context, labels[test.x[:, 0].long()])
    with pytest.raises(InvalidInput, match=r"of which there are 1[0-9] or more; pass 3[0-9]"):
        pv.datasets.load((data.values, labels), labelled=57)
    with pytest.raises(InvalidInput, match="none of which has label 1 of 0 to 2"):
        pv.datasets.load((data.values, torch.where(labels == 1, -1, labels)), labelled=6)
    with pytest.raises(InvalidInput, match="all of whose labels are -1, unknown"):
        pv.datasets.load((data.values, torch.full((60,), -1)), labelled=6)


def test_labelled_data_are_visited_more_often():
    data = pv.datasets.Dataset(
        torch.arange(12.0).reshape(6, 2), torch.tensor([-1, 1, -1, 0, -1, -1])
    )
    often = data.repeat_labelled(3)
    assert often.values[:, 0].sort().values.tolist() == [0, 2, 2, 2, 4, 6, 6, 6, 8, 10]
    assert torch.equal(
        often.context,
        torch.where(often.values[:, 0] == 2, 1, torch.where(often.values[:, 0] == 6, 0, -1)),
    )
    assert data.repeat_labelled(1) is data and often.sha256 != data.sha256
    for times, some in ((0, data), (2, pv.datasets.Dataset(torch.zeros(3, 2)))):
        with pytest.raises(InvalidInput, match=f"labelled_repeats: got {times}"):
            some.repeat_labelled(times)


class LabelOnly(torch.nn.Module):
    """A decoder that sees the label and not z: the program is a mixture of products of bits."""

    out_shape = (2,)

    def forward(self, z, context=None):
        return context.expand(*torch.broadcast_shapes(z.shape[:-1], context.shape[:-1]), 2)


def test_unlabelled_data_help():
    """Two clusters of bits and ten labels each: what is known of twenty data is known of all."""
    torch.manual_seed(0)
    labels = torch.arange(400) % 2
    x = torch.bernoulli(torch.where(labels.unsqueeze(1) == 1, 0.8, 0.2).expand(400, 12))
    partly = torch.full_like(labels, -1)
    partly[:20] = labels[:20]
    program = pv.SemiSupervisedVAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Bernoulli(12, LabelOnly()),
        pv.posteriors.DiagonalNormal(1, MLP(12, [16], context=2)),
        pv.networks.OneHot(2),
        hidden=[16],
        weight=50.0,
    )
    pv.fit(
        program,
        (x, partly),
        epochs=40,
        batch_size=50,
        learning_rate=3e-2,
        objective=pv.objectives.EnumeratedELBO(),
        progress=False,
    )
    guessed = pv.encode(program, (x, torch.full_like(labels, -1)))["y"].argmax(1)
    assert (guessed == labels).float().mean() > 0.95


@pytest.mark.parametrize(
    "flags",
    [
        ["--program.hidden", "[8]"],
        ["--program.hidden", "null", "--prior", "ConditionalNormal", "--context-to", "[prior]"],
    ],
)
def test_a_recipe_trains_on_partly_labelled_data(tmp_path, flags):
    run = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                "--program",
                "SemiSupervisedVAE",
                *flags,
                "--labelled",
                "50",
                "--labelled-repeats",
                "4",
                "--context",
                "labels",
                "--encoder.hidden",
                "[8]",
                "--decoder.hidden",
                "[8]",
                "--latent",
                "2",
                "--objective",
                "EnumeratedELBO",
                "--epochs",
                "1",
                "--limit",
                "20",
                "--num-samples",
                "5",
                "--out",
                run,
            ]
        )
        == 0
    )
    program = pv.load(run)
    assert program.hidden == (None if "null" in flags else [8])
    assert (
        isinstance(program.likelihood.network, WithoutContext)
        == isinstance(program.posterior.network, WithoutContext)
        == ("null" in flags)
    )
    assert main(["sample", run, "--num", "10"]) == 0


def test_a_hierarchys_networks_take_what_is_above_them(capsys, tmp_path):
    assert (
        main(
            [
                "train",
                "--program",
                "HierarchicalVAE",
                "--latent",
                "[4, 2]",
                "--context",
                "labels",
                "--context-to",
                "[prior]",
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 2
    )
    assert "context_to: got ['prior'] for HierarchicalVAE" in capsys.readouterr().err


@pytest.mark.parametrize("level", [-1e4, 1e4])
def test_logits_of_a_label_keep_their_digits(level):
    """In float32: only differences of logits count, whatever they have in common."""
    logits = torch.tensor([[0.0, 0.5, -0.25], [3.0, 0.0, 0.0]])
    known = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    density = label_density(known, logits + level)
    found = density.log_prob(torch.eye(3)[[1, 1]])
    exact = torch.stack([logits[0].double().log_softmax(-1)[1], torch.zeros(()).double()])
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
def test_gaps_in_x_are_left_out(float64):
    """Entries that all are missing change no score, whatever the classifier makes of the others."""
    net, masked = pv.networks.MLP, pv.networks.WithMask
    program = pv.SemiSupervisedVAE(
        pv.priors.StandardNormal(1),
        pv.likelihoods.Missing(pv.likelihoods.Normal(3, net(1, [8], context=2))),
        pv.posteriors.DiagonalNormal(1, masked(3, net(6, [8], context=2))),
        pv.networks.OneHot(2),
        [8],
    )
    x = torch.randn(40, 3)
    x[torch.rand(40, 3) < 0.3] = torch.nan
    data = pv.datasets.Dataset(x, torch.arange(40) % 3 - 1, missing=True)
    objective = pv.objectives.EnumeratedELBO()
    pv.fit(program, data, epochs=150, learning_rate=1e-2, progress=False, objective=objective)
    unknown = torch.full((40,), -1)
    score = pv.log_likelihood(program, data.with_context(unknown), 2000)
    grid = torch.linspace(-8.0, 8.0, 2001)[:, None, None]
    exact = []
    for label in range(2):
        y = torch.eye(2)[label].expand(2001, 1, 2)
        law = program.likelihood(grid, context=y)
        exact.append((law.log_prob(x) + program.prior().log_prob(grid)).logsumexp(0))
    exact = torch.stack(exact).logsumexp(0) + math.log(16 / 2000) - math.log(2)
    off = (score.values - exact).abs()[~score.is_bound]
    assert len(off) > 20 and (off < 4 * score.mc_se[~score.is_bound] + 1e-6).all()


def test_a_label_that_the_context_rules_out_is_not_decoded_under_it(float64):
    program = semi(posterior=pv.posteriors.DiagonalNormal)
    y = torch.eye(3)[torch.tensor([0, 1])]
    latents = {"z": torch.zeros(2, 2), "y": y}
    alone = pv.decode(program, latents, torch.tensor([-1, -1]))
    torch.testing.assert_close(pv.decode(program, latents, torch.tensor([0, 1])), alone)
    torch.testing.assert_close(pv.decode(program, latents, torch.tensor([-1, 1])), alone)
    with pytest.raises(InvalidInput, match=r"z\['y'\]: got a value that the model rules out"):
        pv.decode(program, latents, torch.tensor([0, 2]))
