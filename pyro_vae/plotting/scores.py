"""Figures of training curves, importance weights, calibration and comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyro_vae.datasets.shown import p_words
from pyro_vae.diagnostics.calibration import Calibration
from pyro_vae.diagnostics.two_sample import PosteriorComparison
from pyro_vae.evaluation.active import ActiveUnits
from pyro_vae.evaluation.annealing import RateDistortion
from pyro_vae.evaluation.importance_score import ImportanceScore, convergence
from pyro_vae.evaluation.pareto import pareto_k_threshold
from pyro_vae.evaluation.scores import Score
from pyro_vae.inspection.anomaly import Anomaly
from pyro_vae.plotting.files import COLOURS, named
from pyro_vae.training.history import History

__all__ = [
    "plot_anomaly",
    "plot_bounds",
    "plot_comparison",
    "plot_convergence",
    "plot_coverage",
    "plot_ess",
    "plot_estimates",
    "plot_means",
    "plot_pareto_k",
    "plot_ranks",
    "plot_rate_distortion",
    "plot_training",
    "plot_units",
    "plot_weights",
]


def plot_training(history: History, ax: Axes) -> Axes:
    """Draw the objective, the validation ELBO and log p(x) during training against epochs."""
    return history.plot(ax)


def plot_pareto_k(score: ImportanceScore, ax: Axes) -> Axes:
    """Draw the data's Pareto k in increasing order, with the threshold of reliability."""
    shapes = score.pareto_k.cpu().numpy()
    shown = np.sort(shapes[np.isfinite(shapes)])
    threshold = pareto_k_threshold(score.num_samples)
    ax.plot(np.arange(len(shown)), shown, ".", markersize=3)
    ax.axhline(
        threshold,
        color="C3",
        linewidth=1,
        label=f"threshold {threshold:.2f}: {score.above_threshold} data above or near",
    )
    ax.legend()
    ax.set(
        xlabel="datum, by k",
        ylabel="Pareto k",
        title=f"tail shape of the weights, K = {score.num_samples}",
    )
    return ax


def plot_ess(score: ImportanceScore, ax: Axes) -> Axes:
    """Draw a histogram of the effective number of draws, on a log scale."""
    bins = np.geomspace(1, max(2, score.num_samples), 31).tolist()
    ax.hist(score.ess.cpu().numpy().clip(1, score.num_samples), bins=bins)
    ax.set_xscale("log")
    ax.set(xlabel="effective number of draws", ylabel="data", title=f"ESS, K = {score.num_samples}")
    return ax


def plot_weights(log_weights: Tensor, ax: Axes, data: int = 4) -> Axes:
    """Draw histograms of the log-weights of a few data, each less the logarithm of their mean.

    The estimate hangs on the weights at the right.

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
    ax.set(
        xlabel="log w - log mean w (nats)",
        ylabel="draws",
        title=f"importance weights, K = {len(few)}",
    )
    return ax


def plot_convergence(log_weights: Tensor, ax: Axes, points: int = 30) -> Axes:
    """Draw the estimate of log p(x) from the first K draws against K, with a band of two errors."""
    scores = convergence(log_weights, points)
    draws = [score.num_samples for score in scores]
    means, errors = (
        np.array(values) for values in ([s.mean for s in scores], [s.mean_mc_se for s in scores])
    )
    (line,) = ax.plot(draws, means)
    ax.fill_between(
        draws,
        means - 2 * errors,
        means + 2 * errors,
        alpha=0.25,
        color=line.get_color(),
        linewidth=0,
    )
    ax.set_xscale("log")
    ax.set(
        xlabel="draws K",
        ylabel="nats per datum",
        title="estimate of log p(x); still rising means too few draws",
    )
    ax.grid(alpha=0.3)
    return ax


def plot_ranks(calibration: Calibration, ax: Axes, column: int = 0, bins: int = 20) -> Axes:
    """Draw a histogram of one column's calibration ranks, with the band of 95% of uniform bins."""
    edges = np.arange(calibration.num_samples + 1) * bins // (calibration.num_samples + 1)
    counts = np.bincount(edges[calibration.ranks[:, column].numpy()], minlength=bins)
    expected = (
        np.bincount(edges, minlength=bins) * len(calibration.ranks) / (calibration.num_samples + 1)
    )
    ax.bar(np.arange(bins), counts, width=0.9)
    spread = 1.96 * np.sqrt(expected * (1 - expected / len(calibration.ranks)))
    # Each bin's band is as wide as the bin, the outermost too.
    low, high = expected - spread, expected + spread
    edges_of_bins = np.arange(bins + 1) - 0.5
    ax.fill_between(
        edges_of_bins,
        np.append(low, low[-1]),
        np.append(high, high[-1]),
        alpha=0.35,
        color="0.4",
        linewidth=0,
        step="post",
        label="95% of the bins, if uniform",
    )
    ax.legend(fontsize="small")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    p_value = calibration.test_uniform().p_value[column].item()
    ax.set(
        xlabel="rank, in bins",
        ylabel="simulated data",
        title=f"ranks of {named(calibration.names[column])} (uniform: p {p_words(p_value, '= ')})",
    )
    return ax


def plot_coverage(calibration: Calibration, ax: Axes) -> Axes:
    """Draw the coverage of central intervals and of highest-density regions, against nominal."""
    levels, central, highest = calibration.coverage()
    ax.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle="--", label="q is the posterior")
    lines = ax.plot(levels, central, color="C0", alpha=0.5, linewidth=1.2)
    lines[0].set_label("central intervals, a line for each dimension")
    ax.plot(levels, highest, color="C1", linewidth=2, label="highest density, all dimensions")
    ax.legend(loc="upper left", fontsize="small")
    ax.set(
        xlabel="what a region of q should hold",
        ylabel="share of simulated latents that it holds",
        title="coverage: below the diagonal q is too narrow",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    return ax


def plot_rate_distortion(
    curve: RateDistortion, ax: Axes, encoder: dict[str, Score] | None = None
) -> Axes:
    """Draw the rates and distortions that a decoder can reach, and where its encoder stands.

    Args:
        curve: see `pyro_vae.evaluation.annealing.rate_distortion`.
        ax: where to draw.
        encoder: the result of `pyro_vae.evaluation.decomposition.decompose` on the same data.
    """
    ax.errorbar(
        curve.distortion,
        curve.rate,
        xerr=curve.distortion_se,
        yerr=curve.rate_se,
        marker=".",
        label="decoder",
    )
    if encoder is not None:
        ax.plot(
            -encoder["reconstruction"].mean,
            encoder["kl"].mean,
            "*",
            markersize=12,
            label="this encoder",
        )
    ax.legend()
    ax.set(xlabel="distortion (nats)", ylabel="rate (nats)", title="rate and distortion")
    return ax


def plot_bounds(scores: Mapping[str, Score], ax: Axes) -> Axes:
    """Draw scores of the same data against the data, in increasing order of the first of them."""
    order = next(iter(scores.values())).values.argsort().cpu()
    places, has_bars = np.arange(len(order)), False
    for name, score in scores.items():
        values, errors = (
            part.double().cpu()[order].numpy() for part in (score.values, score.mc_se)
        )
        # An error that is not known has no bar; that of a bound says nothing of how far off it is.
        bound = score.is_bound.cpu()[order].numpy()
        shown = np.where(bound, 0.0, np.nan_to_num(errors))
        has_bars |= bool(shown.any())
        ax.errorbar(
            places, values, yerr=2 * shown, fmt=".", label=named(name), markersize=4, linewidth=1
        )
    ax.legend()
    ax.set(
        xlabel="data, the lowest first",
        ylabel="nats",
        title="with two Monte Carlo errors each way, where they are known"
        if has_bars
        else "bounds, whose Monte Carlo errors are not known",
    )
    return ax


def plot_estimates(
    names: Sequence[str], values: Sequence[float], errors: Sequence[float | None], ax: Axes
) -> Axes:
    """Draw numbers as bars below one another, each with two standard errors where one is known."""
    places = np.arange(len(names))
    widths = [2 * error if error is not None and math.isfinite(error) else 0.0 for error in errors]
    ax.barh(places, values, xerr=widths, height=0.7)
    ax.set_yticks(places, [*map(named, names)])
    ax.invert_yaxis()
    ax.set(title="lines: two standard errors")
    return ax


def plot_means(scores: Mapping[str, Score], ax: Axes) -> Axes:
    """Draw the mean of each score over data, with two standard errors."""
    values = list(scores.values())
    ax = plot_estimates([*scores], [v.mean for v in values], [v.se for v in values], ax)
    ax.set(xlabel="nats per datum")
    return ax


def plot_units(units: ActiveUnits, ax: Axes) -> Axes:
    """Draw the share of each latent dimension's variance between data, and the threshold."""
    for name, share in units.share.items():
        heights = share.flatten().cpu().sort(descending=True).values
        ax.plot(np.arange(1, len(heights) + 1), heights.clamp(min=1e-6), ".-", label=named(name))
    ax.axhline(units.threshold, color="0.4", linewidth=1, label=f"active above {units.threshold:g}")
    ax.legend()
    ax.set(
        yscale="log",
        xlabel="latent dimensions, the most active first",
        ylabel="share of its variance between data (log scale)",
        title=f"{units.active} of {units.total} latent dimensions are active",
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def plot_comparison(comparison: PosteriorComparison, ax: Axes) -> Axes:
    """Draw how well a classifier tells draws of q from those of NUTS, datum by datum."""
    order = np.argsort(comparison.accuracy)
    errors = [2 * comparison.tests[n].se for n in order]
    ax.axhline(0.5, color="0.5", linewidth=1)
    ax.errorbar(
        np.arange(len(order)),
        comparison.accuracy[order],
        yerr=errors,
        fmt="o",
        color=COLOURS[0],
        capsize=3,
    )
    ax.set_xticks(np.arange(len(order)), [str(comparison.obs[n]) for n in order])
    ax.set(
        xlabel="datum",
        ylabel="share that a classifier tells apart",
        ylim=(0.35, 1.02),
        title="draws of q(z | x) told from NUTS's: 0.5 is by chance alone",
    )
    return ax


def plot_anomaly(
    anomaly: Anomaly, ax: Axes, inside: str = "inside", outside: str = "outside"
) -> Axes:
    """Draw histograms of the scores of data inside and outside the distribution."""
    scores = (anomaly.inside.numpy(), anomaly.outside.numpy())
    everything = np.concatenate(scores)
    bins = np.linspace(np.percentile(everything, 0.5), everything.max(), 61).tolist()
    for colour, sample, label in zip(COLOURS, scores, map(named, (inside, outside))):
        ax.hist(sample.clip(bins[0]), bins=bins, alpha=0.6, color=colour, label=label, density=True)
    ax.legend()
    ax.set(
        xlabel="score (nats)",
        ylabel="density",
        title=f"AUROC {anomaly.auroc:.4f} +- {anomaly.se:.4f}",
    )
    return ax
