"""Figures of checks are drawn by whichever release of ArviZ is installed."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from pyro_vae.checks.drawing import ecdf_of_uniform, khat


def test_figures_are_arvizs_own():
    values = np.random.default_rng(0).random(60)
    for figure in (ecdf_of_uniform(values, "ranks", "rank")(), khat(values, 0.7)()):
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        assert isinstance(figure, Figure) and len(picture.getvalue()) > 3000
        assert any(each.lines or each.collections for each in figure.axes)


def test_figures_say_what_they_show_and_hold_every_point():
    values = np.random.default_rng(0).beta(8, 8, 60)  # far beyond the bands
    figure = ecdf_of_uniform(values, "LOO-PIT of weight", "LOO-PIT")()
    (ax,) = figure.axes
    said = ax.get_title(), ax.get_xlabel(), ax.get_ylabel()
    assert said == ("LOO-PIT of weight", "LOO-PIT", "share below, less what is uniform")
    assert figure.get_suptitle() == ""  # which would lie on the title
    low, high = ax.get_ylim()
    for line in ax.lines:
        assert low <= np.min(line.get_ydata()) and np.max(line.get_ydata()) <= high


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("number", [1, 12])
def test_values_that_are_all_the_same_are_drawn(value, number):
    figure = ecdf_of_uniform(np.full(number, value), "ranks", "rank")()
    figure.savefig(io.BytesIO(), format="png")
    low, high = figure.axes[0].get_xlim()
    assert low <= 0.01 and high >= 0.99


def test_a_pareto_k_that_is_not_known_is_left_out():
    for shapes in (np.full(5, np.nan), np.array([0.2]), np.array([0.2, np.nan, np.inf])):
        khat(shapes, 0.7)().savefig(io.BytesIO(), format="png")


def test_effective_draws_stand_below_pareto_k_datum_by_datum():
    shapes, ess = np.array([0.1, np.nan, 0.8, 0.3]), np.array([90.0, 1.0, 5.0, 60.0])
    above, below = khat(shapes, 0.7, ess)().axes
    assert below.lines[0].get_ydata().tolist() == [90.0, 5.0, 60.0]
    assert above.get_xlim() == pytest.approx(below.get_xlim(), abs=0.5)
    assert above.get_position().y0 > below.get_position().y0
    assert len(khat(shapes, 0.7)().axes) == 1
