"""Figures: axes in, axes out, one function each."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.annealing import RateDistortion
from pyro_vae.calibration import Calibration
from pyro_vae.evaluation import ImportanceScore, Score, convergence, pareto_k_threshold
from pyro_vae.geometry import Path as LatentPath
from pyro_vae.geometry import TangentPlane
from pyro_vae.inspection import Anomaly, Neighbours
from pyro_vae.reference import PosteriorComparison
from pyro_vae.text import Vocabulary
from pyro_vae.training import History

__all__ = ["is_clip", "plot_anomaly", "plot_comparison", "plot_convergence", "plot_coverage", "plot_data", "plot_ess", "plot_latents",
           "plot_neighbours", "plot_pairs", "plot_pareto_k", "plot_paths", "plot_ranks", "plot_rate_distortion", "plot_reconstructions",
           "plot_singular_values", "plot_tangent_planes", "plot_text", "plot_training", "plot_weights", "save_figure", "save_grid", "still"]

# Okabe and Ito's colours: apart for the colour-blind, and in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def save_figure(path: str | Path, draw: Callable[[Axes], Axes], size: tuple[float, float] = (6.0, 4.5)) -> Path:
    """Draws one pair of axes into a PNG file, without touching pyplot's state or its back end."""
    picture = io.BytesIO()
    write_figure(picture, draw, size)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(picture.getvalue())
    return Path(path)


def save_grid(path: str | Path, draw: Callable[[np.ndarray], object], count: int, size: float = 1.9) -> Path:
    """Draws a square of ``count`` by ``count`` axes into a PNG file, as `save_figure` does one."""
    figure = Figure(figsize=(max(4.0, size * count), max(4.0, size * count)), layout="constrained", dpi=100)
    draw(figure.subplots(count, count, squeeze=False))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return Path(path)


def write_figure(file: BinaryIO, draw: Callable[[Axes], Axes], size: tuple[float, float] = (6.0, 4.5)) -> None:
    """Draws one pair of axes into an open file, as PNG."""
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    draw(figure.add_subplot())
    figure.savefig(file, format="png")


def plot_data(x: Tensor, ax: Axes, columns: int | None = None, *, title: str = "", rows: Sequence[str] = (),
              vocabulary: Vocabulary | None = None) -> Axes:
    """Data side by side: images (N, C, H, W) or (N, H, W) as a grid, clips as film strips, text as `plot_text`, anything else a row each
    of one heat map.

    Args:
        x: the data; images are shown between 0 and 1, or between their extremes where they leave that interval. What has other than
            one or three channels is a clip, its frames beside one another.
        ax: where to draw.
        columns: images in a row; by default as many as make the whole about square.
        title: what they are.
        rows: what each row of images is, written beside it.
        vocabulary: of text.
    """
    if vocabulary is not None:
        return plot_text(vocabulary.decode(x), ax, columns or len(x), title=title, rows=rows)
    ax.set_title(title)
    array = x.detach().cpu().float().numpy()
    if array.ndim not in (3, 4):
        picture = ax.imshow(array.reshape(len(array), -1), aspect="auto", cmap="viridis", interpolation="nearest")
        ax.figure.colorbar(picture, ax=ax)
        ax.set(xlabel="entry", ylabel="datum")
        return ax
    if array.ndim == 3:
        array = array[:, None]
    low, high = min(0.0, np.nanmin(array)), max(1.0, np.nanmax(array))
    if is_clip(array.shape[1:]):
        array = np.stack([_grid(clip[:, None], len(clip), background=high) for clip in array]).transpose(0, 3, 1, 2)
    height, width = array.shape[2:]
    grid = _grid(array, columns or math.ceil(math.sqrt(len(array) * height / width)), background=high)
    ax.imshow(grid[..., 0] if grid.shape[-1] == 1 else np.clip(grid, 0, 1), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if rows:
        ax.set_yticks((np.arange(len(rows)) + 0.5) * (array.shape[2] + 1) - 1, rows)
        ax.tick_params(length=0)
    return ax


def plot_text(lines: Sequence[str], ax: Axes, group: int, *, title: str = "", rows: Sequence[str] = (), letters: int = 110) -> Axes:
    """Sentences below one another, in groups, on a figure that is made as high as they need.

    Args:
        lines: the sentences.
        ax: where to write, the only axes of their figure.
        group: how many belong together.
        title: what they are.
        rows: what each group is, written before its first sentence.
        letters: on a line.
    """
    margin = 2 + max(map(len, rows)) if rows else 0
    written: list[str] = []
    for i, line in enumerate(lines):
        name = rows[i // group] if rows and i % group == 0 else ""
        written += [""] if i and group > 1 and i % group == 0 else []
        written += textwrap.wrap(line or "(nothing)", letters, initial_indent=name.ljust(margin), subsequent_indent=" " * (margin + 2))
    ax.figure.set_size_inches(0.075 * letters, 0.143 * len(written) + 0.5)  # type: ignore[union-attr]
    ax.set_title(title)
    ax.text(0, 1, "\n".join(written).replace("$", r"\$"), family="monospace", fontsize=8, va="top", transform=ax.transAxes)
    ax.axis("off")
    return ax


def is_clip(event_shape: Sequence[int]) -> bool:
    """Whether data of this shape are pictured as film strips: frames (T, H, W), as many as no image has channels."""
    return len(event_shape) == 3 and event_shape[0] not in (1, 3)


def still(x: Tensor) -> Tensor:
    r"""Clips (N, T, H, W) as one picture (N, 3, H, W) each, for grids of many: all frames exposed, the first blue, the last yellow.

    Other data stay as they are.
    """
    if not is_clip(x.shape[1:]):
        return x
    colours = torch.from_numpy(matplotlib.colormaps["plasma"](np.linspace(0.1, 0.95, x.shape[1]))[:, :3]).to(x)
    return (x.unsqueeze(2) * colours[:, :, None, None]).amax(1)


def _grid(images: np.ndarray, columns: int, background: float) -> np.ndarray:
    """One picture (height, width, C) of images (N, C, H, W), a pixel of space between them."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    out = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), background)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        out[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return out


def plot_reconstructions(x: Tensor, reconstruction: Tensor, ax: Axes, vocabulary: Vocabulary | None = None) -> Axes:
    r"""Data above what the program makes of them, of clips and of text, which are wide, each above its own.

    Args:
        x: data (N, \*event).
        reconstruction: (N, \*event), see `pyro_vae.reconstruct`.
        ax: where to draw.
        vocabulary: of text.
    """
    pairs, title = torch.stack([x.cpu(), reconstruction.cpu()]), "data, and what the program makes of them"
    if is_clip(x.shape[1:]) or vocabulary is not None:
        return plot_data(pairs.transpose(0, 1).flatten(0, 1), ax, columns=1, rows=["data", "reconstruction"] * len(x), title=title,
                         vocabulary=vocabulary)
    return plot_data(pairs.flatten(0, 1), ax, columns=len(x), rows=["data", "reconstruction"], title=title)


def plot_latents(z: Tensor, ax: Axes, labels: Tensor | None = None, title: str = "latent map: mean of q(z | x)") -> Axes:
    r"""A map of latents: their two dimensions, or the first two principal components of more.

    Args:
        z: latents (N, \*latent).
        ax: where to draw.
        labels: integers (N,) to colour by, a label's colour always the same; at most twenty of them are told apart.
        title: what is shown.
    """
    points, names = _plane(z)
    size = float(np.clip(6000 / len(points), 5, 20))
    if labels is None or labels.is_floating_point():
        ax.scatter(points[:, 0], points[:, 1], s=size, alpha=0.6, linewidths=0)
    else:
        digits = labels.cpu().numpy()
        colours = matplotlib.colormaps["tab10" if digits.max() < 10 else "tab20"]
        classes = np.unique(digits)
        places = _apart(np.stack([np.median(points[digits == label], axis=0) for label in classes]), np.ptp(points, axis=0))
        for label, place in zip(classes, places):
            few = points[digits == label]
            ax.scatter(few[:, 0], few[:, 1], s=size, alpha=0.6, linewidths=0, color=colours(label % colours.N))
            # The label itself stands in its cluster: readable without telling ten colours apart.
            ax.annotate(str(label), place, ha="center", va="center", fontsize=11, fontweight="bold",
                        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": colours(label % colours.N), "alpha": 0.85})
    ax.set(xlabel=names[0], ylabel=names[1], title=title)
    return ax


def _plane(z: Tensor) -> tuple[np.ndarray, list[str]]:
    """Latents as points of a plane (N, 2), and what its axes are called."""
    points = z.detach().cpu().float().numpy().reshape(len(z), -1)
    names = ["$z_1$", "$z_2$"]
    if points.shape[1] > 2 and len(points) > 2:  # fewer points have no principal components to speak of
        from sklearn.decomposition import PCA

        pca = PCA(2).fit(points)
        points = pca.transform(points)
        names = [f"principal component {i + 1} ({share:.0%} of the variance)"
                 for i, share in enumerate(pca.explained_variance_ratio_)]
    elif points.shape[1] > 2:
        points = points[:, :2]
    elif points.shape[1] == 1:
        points, names = np.column_stack([points, np.zeros(len(points))]), ["$z$", ""]
    return points, names


def _apart(places: np.ndarray, extent: np.ndarray, least: float = 0.045) -> np.ndarray:
    """Places of labels, moved apart where one would hide another."""
    extent = np.where(extent > 0, extent, 1.0)  # one datum, or one dimension, extends nowhere
    places = places / extent
    for _ in range(100):
        gap = places[:, None] - places[None]
        distance = np.linalg.norm(gap, axis=-1) + np.eye(len(places))
        push = np.clip(least - distance, 0, None)[..., None] * np.where(distance[..., None] > 1e-9, gap / distance[..., None], 1.0)
        places = places + push.sum(1) / 2
    return places * extent


def plot_neighbours(z: Tensor, neighbours: Neighbours, ax: Axes, labels: Tensor | None = None) -> Axes:
    r"""The map of `plot_latents` with a line from each datum to its nearest neighbours, black where the labels differ.

    Args:
        z: latents (N, \*latent); of more than two dimensions the neighbours are those in all of them.
        neighbours: see `pyro_vae.inspection.neighbours`.
        ax: where to draw.
        labels: integers (N,) to colour by.
    """
    points, k = _plane(z)[0], neighbours.index.shape[1]
    edges = np.stack([np.repeat(np.arange(len(points)), k), neighbours.index.flatten().numpy()], axis=1)
    title, differ = f"each datum and its {k} nearest neighbours", np.zeros(len(edges), dtype=bool)
    if labels is not None and not labels.is_floating_point():
        differ = np.not_equal(*labels.cpu().numpy()[edges].T)
        title += f"\n{1 - differ.mean():.1%} have its label (grey), the others another (black)"
    plot_latents(z, ax, labels, title)
    for chosen, colour in ((~differ, "0.75"), (differ, "black")):
        ax.add_collection(LineCollection(points[edges[chosen]], colors=colour, linewidths=0.5, zorder=0.5))
    return ax


def plot_tangent_planes(z: Tensor, at: Tensor, planes: TangentPlane, ax: Axes, labels: Tensor | None = None) -> Axes:
    r"""The metric of a two-dimensional latent over a map of data: ellipses of the steps in z that move x equally far.

    .. math:: \{\delta : \delta^\top J^\top J\, \delta = r^2\}

    Small ones are where the decoder stretches, narrow ones where it does so in one direction; r is one for all.

    Args:
        z: latents of data (N, 2), for the map.
        at: where the ellipses are (M, 2).
        planes: the tangent planes there, see `pyro_vae.geometry.tangent_planes`.
        ax: where to draw.
        labels: integers (N,) to colour the data by.
    """
    values, vectors = torch.linalg.eigh((planes.jacobian.mT @ planes.jacobian).cpu().double())
    axes = 1 / values.clamp_min(1e-12).sqrt().numpy()  # half axes of r = 1, the longest first
    gaps = torch.cdist(at.cpu(), at.cpu()).fill_diagonal_(torch.inf).amin(1).median().item()
    radius = 0.45 * gaps / np.quantile(axes[:, 0], 0.75)
    axes = (radius * axes).clip(max=0.75 * gaps)  # where the decoder is flat, any step is a small one
    angles = np.degrees(np.arctan2(vectors[:, 1, 0].numpy(), vectors[:, 0, 0].numpy()))
    plot_latents(z, ax, labels, f"steps in z that change x by {radius:.2g}")
    ax.add_collection(EllipseCollection(2 * axes[:, 0], 2 * axes[:, 1], angles, units="xy", offsets=at.cpu().numpy(),
                                        offset_transform=ax.transData, facecolors="none", edgecolors="black", linewidths=0.9))
    ax.set_aspect("equal")
    return ax


def plot_training(history: History, ax: Axes) -> Axes:
    """The objective, and the validation ELBO where there is one, against epochs."""
    marker = "o" if len(history) == 1 else None  # a line through one point would not be seen
    ax.plot(history["epoch"], history["objective"], marker=marker, label="training objective")
    if any(value is not None for value in history["validation_elbo"]):
        ax.plot(history["epoch"], history["validation_elbo"], label="validation ELBO")
        ax.legend()
    values = np.array(history["objective"])
    if len(values) > 10:  # the first epochs are far below, and would flatten what one looks for
        ax.set_ylim(bottom=np.percentile(values, 10) - 0.1 * np.ptp(values[len(values) // 10 :]))
    ax.set(xlabel="epoch", ylabel="nats per datum", title="training")
    ax.grid(alpha=0.3)
    return ax


def plot_pareto_k(score: ImportanceScore, ax: Axes) -> Axes:
    """Pareto k of each datum, in order of size, against the threshold above which the estimate is unreliable."""
    shapes = score.pareto_k.cpu().numpy()
    shown = np.sort(shapes[np.isfinite(shapes)])
    threshold = pareto_k_threshold(score.num_samples)
    ax.plot(np.arange(len(shown)), shown, ".", markersize=3)
    ax.axhline(threshold, color="C3", linewidth=1, label=f"threshold {threshold:.2f}: {score.above_threshold} data above")
    ax.legend()
    ax.set(xlabel="datum, by k", ylabel="Pareto k", title=f"tail shape of the weights, K = {score.num_samples}")
    return ax


def plot_ess(score: ImportanceScore, ax: Axes) -> Axes:
    """A histogram of the effective number of draws, on a log scale."""
    bins = np.geomspace(1, max(2, score.num_samples), 31).tolist()
    ax.hist(score.ess.cpu().numpy().clip(1, score.num_samples), bins=bins)
    ax.set_xscale("log")
    ax.set(xlabel="effective number of draws", ylabel="data", title=f"ESS, K = {score.num_samples}")
    return ax


def plot_weights(log_weights: Tensor, ax: Axes, data: int = 4) -> Axes:
    """Histograms of the log-weights of the first few data, each less their logarithmic mean: what decides is on the right.

    Args:
        log_weights: log-weights (K, N), see `pyro_vae.evaluation.importance_weights`.
        ax: where to draw.
        data: how many data to show.
    """
    few = log_weights[:, :data].detach().cpu().double()
    relative = (few - few.logsumexp(0) + math.log(len(few))).numpy()
    finite = relative[np.isfinite(relative)]
    bins = np.linspace(np.percentile(finite, 0.5), finite.max(), 61).tolist()
    for n in range(relative.shape[1]):
        ax.hist(relative[:, n], bins=bins, histtype="step", label=f"datum {n}")
    ax.axvline(0.0, color="0.6", linewidth=1)
    ax.legend()
    ax.set(xlabel="log w - log mean w (nats)", ylabel="draws", title=f"importance weights, K = {len(few)}")
    return ax


def plot_convergence(log_weights: Tensor, ax: Axes, points: int = 30) -> Axes:
    """The mean estimate of log p(x) from the first K draws against K, with a band of two Monte Carlo errors."""
    scores = convergence(log_weights, points)
    draws = [score.num_samples for score in scores]
    means, errors = (np.array(values) for values in ([s.mean for s in scores], [s.mean_mc_se for s in scores]))
    (line,) = ax.plot(draws, means)
    ax.fill_between(draws, means - 2 * errors, means + 2 * errors, alpha=0.25, color=line.get_color(), linewidth=0)
    ax.set_xscale("log")
    ax.set(xlabel="draws K", ylabel="nats per datum", title="estimate of log p(x); still rising is not yet there")
    ax.grid(alpha=0.3)
    return ax


def plot_ranks(calibration: Calibration, ax: Axes, column: int = 0, bins: int = 20) -> Axes:
    """A histogram of one column's simulation-based calibration ranks, with the band that 95% of uniform bins stay in."""
    edges = np.arange(calibration.num_samples + 1) * bins // (calibration.num_samples + 1)
    counts = np.bincount(edges[calibration.ranks[:, column].numpy()], minlength=bins)
    expected = np.bincount(edges, minlength=bins) * len(calibration.ranks) / (calibration.num_samples + 1)
    ax.bar(np.arange(bins), counts, width=0.9)
    spread = 1.96 * np.sqrt(expected * (1 - expected / len(calibration.ranks)))
    ax.fill_between(np.arange(bins), expected - spread, expected + spread, alpha=0.3, color="0.4", step="mid")
    p_value = calibration.test_uniform().p_value[column].item()
    ax.set(xlabel="rank, in bins", ylabel="simulated data", title=f"ranks of {calibration.names[column]} (uniform: p = {p_value:.2g})")
    return ax


def plot_coverage(calibration: Calibration, ax: Axes) -> Axes:
    """Expected against nominal coverage: each dimension's central intervals, and the regions of highest density."""
    levels, central, highest = calibration.coverage()
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    ax.plot(levels, central, color="C0", alpha=0.4, linewidth=1)
    ax.plot([], [], color="C0", label="central intervals, one line a dimension")
    ax.plot(levels, highest, color="C1", label="highest density, jointly")
    ax.legend()
    ax.set(xlabel="nominal coverage", ylabel="coverage", title="below the diagonal: too narrow", xlim=(0, 1), ylim=(0, 1))
    return ax


def plot_rate_distortion(curve: RateDistortion, ax: Axes, encoder: dict[str, Score] | None = None) -> Axes:
    """The curve that the decoder could reach, and the point at which the program's own encoder stands.

    Args:
        curve: see `pyro_vae.annealing.rate_distortion`.
        ax: where to draw.
        encoder: what `pyro_vae.decomposition.decompose` gave on the same data.
    """
    ax.errorbar(curve.distortion, curve.rate, xerr=curve.distortion_se, yerr=curve.rate_se, marker=".", label="decoder")
    if encoder is not None:
        ax.plot(-encoder["reconstruction"].mean, encoder["kl"].mean, "*", markersize=12, label="this encoder")
    ax.legend()
    ax.set(xlabel="distortion (nats)", ylabel="rate (nats)", title="rate and distortion")
    return ax


def plot_pairs(samples: Mapping[str, Tensor], axes: np.ndarray, names: Sequence[str] = (), shown: int = 500) -> np.ndarray:
    """Draws from several distributions against one another: histograms on the diagonal, each pair of dimensions below it.

    Args:
        samples: by what they are, draws (S, D); the first D' dimensions are shown.
        axes: where to draw (D', D').
        names: what the dimensions are called.
        shown: points of each in a panel.
    """
    count = len(axes)
    points = {label: sample.detach().cpu().double().numpy()[:, :count] for label, sample in samples.items()}
    names = list(names) or [f"$z_{{{d + 1}}}$" for d in range(count)]
    everything = np.concatenate(list(points.values()))
    low, high = np.percentile(everything, 0.5, axis=0), np.percentile(everything, 99.5, axis=0)
    for row in range(count):
        for column in range(count):
            ax = axes[row, column]
            if column > row:
                ax.set_axis_off()
                continue
            for colour, sample in zip(COLOURS, points.values()):
                if row == column:
                    ax.hist(sample[:, row], bins=np.linspace(low[row], high[row], 31).tolist(), density=True, histtype="step", color=colour)
                else:
                    ax.scatter(sample[:shown, column], sample[:shown, row], s=4, alpha=0.4, linewidths=0, color=colour)
                    ax.set_ylim(low[row], high[row])
            ax.set_xlim(low[column], high[column])
            ax.set(xlabel=names[column] if row == count - 1 else "", ylabel=names[row] if column == 0 and row > 0 else "")
            ax.tick_params(labelsize=7, labelleft=column == 0 and row > 0, labelbottom=row == count - 1, left=row != column)
    handles = [axes[0, 0].plot([], [], color=colour, label=label)[0] for colour, label in zip(COLOURS, points)]
    if count > 1:
        axes[0, -1].legend(handles=handles, loc="upper right", frameon=False)
    else:
        axes[0, 0].legend(handles=handles, frameon=False)
    return axes


def plot_comparison(comparison: PosteriorComparison, ax: Axes) -> Axes:
    """The accuracy of the two-sample test of each datum, with two standard errors, against 0.5: nothing to tell apart."""
    order = np.argsort(comparison.accuracy)
    errors = [2 * comparison.tests[n].se for n in order]
    ax.axhline(0.5, color="0.5", linewidth=1)
    ax.errorbar(np.arange(len(order)), comparison.accuracy[order], yerr=errors, fmt="o", color=COLOURS[0], capsize=3)
    ax.set_xticks(np.arange(len(order)), [str(comparison.obs[n]) for n in order])
    ax.set(xlabel="datum", ylabel="accuracy of the two-sample test", ylim=(0.35, 1.02), title="q(z | x) against NUTS: 0.5 is indistinguishable")
    return ax


def plot_anomaly(anomaly: Anomaly, ax: Axes, inside: str = "inside", outside: str = "outside") -> Axes:
    """The scores of data that belong and of data that do not, as histograms."""
    scores = (anomaly.inside.numpy(), anomaly.outside.numpy())
    everything = np.concatenate(scores)
    bins = np.linspace(np.percentile(everything, 0.5), everything.max(), 61).tolist()
    for colour, sample, label in zip(COLOURS, scores, (inside, outside)):
        ax.hist(sample.clip(bins[0]), bins=bins, alpha=0.6, color=colour, label=label, density=True)
    ax.legend()
    ax.set(xlabel="score (nats)", ylabel="density", title=f"AUROC {anomaly.auroc:.4f} +- {anomaly.se:.4f}")
    return ax


def plot_singular_values(planes: TangentPlane, ax: Axes) -> Axes:
    """How far x moves in each direction of its tangent plane: the median over data, and the middle nine tenths."""
    values = planes.singular_values.cpu().numpy()
    rank = np.arange(1, values.shape[1] + 1)
    low, middle, high = np.percentile(values, [5, 50, 95], axis=0)
    ax.fill_between(rank, low, high, alpha=0.25, color=COLOURS[0], linewidth=0, label="90% of the data")
    ax.plot(rank, middle, "o-", markersize=4, color=COLOURS[0], label="median")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend()
    ax.set(xlabel="direction, by size", ylabel="singular value of the Jacobian", title="how far x moves when z does")
    return ax


def plot_paths(z: Tensor, paths: Sequence[LatentPath], ax: Axes, labels: Tensor | None = None) -> Axes:
    """Shortest paths of a two-dimensional latent space over a map of data, and the straight lines that they beat."""
    plot_latents(z, ax, labels, title="shortest paths (solid) and straight lines (dashed)")
    for i, path in enumerate(paths):
        points = path.z.cpu().numpy()
        ax.plot(points[:, 0], points[:, 1], color="black", linewidth=1.8, label=f"{i + 1}: {path.length:.1f} against {path.straight:.1f}")
        ax.annotate(str(i + 1), points[len(points) // 2], xytext=(4, 4), textcoords="offset points", fontweight="bold")
        ax.plot(points[[0, -1], 0], points[[0, -1], 1], "--", color="black", linewidth=1, marker="o", markersize=4)
    ax.legend(fontsize=8, title="length: shortest, straight")
    return ax
