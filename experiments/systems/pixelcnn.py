"""Replace a VQ-VAE's uniform prior by a PixelCNN, and measure nats per code.

    python experiments/systems/pixelcnn.py RUN [--epochs 3] [--out RUN-pixelcnn] [--figure FILE.png]

Trains the prior on the codes of the frozen encoder, in a run of its own that `pyro-vae evaluate`
and `sample` take. Prints the codebook's perplexity on the test codes, the reconstruction error,
nats per code under both priors, and the bound on log p(x) in bits per dimension. The figure has
samples under the uniform prior above those under the PixelCNN.
"""

import argparse

import torch

import pyro_vae as pv
from pyro_vae.evaluation.reconstruction import squared_error
from pyro_vae.plotting.data import plot_data
from pyro_vae.plotting.files import save_figure


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
    program = pv.VAE(
        prior=pv.priors.PixelCNN(vqvae.prior.latent, width=32, layers=4),
        likelihood=vqvae.likelihood.requires_grad_(False),
        posterior=vqvae.posterior.requires_grad_(False),
    )
    with torch.enable_grad():
        history = pv.fit(
            program,
            train,
            epochs=options.epochs,
            learning_rate=2e-3,
            schedule=pv.training.schedules.Cosine(),
            out=options.out or f"{options.run}-pixelcnn",
            progress=False,
        )
    print(f"trained in {history['seconds'][-1]:.0f} s")
    z = pv.encode(program, test)["z"]
    codes = program.posterior.indices(z)
    shares = torch.bincount(codes.flatten(), minlength=program.posterior.codes) / codes.numel()
    perplexity = torch.special.entr(shares).sum().exp()
    print(
        f"codes in use {int((shares > 0).sum())} of {program.posterior.codes}, perplexity "
        f"{perplexity:.1f}"
    )
    print(f"squared error of reconstructions {squared_error(program, test).mean:.5f} per pixel")
    places = codes[0].numel()
    for name, prior in (
        ("uniform", vqvae.prior),
        ("each code by its frequency", None),
        ("PixelCNN", program.prior),
    ):
        nats = (
            -(
                shares.log()[codes].flatten(1).sum(1) if prior is None else prior().log_prob(z)
            ).mean()
            / places
        )
        print(f"{name}: {nats:.3f} nats per code")
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
