"""Sounds and series are curves: their heights are the values, and nothing loud is lost."""

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from pyro_vae import plotting


def curves(x, **options):
    ax = plotting.plot_data(x, Figure().add_subplot(), **options)
    assert not ax.images
    return [line for each in ax.collections if isinstance(each, LineCollection)
            for line in each.get_segments()], ax  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 30), (30, 2)])
def test_each_channel_is_a_curve_of_its_values(shape):
    x = torch.randn(6, *shape)
    lines, ax = curves(x, columns=3, rows=["a", "b"], title="new")
    assert len(lines) == 12 and ax.get_title() == "new"
    values = (x if shape[0] == 2 else x.transpose(1, 2)).transpose(0, 1).flatten(0, 1).numpy()
    for number, (line, row) in enumerate(zip(lines, values)):
        assert np.corrcoef(line[:, 1], row)[0, 1] == pytest.approx(1)
        assert line[0, 0] == number % 6 % 3  # in the place of its datum
        inside = line[:, 1] + number % 6 // 3
        assert inside.min() >= -1e-9 and inside.max() <= 1
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def test_a_long_sound_keeps_its_extremes_and_its_gaps():
    x = torch.zeros(1, 1, 8000)
    x[0, 0, 4321], x[0, 0, 6000:] = 1.0, torch.nan
    (line,), ax = curves(x)
    assert len(line) <= 800 and line[:, 1].max() == pytest.approx(0.9)
    peak = line[line[:, 1].argmax(), 0] / 0.9
    assert abs(peak - 4321 / 8000) < 1 / 400 and line[:, 0].max() <= 0.9 * 6000 / 8000
    assert "gaps: missing" in ax.get_title() and "8,000 steps" in ax.get_xlabel()


def test_reconstructions_stand_below_the_sounds():
    x = torch.randn(4, 1, 50)
    ax = plotting.plot_reconstructions(x, 0.5 * x, Figure().add_subplot())
    lines = ax.collections[0].get_segments()
    spans = [np.ptp(line[:, 1]) for line in lines]
    np.testing.assert_allclose(spans[4:], 0.5 * np.array(spans[:4]), rtol=1e-5)


@pytest.mark.parametrize("shape", [(28, 28), (1, 8, 8), (4, 4), (3, 4)])
def test_images_are_none(shape):
    assert plotting.plot_data(torch.rand(4, *shape), Figure().add_subplot()).images
