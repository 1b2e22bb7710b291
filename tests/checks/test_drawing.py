"""Figures of checks are drawn by whichever release of ArviZ is installed."""

import io

import numpy as np
from matplotlib.figure import Figure

from pyro_vae.checks.drawing import ecdf_of_uniform, khat


def test_figures_are_arvizs_own():
    values = np.random.default_rng(0).random(60)
    for figure in (ecdf_of_uniform(values, "ranks", "rank")(), khat(values, 0.7)()):
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        assert isinstance(figure, Figure) and len(picture.getvalue()) > 3000
        assert any(each.lines or each.collections for each in figure.axes)
