"""Measure VAEs of sentences: use of the latent, perplexity, and what the sentences are like.

    python experiments/systems/text.py RUN ... [--num-samples 200] [--without-latent [--paired]]
        [--read 8]

A row for each RUN, of `vae_sentences.yaml`, `vae_passages.yaml` or a variant, on the test texts: KL
of q(z | x) from the prior, active dimensions of the latent, ELBO, log p(x) by importance sampling,
and the perplexity of a word, the end of a text counted as one. Below, models without a latent:
unigrams, bigrams and trigrams of the training texts, smoothed by Kneser and Ney's method. With
--without-latent comes the decoder of the first run, trained anew with z held at zero; with --paired
of each run, and the runs, which are then seeds of one recipe, are compared with theirs text by
text. Then, by the first run: test texts and what is made of them, draws from the prior, texts
between two test texts, and a test text's nearest neighbours.
"""

import argparse
import math
from collections import Counter
from pathlib import Path

import pyro
import torch
import yaml

import pyro_vae as pv
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.text import END
from pyro_vae.evaluation.decomposition import active_units, decompose
from pyro_vae.evaluation.scores import Score, perplexity
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.embedding import embed, neighbours
from pyro_vae.inspection.geometry import interpolate


class KneserNey:
    r"""A model of the next word from the words before, interpolated with shorter histories.

    .. math:: P(w \mid h) = \frac{\max(c(h w) - D, 0) + D\, n(h)\, P(w \mid h')}{c(h)}

    where h' is h without its first word, n(h) the number of words seen behind h, and c in all but
    the longest stretches counts the different words that were seen before; at the end stands the
    uniform distribution. D is n_1 / (n_1 + 2 n_2) of each length.

    Source: Ney, Essen and Kneser (1994), On structuring probabilistic dependences in stochastic
    language modelling.
    """

    def __init__(self, sentences: list[list[int]], order: int, size: int):
        self.order, self.size = order, size
        grams = Counter(gram for sentence in sentences for gram in self.grams(sentence))
        self.levels = []  # the longest first
        while True:
            ones, twos = (sum(count == k for count in grams.values()) for k in (1, 2))
            total, kinds = Counter(), Counter()
            for gram, count in grams.items():
                total[gram[:-1]] += count
                kinds[gram[:-1]] += 1
            discount = ones / (ones + 2 * twos) if ones else 0.0  # where all occur more often
            self.levels.append((grams, total, kinds, discount))
            if not len(next(iter(grams))[1:]):
                break
            grams = Counter(gram[1:] for gram in grams)

    def grams(self, sentence: list[int]) -> list[tuple[int, ...]]:
        """Pair each word, and the end, with the words before it; a sentence starts after an end."""
        padded = [END] * (self.order - 1) + sentence + [END]
        return [tuple(padded[i : i + self.order]) for i in range(len(sentence) + 1)]

    def probability(self, gram: tuple[int, ...]) -> float:
        p = 1 / self.size
        for length, (grams, total, kinds, discount) in enumerate(reversed(self.levels), 1):
            short = gram[len(gram) - length :]
            history = short[:-1]
            if total[history]:
                p = (max(grams[short] - discount, 0) + discount * kinds[history] * p) / total[
                    history
                ]
        return p

    def score(self, sentences: list[list[int]]) -> Score:
        nats = torch.tensor(
            [
                sum(math.log(self.probability(gram)) for gram in self.grams(sentence))
                for sentence in sentences
            ]
        )
        return Score(nats, torch.zeros_like(nats), 1)


def numbers(data: Dataset) -> list[list[int]]:
    return [[word for word in sentence if word != END] for sentence in data.x.long().tolist()]


def without_latent(run: str, recipe: dict, train: Dataset, held: Dataset) -> pv.Program:
    """Train the run's decoder anew, as its recipe says, with z held at zero."""
    program = pv.load(run)
    nothing = torch.zeros(program.prior.latent)
    torch.manual_seed(recipe["seed"])
    for module in program.likelihood.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", program.likelihood(nothing.expand(len(x), -1)), obs=x)

    alone = pv.Program(
        model, lambda x: None, modules=program.likelihood, event_shape=train.event_shape
    )
    pv.fit(
        alone,
        train,
        epochs=recipe["epochs"],
        batch_size=recipe["batch_size"],
        learning_rate=recipe["learning_rate"],
        schedule=pv.training.schedules.Cosine(),
        seed=recipe["seed"],
        validation=held,
        patience=recipe["patience"],
        progress=False,
    )
    return alone


def gain(with_latent: list[Score], alone: list[Score]) -> str:
    """The mean gain by the latent in nats per datum, paired by datum and seed, with two errors."""
    gains = torch.stack([a.values - b.values for a, b in zip(with_latent, alone)]).double()
    by_datum, by_seed = gains.mean(0), gains.mean(1)
    over_data = by_datum.std().item() / math.sqrt(len(by_datum))
    over_seeds = by_seed.std().item() / math.sqrt(len(by_seed)) if len(by_seed) > 1 else math.nan
    return (
        f"the latent gains {gains.mean().item():.2f} nats; s.e. {over_data:.2f} over data, "
        f"{over_seeds:.2f} over {len(by_seed)} seeds ("
        + ", ".join(f"{each:.2f}" for each in by_seed.tolist())
        + ")"
    )


def row(name: str, score: Score, data: Dataset, *more: str) -> None:
    kl, active, elbo = more or ("", "", "")
    print(
        f"| {name} | {kl} | {active} | {elbo} | {score.mean:.2f} +- {score.se:.2f} | "
        f"{perplexity(score, data):.1f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--num-samples", type=int, default=200)
    parser.add_argument("--without-latent", action="store_true")
    parser.add_argument("--paired", action="store_true")
    parser.add_argument("--read", type=int, default=8)
    options = parser.parse_args()
    recipes = [yaml.safe_load((Path(run) / "recipe.yaml").read_text()) for run in options.runs]
    every, test = pv.datasets.load(recipes[0]["data"])
    # What each run was trained on, and validated on.
    parts = [every.hold_out(recipe["validation"], recipe["seed"]) for recipe in recipes]
    train = parts[0][0]
    print(f"{len(train)} training and {len(test)} test texts, {len(test.vocabulary)} words")
    print("| | KL | active | ELBO | log p(x) | perplexity |\n|---|---|---|---|---|---|")
    with_latent, without = [], []
    for run, recipe, part in zip(options.runs, recipes, parts):
        program = pv.load(run)
        terms, units = decompose(program, test, 20), active_units(program, test)
        score = pv.log_likelihood(program, test, options.num_samples)
        with_latent.append(score)
        row(
            Path(run).name,
            score,
            test,
            f"{terms['kl'].mean:.2f}",
            f"{units.active} of {units.total}",
            f"{terms['elbo'].mean:.2f}",
        )
        if options.without_latent and (len(without) == 0 or options.paired):
            without.append(pv.elbo(without_latent(run, recipe, *part), test, 1))
            row("the same decoder without a latent", without[-1], test)
    if options.paired and options.without_latent:
        print(gain(with_latent, without), flush=True)
    for name, order in (("trigrams", 3), ("bigrams", 2), ("unigrams", 1)):
        row(
            name, KneserNey(numbers(train), order, len(train.vocabulary)).score(numbers(test)), test
        )

    program, few = (
        pv.load(options.runs[0]),
        test[torch.arange(options.read) * (len(test) // options.read)],
    )
    for given, made in zip(few.text, test.vocabulary.decode(pv.reconstruct(program, few))):
        print(f"\n  test   {given}\n  made   {made}")
    for title, draws in (("greedy, from draws of z", False), ("draws, from draws of z", True)):
        print(
            f"\n{title}:",
            *test.vocabulary.decode(pv.generate(program, options.read, draws=draws)),
            sep="\n  ",
        )
    means = embed(program, test, draws=False)
    decoder = Decoder(program)
    for a, b in ((0, len(test) // 2), (len(test) // 3, len(test) - 1)):
        between = decoder(interpolate(means[a], means[b], 7)).detach()
        print(
            "\nbetween",
            f"({test.text[a]})",
            *test.vocabulary.decode(between),
            f"({test.text[b]})",
            sep="\n  ",
        )
    found = neighbours(means, 3)
    for datum in range(0, len(test), len(test) // 4):
        print(f"\nnear to {test.text[datum]}", *(test.text[i] for i in found.of(datum)), sep="\n  ")


if __name__ == "__main__":
    main()
