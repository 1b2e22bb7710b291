"""Four kinds of data in a minute: 16-bit images, spectra of known noise, sounds, unequal series.

    python experiments/domains/small.py

Each is made from a known truth, written as users have it, read by `pv.datasets.load`, modelled by
one VAE and compared with that truth.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import wavfile

import pyro_vae as pv

MLP = pv.networks.MLP


def vae(likelihood, network, latent: int) -> pv.VAE:
    posterior = pv.posteriors.DiagonalNormal(latent, network)
    return pv.VAE(pv.priors.StandardNormal(latent), likelihood, posterior)


def stated(values: np.ndarray) -> str:
    """A mean over data and its standard error."""
    return f"{values.mean():.3f} ± {values.std(ddof=1) / len(values) ** 0.5:.3f}"


def fitted(program: pv.VAE, data: object, epochs: int) -> pv.VAE:
    pv.fit(program, data, epochs=epochs, batch_size=64, seed=0, progress=False)
    return program


def deep_images(folder: Path) -> str:
    """The digits as PNGs of 16 bits give the scores of the digits in memory, to the last digit."""
    train, _ = pv.datasets.load("digits", binarize="none")
    levels = np.round(train.x[:400].numpy() * 65_535).astype(np.uint16)
    for i, image in enumerate(levels):
        Image.fromarray(image[0]).save(folder / f"{i:03}.png")
    read = pv.datasets.load_whole(folder)
    torch.manual_seed(0)
    program = vae(pv.likelihoods.ContinuousBernoulli(read.event_shape, MLP(4, [32])),
                  MLP(read.event_shape, [32]), 4)  # fmt: skip
    fitted(program, read, 20)
    given = torch.from_numpy(levels.astype(np.float32) / 65_535)
    scores = [pv.elbo(program, data, num_samples=10, seed=0).values for data in (read, given)]
    error = (scores[0] - scores[1]).abs().max().item()
    return (
        f"| 16-bit images | 400 digits as PNGs | ELBO {stated(scores[0].numpy())} nats; "
        f"{error:.1g} from that of the levels in memory |"
    )


def spectra(folder: Path) -> str:
    """Reconstructions of noisy spectra against the noiseless ones, with and without their noise."""
    rng = np.random.default_rng(0)
    at, z = np.linspace(0, 1, 60), rng.normal(size=(600, 2))
    clean = np.tanh(z[:, :1]) * np.exp(-((at - 0.3) ** 2) / 0.01) + np.sin(6 * at + 0.5 * z[:, 1:])
    noise = np.exp(rng.normal(-1.5, 1.0, clean.shape))
    noise[rng.random(clean.shape) < 0.05] = np.inf  # nothing was measured there
    flux = clean + np.where(np.isinf(noise), 50.0, noise) * rng.normal(size=clean.shape)
    flux[np.isinf(noise)] = 0.0
    np.savez(folder / "spectra.npz", flux=flux.astype(np.float32))
    x = pv.datasets.load_whole(folder / "spectra.npz", key="flux").x
    scale = torch.from_numpy(noise.astype(np.float32))
    errors = {}
    for name, likelihood in (
        ("known noise", pv.likelihoods.NormalWithNoise(60, MLP(2, [64]))),
        ("one learned scale", pv.likelihoods.Normal(60, MLP(2, [64]), learn_scale="shared")),
    ):
        torch.manual_seed(0)
        data = (x, {"scale": scale}) if name == "known noise" else x
        program = fitted(vae(likelihood, MLP(60, [64]), 2), data, 150)
        rows = tuple(part[500:] for part in (x, scale))
        test = (rows[0], {"scale": rows[1]}) if name == "known noise" else rows[0]
        made = pv.reconstruct(program, test).numpy().reshape(100, 60)
        errors[name] = np.sqrt(((made - clean[500:]) ** 2).mean(1))
    words = "; ".join(f"{name} {stated(each)}" for name, each in errors.items())
    return f"| spectra | 600 of 60 fluxes, 5% of them dead | error of the noiseless flux: {words} |"


def sounds(folder: Path) -> str:
    """Tones in `.wav` of 16 bits, by the folders that name them."""
    rng, at = np.random.default_rng(0), np.arange(200) / 8000
    for name, pitch in (("low", 200), ("high", 600)):
        (folder / name).mkdir()
        for i in range(150):
            tone = 0.5 * np.sin(2 * np.pi * (pitch * at + rng.random()))
            tone += 0.05 * rng.normal(size=200)
            wavfile.write(folder / name / f"{i}.wav", 8000, np.int16(tone * 2**15))
    train, test = pv.datasets.load(folder)
    shape = train.event_shape
    torch.manual_seed(0)
    likelihood = pv.likelihoods.Normal(shape, MLP(3, [64]), learn_scale="shared")
    program = fitted(vae(likelihood, MLP(shape, [64]), 3), train.x, 200)
    made = pv.reconstruct(program, test.x)
    error = (made.reshape(test.x.shape) - test.x).square().mean((1, 2)).sqrt().numpy()
    return (
        f"| sounds | 300 tones of 200 samples, noise 0.05 | error of held-out ones "
        f"{stated(error)}; labels {', '.join(train.label_names)} |"
    )


def series(folder: Path) -> str:
    """The rest of unequal series, which the model has not seen, against what it was."""
    rng, at = np.random.default_rng(0), np.arange(40.0)
    phase, rate = rng.random((600, 1)), rng.uniform(0.1, 0.2, (600, 1))
    whole = np.sin(2 * np.pi * phase + rate * at) + 0.05 * rng.normal(size=(600, 40))
    lengths = rng.integers(20, 41, 600)
    lengths[0] = 40
    data = pv.datasets.as_dataset([row[:n].astype(np.float32) for row, n in zip(whole, lengths)])
    torch.manual_seed(0)
    likelihood = pv.likelihoods.Normal(40, MLP(3, [64]), learn_scale="shared")
    network = pv.networks.WithMask(40, MLP(80, [64]))
    program = vae(pv.likelihoods.Missing(likelihood), network, 3)
    fitted(program, data, 200)
    filled = pv.impute(program, data, num_draws=50, seed=0).x.numpy()
    few = [i for i, n in enumerate(lengths) if n < 36]

    def error(guess) -> np.ndarray:
        rest = [guess[i, lengths[i] :] - whole[i, lengths[i] :] for i in few]
        return np.array([np.sqrt((each**2).mean()) for each in rest])

    last = np.repeat(np.array([row[n - 1] for row, n in zip(whole, lengths)])[:, None], 40, 1)
    return (
        f"| unequal series | 600 of 20 to 40 steps, noise 0.05 | error of the rest: "
        f"VAE {stated(error(filled))}; the last value {stated(error(last))}; "
        f"zero {stated(error(0 * whole))} |"
    )


def main() -> None:
    lines = ["| kind | data | figure, with its standard error over data |", "|---|---|---|"]
    for experiment in (deep_images, spectra, sounds, series):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(experiment(Path(folder)))
        print(lines[-1], flush=True)


if __name__ == "__main__":
    main()
