import pytest
import torch

import pyro_vae as pv
from pyro_vae.validation import InvalidInput


def by_hand(real, samples, k):
    """The four definitions, a loop over points each."""

    def radius(points, i):
        return sorted(
            torch.dist(points[i], points[j]).item() for j in range(len(points)) if j != i
        )[k - 1]

    inside = [
        [torch.dist(x, y).item() <= radius(real, i) for y in samples] for i, x in enumerate(real)
    ]
    reached = [
        [torch.dist(x, y).item() <= radius(samples, j) for j, y in enumerate(samples)] for x in real
    ]
    columns = list(zip(*inside))
    return (
        sum(map(any, columns)) / len(samples),
        sum(map(any, reached)) / len(real),
        sum(map(sum, columns)) / (k * len(samples)),
        sum(map(any, inside)) / len(real),
    )


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_fidelity_is_its_definition(shift, float64):
    real, samples = torch.randn(30, 2, 2), torch.randn(25, 2, 2) + shift
    got = pv.evaluation.fidelity(real, samples, num_neighbours=3)
    assert (got.precision, got.recall, got.density, got.coverage) == pytest.approx(
        by_hand(real, samples, 3)
    )


def test_fidelity_tells_bad_samples_from_missing_ones(float64):
    """Samples of one of two clusters are precise and cover half; those of a third do neither."""
    left, right = torch.randn(200, 2), torch.randn(200, 2) + 50.0
    real = torch.cat([left, right])
    one = pv.evaluation.fidelity(real, torch.randn(400, 2))
    assert one.precision > 0.95 and one.coverage < 0.51 and one.recall < 0.51
    other = pv.evaluation.fidelity(
        real, torch.cat([torch.randn(200, 2), torch.randn(200, 2) - 50.0])
    )
    assert other.precision < 0.51 and other.coverage < 0.51
    same = pv.evaluation.fidelity(
        real, torch.cat([torch.randn(200, 2), torch.randn(200, 2) + 50.0])
    )
    assert (
        same.coverage > 0.9 and same.recall > 0.9 and same.density == pytest.approx(1.0, abs=0.15)
    )


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InvalidInput, match="neighbours: got 5"):
        pv.evaluation.fidelity(torch.randn(5, 2), torch.randn(50, 2))
    with pytest.raises(InvalidInput, match="one space"):
        pv.evaluation.fidelity(torch.randn(50, 2), torch.randn(50, 3))


@pytest.mark.parametrize("offset", [1e6, 1e8])
def test_fidelity_is_the_same_far_from_the_origin(offset, float64):
    real, samples = torch.randn(60, 2), 0.8 * torch.randn(50, 2)
    near = pv.evaluation.fidelity(real, samples)
    far = pv.evaluation.fidelity(real + offset, samples + offset)
    assert vars(far) == pytest.approx(vars(near), abs=0.02)
