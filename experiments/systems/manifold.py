"""Show a VAE's learned manifold: embedding, neighbours, tangent planes and moves along them.

    python experiments/systems/manifold.py RUN [--out FOLDER]

Prints, for the first 2,000 test images, the share of ten nearest neighbours of the same digit, in
the latent space and in pixels; and, for the tangent planes at their encodings, the singular values
(root sum of squares of pixels per unit of z) and the local dimension. The figures, in RUN/manifold
by default, are

- the graph of five nearest neighbours over the map of 1,000 images (over principal components if z
  has more than two dimensions);
- six test images moved along the directions in which the decoder stretches most and least, as far
  as would change x by 4 either way if the decoder were flat;
- for two latents, the ellipses of the metric and the 20x20 grid over the prior's quantiles.
"""

import argparse
from pathlib import Path

import torch

import pyro_vae as pv
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.embedding import embed, neighbours
from pyro_vae.inspection.geometry import manifold, tangent_planes
from pyro_vae.plotting.data import plot_data
from pyro_vae.plotting.files import save_figure
from pyro_vae.plotting.latent import plot_neighbours, plot_tangent_planes

STEPS = torch.linspace(-4, 4, 7)


@torch.no_grad()
def along(decoder: Decoder, z: torch.Tensor, rank: int) -> torch.Tensor:
    """Decode latents (N, D) moved along one right singular vector of the Jacobian.

    Steps are measured in x. Returns images (N * steps, *event).
    """
    jacobian = tangent_planes(decoder, z).jacobian
    _, stretches, directions = torch.linalg.svd(jacobian, full_matrices=False)
    paths = z[:, None] + STEPS[:, None] * (directions[:, rank] / stretches[:, rank, None])[:, None]
    return decoder(paths.flatten(0, 1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--out", default=None)
    options = parser.parse_args()
    folder = Path(options.out or Path(options.run) / "manifold")
    program = pv.load(options.run)
    decoder = Decoder(program)
    _, test = pv.datasets.load("mnist")
    few = test[:2000]
    z = embed(program, few, draws=False)
    for name, points in (("latent space", z), ("pixels", few.x.flatten(1))):
        print(
            f"{name}: {neighbours(points, 10).agreement(few.context):.1%} of the ten nearest "
            "neighbours are the same digit"
        )
    planes = tangent_planes(decoder, z[:500])
    stretches, dimension = planes.singular_values.median(0).values, planes.local_dimension().float()
    print(
        f"tangent planes: median stretches {', '.join(f'{value:.2f}' for value in stretches)}, "
        f"of {decoder.dim} dimensions at {(dimension == decoder.dim).float().mean():.1%}"
    )
    save_figure(
        folder / "graph.png",
        lambda ax: plot_neighbours(z[:1000], neighbours(z[:1000], 5), ax, few.context[:1000]),
        (6.5, 6),
    )
    moved = torch.stack(
        [along(decoder, z[:6], rank).unflatten(0, (6, -1)) for rank in (0, -1)], dim=1
    )
    save_figure(
        folder / "directions.png",
        lambda ax: plot_data(
            moved.flatten(0, 2),
            ax,
            columns=2 * len(STEPS),
            title=("along the most stretched direction (left) and the least (right)"),
        ),
        (7.5, 3.7),
    )
    if decoder.dim == 2:
        at = torch.cartesian_prod(torch.linspace(-3, 3, 19), torch.linspace(-3, 3, 19))
        save_figure(
            folder / "metric.png",
            lambda ax: plot_tangent_planes(z, at, tangent_planes(decoder, at), ax, few.context),
            (6.5, 6),
        )
        save_figure(
            folder / "grid.png", lambda ax: plot_data(manifold(decoder, 20), ax, columns=20), (6, 6)
        )


if __name__ == "__main__":
    main()
