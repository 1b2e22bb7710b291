"""Figures of the latent space: maps, neighbours, pairs of dimensions, the geometry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.inspection.embedding import Neighbours
from pyro_vae.inspection.geometry import LatentPath, TangentPlane
from pyro_vae.inspection.plane import plane_of
from pyro_vae.plotting.files import COLOURS, named
from pyro_vae.validation import flattened

__all__ = [
    "plot_latents",
    "plot_neighbours",
    "plot_pairs",
    "plot_paths",
    "plot_singular_values",
    "plot_tangent_planes",
]


def plot_latents(
    z: Tensor,
    ax: Axes,
    labels: Tensor | None = None,
    title: str = "latent map: mean of q(z | x)",
    names: Sequence[str] = (),
) -> Axes:
    r"""Draw a map of latents: two dimensions, or the first two principal components of more.

    Args:
        z: latents (N, \*latent).
        ax: where to draw.
        labels: integers (N,) to colour by. A label always has the same colour; twenty labels have
            colours of their own.
        title: what is shown.
        names: of the labels 0, 1, ...; by default their numbers.
    """
    points, axes = _plane(z)
    size = float(np.clip(6000 / len(points), 5, 20))
    if labels is None or labels.is_floating_point():
        ax.scatter(points[:, 0], points[:, 1], s=size, alpha=0.6, linewidths=0)
    else:
        digits = labels.cpu().numpy()
        colours = matplotlib.colormaps["tab10" if digits.max() < 10 else "tab20"]
        classes = np.unique(digits)
        places = _apart(
            np.stack([np.median(points[digits == label], axis=0) for label in classes]),
            np.ptp(points, axis=0),
        )
        for label, place in zip(classes, places):
            few = points[digits == label]
            ax.scatter(
                few[:, 0],
                few[:, 1],
                s=size,
                alpha=0.6,
                linewidths=0,
                color=colours(label % colours.N),
            )
            # The label stands in its cluster, for readers who cannot tell ten colours apart.
            ax.annotate(
                named(names[label]) if 0 <= label < len(names) else str(label),
                place,
                ha="center",
                va="center",
                fontsize=11,
                fontweight="bold",
                bbox={
                    "boxstyle": "round,pad=0.15",
                    "fc": "white",
                    "ec": colours(label % colours.N),
                    "alpha": 0.85,
                },
            )
    ax.set(xlabel=axes[0], ylabel=axes[1], title=title)
    return ax


def _plane(z: Tensor) -> tuple[np.ndarray, list[str]]:
    """Latents as points (N, 2) of a plane, and the names of its axes."""
    latents = flattened(z.detach())
    plane = plane_of(latents)
    return plane.project(latents).float().numpy(), list(plane.names)


def _apart(places: np.ndarray, extent: np.ndarray, least: float = 0.045) -> np.ndarray:
    """The places of labels, moved apart where one would hide another."""
    extent = np.where(extent > 0, extent, 1.0).astype(float)  # one datum extends nowhere
    angles = np.arange(len(places))  # a turn of one radian for each: of equal places, none stays
    places = places / extent + 1e-3 * least * np.column_stack([np.cos(angles), np.sin(angles)])
    for _ in range(100):
        gap = places[:, None] - places[None]
        distance = np.linalg.norm(gap, axis=-1, keepdims=True) + np.eye(len(places))[..., None]
        places = places + (np.clip(least - distance, 0, None) * gap / distance).sum(1) / 2
    return places * extent


def plot_neighbours(
    z: Tensor, neighbours: Neighbours, ax: Axes, labels: Tensor | None = None
) -> Axes:
    r"""Draw the map of `plot_latents` with a line from each datum to its nearest neighbours.

    A line is black where the labels of its ends differ.

    Args:
        z: latents (N, \*latent).
        neighbours: see `pyro_vae.inspection.neighbours`.
        ax: where to draw.
        labels: integers (N,) to colour by.
    """
    points, k = _plane(z)[0], neighbours.index.shape[1]
    edges = np.stack(
        [np.repeat(np.arange(len(points)), k), neighbours.index.flatten().numpy()], axis=1
    )
    title, differ = f"each datum and its {k} nearest neighbours", np.zeros(len(edges), dtype=bool)
    if labels is not None and not labels.is_floating_point():
        differ = np.not_equal(*labels.cpu().numpy()[edges].T)
        title += f"\n{1 - differ.mean():.1%} have its label (grey), the others another (black)"
    plot_latents(z, ax, labels, title)
    for chosen, colour in ((~differ, "0.75"), (differ, "black")):
        ax.add_collection(
            LineCollection(points[edges[chosen]], colors=colour, linewidths=0.5, zorder=0.5)
        )
    return ax


def plot_tangent_planes(
    z: Tensor, at: Tensor, planes: TangentPlane, ax: Axes, labels: Tensor | None = None
) -> Axes:
    r"""Draw over a map the ellipses of steps in a two-dimensional z that move x equally far.

    .. math:: \{\delta : \delta^\top J^\top J\, \delta = r^2\}

    They are small where the decoder stretches, and narrow where it stretches in one direction; all
    have the same r.

    Args:
        z: latents of data (N, 2), for the map.
        at: the centres of the ellipses (M, 2).
        planes: the tangent planes there, see `pyro_vae.inspection.geometry.tangent_planes`.
        ax: where to draw.
        labels: integers (N,) to colour the data by.
    """
    values, vectors = torch.linalg.eigh((planes.jacobian.mT @ planes.jacobian).cpu().double())
    axes = 1 / values.clamp_min(1e-12).sqrt().numpy()  # half axes of r = 1, the longest first
    gaps = torch.cdist(at.cpu(), at.cpu()).fill_diagonal_(torch.inf).amin(1).median().item()
    radius = 0.45 * gaps / np.quantile(axes[:, 0], 0.75)
    axes = (radius * axes).clip(max=0.75 * gaps)  # a flat decoder would make them endless
    angles = np.degrees(np.arctan2(vectors[:, 1, 0].numpy(), vectors[:, 0, 0].numpy()))
    plot_latents(z, ax, labels, f"steps in z that change x by {radius:.2g}")
    ax.add_collection(
        EllipseCollection(
            2 * axes[:, 0],
            2 * axes[:, 1],
            angles,
            units="xy",
            offsets=at.cpu().numpy(),
            offset_transform=ax.transData,
            facecolors="none",
            edgecolors="black",
            linewidths=0.9,
        )
    )
    ax.set_aspect("equal")
    return ax


def num_bins(counts: Iterable[int]) -> int:
    """How many bins a histogram of so many numbers has; of several, the fewest decide.

    Example:
        >>> [num_bins([count, 10_000]) for count in (4, 36, 1000)]
        [6, 12, 30]
    """
    return int(np.clip(2 * np.sqrt(min(counts)), 6, 30))


def plot_pairs(
    samples: Mapping[str, Tensor], axes: np.ndarray, names: Sequence[str] = (), shown: int = 500
) -> np.ndarray:
    """Draw samples of several distributions: histograms on the diagonal, pairs below it.

    Args:
        samples: by name, draws (S, D), of which the first D' dimensions are shown.
        axes: where to draw (D', D').
        names: the names of the dimensions; by default z[0], z[1], ..., as ArviZ names them.
        shown: points of each sample in a panel.
    """
    count = len(axes)
    points = {
        label: sample.detach().cpu().double().numpy()[:, :count]
        for label, sample in samples.items()
    }
    names = [*map(named, names)] or [f"z[{d}]" for d in range(count)]
    everything = np.concatenate(list(points.values()))
    bins = num_bins(map(len, points.values()))
    low, high = np.percentile(everything, 0.5, axis=0), np.percentile(everything, 99.5, axis=0)
    for row in range(count):
        for column in range(count):
            ax = axes[row, column]
            if column > row:
                ax.set_axis_off()
                continue
            for colour, sample in zip(COLOURS, points.values()):
                if row == column:
                    ax.hist(
                        sample[:, row],
                        bins=np.linspace(low[row], high[row], bins + 1).tolist(),
                        density=True,
                        histtype="step",
                        color=colour,
                    )
                else:
                    ax.scatter(
                        sample[:shown, column],
                        sample[:shown, row],
                        s=4,
                        alpha=0.4,
                        linewidths=0,
                        color=colour,
                    )
                    ax.set_ylim(low[row], high[row])
            ax.set_xlim(low[column], high[column])
            ax.set(
                xlabel=names[column] if row == count - 1 else "",
                ylabel=names[row] if column == 0 and row > 0 else "",
            )
            ax.tick_params(
                labelsize=7,
                labelleft=column == 0 and row > 0,
                labelbottom=row == count - 1,
                left=row != column,
            )
    handles = [
        axes[0, 0].plot([], [], color=colour, label=label)[0]
        for colour, label in zip(COLOURS, points)
    ]
    if count > 1:
        legend = axes[0, -1].legend(handles=handles, loc="upper right", frameon=False)
        legend.set_in_layout(False)  # or its width would move the last column
    else:
        axes[0, 0].legend(handles=handles, frameon=False)
    return axes


def plot_singular_values(planes: TangentPlane, ax: Axes) -> Axes:
    """Draw the singular values of the decoder's Jacobian: the median, and a band of 90% of data.

    Those of directions that no latent can go in, which are 0, are left out.
    """
    values = planes.singular_values.cpu().numpy()
    values = values[:, : values.shape[1] - planes.held]
    rank = np.arange(1, values.shape[1] + 1)
    low, middle, high = np.percentile(values, [5, 50, 95], axis=0)
    ax.fill_between(
        rank, low, high, alpha=0.25, color=COLOURS[0], linewidth=0, label="90% of the data"
    )
    ax.plot(rank, middle, "o-", markersize=4, color=COLOURS[0], label="median")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    ax.set(
        xlabel="direction, by size",
        ylabel="singular value of the Jacobian",
        title="how far x moves when z does",
    )
    return ax


def plot_paths(
    z: Tensor, paths: Sequence[LatentPath], ax: Axes, labels: Tensor | None = None
) -> Axes:
    """Draw shortest paths of a two-dimensional latent space over a map, beside straight lines."""
    plot_latents(z, ax, labels, title="shortest paths (solid) and straight lines (dashed)")
    for i, path in enumerate(paths):
        points = path.z.cpu().numpy()
        ax.plot(
            points[:, 0],
            points[:, 1],
            color="black",
            linewidth=1.8,
            label=f"{i + 1}: {path.length:.1f} against {path.straight:.1f}",
        )
        ax.annotate(
            str(i + 1),
            points[len(points) // 2],
            xytext=(4, 4),
            textcoords="offset points",
            fontweight="bold",
        )
        line = points[[0, -1]] if path.line is None else path.line.cpu().numpy()
        ax.plot(
            line[:, 0],
            line[:, 1],
            "--",
            color="black",
            linewidth=1,
            marker="o",
            markersize=4,
            markevery=[0, -1],
        )
    ax.legend(fontsize=8, loc="upper right", title="length: shortest, straight")
    return ax
