"""Spoken digits through a VAE and back to sound.

    python experiments/systems/voice.py RUN [--out FOLDER]

Prints the squared error of the test log-spectrograms' reconstructions against that of the training mean, how well digits are told from
the encodings by a linear probe, and for the sounds the mean absolute error of their log-spectrograms: of what comes
back from the given spectrogram (what inverting alone loses), and from the reconstruction. Writes, for one test recording of
each digit, both sounds as WAV files, and a figure of the spectrograms.
"""

import argparse
from pathlib import Path

import torch

import pyro_vae as pv
from pyro_vae.inspection import embed, linear_probe
from pyro_vae.plotting import plot_data, save_figure
from pyro_vae.sampling import squared_error
from pyro_vae.spectrograms import log_spectrogram, wav, waveform


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--out", default=None)
    options = parser.parse_args()
    folder = Path(options.out or Path(options.run) / "voice")
    folder.mkdir(parents=True, exist_ok=True)
    program = pv.load(options.run)
    train, test = pv.datasets.load("spoken_digits")
    mean_error = (test.x - train.x.mean(0)).square().mean()
    print(f"squared error per entry {squared_error(program, test).mean:.3f}, of the training mean {mean_error:.3f}")
    probe = linear_probe(embed(program, train, draws=False), train.context, embed(program, test, draws=False), test.context)
    print(f"a linear probe on the means of q(z | x) tells the digit {probe}")
    chosen = torch.stack([(test.context == digit).nonzero()[0, 0] for digit in range(10)])
    given = test.x[chosen]
    torch.manual_seed(0)
    made = pv.reconstruct(program, given)
    for name, spectrograms in (("inverted", given), ("reconstructed", made)):
        sounds = waveform(spectrograms)
        error = (log_spectrogram(sounds) - given).abs().mean()
        print(f"{name}: mean absolute error of the sounds' log-spectrograms {error:.3f}, peak {sounds.abs().amax(1).mean():.2f}")
        for digit, sound in enumerate(sounds):
            (folder / f"{digit}_{name}.wav").write_bytes(wav(sound))
    rows = torch.cat([given, made, pv.generate(program, 10)]).flip(1)
    rows = (rows - given.min()) / (given.max() - given.min())
    save_figure(folder / "spectrograms.png", lambda ax: plot_data(rows.clamp(0, 1), ax, columns=10), size=(8, 5))


if __name__ == "__main__":
    main()
