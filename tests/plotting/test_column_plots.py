"""A table's columns: data and new data, in the columns' own units."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pyro_vae import plotting
from pyro_vae.datasets.columns import Column, Columns

SEX, COUNT = Column("sex", "binary", ("female", "male")), Column("visits", "count")
MASS = Column("mass", "real", center=4000.0, scale=800.0)


def drawn(plot):
    ax = Figure().subplots()
    plot(ax)
    return ax


def test_bars_are_the_shares_of_what_is_known():
    data, new = np.array([0, 1, 1, np.nan]), np.array([1.0, 1, 1, 1])
    ax = drawn(lambda ax: plotting.plot_column(SEX, data, new, ax))
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([1 / 3, 2 / 3, 0, 1])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["female", "male"]


def test_whole_numbers_have_a_bar_each():
    ax = drawn(lambda ax: plotting.plot_column(COUNT, np.array([0, 3.0]), np.array([5.0]), ax))
    assert len(ax.patches) == 2 * 6
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(2)


def test_numbers_are_densities_in_their_own_units():
    data, new = torch.randn(500, 1), 0.5 * torch.randn(300, 1)
    (plot,) = plotting.column_plots(data, new, Columns((MASS,)))
    ax = drawn(plot)
    for stairs, part in zip(ax.patches, (data, new)):
        values, edges, _ = stairs.get_data()
        middle = (values * (edges[1:] + edges[:-1]) / 2).sum() / values.sum()
        assert middle == pytest.approx(4000 + 800 * part.mean().item(), abs=60)


@pytest.mark.parametrize("rows", [0, 1])
def test_columns_of_few_or_no_values_are_drawn(rows):
    columns = Columns((SEX, COUNT, MASS))
    for plot in plotting.column_plots(torch.full((rows, 3), torch.nan), torch.ones(4, 3), columns):
        drawn(plot)
    for plot in plotting.column_plots(torch.ones(rows, 3), torch.ones(0, 3), columns):
        drawn(plot)


def test_what_is_left_of_many_columns_is_named():
    many = Columns(tuple(Column(f"c{i}", "real") for i in range(40)))
    plots = plotting.column_plots(torch.randn(9, 40), torch.randn(9, 40), many)
    assert len(plots) == 12
    (text,) = drawn(plots[-1]).texts
    assert text.get_text().startswith("29 more columns:\nc11, c12")


def test_the_names_of_columns_that_are_left_out_take_no_room():
    names = [f"a rather long name of column {i}" for i in range(40)]
    many = Columns(tuple(Column(name, "real") for name in names))
    figure = Figure(layout="constrained", figsize=(10.4, 6.6))
    axes = figure.subplots(3, 4)
    for plot, ax in zip(
        plotting.column_plots(torch.randn(9, 40), torch.randn(9, 40), many), axes.flat
    ):
        plot(ax)
    figure.draw_without_rendering()
    widths = [ax.get_position().width for ax in axes.flat]
    assert max(widths) < 1.02 * min(widths)
    (text,) = axes[-1, -1].texts
    assert text.get_text().startswith("29 more columns:") and text.get_text().endswith("...")
