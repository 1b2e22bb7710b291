"""Plates inside the data plate count as wholes: scaled in the loss, run as a whole in a score."""

import math
from contextlib import ExitStack

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vae as pv
from pyro_vae.evaluation.importance import log_joint
from pyro_vae.testing import check_program
from pyro_vae.validation import InvalidInput

SCALE = 0.7


class Local(nn.Module):
    """z ~ N(0, 1) and x_j ~ N(z, s^2) in local plates, or N(z + w_j, s^2) with w_j ~ N(0, 1).

    The guide is exact, so that the ELBO is log p(x) whatever is drawn.

    Args:
        event_shape: the sizes of the local plates.
        few: how many entries of each plate are run; all by default.
        latents: whether there are w_j.
    """

    def __init__(self, event_shape, few=None, latents=False):
        super().__init__()
        self.event_shape, self.few = tuple(event_shape), few
        self.latents = latents
        self.start = 0  # the first entry that is run
        self.shift = nn.Parameter(torch.zeros(()))

    @property
    def variance(self):
        return SCALE**2 + self.latents

    @property
    def precision(self):
        return 1 + math.prod(self.event_shape) / self.variance

    def log_prob(self, x):
        x = x.flatten(1)
        covariance = self.variance * torch.eye(x.shape[1]) + 1
        return dist.MultivariateNormal(torch.zeros(x.shape[1]), covariance).log_prob(x)

    def plates(self):
        for i, size in enumerate(self.event_shape):
            some = None
            if self.few is not None:
                some = (torch.arange(self.few[i]) + self.start) % size
            yield pyro.plate(f"local_{i}", size, subsample=some, dim=i - len(self.event_shape))

    def model(self, x, context=None):
        with ExitStack() as stack:
            stack.enter_context(pyro.plate("data", len(x), dim=-1 - len(self.event_shape)))
            mean = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            for i, plate in enumerate(self.plates()):
                x = x.index_select(i + 1, stack.enter_context(plate))
            if self.latents:
                mean = mean + pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(mean, SCALE), obs=x)

    def guide(self, x, context=None):
        with ExitStack() as stack:
            stack.enter_context(pyro.plate("data", len(x), dim=-1 - len(self.event_shape)))
            total = x.flatten(1).sum(1).reshape(-1, *[1] * len(self.event_shape))
            loc = total / self.variance / self.precision + self.shift
            z = pyro.sample("z", dist.Normal(loc, self.precision**-0.5))
            for i, plate in enumerate(self.plates()):
                x = x.index_select(i + 1, stack.enter_context(plate))
            if self.latents:
                variance = SCALE**2 / (1 + SCALE**2)
                pyro.sample("w", dist.Normal((x - z) * variance / SCALE**2, variance**0.5))


CASES = [((10,), (4,)), ((4, 10), (2, 4)), ((4, 10), (4, 3)), ((3, 2), (1, 2))]
SUMS = {
    "ELBO": pv.objectives.ELBO,
    "ELBO of 3": lambda: pv.objectives.ELBO(num_particles=3),
    "AnalyticELBO": pv.objectives.AnalyticELBO,
    "FreeBits": lambda: pv.objectives.FreeBits(minimum=0.0),
    "EnumeratedELBO": pv.objectives.EnumeratedELBO,
}


def data_of(program, num=3):
    torch.manual_seed(1)
    return torch.randn(num, *program.event_shape)


@pytest.mark.parametrize("latents", [False, True])
@pytest.mark.parametrize("shape, few", CASES)
def test_a_whole_plate_is_scored_exactly(float64, shape, few, latents):
    program = Local(shape, latents=latents)
    x = data_of(program)
    for score in (pv.elbo(program, x, 3), pv.log_likelihood(program, x, 3)):
        torch.testing.assert_close(score.values, program.log_prob(x))
    check_program(program, x)


@pytest.mark.parametrize("name, latents", [*((name, False) for name in SUMS), ("ELBO", True)])
@pytest.mark.parametrize("shape, few", CASES)
def test_the_loss_of_some_entries_is_that_of_all_on_average(float64, shape, few, name, latents):
    """Over subsets in which every entry is run equally often, at the same draws of z."""
    program, x = Local(shape, few, latents), data_of(Local(shape))

    def loss(program):
        torch.manual_seed(0)
        return SUMS[name]().loss(*pair(program), x)

    losses = []
    for program.start in range(math.lcm(*shape)):
        losses.append(loss(program))
    assert max(losses) - min(losses) > 0.1
    whole = loss(Local(shape, latents=latents))
    assert sum(losses) / len(losses) == pytest.approx(whole, rel=1e-10)
    if "ELBO" in name and name != "AnalyticELBO":  # no closed form, so exact at every draw
        assert whole == pytest.approx(-program.log_prob(x).sum().item(), rel=1e-10)


def pair(program):
    return program.model, program.guide


@pytest.mark.parametrize("shape, few", CASES)
def test_scores_and_bounds_of_log_weights_refuse_to_run_some_entries_only(float64, shape, few):
    program = Local(shape, few)
    x, name = data_of(program), next(i for i in range(len(shape)) if few[i] != shape[i])
    message = rf"plate 'local_{name}': got {few[name]} of {shape[name]} entries.*subsample_size"
    uses = (pv.elbo, pv.log_likelihood, pv.to_inference_data, pv.reconstruct, log_joint)
    for use in uses:
        with pytest.raises(InvalidInput, match=message):
            use(program, x)
    for objective in (pv.objectives.IWAE, pv.objectives.DReG, pv.objectives.StickingTheLanding):
        with pytest.raises(InvalidInput, match=message):
            objective().loss(*pair(program), x)


def test_a_program_that_subsamples_in_training_alone_trains_and_is_scored(float64):
    class InTraining(Local):
        def plates(self):
            self.few = (4,) if self.training else None
            self.start = int(torch.randint(10, ())) if self.training else 0
            return super().plates()

    program = InTraining((10,))
    x = data_of(program, 40)
    with torch.no_grad():
        program.shift.add_(1.0)
    pv.fit(program, x, validation=x, epochs=40, learning_rate=0.1, batch_size=20, progress=False)
    assert program.shift.abs() < 0.1
    score = pv.elbo(program, x, 20)
    assert (score.values <= program.log_prob(x) + 3 * score.mc_se + 1e-6).all()


def test_a_plate_of_the_full_data_set_scales_no_score(float64):
    class Full(Local):
        def model(self, x, context=None):
            with pyro.plate("data", 600, subsample=torch.arange(len(x)), dim=-1):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                mean = z.unsqueeze(-1).expand(*z.shape, 10)
                pyro.sample("x", dist.Normal(mean, SCALE).to_event(1), obs=x)

        def guide(self, x, context=None):
            with pyro.plate("data", 600, subsample=torch.arange(len(x)), dim=-1):
                loc = x.sum(1) / self.variance / self.precision
                pyro.sample("z", dist.Normal(loc, self.precision**-0.5))

    program = Full((10,))
    x = data_of(program)
    torch.testing.assert_close(pv.elbo(program, x, 3).values, program.log_prob(x))


def test_entries_in_a_loop_count_as_wholes_too(float64):
    class Loop(Local):
        def model(self, x, context=None):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                some = torch.arange(4) if self.few else torch.arange(10)
                for i, j in enumerate(pyro.plate("local_0", 10, subsample=some)):
                    pyro.sample(f"x{i}" if i else "x", dist.Normal(z, SCALE), obs=x[:, j])

        def guide(self, x, context=None):
            with pyro.plate("data", len(x), dim=-1):
                loc = x.sum(1) / self.variance / self.precision
                pyro.sample("z", dist.Normal(loc, self.precision**-0.5))

    x = data_of(Loop((10,)))
    torch.testing.assert_close(pv.elbo(Loop((10,)), x, 3).values, Loop((10,)).log_prob(x))
    with pytest.raises(InvalidInput, match="plate 'local_0': got 4 of 10"):
        pv.elbo(Loop((10,), (4,)), x)
