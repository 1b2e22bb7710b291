"""What tests of several packages run on: programs of every class and part, and every result."""

import copy

import families
import pyro
import torch
from common import small_vae
from ladders import ladder

import pyro_vae as pv

MLP = pv.networks.MLP


class Convolutional(torch.nn.Module):
    """A network with running statistics and dropout."""

    out_shape = (4,)

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3),
            torch.nn.BatchNorm2d(3),
            torch.nn.Dropout(0.2),
            torch.nn.Flatten(),
            torch.nn.Linear(108, 4),
        )

    def forward(self, x, context=None):
        return self.body(x)


def programs():
    torch.manual_seed(0)
    event = (1, 8, 8)
    yield "vae", small_vae(), ()
    yield (
        "mixture",
        pv.VAE(
            pv.priors.GaussianMixture(3),
            pv.likelihoods.Normal(event, MLP(3, [8]), 0.5, "per_feature"),
            pv.posteriors.DiagonalNormal(3, MLP(event, [8], dropout=0.3)),
        ),
        (),
    )
    yield (
        "batch norm",
        pv.VAE(
            pv.priors.StandardNormal(3),
            pv.likelihoods.Bernoulli(event, pv.networks.ConvTranspose(3, (8, 8), [4])),
            pv.posteriors.DiagonalNormal(3, Convolutional()),
        ),
        (),
    )
    yield (
        "cvae",
        pv.VAE(
            pv.priors.StandardNormal(2),
            pv.likelihoods.Bernoulli(event, MLP(2, [8], context=10)),
            pv.posteriors.DiagonalNormal(2, MLP(event, [8], context=10)),
            pv.networks.OneHot(10),
        ),
        (torch.arange(6),),
    )
    normal = pv.posteriors.DiagonalNormal
    yield (
        "hierarchy",
        pv.HierarchicalVAE(
            [normal(3, MLP(2, [8])), pv.priors.StandardNormal(2)],
            pv.likelihoods.Bernoulli(event, MLP(3, [8])),
            [normal(3, MLP(event, [8])), normal(2, MLP(3, [8]))],
        ),
        (),
    )
    yield "ladder", ladder(), ()
    yield "refined", pv.Refined(small_vae(), steps=2), ()
    yield (
        "vamp",
        pv.VAE(
            pv.priors.VampPrior(2, 5),
            pv.likelihoods.Bernoulli(event, MLP(2, [8])),
            normal(2, MLP(event, [8])),
        ),
        (),
    )
    yield (
        "flow",
        pv.VAE(
            pv.priors.StandardNormal(2),
            pv.likelihoods.Bernoulli(event, MLP(2, [8])),
            pv.posteriors.Flow(2, MLP(event, [8]), kind="spline", transforms=1, hidden=[8]),
        ),
        (),
    )
    pair = OwnPair()
    yield "own pair", pv.Program(pair.model, pair.guide, modules=[pair]), ()
    yield (
        "semi-supervised",
        pv.SemiSupervisedVAE(
            pv.priors.StandardNormal(2),
            pv.likelihoods.Bernoulli(event, MLP(2, [8], context=3)),
            normal(2, MLP(event, [8], context=3)),
            pv.networks.OneHot(3),
            [8],
        ),
        (torch.arange(6) % 4 - 1,),
    )


class OwnPair(torch.nn.Module):
    """A researcher's own functions, with a mask and a factor."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head, self.decoder = (
            MLP((1, 8, 8), [8]),
            torch.nn.Linear(8, 4),
            torch.nn.Linear(2, 64),
        )

    def model(self, x, context=None):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(2), 1.0).to_event(1))
            with pyro.poutine.mask(mask=x.flatten(1)[:, 0] < 0.5):
                pyro.sample(
                    "x",
                    pyro.distributions.Bernoulli(
                        logits=self.decoder(z).unflatten(-1, (1, 8, 8))
                    ).to_event(3),
                    obs=x,
                )

    def guide(self, x, context=None):
        loc, raw = self.head(self.encoder(x)).chunk(2, -1)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", pyro.distributions.Normal(loc, raw.exp()).to_event(1))
            pyro.factor("penalty", 0.1 * loc.square().sum(-1), has_rsample=True)


PROGRAMS = {name: (program, context) for name, program, context in programs()}


PARTS = [
    (family, name)
    for family in ("priors", "likelihoods", "posteriors")
    for name in getattr(pv, family).__all__
]
CASES = [("program", name) for name in PROGRAMS] + PARTS


def case(family, name):
    """A program and its data: one of those above, or one with that part."""
    if family == "program":
        program, context = PROGRAMS[name]
        return copy.deepcopy(program), (torch.bernoulli(torch.rand(6, 1, 8, 8)), *context)
    program = families.program_with(getattr(pv, family), name)
    data = families.data_of(program)
    return program, data if isinstance(data, tuple) else (data,)


# Every evaluation's result, from a VAE of the digits' event shape.
X = torch.rand(12, 1, 8, 8).round()
RESULTS = {
    "elbo": lambda vae: pv.elbo(vae, X, 5),
    "log_likelihood": lambda vae: pv.evaluation.evaluate(vae, X, 50)["log_likelihood"],
    "ais": lambda vae: pv.evaluation.ais(vae, X, 2, 5, num_leapfrog=1),
    "bdmc": lambda vae: pv.evaluation.bdmc(vae, 12, 2, 5, num_leapfrog=1),
    "rate_distortion": lambda vae: pv.evaluation.rate_distortion(
        vae, X, 2, 5, points=3, num_leapfrog=1
    ),
    "decompose": lambda vae: pv.evaluation.decompose(vae, X, 5),
    "aggregate_posterior": lambda vae: pv.evaluation.aggregate_posterior(vae, X, 5),
    "active_units": lambda vae: pv.evaluation.active_units(vae, X, 5),
    "calibrate": lambda vae: pv.diagnostics.calibrate(vae, 12, 9),
    "compare": lambda vae: pv.evaluation.compare(pv.elbo(vae, X, 5), pv.elbo(vae, X, 5, seed=1)),
}
