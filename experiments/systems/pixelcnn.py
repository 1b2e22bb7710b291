"""A PixelCNN in the place of a trained VQ-VAE's uniform prior, and what the codes are worth.

    python experiments/systems/pixelcnn.py RUN [--epochs 5] [--unconditional] [--out RUN-pixelcnn] [--figure FILE.png]

Trains the prior on the codes that the frozen encoder gives the training images, given their labels, each code grid encoded once.
The VQ-VAE with this prior is saved as a run of its own that `pyro-vae evaluate RUN --data mnist` and `sample` take. Prints: the
codebook's perplexity on the test codes, the reconstruction error, nats per code under both priors, the bound on log p(x) in bits per
dimension; and of 2,000 samples, and of as many test images' reconstructions, what a 3-nearest-neighbour classifier on the 60,000
training images says: how often it is the label asked for. The figure has the uniform prior's samples above the PixelCNN's.
"""

import argparse

import pyro
import torch
from sklearn.neighbors import KNeighborsClassifier

import pyro_vae as pv
from pyro_vae.networks import OneHot, WithoutContext
from pyro_vae.plotting import plot_data, save_figure
from pyro_vae.sampling import squared_error


def with_prior(vqvae, conditional: bool):
    """The VQ-VAE with a PixelCNN as its prior; its other parts are frozen, and are not told the label."""
    likelihood, posterior = vqvae.likelihood.requires_grad_(False), vqvae.posterior.requires_grad_(False)
    prior = pv.priors.PixelCNN(vqvae.prior.latent, width=32, layers=4, context=10 if conditional else 0)
    if conditional:
        likelihood.network, posterior.network = WithoutContext(likelihood.network), WithoutContext(posterior.network)
    return pv.VAE(prior, likelihood, posterior, context=OneHot(10) if conditional else None)


def over_codes(program) -> pv.Program:
    """The prior alone, as a program whose data are codes: nothing is latent."""
    def model(z, label):
        with pyro.plate("data", len(z)):
            pyro.sample("x", program.prior(context=program.embed(label)), obs=z)

    def guide(z, label):
        pass

    return pv.Program(model, guide, modules=program.prior)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--unconditional", action="store_true")
    parser.add_argument("--out", default=None)
    parser.add_argument("--figure", default=None)
    options = parser.parse_args()
    train, test = pv.datasets.load("mnist")
    vqvae = pv.load(options.run)
    torch.manual_seed(0)
    program = with_prior(pv.load(options.run), not options.unconditional)
    codes = pv.datasets.Dataset(pv.encode(vqvae, train)["z"], train.context, name="codes")
    history = pv.fit(over_codes(program), codes, epochs=options.epochs, learning_rate=2e-3, schedule=pv.schedules.Cosine(), progress=False)
    print(f"trained in {history['seconds'][-1]:.0f} s")
    pv.save(program, options.out or f"{options.run}-pixelcnn")
    z = pv.encode(vqvae, test)["z"]
    index = vqvae.posterior.indices(z)
    shares = torch.bincount(index.flatten(), minlength=vqvae.posterior.codes) / index.numel()
    print(f"codes in use {int((shares > 0).sum())} of {len(shares)}, perplexity {torch.special.entr(shares).sum().exp():.1f}")
    print(f"squared error of reconstructions {squared_error(vqvae, test).mean:.5f} per pixel")
    with torch.no_grad():
        places, embedded = index[0].numel(), program.embed(test.context)
        for name, log_p in (("uniform", vqvae.prior().log_prob(z)), ("each code by its frequency", shares.log()[index].flatten(1).sum(1)),
                            ("PixelCNN", program.prior(context=embedded).log_prob(z))):
            print(f"{name}: {-log_p.mean() / places:.3f} nats per code")
    for name, owner in (("uniform", vqvae), ("PixelCNN", program)):
        score = pv.elbo(owner, test, 1)
        print(f"{name}: bound on log p(x) {score.mean:.2f} +- {score.se:.2f} nats, "
              f"{pv.evaluation.bits_per_dim(score, test.event_shape):.4f} bits per dimension", flush=True)
    grey, grey_test = pv.datasets.load("mnist", binarize="none")
    judge = KNeighborsClassifier(3).fit(grey.x.flatten(1).numpy(), grey.context.numpy())
    labels = torch.arange(2000) // 200
    samples = pv.generate(program, 2000, context=None if options.unconditional else labels, seed=1)
    for name, x, asked in (("test images", grey_test.x[:2000], test.context[:2000]),
                           ("their reconstructions", pv.reconstruct(vqvae, test[:2000]), test.context[:2000]), ("samples", samples, labels)):
        hits = (torch.as_tensor(judge.predict(x.flatten(1).numpy())) == asked).double()
        if not (options.unconditional and name == "samples"):
            print(f"the classifier gives {name} their label: {hits.mean():.1%} +- {hits.std() / len(hits) ** 0.5:.1%}", flush=True)
    if options.figure:
        shown = samples.reshape(10, 200, 1, 28, 28)[:, :6].transpose(0, 1).flatten(0, 1)  # a column for each label, twice over
        rows = torch.cat([pv.generate(vqvae, 20), shown])
        save_figure(options.figure, lambda ax: plot_data(rows, ax, columns=20), size=(9, 2.2))


if __name__ == "__main__":
    main()
