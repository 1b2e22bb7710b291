"""The figure of scores of the same data: bars where a Monte Carlo error is known."""

import torch
from matplotlib.figure import Figure

from pyro_vae.evaluation.scores import Score
from pyro_vae.plotting import plot_bounds


class Bounds(Score):
    """A score of which only the first datum is no bound."""

    @property
    def is_bound(self):
        return torch.arange(len(self.values)) > 0


def bars(score):
    ax = plot_bounds({"score": score}, Figure().add_subplot())
    (container,) = ax.containers
    (segments,) = container.lines[2]
    return [float(line[1, 1] - line[0, 1]) for line in segments.get_segments()], ax.get_title()


def test_a_bound_has_no_bar():
    values, errors = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.5, torch.nan])
    assert bars(Score(values, errors, 10))[0] == [2.0, 2.0, 0.0]
    heights, title = bars(Bounds(values, errors, 10))
    assert heights == [2.0, 0.0, 0.0] and "where they are known" in title
    assert "not known" in bars(Bounds(values, torch.tensor([0.0, 0.5, 0.5]), 10))[1]
