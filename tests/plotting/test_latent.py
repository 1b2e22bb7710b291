"""Maps of latents."""

import re

import matplotlib.pyplot as plt
import torch

from pyro_vae import plotting
from pyro_vae.inspection import LatentPath, TangentPlane


def test_labels_are_numbers_or_their_names_and_never_those_of_the_axes():
    z, labels = torch.randn(30, 5), torch.arange(30) % 3
    for names, shown in (((), "012"), (("cat", "dog"), ["cat", "dog", "2"])):
        axes = plotting.plot_latents(z, plt.figure().subplots(), labels, names=names)
        assert sorted(text.get_text() for text in axes.texts) == sorted(shown)
        assert re.fullmatch(r"principal component 1 \(\d+% of the variance\)", axes.get_xlabel())
        plt.close()


def test_names_are_text_on_one_short_line():
    names = ["$\\frac{$", "\\$", "a\n$x_$", "\x1b[2J", "w" * 10**5]
    axes = plotting.plot_latents(torch.randn(10, 2), plt.figure().subplots(),
                                 torch.arange(10) % 5, names=names)  # fmt: skip
    axes.figure.canvas.draw()
    assert not any(text._preprocess_math(text.get_text())[1] for text in axes.texts)
    shown = [text._preprocess_math(text.get_text())[0] for text in axes.texts]
    assert shown[:4] == ["$\\frac{$", "\\$", "a $x_$", r"\x1b[2J"] and len(shown[4]) == 40
    plt.close()


def test_labels_of_one_place_stand_apart():
    z, labels = torch.tensor([[0.5, 1.0], [0.5, 1.0 + 1e-7]]).repeat(10, 1), torch.arange(20) % 4
    axes = plotting.plot_latents(z, plt.figure().subplots(), labels)
    places = torch.tensor([text.xy for text in axes.texts], dtype=torch.float64)
    extents = torch.tensor([1.0, 2.0**-23])  # of equal values there is none, and it counts as 1
    assert (torch.pdist((places / extents).double()) > 0.04).all()
    plt.close()


def test_directions_that_no_latent_can_go_in_are_not_drawn():
    stretches = torch.tensor([[3.0, 2.0, 0.0]]).repeat(5, 1)
    for held in (0, 1):
        planes = TangentPlane(torch.rand(5, 4, 3), torch.rand(5, 4, 3), stretches, held)
        axes = plotting.plot_singular_values(planes, plt.figure().subplots())
        assert axes.lines[0].get_ydata().tolist() == [3.0, 2.0, 0.0][: 3 - held]
        plt.close()


def test_the_line_beside_a_shortest_path_is_that_of_the_latents():
    turn = torch.linspace(0, 1.5, 9)
    arc = torch.stack([turn.cos(), turn.sin()], 1)
    for line in (arc, None):
        path = LatentPath(arc, 1.5, 1.5, line)
        axes = plotting.plot_paths(torch.randn(20, 2), [path], plt.figure().subplots())
        drawn = torch.tensor(axes.lines[1].get_xydata())
        torch.testing.assert_close(drawn, (arc if line is not None else arc[[0, -1]]).double())
        plt.close()
