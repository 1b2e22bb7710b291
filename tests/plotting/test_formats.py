"""Figures as files: PNG, PDF and SVG, without empty margins and always the same bytes."""

import io
import time
from itertools import count

import numpy as np
import pictures
import pytest
import torch
from commands import FAST, fails
from PIL import Image

from pyro_vae import plotting
from pyro_vae.cli import main

STARTS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def picture(formats):
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return plotting.figure_files(
        "wide", lambda ax: plotting.plot_data(x, ax, columns=20), (6.0, 6.0), formats
    )


@pytest.mark.parametrize("kind", STARTS)
def test_a_figure_is_of_its_kind_and_the_same_twice(kind):
    first, second = picture([kind]), picture([kind])
    assert list(first) == [f"wide.{kind}"] and first[f"wide.{kind}"].startswith(STARTS[kind])
    assert first == second


def test_a_legend_on_a_busy_machine_is_no_warning(monkeypatch):
    clock = count(step=10)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))

    def draw(ax):
        ax.plot([0, 1], label="a line")
        ax.legend()

    assert plotting.figure_files("line", draw)["line.png"].startswith(STARTS["png"])


def test_no_strip_of_a_figure_is_blank():
    image = np.asarray(Image.open(io.BytesIO(picture(["png"])["wide.png"])).convert("L"))
    inked = np.argwhere((image < 255).any(1)).ravel()
    assert inked[0] < 20 and len(image) - inked[-1] < 20
    assert image.shape[0] < 0.25 * image.shape[1]  # two rows of twenty, and not a square


def test_the_panels_of_a_grid_are_of_one_size():
    samples = {name: torch.randn(50, 5) for name in ("a long name of a sample", "another one")}
    sizes = []

    def draw(axes):
        plotting.plot_pairs(samples, axes)
        axes[0, 0].figure.draw_without_rendering()
        sizes.extend(ax.get_position().width for ax in axes.diagonal())
        assert [ax.get_xlabel() for ax in axes[-1]] == [f"z[{d}]" for d in range(5)]

    plotting.grid_files("pairs", draw, 5)
    assert max(sizes) - min(sizes) < 1e-3


def test_the_commands_write_a_vector_format_besides(tmp_path, capsys):
    """Figures are drawn by training alone; `inspect` and `report` go the same way."""
    folder = tmp_path / "run"
    argv = ["train", "--out", str(folder), "--figure-format", "pdf", *FAST]
    assert main(argv) == 0
    for name in ("training", "reconstructions", "latents", "samples"):
        for kind in ("png", "pdf"):
            path = folder / "figures" / f"{name}.{kind}"
            assert path.read_bytes().startswith(STARTS[kind])
    options = ["--limit", "30", "--num-samples", "5", "--reference", "0"]
    with pictures.saved_as(pictures.pixel):
        assert main(["inspect", str(folder), "--figure-format", "svg", *options]) == 0
        assert main(["report", str(folder)]) == 0
    assert (folder / "inspection" / "aggregate.svg").read_bytes().startswith(b"<?xml")
    assert "did you mean 'svg'?" in fails(capsys, "train", "--figure-format", "svgz", *FAST)
