import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from closed_forms import LinearGaussian, TwoLevelGaussian
from common import small_vae

import pyro_vae as pv
from pyro_vae.evaluation.importance_score import UnreliableEstimate
from pyro_vae.runtime.blocks import BLOCK_BYTES
from pyro_vae.runtime.environment import evaluating
from pyro_vae.runtime.traces import importance_traces
from pyro_vae.testing import check_program
from pyro_vae.validation import InvalidInput


def test_two_programs_in_one_process_both_train():
    """Under Pyro's global store the second would train the first one's tensors."""
    train, _ = pv.datasets.load("digits")
    programs = [small_vae(seed=1), small_vae(seed=2)]
    before = [copy.deepcopy(p.state_dict()) for p in programs]
    histories = [pv.fit(p, train, epochs=3, progress=False) for p in programs]
    for program, state, history in zip(programs, before, histories):
        assert history["objective"][-1] > history["objective"][0] + 1
        for name, value in program.state_dict().items():
            assert not torch.equal(value, state[name]), f"{name} did not move"
    assert not list(pyro.get_param_store().keys())


def test_pyro_svi_moves_nothing_without_param_sites():
    """The trap that `fit` avoids: SVI looks for parameters in the store and finds none."""
    vae = small_vae()
    before = copy.deepcopy(vae.state_dict())
    svi = pyro.infer.SVI(
        vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO()
    )
    with pytest.warns(UserWarning, match="moves no parameter"):
        svi.step(torch.zeros(4, 1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def own_pair(scale=1.0):
    encoder, decoder = torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 0.3).to_event(1))

    return pv.Program(model, guide, modules={"encoder": encoder, "decoder": decoder})


def test_a_pair_of_ones_own_trains_scores_generates_and_reconstructs():
    program, x = own_pair(), torch.randn(50, 3)
    with pytest.raises(InvalidInput, match="event_shape"):
        pv.generate(program, 2)
    history = pv.fit(program, x, epochs=30, progress=False)
    assert history["objective"][-1] > history["objective"][0]
    with pytest.warns(
        UnreliableEstimate, match="of 50 data"
    ):  # half the posterior's scale, and said so
        score = pv.log_likelihood(program, x, 500)
    assert score.mean > pv.elbo(program, x, 500).mean
    assert pv.generate(program, 2).shape == (2, 3)
    assert pv.reconstruct(program, x).shape == x.shape
    # Labels that come with the data are nothing to a pair that takes x alone.
    assert torch.equal(pv.elbo(program, (x, torch.arange(50))).values, pv.elbo(program, x).values)


def test_a_context_reaches_encoder_and_decoder():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(4, pv.networks.MLP(2, [8], context=3)),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [8], context=3)),
        context=pv.networks.OneHot(3),
    )
    x = torch.zeros(3, 4)
    means = pv.encode(vae, (x, torch.arange(3)))["z"]
    assert len({tuple(row.tolist()) for row in means}) == 3
    samples = pv.generate(vae, 3, context=[0, 1, 2])
    same = pv.generate(vae, 3, context=1)
    assert torch.equal(samples[1], same[1]) and not torch.equal(samples[0], same[0])


def test_draws_and_means_are_made_in_blocks_that_change_nothing(monkeypatch):
    program, x = small_vae().double(), torch.rand(10, 1, 8, 8).round().double()
    largest, forward = [], program.likelihood.forward

    def watched(z, *, context=None):
        largest.append(len(z))
        return forward(z, context=context)

    program.likelihood.forward = watched
    whole = pv.encode(program, x)["z"]
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 1)
    torch.testing.assert_close(whole, pv.encode(program, x)["z"], rtol=0, atol=1e-12)
    for run in (lambda: pv.generate(program, 10), lambda: pv.reconstruct(program, x)):
        largest.clear()
        assert run().shape == x.shape and max(largest) <= 4  # four to look for neighbours


@pytest.mark.parametrize("wrap", [lambda program: program, pv.Refined], ids=["plain", "refined"])
def test_draws_and_means_of_a_datum_depend_on_the_seed_and_its_place_alone(monkeypatch, wrap):
    """To the bit, in blocks of three data."""
    program, x = wrap(small_vae()), torch.rand(8, 1, 8, 8).round()
    monkeypatch.setattr("pyro_vae.runtime.memory.bytes_allocated", lambda run: 1)
    monkeypatch.setitem(BLOCK_BYTES, "cpu", 3)
    for run in (
        lambda count: pv.generate(program, count),
        lambda count: pv.generate(program, count, draws=True),
        lambda count: pv.reconstruct(program, x[:count]),
        lambda count: pv.encode(program, x[:count])["z"],
        lambda count: pv.encode(program, x[:count], draws=True)["z"],
        lambda count: pv.evaluation.squared_error(program, x[:count]).values,
    ):
        whole = run(8)
        for count in (1, 4):
            assert torch.equal(run(count), whole[:count])
        assert not torch.equal(whole[:3], whole[3:6])


@pytest.mark.parametrize(
    "parts, words",
    [
        ({"prior": None}, "prior: got NoneType"),
        ({"likelihood": pv.priors.StandardNormal(2)}, "with event_shape"),
        ({"prior": pv.priors.StandardNormal(3)}, "posterior over"),
        (
            {"likelihood": pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(3, [4]))},
            "parts that do not fit",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(parts, words):
    fitting = {
        "prior": pv.priors.StandardNormal(2),
        "posterior": pv.posteriors.DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [4])),
        "likelihood": pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(2, [4])),
    }
    with pytest.raises(InvalidInput, match=words):
        pv.elbo(pv.VAE(**(fitting | parts)), torch.zeros(2, 1, 8, 8))


def test_continuous_covariates_condition_too():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(3, pv.networks.MLP(2, [8], context=2)),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [8], context=2)),
        context=torch.nn.Identity(),
    )
    data = (torch.randn(20, 3), torch.randn(20, 2))
    pv.fit(vae, data, epochs=2, progress=False)
    assert pv.elbo(vae, data).values.shape == (20,)
    assert pv.generate(vae, 5, context=torch.randn(5, 2)).shape == (5, 3)


@pytest.mark.parametrize(
    "context, message",
    [
        (None, "context: got none"),
        (torch.tensor([0, 1, 2]), "got 3 entries"),
        (torch.tensor([0, 1, 2, 3]), "label 3"),
        (torch.tensor([0, -1, 2, 1]), "label -1"),
        (torch.tensor([0, 0.5, 2, 1]), "label 0.5"),
    ],
)
def test_bad_labels(context, message):
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(4, pv.networks.MLP(2, [8], context=3)),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [8], context=3)),
        context=pv.networks.OneHot(3),
    )
    for use in (pv.elbo, pv.fit, pv.log_likelihood, pv.reconstruct):
        with pytest.raises(InvalidInput, match=message):
            use(
                vae,
                (torch.zeros(4, 4), context)
                if context is None or len(context) == 4
                else _unchecked_pair(torch.zeros(4, 4), context),
            )


def _unchecked_pair(x, context):
    with pytest.raises(InvalidInput, match="3 labels"):
        pv.datasets.Dataset(x, context)
    data = pv.datasets.Dataset(x)
    data.context = context
    return data


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.full((3, 1, 8, 8), torch.nan), "NaN"),
        (torch.full((3, 1, 8, 8), torch.inf), "infinite"),
        (torch.full((3, 1, 8, 8), 0.5), "binarise grey values"),
        (torch.full((3, 1, 8, 8), 2.0), "support"),
        (torch.zeros(3, 64), "shape"),
        (torch.zeros(1, 8, 8), "batch dimension"),
        (torch.zeros(0, 1, 8, 8), "got no data"),
    ],
)
def test_bad_x(x, message):
    vae = small_vae()
    for use in (pv.elbo, pv.fit, pv.log_likelihood, pv.reconstruct, pv.encode):
        with pytest.raises(InvalidInput, match=message):
            use(vae, x)


def test_parts_of_the_wrong_size_say_so():
    network = pv.networks.MLP(3, [4], context=2)
    with pytest.raises(InvalidInput, match="2 features"):
        network(torch.zeros(5, 3))
    with pytest.raises(InvalidInput, match="none by this network"):
        pv.networks.MLP(3, [4])(torch.zeros(5, 3), context=torch.zeros(5, 2))
    with pytest.raises(InvalidInput, match="out_shape"):
        pv.posteriors.DiagonalNormal(2, torch.nn.Linear(3, 4))


def test_a_torch_module_is_a_network_once_it_states_its_shape():
    body = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh())
    body.out_shape = (7,)
    q = pv.posteriors.DiagonalNormal(2, body)
    assert q(torch.zeros(3, 5)).event_shape == (2,)


def test_plain_torch_distributions_are_components():
    class Plain(torch.nn.Module):
        event_shape = (3,)

        def forward(self, z, *, context=None):
            return torch.distributions.Independent(
                torch.distributions.Laplace(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.0),
                1,
            )

    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=Plain(),
        posterior=pv.posteriors.DiagonalNormal(2, pv.networks.MLP(3, [4])),
    )
    assert pv.elbo(vae, torch.randn(4, 3)).values.isfinite().all()
    assert pv.generate(vae, 4).shape == (4, 3)


# hierarchies


def three_levels(inference, skip, context=0):
    """Latents of 4, 3 and 2 dimensions under binary x of 5."""
    sizes, net, q = [5, 4, 3, 2], pv.networks.MLP, pv.posteriors.DiagonalNormal
    seen = [
        sum(sizes[level + 2 :]) if skip else 0 for level in range(3)
    ]  # above what the component is given
    priors = [
        q(sizes[level], net(sizes[level + 1], [8], context=context + seen[level]))
        for level in (1, 2)
    ]
    likelihood = pv.likelihoods.Bernoulli(5, net(4, [8], context=context + seen[0]))
    if inference == "bottom_up":
        posteriors = [
            q(sizes[level], net(sizes[level - 1], [8], context=context)) for level in (1, 2, 3)
        ]
    else:
        above = [
            sum(sizes[level + 1 :]) if skip else sum(sizes[level + 1 : level + 2])
            for level in (1, 2, 3)
        ]
        posteriors = [
            q(sizes[level], net(5, [8], context=context + more))
            for level, more in zip((1, 2, 3), above)
        ]
    return pv.HierarchicalVAE(
        [*priors, pv.priors.GaussianMixture(2, 3)],
        likelihood,
        posteriors,
        inference=inference,
        skip=skip,
        context=pv.networks.OneHot(context) if context else None,
    )


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("inference", ["bottom_up", "top_down"])
def test_hierarchy(inference, skip, context, tmp_path):
    program, x = three_levels(inference, skip, context), torch.bernoulli(torch.rand(6, 5))
    labels = torch.arange(6) % 3 if context else None
    check_program(program, x, context=labels)
    pv.fit(program, (x, labels), epochs=2, progress=False, out=tmp_path)
    loaded = pv.load(tmp_path)
    assert (
        pv.elbo(loaded, (x, labels), 5).values.tolist()
        == pv.elbo(program.eval(), (x, labels), 5).values.tolist()
    )
    assert pv.reconstruct(program, (x, labels)).shape == (6, 5)
    assert {name: z.shape[1] for name, z in pv.encode(program, (x, labels)).items()} == {
        "z1": 4,
        "z2": 3,
        "z3": 2,
    }


@pytest.mark.parametrize("inference", ["bottom_up", "top_down"])
def test_the_exact_guide_of_a_hierarchy_gives_its_exact_log_likelihood(float64, inference):
    exact = TwoLevelGaussian()
    x = exact.marginal.sample((10,))
    score = pv.log_likelihood(exact.program(inference), x, 20)
    torch.testing.assert_close(score.values, exact.marginal.log_prob(x))
    assert score.mc_se.max() < 1e-10
    wide = pv.log_likelihood(exact.program(inference, widen=1.3), x, 5000)
    assert ((wide.values - exact.marginal.log_prob(x)).abs() < 4.5 * wide.mc_se).all()


def test_the_draws_of_a_hierarchy_have_its_moments():
    exact = TwoLevelGaussian()
    x = pv.generate(exact.program(), 40_000, draws=True)
    torch.testing.assert_close(x.mean(0), exact.marginal.mean, rtol=0, atol=0.1)
    torch.testing.assert_close(x.T.cov(), exact.marginal.covariance_matrix, rtol=0.05, atol=0.2)


def test_a_prior_that_shares_the_posterior_finds_that_of_the_top_level():
    class Sharing(pv.priors.StandardNormal):
        def bind(self, program):
            self.found = [program.posterior]

    def build(inference):
        like = three_levels(inference, False)
        return pv.HierarchicalVAE(
            [*like.priors[:2], Sharing(2)],
            like.likelihood,
            list(like.posteriors),
            inference=inference,
        )

    program = build("top_down")
    assert program.priors[-1].found[0] is program.posteriors[2]
    with pytest.raises(InvalidInput, match="top_down"):
        build("bottom_up")


def test_a_hierarchy_of_the_wrong_size_says_so():
    q, net = pv.posteriors.DiagonalNormal, pv.networks.MLP
    with pytest.raises(InvalidInput, match="two levels or more"):
        pv.HierarchicalVAE(
            [pv.priors.StandardNormal(2)], pv.likelihoods.Bernoulli(5, net(2)), [q(2, net(5))]
        )
    with pytest.raises(InvalidInput, match="bottom_up"):
        pv.HierarchicalVAE(
            [q(2, net(2)), pv.priors.StandardNormal(2)],
            pv.likelihoods.Bernoulli(5, net(2)),
            [q(2, net(5)), q(2, net(2))],
            inference="sideways",
        )


# refinement


@pytest.mark.parametrize(
    "inner",
    [lambda: conditional_vae(), lambda: three_levels("bottom_up", False, 3)],
    ids=["vae", "hierarchy"],
)
def test_refined(inner, tmp_path):
    program = pv.Refined(inner(), steps=2)
    data = torch.bernoulli(torch.rand(6, program.event_shape[0])), torch.arange(6) % 3
    check_program(program, data[0], context=data[1])
    pv.fit(program, data, epochs=2, progress=False, out=tmp_path)
    assert (
        pv.elbo(pv.load(tmp_path), data, 5).values.tolist()
        == pv.elbo(program.eval(), data, 5).values.tolist()
    )
    assert pv.reconstruct(program, data).shape == data[0].shape
    assert pv.encode(program, data).keys() == pv.encode(program.program, data).keys()


def conditional_vae():
    return pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Bernoulli(5, pv.networks.MLP(2, [8], context=3)),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(5, [8], context=3)),
        context=pv.networks.OneHot(3),
    )


def test_refinement_closes_the_gap_of_a_bad_encoder(float64):
    exact = LinearGaussian(2, 5, diagonal=True)
    x = exact.data(20)
    truth = exact.marginal.log_prob(x)
    program = exact.program()
    bad = pv.posteriors.DiagonalNormal(2, pv.networks.MLP(5, [4])).double()
    program.posterior = bad
    gaps = [
        (truth - pv.elbo(p, x, 500).values).mean()
        for p in (
            program,
            pv.Refined(program, steps=5, step_size=0.02),
            pv.Refined(program, steps=40, step_size=0.02),
        )
    ]
    assert gaps[0] > 1.3 * gaps[1] and gaps[1] > 5 * gaps[2] > 0


# Each run of the guide is another one, some of them narrow: k sees the draws of all runs together.
@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
def test_a_refined_guide_gives_the_right_log_likelihood(float64):
    exact = LinearGaussian(2, 5)
    x = exact.data(20)
    refined = pv.Refined(exact.program(widen=1.2), steps=2, step_size=0.01)
    score = pv.log_likelihood(refined, x, 5000, compile="off")
    assert ((score.values - exact.marginal.log_prob(x)).abs() < 4.5 * score.mc_se).all()


def test_each_datum_is_refined_by_itself_and_once_whatever_the_number_of_draws(float64):
    exact = LinearGaussian(2, 5)
    program, x = exact.program(), exact.data(6)
    refined = pv.Refined(program, steps=3)
    pv.elbo(refined, x, 7)
    program.posterior.encoded = 0
    with evaluating(refined, seed=0):
        importance_traces(refined, x, None, 7)
    assert program.posterior.encoded == 4 * 6
    with torch.no_grad():
        moved = refined._offsets(x, None)["z", "loc"]
    assert moved.shape == (6, 2) and len({tuple(row.tolist()) for row in moved}) == 6
    program.posterior = pv.posteriors.DiagonalNormal(2, pv.networks.MLP(5, [4]))
    # What the others are makes no difference to the gradient of one: it is that of a sum over data.
    torch.manual_seed(0)
    one = pv.Refined(program, steps=1)._offsets(x, None)["z", "loc"]
    torch.manual_seed(0)
    other = pv.Refined(program, steps=1)._offsets(torch.cat([x[:1], x[1:] + 3]), None)["z", "loc"]
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1])


@pytest.mark.parametrize(
    "build",
    [
        lambda: torch.distributions.MultivariateNormal(torch.zeros(4, 2), torch.eye(2)),
        lambda: dist.LowRankMultivariateNormal(
            torch.zeros(4, 2), torch.ones(4, 2, 1), torch.ones(4, 2)
        ),
        lambda: dist.StudentT(torch.full((4, 2), 5.0), 0.0, 1.0).to_event(1),
        lambda: torch.distributions.Independent(
            torch.distributions.LogNormal(torch.zeros(4, 2), torch.ones(2)), 1
        ),
        lambda: dist.Beta(torch.ones(4, 2), torch.ones(4, 2)).to_event(1),
    ],
)
def test_distributions_that_are_made_of_their_parameters_can_be_refined(build):
    class Fixed(torch.nn.Module):
        def forward(self, x, *, context=None):
            return build()

    vae = pv.VAE(
        pv.priors.StandardNormal(2), pv.likelihoods.Normal(3, pv.networks.MLP(2, [4])), Fixed()
    )
    vae.prior = pv.priors.StandardNormal(2)
    x = torch.randn(4, 3)
    with torch.no_grad():
        offsets = pv.Refined(vae, steps=2)._offsets(x, None)
    assert all(offset.shape[0] == 4 and offset.abs().sum() > 0 for offset in offsets.values())
    guide, _ = importance_traces(pv.Refined(vae), x)
    assert guide.nodes["z"]["fn"].log_prob(guide.nodes["z"]["value"]).shape == (4,)


def test_what_cannot_be_refined_says_so():
    class Mixed(torch.nn.Module):
        def forward(self, x, *, context=None):
            return pv.priors.GaussianMixture(2)().expand((len(x),))

    vae = pv.VAE(
        pv.priors.StandardNormal(2), pv.likelihoods.Normal(3, pv.networks.MLP(2, [4])), Mixed()
    )
    with pytest.raises(InvalidInput, match="refined"):
        pv.elbo(pv.Refined(vae), torch.randn(4, 3))
    with pytest.raises(InvalidInput, match="steps"):
        pv.Refined(vae, steps=0)
