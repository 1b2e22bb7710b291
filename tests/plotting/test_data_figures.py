"""What figures say of white entries and dashes; histograms of few data."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from pyro_vae import plotting
from pyro_vae.datasets.text import Vocabulary
from pyro_vae.plotting.latent import plot_pairs


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_missing_entries_and_rare_words_are_explained(ax):
    x = torch.rand(4, 3)
    assert plotting.plot_data(x, ax, title="new").get_title() == "new"
    x[1, 2] = torch.nan
    assert plotting.plot_data(x, ax, title="new").get_title() == "new (white: missing)"
    words = Vocabulary(["cat", "dog"])
    known, rare = words.encode([["cat"]], 3), words.encode([["bird", "dog"]], 3)
    assert plotting.plot_data(known, ax, vocabulary=words, title="new").get_title() == "new"
    shown = plotting.plot_data(rare, ax, vocabulary=words, title="new")
    assert shown.get_title() == "new (_: a rare word)"


@pytest.mark.parametrize(("num", "bins"), [(36, 12), (1000, 30)])
def test_histograms_have_no_more_bins_than_their_draws_fill(num, bins):
    figure, axes = plt.subplots(2, 2)
    plot_pairs({"q": torch.randn(num, 2), "p": torch.randn(2 * num, 2)}, axes)
    outline = axes[0, 0].patches[0].get_xy()  # up and down at both ends of each bin
    assert len(np.unique(outline[:, 0])) == bins + 1
    plt.close(figure)


def test_values_far_above_all_others_leave_the_others_visible():
    few = torch.ones(10, 8)
    few[0, 0], few[5] = 240.0, 0.0
    for x, is_skewed in ((few, True), (few.clamp(max=9), False), (few - 1, False)):
        (picture,) = plotting.plot_data(x, Figure().subplots()).images
        assert isinstance(picture.norm, SymLogNorm) == is_skewed
    shown = SymLogNorm(1.0, vmin=0.0, vmax=240.0)([0.0, 1.0, 240.0])
    assert shown[0] == 0 and shown[1] > 0.1 and shown[2] == pytest.approx(1)
