"""Figures: each function draws data, scores or the latent space on Matplotlib axes.

Drawing lives here; a number that a table would report is computed elsewhere.
"""

from pyro_vae.plotting.columns import column_plots, plot_column
from pyro_vae.plotting.curves import is_series
from pyro_vae.plotting.data import (
    data_plots,
    is_clip,
    plot_data,
    plot_reconstructions,
    plot_text,
    reconstruction_plots,
    still,
)
from pyro_vae.plotting.during_training import FiguresDuringTraining
from pyro_vae.plotting.files import figure_files, figure_png, formats_with, grid_files, save_figure
from pyro_vae.plotting.latent import (
    plot_latents,
    plot_neighbours,
    plot_pairs,
    plot_paths,
    plot_singular_values,
    plot_tangent_planes,
)
from pyro_vae.plotting.scores import (
    plot_anomaly,
    plot_bounds,
    plot_comparison,
    plot_convergence,
    plot_coverage,
    plot_ess,
    plot_estimates,
    plot_means,
    plot_pareto_k,
    plot_ranks,
    plot_rate_distortion,
    plot_training,
    plot_units,
    plot_weights,
)

__all__ = [
    "FiguresDuringTraining",
    "column_plots",
    "data_plots",
    "is_clip",
    "is_series",
    "plot_anomaly",
    "plot_bounds",
    "plot_column",
    "plot_comparison",
    "plot_convergence",
    "plot_coverage",
    "plot_data",
    "plot_ess",
    "plot_estimates",
    "plot_latents",
    "plot_means",
    "plot_neighbours",
    "plot_pairs",
    "plot_pareto_k",
    "plot_paths",
    "plot_ranks",
    "plot_rate_distortion",
    "plot_reconstructions",
    "plot_singular_values",
    "plot_tangent_planes",
    "plot_text",
    "plot_training",
    "plot_units",
    "plot_weights",
    "figure_files",
    "figure_png",
    "formats_with",
    "grid_files",
    "reconstruction_plots",
    "save_figure",
    "still",
]
