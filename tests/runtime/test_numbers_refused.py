"""What is no number, or none that an argument can have, is refused in one teaching line."""

import inspect

import pytest
import torch

import pyro_vae as pv
from pyro_vae.validation import InvalidInput, as_number, check_count, check_seed

BAD = ["a", None, float("nan"), -1, True]
X = torch.tensor([[0.0, 1.0], [1.0, 2.0], [0.5, torch.nan]])


def small():
    network = pv.networks.MLP
    p = pv.likelihoods.Missing(pv.likelihoods.Normal(2, network(1, [])))
    q = pv.posteriors.DiagonalNormal(1, pv.networks.WithMask(2, network(4, [])))
    return pv.VAE(pv.priors.StandardNormal(1), p, q)


GAPS = pv.datasets.Dataset(X, missing=True)
CALLS = {
    "generate": (lambda **given: pv.generate(small(), **given), ["num", "temperature", "seed"]),
    "reconstruct": (lambda **given: pv.reconstruct(small(), GAPS, **given), ["seed"]),
    "encode": (lambda **given: pv.encode(small(), GAPS, **given), ["seed"]),
    "decode": (lambda **given: pv.decode(small(), torch.zeros(2, 1), **given), ["seed"]),
    "elbo": (lambda **given: pv.elbo(small(), GAPS, **given), ["num_samples", "seed"]),
    "log_likelihood": (
        lambda **given: pv.log_likelihood(small(), GAPS, **given),
        ["num_samples", "seed"],
    ),
    "impute": (
        lambda **given: pv.impute(small(), GAPS, **given),
        ["num_draws", "probability", "seed"],
    ),
    "check": (lambda **given: pv.check(small(), GAPS, **given), ["minutes", "level", "seed"]),
    "calibrate": (
        lambda **given: pv.diagnostics.calibrate(small(), **given),
        ["num_data", "num_samples", "seed"],
    ),
    "fit": (
        lambda **given: pv.fit(small(), GAPS, **({"epochs": 1} | given)),
        [
            "epochs",
            "batch_size",
            "learning_rate",
            "warmup",
            "clip_norm",
            "skip_norm",
            "average",
            "patience",
            "checkpoint_seconds",
            "seed",
        ],
    ),
    "Dataset": (
        lambda **given: pv.datasets.Dataset(X[:2], binarize="fixed", **given),
        ["seed"],
    ),
    "hold_out": (lambda **given: GAPS.hold_out(**({"size": 1} | given)), ["seed"]),
    "load": (lambda **given: pv.datasets.load(X, **given), ["missing_fraction", "scale", "seed"]),
}
MAY_BE_NONE = {"clip_norm", "skip_norm", "average", "patience", "scale"}


@pytest.mark.parametrize(
    "call, argument", [(name, argument) for name, (_, all_) in CALLS.items() for argument in all_]
)
def test_what_is_no_such_number_is_refused(call, argument):
    for bad in BAD:
        if bad is None and argument in MAY_BE_NONE:
            continue
        with pytest.raises(InvalidInput) as refusal:
            CALLS[call][0](**{argument: bad})
        assert str(refusal.value).startswith(f"{argument}: got "), (bad, str(refusal.value))


def test_numbers_of_other_libraries_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert as_number(numpy.float32(0.5)) == as_number(torch.tensor(0.5)) == 0.5
    check_seed(numpy.int64(3))
    assert torch.equal(pv.generate(small(), 2, seed=0) * 0, torch.zeros(2, 2))


def test_counts_beyond_what_a_machine_counts_are_refused():
    with pytest.raises(InvalidInput, match=r"num: got 1000.*expected an integer below 2"):
        check_count("num", 10**400)
    with pytest.raises(InvalidInput, match="seed: got 9223372036854775808, expected an integer be"):
        check_seed(2**63)


MLP = pv.networks.MLP
FIRST = {  # the arguments that a class of a family needs
    pv.priors: (3,),
    pv.posteriors: (3, MLP(4, [5])),
    pv.likelihoods: (4, MLP(3, [5])),
    pv.networks: (3,),
    pv.networks.corruptions: (),
    pv.objectives: (),
    pv.training.schedules: (),
}
IMAGE, SEQUENCE = (1, 8, 8), (3, 8)
OTHERS = {
    pv.networks.Conv: (IMAGE,),
    pv.networks.ResidualConv: (IMAGE,),
    pv.networks.ConvTranspose: (3, IMAGE),
    pv.networks.ResidualConvTranspose: (3, IMAGE),
    pv.networks.Cells: (IMAGE,),
    pv.networks.Conv1d: (SEQUENCE,),
    pv.networks.ConvTranspose1d: (3, SEQUENCE),
    pv.networks.Recurrent: (SEQUENCE,),
    pv.networks.RecurrentDecoder: (3, SEQUENCE),
    pv.networks.RecurrentSmoother: (SEQUENCE,),
    pv.networks.StepwiseMLP: ((8, 3), SEQUENCE),
    pv.priors.ConditionalNormal: (3, 2),
}
APART = {  # classes outside of the families' lists, with what they need
    pv.networks.OneHot: (),
    pv.networks.Bayesian: (MLP(3, [5]),),
    pv.networks.ARD: (3, MLP(3, [5])),
    pv.Refined: (small(),),
    pv.SemiSupervisedVAE: (
        pv.priors.StandardNormal(1),
        pv.likelihoods.Normal(2, MLP(1, [], context=3)),
        pv.posteriors.DiagonalNormal(1, MLP(2, [], context=3)),
        pv.networks.OneHot(3),
    ),
}


def arguments_of(cls, first):
    """The arguments of a class that are numbers, or lists of them, with their annotations."""
    for name, argument in inspect.signature(cls).parameters.items():
        words = str(argument.annotation)
        is_size = name in ("latent", "in_shape", "size", "event_shape")
        if ("int" in words or "float" in words) and not is_size:
            yield cls, first, name, words


CLASSES = {
    cls: OTHERS.get(cls, first)
    for family, first in FIRST.items()
    for cls in (getattr(family, name) for name in family.__all__)
    if isinstance(cls, type)
} | APART
NUMBERS = [each for cls, first in CLASSES.items() for each in arguments_of(cls, first)]


@pytest.mark.parametrize(
    "cls, first, name, words",
    NUMBERS,
    ids=[f"{cls.__name__}-{name}" for cls, _, name, _ in NUMBERS],
)
def test_no_component_takes_what_is_no_such_number(cls, first, name, words):
    keywords = list(inspect.signature(cls).parameters)
    given = dict(zip(keywords, first))
    for bad in ["a", None, float("nan"), True, -1, [-1]]:
        is_bound = cls is pv.likelihoods.Truncated and bad == -1  # as any number is
        if is_bound or (bad is None and "None" in words):
            continue
        with pytest.raises(InvalidInput) as refusal:
            cls(**(given | {name: bad}))
        said = str(refusal.value)
        assert said.startswith((f"{name}: got ", f"{name.removesuffix('_bounds')}: got ")) or (
            cls is pv.likelihoods.Truncated
        ), (bad, said)


def test_there_are_numbers_of_every_family():
    assert len(NUMBERS) > 90 and {cls for cls, *_ in NUMBERS} > set(OTHERS) | set(APART)
