"""Reconstruct spoken digits as sound, and let a classifier of real recordings hear them.

    python experiments/systems/voice.py RUN [--out FOLDER]

Prints the squared error of the test log-spectrograms' reconstructions against that of as many
principal components and of the training mean, and how well digits are told from the encodings by a
linear probe. The listener is a support vector machine on 60 principal components of the training
recordings' log-spectrograms; it hears the 300 test recordings, what comes back from their
spectrograms (what inverting alone loses), their reconstructions, and these as sounds; then 500
draws from the prior, and 300 from a normal fitted to the encodings: its confidence, and how many
digits it hears, the exponential of the entropy of its answers. Writes for one test recording of
each digit the sound inverted and the sound reconstructed as WAV files, and a figure of their
spectrograms over those of ten draws.
"""

import argparse
import math
from pathlib import Path

import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import pyro_vae as pv
from pyro_vae.datasets.spectrograms import log_spectrogram, wav, waveform
from pyro_vae.evaluation.reconstruction import squared_error
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.embedding import embed
from pyro_vae.inspection.probes import linear_probe
from pyro_vae.plotting.data import plot_data
from pyro_vae.plotting.files import save_figure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--out", default=None)
    options = parser.parse_args()
    folder = Path(options.out or Path(options.run) / "voice")
    folder.mkdir(parents=True, exist_ok=True)
    program = pv.load(options.run)
    train, test = pv.datasets.load("spoken_digits")
    flat, flat_test = (data.x.flatten(1).numpy() for data in (train, test))
    pca = PCA(math.prod(program.posterior.latent), random_state=0).fit(flat)
    by_pca = (
        torch.from_numpy(pca.inverse_transform(pca.transform(flat_test)) - flat_test)
        .square()
        .mean()
    )
    print(
        f"squared error per entry {squared_error(program, test).mean:.3f}, principal components "
        f"{by_pca:.3f}, "
        f"training mean {(test.x - train.x.mean(0)).square().mean():.3f}"
    )
    probe = linear_probe(
        embed(program, train, draws=False),
        train.context,
        embed(program, test, draws=False),
        test.context,
    )
    print(f"a linear probe on the means of q(z | x) tells the digit {probe}", flush=True)
    torch.manual_seed(0)
    made, drawn = (
        pv.reconstruct(program, test),
        pv.generate(program, 500, context=_labels(program, 500)),
    )
    listener = make_pipeline(
        PCA(60, random_state=0), StandardScaler(), CalibratedClassifierCV(SVC(C=10), ensemble=False)
    )
    listener.fit(flat, train.context.numpy())
    for name, x in (
        ("recordings", test.x),
        ("recordings, inverted", log_spectrogram(waveform(test.x))),
        ("reconstructions", made),
        ("reconstructions, as sounds", log_spectrogram(waveform(made))),
    ):
        share = listener.score(x.flatten(1).numpy(), test.context.numpy())
        print(
            f"the listener hears the digit in {name}: {share:.1%} +- "
            f"{math.sqrt(share * (1 - share) / len(x)):.1%}; "
            f"mean absolute difference from the recordings' {(x - test.x).abs().mean():.3f}",
            flush=True,
        )
    sounds = log_spectrogram(waveform(drawn)).flatten(1).numpy()
    heard = [("test recordings", flat_test), ("draws from the prior, as sounds", sounds)]
    if program.context is None:
        means = embed(program, train, draws=False).double().numpy()
        normal = GaussianMixture(1, reg_covar=1e-4, random_state=0).fit(means)
        z = torch.from_numpy(normal.sample(300)[0]).to(made.dtype)
        fitted = Decoder(program)(z).detach().flatten(1).numpy()
        heard.append(("draws from a normal fitted to the encodings", fitted))
    for name, x in heard:
        answers = torch.from_numpy(listener.predict_proba(x))
        shares = torch.bincount(answers.argmax(1), minlength=10) / len(answers)
        print(
            f"{name}: confidence {answers.amax(1).mean():.3f}, digits heard "
            f"{torch.special.entr(shares).sum().exp():.1f}"
        )
    chosen = torch.stack([(test.context == digit).nonzero()[0, 0] for digit in range(10)])
    for name, x in (("inverted", test.x[chosen]), ("reconstructed", made[chosen])):
        for digit, sound in enumerate(waveform(x)):
            (folder / f"{digit}_{name}.wav").write_bytes(wav(sound))
    rows = torch.cat(
        [test.x[chosen], made[chosen], pv.generate(program, 10, context=_labels(program, 10))]
    ).flip(1)
    low, high = test.x[chosen].min(), test.x[chosen].max()
    save_figure(
        folder / "spectrograms.png",
        lambda ax: plot_data(
            ((rows - low) / (high - low)).clamp(0, 1),
            ax,
            columns=10,
            rows=["recording", "reconstruction", "draw"],
        ),
        size=(8, 5),
    )


def _labels(program, num: int) -> torch.Tensor | None:
    """The digits in turn, for a program that takes them as its context."""
    return None if program.context is None else torch.arange(num) % 10


if __name__ == "__main__":
    main()
