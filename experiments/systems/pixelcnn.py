"""Replace the uniform priors of a VQ-VAE by PixelCNNs, and measure nats per code.

    python experiments/systems/pixelcnn.py RUN [--epochs 3] [--out RUN-pixelcnn] [--figure FILE.png]

Trains a prior on the codes of each level of the frozen encoder, in a run of its own that `pyro-vae
evaluate` and `sample` take, and that goes on where it was stopped. Below the top a prior is given
the state, which follows from the codes above. Prints the reconstruction error, each codebook's
perplexity on the test codes, nats per code under the priors, and the bound on log p(x) in bits per
dimension. The figure has samples under the uniform priors above those under the PixelCNNs.
"""

import argparse

import torch

import pyro_vae as pv
from pyro_vae.evaluation.reconstruction import squared_error
from pyro_vae.plotting.data import plot_data
from pyro_vae.plotting.files import save_figure

SIZE = {"width": 32, "layers": 4}  # of a PixelCNN
CELLS = 2  # residual cells between the state and a PixelCNN below the top


def of_one_level(vqvae: pv.VAE) -> pv.VAE:
    """The same program with a PixelCNN, all else frozen."""
    return pv.VAE(
        pv.priors.PixelCNN(vqvae.prior.latent, **SIZE),
        vqvae.likelihood.requires_grad_(False),
        vqvae.posterior.requires_grad_(False),
    )


def of_levels(vqvae: pv.LadderVAE) -> pv.LadderVAE:
    """The same program with a PixelCNN at each level, all else frozen."""
    path = vqvae.path.requires_grad_(False)
    below = [
        pv.priors.PixelCNN(latent, pv.networks.Cells(state, cells=CELLS), **SIZE)
        for latent, state in zip(path.latents[:-1], path.states)
    ]
    return pv.LadderVAE(
        [*below, pv.priors.PixelCNN(path.latents[-1], **SIZE)],
        vqvae.likelihood.requires_grad_(False),
        list(vqvae.posteriors.requires_grad_(False)),
        path,
    )


def nats_of_levels(program: torch.nn.Module, test: pv.datasets.Dataset) -> list[float]:
    """-log p of the codes of each level, the lowest first; the guide is a point."""
    parts = pv.evaluation.decompose(program, test, 1)
    names = sorted(name for name in parts if name.startswith("kl/")) or ["kl"]
    return [parts[name].mean for name in names]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", default=None)
    parser.add_argument("--figure", default=None)
    options = parser.parse_args()
    vqvae = pv.load(options.run)
    train, test = pv.datasets.load("mnist")
    torch.manual_seed(0)
    program = (of_levels if isinstance(vqvae, pv.LadderVAE) else of_one_level)(vqvae)
    with torch.enable_grad():
        history = pv.fit(
            program,
            train,
            epochs=options.epochs,
            learning_rate=2e-3,
            schedule=pv.training.schedules.Cosine(),
            out=options.out or f"{options.run}-pixelcnn",
            resume=True,
            progress=False,
        )
    print(f"trained in {history['seconds'][-1]:.0f} s")
    print(f"squared error of reconstructions {squared_error(program, test).mean:.5f} per pixel")
    posteriors = program.posteriors if isinstance(program, pv.LadderVAE) else [program.posterior]
    levels = zip(
        sorted(pv.encode(program, test).items()),
        posteriors,
        nats_of_levels(vqvae, test),
        nats_of_levels(program, test),
    )
    for (name, z), posterior, uniform, learned in levels:
        codes = posterior.indices(z)
        places = codes[0].numel()
        shares = torch.bincount(codes.flatten(), minlength=posterior.codes) / codes.numel()
        entropy = torch.special.entr(shares).sum()
        print(
            f"{name}: {places} codes, {int((shares > 0).sum())} of {posterior.codes} in use, "
            f"perplexity {entropy.exp():.1f}; nats per code: uniform {uniform / places:.3f}, by "
            f"their frequencies {entropy:.3f}, PixelCNN {learned / places:.3f}"
        )
    for name, owner in (("uniform", vqvae), ("PixelCNN", program)):
        score = pv.elbo(owner, test, 1)
        print(
            f"{name}: bound on log p(x) {score.mean:.2f} +- {score.se:.2f} nats, "
            f"{pv.evaluation.bits_per_dim(score, test.event_shape):.4f} bits per dimension"
        )
    if options.figure:
        rows = torch.cat([pv.generate(vqvae, 20), pv.generate(program, 60)])
        save_figure(options.figure, lambda ax: plot_data(rows, ax, columns=20), size=(9, 2.2))


if __name__ == "__main__":
    main()
