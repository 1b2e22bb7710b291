"""Figures: axes in, axes out, one function each."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae.training import History

__all__ = ["plot_data", "plot_latents", "plot_reconstructions", "plot_training", "save_figure"]


def save_figure(path: str | Path, draw: Callable[[Axes], Axes], size: tuple[float, float] = (6.0, 4.5)) -> Path:
    """Draws one pair of axes into a PNG file, without touching pyplot's state or its back end."""
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    draw(figure.add_subplot())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return Path(path)


def plot_data(x: Tensor, ax: Axes, columns: int | None = None) -> Axes:
    """Data side by side: images (N, C, H, W) or (N, H, W) as a grid, anything else a row each of one heat map.

    Args:
        x: the data; images are shown between 0 and 1, or between their extremes where they leave that interval.
        ax: where to draw.
        columns: images in a row; by default a square.
    """
    array = x.detach().cpu().float().numpy()
    is_images = array.ndim == 3 or (array.ndim == 4 and array.shape[1] in (1, 3))
    if not is_images:
        rows = array.reshape(len(array), -1)
        picture = ax.imshow(rows, aspect="auto", cmap="viridis", interpolation="nearest")
        ax.figure.colorbar(picture, ax=ax)
        ax.set(xlabel="entry", ylabel="datum")
        return ax
    if array.ndim == 3:
        array = array[:, None]
    low, high = min(0.0, np.nanmin(array)), max(1.0, np.nanmax(array))
    grid = _grid(array, columns or math.ceil(math.sqrt(len(array))), background=high)
    ax.imshow(grid.squeeze(-1), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    ax.set_axis_off()
    return ax


def _grid(images: np.ndarray, columns: int, background: float) -> np.ndarray:
    """One picture (height, width, C) of images (N, C, H, W), a pixel of space between them."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    out = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), background)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        out[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return out


def plot_reconstructions(x: Tensor, reconstruction: Tensor, ax: Axes) -> Axes:
    r"""Data above what the program makes of them.

    Args:
        x: data (N, \*event).
        reconstruction: (N, \*event), see `pyro_vae.reconstruct`.
        ax: where to draw.
    """
    plot_data(torch.cat([x.cpu(), reconstruction.cpu()]), ax, columns=len(x))
    ax.set_title("data (above), reconstruction (below)")
    return ax


def plot_latents(z: Tensor, ax: Axes, labels: Tensor | None = None) -> Axes:
    r"""A map of latents: their two dimensions, or the first two principal components of more.

    Args:
        z: latents (N, \*latent).
        ax: where to draw.
        labels: integers (N,) to colour by; at most twenty of them are told apart.
    """
    points = z.detach().cpu().float().numpy().reshape(len(z), -1)
    names = ["$z_1$", "$z_2$"]
    if points.shape[1] > 2:
        from sklearn.decomposition import PCA

        pca = PCA(2).fit(points)
        points = pca.transform(points)
        names = [f"principal component {i + 1} ({share:.0%} of the variance)"
                 for i, share in enumerate(pca.explained_variance_ratio_)]
    elif points.shape[1] == 1:
        points, names = np.column_stack([points, np.zeros(len(points))]), ["$z$", ""]
    size = float(np.clip(6000 / len(points), 5, 20))
    if labels is None or labels.is_floating_point():
        ax.scatter(points[:, 0], points[:, 1], s=size, alpha=0.6, linewidths=0)
    else:
        digits = labels.cpu().numpy()
        classes = np.unique(digits)
        colours = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"]
        for i, label in enumerate(classes):
            few = points[digits == label]
            ax.scatter(few[:, 0], few[:, 1], s=size, alpha=0.6, linewidths=0, color=colours(i % colours.N))
            # The label itself stands in its cluster: readable without telling ten colours apart.
            ax.annotate(str(label), np.median(few, axis=0), ha="center", va="center", fontsize=11, fontweight="bold",
                        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": colours(i % colours.N), "alpha": 0.85})
    ax.set(xlabel=names[0], ylabel=names[1], title="latent map: mean of q(z | x)")
    return ax


def plot_training(history: History, ax: Axes) -> Axes:
    """The objective, and the validation ELBO where there is one, against epochs."""
    ax.plot(history["epoch"], history["objective"], label="training objective")
    if any(value is not None for value in history["validation_elbo"]):
        ax.plot(history["epoch"], history["validation_elbo"], label="validation ELBO")
        ax.legend()
    values = np.array(history["objective"])
    if len(values) > 10:  # the first epochs are far below, and would flatten what one looks for
        ax.set_ylim(bottom=np.percentile(values, 10) - 0.1 * np.ptp(values[len(values) // 10 :]))
    ax.set(xlabel="epoch", ylabel="nats per datum", title="training")
    ax.grid(alpha=0.3)
    return ax
