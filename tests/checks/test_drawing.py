"""Figures of checks are drawn by either release of ArviZ."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from pyro_vae.checks.drawing import ecdf_of_uniform, khat


@pytest.mark.parametrize("release", ["installed", "arviz_1x"])
def test_figures_are_arvizs_own(release, request):
    if release == "arviz_1x":
        pytest.importorskip("arviz_plots")
        request.getfixturevalue(release)
    values = np.random.default_rng(0).random(60)
    for figure in (ecdf_of_uniform(values, "ranks", "rank")(), khat(values, 0.7)()):
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        assert isinstance(figure, Figure) and len(picture.getvalue()) > 3000
        (ax,) = [each for each in figure.axes if each.lines or each.collections]
        assert ax.get_xlabel() or ax.get_title() or figure.get_suptitle()
