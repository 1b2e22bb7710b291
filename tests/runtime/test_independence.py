"""A program whose numbers of a datum depend on other data, or on other draws, is refused."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from common import small_vae
from torch import nn
from torch.nn import functional

import pyro_vae as pv
from pyro_vae.runtime.conditioned import Conditioned, conditioned
from pyro_vae.runtime.traces import find_plates
from pyro_vae.validation import InvalidInput

MIXES = "a log-weight of one datum that depends on the other data in its batch"


class Mixing(nn.Module):
    """A decoder of 2 to 8 features, through a function of all rows."""

    out_shape = (8,)

    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(2, 8), function

    def forward(self, z, context=None):
        return self.function(self.linear(z))


def vae_through(decoder):
    return pv.VAE(
        pv.priors.StandardNormal(2),
        pv.likelihoods.Normal(4, decoder),
        pv.posteriors.DiagonalNormal(2, pv.networks.MLP(4, [8])),
    )


def written_out(change):
    """A program in plain Pyro whose model puts the latents through a function."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(change(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))

    return pv.Program(model, guide, modules=nn.Linear(1, 1), event_shape=2)


def refusal(program, x):
    with pytest.raises(InvalidInput) as error:
        pv.elbo(program, x, 10)
    return str(error.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: functional.normalize(h, dim=0),
        lambda h: h.softmax(0),
        lambda h: h - h.mean(0),
    ],
    ids=["normalize", "softmax", "mean"],
)
def test_a_decoder_that_mixes_data_is_refused_with_its_name(function):
    said = refusal(vae_through(Mixing(function)), torch.randn(5, 4))
    assert MIXES in said and "first in module 'likelihood.network" in said


MADE = {
    "generated": lambda program: pv.generate(program, 4),
    "decoded": lambda program: pv.decode(program, torch.randn(4, 2)),
    "reconstructed alone": lambda program: pv.reconstruct(program, torch.randn(1, 4)),
    "scored alone": lambda program: pv.log_likelihood(program, torch.randn(1, 4), 50),
    "a map of the latent space": pv.inspection.Decoder,
}


@pytest.mark.parametrize("name", MADE)
def test_what_mixes_data_makes_nothing_either(name):
    """Without data, or with one datum alone, as with many."""
    program = vae_through(Mixing(lambda h: h - h.mean(0)))
    with pytest.raises(InvalidInput, match=f"{MIXES}.*'likelihood.network"):
        MADE[name](program)
    MADE[name](vae_through(Mixing(lambda h: h.softmax(1))))


def test_mixing_between_latents_of_a_pair_is_found_before_it_generates():
    with pytest.raises(InvalidInput, match=MIXES):
        pv.generate(written_out(lambda z: z - z.sum(0)), 3)


def test_the_number_of_data_is_noticed_of_one_alone(float64):
    program = vae_with(lambda h: h / len(h) ** 0.5, "encoder")
    assert "the number of data" in refusal(program, torch.randn(1, 4))


def test_what_is_decoded_together_is_what_is_decoded_alone(float64):
    program, z = vae_through(Mixing(lambda h: h.softmax(1))), torch.randn(5, 2)
    alone = torch.cat([pv.decode(program, row[None]) for row in z])
    torch.testing.assert_close(pv.decode(program, z), alone)
    torch.testing.assert_close(pv.decode(program, z.expand(3, 5, 2))[1], alone)


class Positions(nn.Module):
    """Adds to each datum its place in the batch."""

    def forward(self, h):
        return h + torch.arange(len(h)).reshape(-1, 1)


class Recurrent(nn.Module):
    """An LSTM that takes the data for the steps of a sequence: batch_first is off by default."""

    def __init__(self, **options):
        super().__init__()
        self.layer = nn.LSTM(8, 8, **options)

    def forward(self, h):
        return self.layer(h.unsqueeze(1))[0].squeeze(1)


class Attention(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, **options)

    def forward(self, h):
        h = h.unsqueeze(1)
        return self.layer(h, h, h)[0].squeeze(1)


def hooked():
    module = nn.Identity()
    module.register_forward_hook(lambda module, given, made: made - made.mean(0))
    return module


class Kept(nn.Module):
    """Adds what it was first given in this shape."""

    kept = None

    def forward(self, h):
        if self.kept is None or self.kept.shape != h.shape:
            self.kept = h.detach()
        return h + 0.1 * self.kept


def in_pairs(h):
    """Each of two neighbours is their mean; an odd one is left."""
    even = len(h) // 2 * 2
    means = h[:even].reshape(-1, 2, 8).mean(1).repeat_interleave(2, 0)
    return torch.cat([means, h[even:]])


OF_THE_BATCH = {
    "place": Positions,
    "size": lambda: lambda h: h / len(h) ** 0.5,
    "largest entry": lambda: lambda h: h / h.abs().max(),
    "order": lambda: lambda h: h.sort(0)[0],
    "sum so far": lambda: lambda h: h.cumsum(0),
    "next": lambda: lambda h: h.roll(1, 0),
    "equal data": lambda: lambda h: (-50 * torch.cdist(h, h)).exp() @ h,
    "layer norm over data": lambda: lambda h: functional.layer_norm(h.mT, h.shape[:1]).mT,
    "a sequence of data": Recurrent,
    "attention among data": Attention,
    "hook": hooked,
    "first call": Kept,
    "pairs": lambda: in_pairs,
    "above the mean": lambda: lambda h: h * (h.sum(1, keepdim=True) >= h.sum(1).mean()),
    "groups": lambda: lambda h: h / len(h.sign().unique(dim=0)),
}
OF_EACH_DATUM = {
    "recurrent": lambda: Recurrent(batch_first=True),
    "attention": lambda: Attention(batch_first=True),
    "dropout": lambda: nn.Dropout(0.5),
    "instance norm": lambda: nn.Sequential(
        nn.Unflatten(-1, (2, 4)), nn.InstanceNorm1d(2), nn.Flatten(-2)
    ),
    "sum so far": lambda: lambda h: h.cumsum(1),
}


def vae_with(function, where):
    network = Mixing(function)
    if where == "decoder":
        return vae_through(network)
    network.linear = nn.Linear(4, 8)
    vae = vae_through(pv.networks.MLP(2, [8]))
    vae.posterior.network = network
    return vae


@pytest.mark.parametrize("num_data", [2, 5])
@pytest.mark.parametrize("where", ["encoder", "decoder"])
@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_what_a_network_knows_of_its_batch_is_found(name, where, num_data, float64):
    program = vae_with(OF_THE_BATCH[name](), where)
    assert "a log-weight of one datum that depends on" in refusal(program, torch.randn(num_data, 4))


@pytest.mark.parametrize("where", ["encoder", "decoder"])
@pytest.mark.parametrize("name", OF_EACH_DATUM)
def test_data_are_scored_together_as_they_are_alone(name, where, float64):
    program, x = vae_with(OF_EACH_DATUM[name](), where), torch.randn(5, 4)
    score = pv.elbo(program, x, 6).values
    assert torch.equal(score[:2], pv.elbo(program, x[:2], 6).values)


class Counter(nn.Module):
    calls = 0

    def forward(self, h):
        self.calls += 1
        return h + 0.01 * self.calls


VARYING = {
    "dropout": lambda h: functional.dropout(h, 0.5),
    "noise": lambda h: h + torch.randn(8),
    "memory": Counter(),
}


@pytest.mark.parametrize("name", VARYING)
def test_a_decoder_that_is_another_at_each_call_is_told_so(name):
    said = refusal(vae_with(VARYING[name], "decoder"), torch.randn(5, 4))
    assert "a log-weight of one datum that is another in each run" in said


@pytest.mark.filterwarnings("ignore:std")
def test_a_statistic_over_data_that_one_datum_does_not_have_is_explained(float64):
    program = vae_with(lambda h: h + h.std(0), "encoder")
    assert "NaN or negative for a datum by itself" in refusal(program, torch.randn(5, 4))


class Gate(nn.Module):
    """Mixes data with a weight that is zero before training."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, h):
        return h + self.weight * h.mean(0)


def test_mixing_that_is_learned_is_found_after_the_first_epoch():
    program, x = vae_with(Gate(), "decoder"), torch.randn(20, 4)
    with pytest.raises(InvalidInput, match=MIXES):
        pv.fit(program, x, validation=x, epochs=3, progress=False)
    assert program.likelihood.network.function.weight != 0


def test_a_pair_whose_attention_takes_no_draws_in_front_is_run_one_draw_at_a_time(float64):
    """Torch's attention raises an AssertionError on a fourth dimension."""
    attention = nn.MultiheadAttention(2, 1, batch_first=True)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3, 2), 1.0).to_event(2))
            pyro.sample("x", dist.Normal(attention(z, z, z)[0].sum(-1), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3, 2), 1.0).to_event(2))

    program, x = pv.Program(model, guide, modules=attention, event_shape=3), torch.randn(4, 3)
    with pytest.warns(UserWarning, match="one draw at a time"):
        score = pv.elbo(program, x, 5)
    assert score.values.isfinite().all()


def test_batch_norm_on_the_statistics_of_its_batch_is_refused_with_its_name():
    vae = vae_through(Mixing(nn.BatchNorm1d(8, track_running_stats=False)))
    assert "module 'likelihood.network.function'" in refusal(vae, torch.randn(5, 4))


def test_an_encoder_that_mixes_data_is_refused_with_its_name():
    vae = small_vae()
    vae.posterior.network = nn.Sequential(nn.Flatten(-3), nn.Linear(64, 16), nn.Softmax(dim=0))
    vae.posterior.network.out_shape = (16,)
    said = refusal(vae, torch.rand(5, 1, 8, 8).round())
    assert MIXES in said and "first in module 'posterior" in said


@pytest.mark.parametrize(
    "change",
    [lambda z: z - z.mean(0), lambda z: z - z.mean(-2, keepdim=True), lambda z: z.flip(-2)],
    ids=["mean", "mean of the data", "neighbour"],
)
def test_a_model_that_mixes_data_is_refused(change):
    said = refusal(written_out(change), torch.randn(5, 2))
    assert "depends on the other data in its batch" in said


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda z: z - z.mean(0) if z.dim() == 3 else z,
            "depends on the other draws of its latents",
        ),
        (
            lambda z: z.cumsum(0) if z.dim() == 3 else z,
            "depends on the other draws of its latents",
        ),
        (
            lambda z: z.flip(0).cumsum(0).flip(0) if z.dim() == 3 else z,
            "depends on the other draws of its latents",
        ),
        (
            lambda z: z.reshape(-1, 2),
            r"does not run with 2 draws in front of the data \(",
        ),
    ],
    ids=["mixes", "adds those before", "adds those behind", "fails"],
)
def test_a_pair_that_takes_no_draws_in_front_is_run_one_draw_at_a_time(float64, change, words):
    x = torch.randn(5, 2)
    exact = dist.Normal(torch.zeros(2), 2**0.5).to_event(1).log_prob(x)
    with pytest.warns(UserWarning, match=f"{words}.*one draw at a time"):
        score = pv.log_likelihood(written_out(change), x, 300)
    assert ((score.values - exact).abs() < 4.5 * score.mc_se).all()


def test_a_program_of_parts_that_mixes_draws_is_refused():
    decoder = Mixing(lambda h: h.reshape(-1, 8))
    decoder.takes_draws = True  # which is not so
    said = refusal(vae_through(decoder), torch.randn(5, 4))
    assert "does not run with 2 draws in front of the data (" in said


CLEAN = {
    "plain": lambda: (small_vae(), torch.rand(5, 1, 8, 8).round()),
    "double": lambda: (small_vae().double(), torch.rand(5, 1, 8, 8).round()),
    "one datum": lambda: (small_vae(), torch.rand(1, 1, 8, 8).round()),
    "refined": lambda: (pv.Refined(small_vae(), steps=2), torch.rand(5, 1, 8, 8).round()),
    "batch norm": lambda: (vae_through(Mixing(nn.BatchNorm1d(8))), torch.randn(5, 4)),
    "layer norm": lambda: (vae_through(Mixing(nn.LayerNorm(8))), torch.randn(5, 4)),
    "last dimension": lambda: (
        vae_through(Mixing(lambda h: functional.normalize(h, dim=-1))),
        torch.randn(5, 4),
    ),
    "written out": lambda: (written_out(torch.tanh), torch.randn(5, 2)),
    "large values": lambda: (written_out(lambda z: 1e4 * z), 1e4 * torch.randn(5, 2)),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_program_of_which_each_datum_is_its_own_passes(name):
    program, x = CLEAN[name]()
    with conditioned(program, x, seed=0) as given:
        assert len(given) == len(x)


def test_the_look_leaves_random_numbers_alone():
    program, x = small_vae().eval(), torch.rand(5, 1, 8, 8).round()
    torch.manual_seed(7)
    find_plates(program, x)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Conditioned.of(program, x, None)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(7)
    with conditioned(program, x, seed=0):
        torch.rand(1)
    after = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize("digits, is_rounding", [(4, True), (400, False)])
def test_what_the_last_digits_of_data_do_is_rounding(digits, is_rounding):
    """Products of large numbers are rounded by place; a small scale makes nats of it."""
    eps = torch.finfo(torch.float32).eps

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            loc = 170 * (1 + digits * eps * torch.arange(len(x)).unsqueeze(-1)) + 0 * z
            pyro.sample("x", dist.Normal(loc, 0.01).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))

    program = pv.Program(model, guide, modules=nn.Linear(1, 1), event_shape=1)
    x = torch.full((5, 1), 170.01)
    if is_rounding:
        assert pv.elbo(program, x, 10).mean == pytest.approx(3.19, abs=0.1)
    else:
        assert "depends on" in refusal(program, x)
