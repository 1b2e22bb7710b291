"""What a caller has set for torch changes no number, and is left as it was."""

from contextlib import contextmanager

import pytest
import torch
from common import small_vae

import pyro_vae as pv

X = (torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def trained(vae):
    pv.fit(vae, X, epochs=2, progress=False, compile="off", seed=0)
    return torch.cat([parameter.flatten() for parameter in vae.parameters()])


NUMBERS = {
    "log_likelihood": lambda vae: pv.log_likelihood(vae, X, 20).values,
    "elbo": lambda vae: pv.elbo(vae, X, 20).values,
    "ais": lambda vae: pv.evaluation.ais(vae, X[:2], 2, 3, num_leapfrog=2).values,
    "decompose": lambda vae: pv.evaluation.decompose(vae, X, 5)["kl"].values,
    "generate": lambda vae: pv.generate(vae, 3),
    "reconstruct": lambda vae: pv.reconstruct(vae, X),
    "decode": lambda vae: pv.decode(vae, torch.ones(2, 2)),
    "fit": trained,
}


@contextmanager
def other_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "default dtype": other_default,
    "inference_mode": torch.inference_mode,
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.filterwarnings("ignore:Pareto k")
@pytest.mark.filterwarnings("ignore:.*few.*:UserWarning")
def test_a_number_is_the_program_s_alone(number, setting):
    plain, other = small_vae(seed=0), small_vae(seed=0)
    expected = NUMBERS[number](plain)
    with SETTINGS[setting]():
        was = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        found = NUMBERS[number](other)
        assert was == (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
    assert torch.equal(expected, found)


class InHalfPrecision(torch.nn.Module):
    """A network that computes under a `torch.autocast` of its own."""

    def __init__(self, net):
        super().__init__()
        self.net, self.out_shape = net, net.out_shape

    def forward(self, *args, **kwargs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(*args, **kwargs).float()


def by_hand(vae, objective, autocast):
    """Twenty steps of Adam on all data by hand: the ELBO after them."""
    optimizer = torch.optim.Adam(vae.parameters(), 0.05)
    torch.manual_seed(5)
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = objective.differentiable_loss(vae.model, vae.guide, X)
        loss.backward()
        optimizer.step()
    return pv.elbo(vae, X, 50).mean


@pytest.mark.parametrize("own", [False, True])
def test_each_step_in_half_precision_has_the_weights_of_the_step_before(own):
    def new():
        torch.manual_seed(0)
        decoder, encoder = pv.networks.MLP(2, [16]), pv.networks.MLP((1, 8, 8), [16])
        return pv.VAE(
            pv.priors.StandardNormal(2),
            pv.likelihoods.Bernoulli((1, 8, 8), InHalfPrecision(decoder) if own else decoder),
            pv.posteriors.DiagonalNormal(2, InHalfPrecision(encoder) if own else encoder),
        )

    objective = pv.objectives.ELBO()
    start, expected = pv.elbo(new(), X, 50).mean, by_hand(new(), objective, not own)
    vae = new()
    pv.fit(
        vae,
        X,
        epochs=20,
        batch_size=len(X),
        learning_rate=0.05,
        objective=objective,
        autocast=not own,
        compile="off",
        progress=False,
        seed=5,
    )
    # With the first step's weights in half precision all along, next to nothing is gained.
    assert pv.elbo(vae, X, 50).mean - start > 0.6 * (expected - start) > 5
