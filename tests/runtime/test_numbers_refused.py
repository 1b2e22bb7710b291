"""What is no number, or none that an argument can have, is refused in one teaching line."""

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
