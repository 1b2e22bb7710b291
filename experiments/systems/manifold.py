"""The manifold that a VAE with two latent dimensions has learned: neighbours, tangent planes, and what its plane decodes to.

    python experiments/systems/manifold.py RUN [--figure FILE.png]

Prints, on the first 2,000 test images: the share of ten nearest neighbours of the same digit in the latent map and in pixels; and
of the tangent planes at their encodings the singular values (pixels' root sum of squares per unit of z) and the local dimension.
The figure is the 20x20 grid over the quantiles of the prior.
"""

import argparse

import pyro_vae as pv
from pyro_vae.geometry import Decoder, manifold, tangent_planes
from pyro_vae.inspection import embed, neighbours
from pyro_vae.plotting import plot_data, save_figure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--figure", default=None)
    options = parser.parse_args()
    program = pv.load(options.run)
    _, test = pv.datasets.load("mnist")
    few = test[:2000]
    z = embed(program, few, draws=False)
    for name, points in (("latent map", z), ("pixels", few.x.flatten(1))):
        print(f"{name}: {neighbours(points, 10).agreement(few.context):.1%} of the ten nearest neighbours are the same digit")
    planes = tangent_planes(Decoder(program), z[:500])
    largest, smallest = planes.singular_values.median(0).values.tolist()
    print(f"tangent planes: median stretches {largest:.2f} and {smallest:.2f}, "
          f"two-dimensional at {(planes.local_dimension() == 2).float().mean():.1%}")
    if options.figure:
        save_figure(options.figure, lambda ax: plot_data(manifold(Decoder(program), 20), ax, columns=20), size=(6, 6))


if __name__ == "__main__":
    main()
