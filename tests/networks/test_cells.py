"""Laws of residual cells: the shapes they keep, what normalisation does, memory against time."""

import pytest
import torch

import pyro_vae as pv
from pyro_vae.networks import cells
from pyro_vae.networks.cells import Convolution, ResidualCell

KINDS = [getattr(cells, name) for name in cells.__all__]
SIZES = [(7, 7), (2, 5), (1, 1)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_keeps_the_grid_and_starts_close_to_a_line(kind, size, float64):
    torch.manual_seed(0)
    cell, h = ResidualCell(kind(), 8, size), torch.randn(3, 8, *size)
    assert cell(h).shape == h.shape
    bent = cell.bent(h) - cell.bent(torch.zeros_like(h))
    assert 0 < bent.norm() < 0.1 * h.norm()


@pytest.mark.parametrize("normalisation", ["none", "weight", "spectral"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_loop(kind, normalisation, float64):
    torch.manual_seed(0)
    cell = ResidualCell(kind(normalisation=normalisation), 4, (3, 3)).eval()
    h = torch.randn(5, 4, 3, 3)
    torch.testing.assert_close(cell(h), torch.cat([cell(h[i : i + 1]) for i in range(5)]))


def effective(convolution):
    """The weights that it applies, one row for each channel that it returns."""
    return convolution._normalised().flatten(1)


def test_weight_normalisation_leaves_the_weights_and_makes_their_norm_the_gain(float64):
    torch.manual_seed(0)
    convolution = Convolution(3, 5, 3, 1, "weight")
    torch.testing.assert_close(effective(convolution), convolution.weight.flatten(1))
    with torch.no_grad():
        convolution.weight.mul_(7.0)
        convolution.gain.copy_(torch.linspace(0.5, 2.0, 5))
    torch.testing.assert_close(effective(convolution).norm(dim=1), convolution.gain.detach())


def test_spectral_normalisation_makes_the_largest_singular_value_one(float64):
    torch.manual_seed(0)
    convolution, h = Convolution(3, 5, 3, 1, "spectral"), torch.randn(1, 3, 4, 4)
    for _ in range(200):
        convolution(h)
    assert torch.linalg.matrix_norm(effective(convolution), 2).item() == pytest.approx(1, abs=1e-9)


def test_only_training_moves_the_estimate_of_the_singular_value(float64):
    torch.manual_seed(0)
    convolution, h = Convolution(3, 5, 3, 1, "spectral").eval(), torch.randn(1, 3, 4, 4)
    before = convolution.direction.clone()
    assert torch.equal(convolution(h), convolution(h))
    assert torch.equal(convolution.direction, before)
    convolution.train()(h)
    assert not torch.equal(convolution.direction, before)


class WithBatchNorm(cells.Plain):
    """A kind of one's own whose cells keep running statistics."""

    def branch(self, channels, size):
        return torch.nn.Sequential(torch.nn.BatchNorm2d(channels), super().branch(channels, size))


@pytest.mark.parametrize("normalisation", ["none", "weight", "spectral"])
@pytest.mark.parametrize("kind", [*KINDS, WithBatchNorm])
def test_a_checkpoint_of_cells_changes_no_value_no_gradient_and_no_buffer(
    kind, normalisation, float64
):
    """Also where the network is called twice before the backward pass, and moves at each call."""
    torch.manual_seed(0)
    made = {"width": 4, "cells": 3, "kind": kind(normalisation=normalisation)}
    plain, kept = (pv.networks.Cells((2, 4, 4), checkpoint=keep, **made) for keep in (False, True))
    kept.load_state_dict(plain.state_dict())
    x, found = torch.randn(3, 2, 4, 4), []
    for network in (plain, kept):
        value = (network(x) + network(2 * x)).square().sum()
        gradients = torch.autograd.grad(value, list(network.parameters()))
        found.append([value, *gradients, *network.buffers()])
    for a, b in zip(*found):
        assert torch.equal(a, b)
