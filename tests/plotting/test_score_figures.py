"""The figures of scores: what they show is what was handed in."""

import numpy as np
import pytest
import torch
from closed_forms import LinearGaussian
from matplotlib.figure import Figure

from pyro_vae import plotting
from pyro_vae.diagnostics.calibration import calibrate
from pyro_vae.evaluation.active import ActiveUnits
from pyro_vae.evaluation.annealing import rate_distortion
from pyro_vae.evaluation.decomposition import decompose
from pyro_vae.evaluation.importance import importance_weights
from pyro_vae.evaluation.importance_score import summarize

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_scores_and_weights(ax):
    exact = LinearGaussian(2, features=4)
    weights = importance_weights(exact.program(widen=1.3), exact.data(10), 300)
    score = summarize(weights)
    shown = plotting.plot_pareto_k(score, ax).lines[0].get_ydata()
    np.testing.assert_allclose(shown, np.sort(score.pareto_k))
    assert plotting.plot_pareto_k(
        summarize(torch.zeros(100, 3)), Figure().add_subplot()
    ).lines  # none to show, none drawn
    counts = sum(
        patch.get_height() for patch in plotting.plot_ess(score, Figure().add_subplot()).patches
    )
    assert counts == 10
    assert (
        len(plotting.plot_weights(weights, Figure().add_subplot(), data=3).get_legend().get_texts())
        == 3
    )
    curve = plotting.plot_convergence(weights, Figure().add_subplot()).lines[0]
    assert curve.get_xdata()[-1] == 300 and curve.get_ydata()[-1] == pytest.approx(score.mean)


def test_active_units_are_drawn_as_shares_which_have_no_unit(ax):
    variance, spread = torch.tensor([1e-6, 2e-9, 4e-6]), torch.tensor([2e-6, 2e-6, 5e-6])
    units = ActiveUnits({"z": variance}, 0.01, 100, 0, "", {}, {"z": spread})
    plotting.plot_units(units, ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.8, 0.5, 0.001])
    assert ax.get_title() == "2 of 3 latent dimensions are active"


def test_calibration_and_rate(ax, tmp_path):
    exact = LinearGaussian(2, features=4)
    result = calibrate(exact.program(), 100, 19)
    assert (
        sum(patch.get_height() for patch in plotting.plot_ranks(result, ax, column=1).patches[:20])
        == 100
    )
    assert len(plotting.plot_coverage(result, Figure().add_subplot()).lines) >= 4
    x = exact.data(4)
    curve = rate_distortion(exact.program(), x, num_chains=4, num_temperatures=5, points=3)
    path = plotting.save_figure(
        tmp_path / "a.png",
        lambda ax: plotting.plot_rate_distortion(curve, ax, decompose(exact.program(), x, 20)),
    )
    assert path.read_bytes().startswith(b"\x89PNG")
