"""Sentences as data, a likelihood of them, and the commands on them."""

import itertools
import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.datasets.dataset import Dataset
from pyro_vae.datasets.named import load
from pyro_vae.datasets.text import END, UNKNOWN, Vocabulary, sections, sentences, words
from pyro_vae.evaluation.reconstruction import squared_error
from pyro_vae.evaluation.scores import Score, perplexity
from pyro_vae.inspection.decoder import Decoder
from pyro_vae.inspection.geometry import tangent_planes
from pyro_vae.recipes.build import build_program
from pyro_vae.validation import InvalidInput

MLP = pv.networks.MLP
LINES = [
    f"{subject} {verb} {thing}."
    for subject, verb, thing in itertools.product(
        ["A name", "The object", "This value"],
        ["is", "has", "returns"],
        ["a list", "an attribute", "the number 7", "nothing"],
    )
]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n\n")
    return str(tmp_path / "lines.txt")


# the data

MANUAL = """Names
*****

A *name* refers to an object.  "Names" are introduced
by name bind-
ing operations:

   x = 1
   print(x)

* The value isn\N{RIGHT SINGLE QUOTATION MARK}t copied.

object.__len__(self)

   Called to implement "len()".

if_stmt ::= "if" expression

Other
=====

For example, "f(x)" calls *f*. It is 7 >>> 8.
"""


def test_prose_is_told_from_code_and_headings():
    first, second = (sentences(section) for section in sections(MANUAL)[1:])
    assert [" ".join(words(sentence)) for sentence in first] == [
        "a name refers to an object .",
        "names are introduced by name bind-ing operations :",
        "the value isn't copied .",
        "called to implement len .",
    ]
    assert second == []


def test_the_sentences_are_what_they_say():
    train, test = load("sentences")
    assert len(train) > 1000 and len(test) > 100 and train.event_shape == test.event_shape == (28,)
    again = load("sentences")
    assert (train.sha256, test.sha256) == (
        again[0].sha256,
        again[1].sha256,
    ) and train.sha256 != test.sha256
    assert train.vocabulary.words == test.vocabulary.words == sorted(set(train.vocabulary.words))
    counts = torch.bincount(train.x.long().flatten(), minlength=len(train.vocabulary))
    assert (counts[UNKNOWN + 1 :] >= 2).all(), "a listed word occurs twice or more in training"
    both = torch.cat([train.x, test.x])
    assert (
        pv.likelihoods.AutoregressiveCategorical(28, MLP(2, []), len(train.vocabulary))(
            torch.zeros(2)
        )
        .support.check(both)
        .all()
    )
    assert (both[:, -1] == END).all() and ((both != END).sum(1) >= 5).all()
    assert torch.equal(test[3:7].x, test.x[3:7]) and test[3:7].text == test.text[3:7]
    assert any(line.startswith("the ") and line.endswith(".") for line in test.text)


def test_words_come_back_from_their_numbers(file):
    train, test = load(file)
    assert (len(train), len(test), train.name, train.split, test.split) == (
        33,
        3,
        "lines",
        "train",
        "test",
    )
    assert train.text == [line for i, line in enumerate(LINES) if i % 10 != 9]
    assert test.x.shape[1] == train.x.shape[1] == 8 and train.hold_out(5)[1].text is not None
    assert (
        train.to("cpu", torch.float64).vocabulary is train.vocabulary
        and load("digits")[1].text is None
    )
    renamed = Dataset(
        train.x, name="lines", vocabulary=Vocabulary([*train.vocabulary.words[1:], "new"])
    )
    assert renamed.sha256 != train.sha256, "the words are part of the data"


def test_words_seen_once_are_unknown_and_a_long_sentence_is_refused():
    vocabulary = Vocabulary.of([["b", "a", "b"], ["a", "c"]])
    assert vocabulary.words == ["a", "b"] and len(vocabulary) == 4
    x = vocabulary.encode([["c", "b"], []], length=3)
    assert x.tolist() == [[1, 3, 0], [0, 0, 0]] and vocabulary.decode(x) == ["_ b", ""]
    with pytest.raises(InvalidInput, match="length: got 2 for a sentence of 2 words"):
        vocabulary.encode([["a", "b"]], length=2)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"One line.\n", "ten sentences or more"),
        (b"\xff\xfe\n" * 20, "encoded in UTF-8"),
        (None, "check the path"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path, content, message):
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        load(str(tmp_path / "bad.txt"))


# the likelihood


def likelihood_of(length=3, categories=4, **arguments):
    return pv.likelihoods.AutoregressiveCategorical(
        length, MLP(2, [5]), categories, width=6, **arguments
    )


@pytest.mark.parametrize("window", [None, 1, 2])
def test_the_masses_of_all_ended_sequences_sum_to_one(window, float64):
    p = likelihood_of(4, 5, window=window)(torch.randn(3, 2))
    states = p.enumerate_support()
    assert len(states) == 4**4 + 4**3 + 4**2 + 4 + 1, "each length once, whatever is behind the end"
    torch.testing.assert_close(p.log_prob(states).exp().sum(0), torch.ones(3))


def test_a_step_is_the_networks_own_and_the_end_is_certain(float64):
    likelihood = likelihood_of(5, 4)
    z, x = torch.randn(1, 2), [2, 3, 0, 0, 0]
    start, every = likelihood.head(likelihood.network(z))
    state, before, expected = torch.tanh(start), 0, 0.0
    cell = torch.nn.GRUCell(6, 6)
    cell.load_state_dict(
        {
            name.removesuffix("_l0"): value
            for name, value in likelihood.recurrence.state_dict().items()
        }
    )
    for word in x[:3]:
        state = cell(likelihood.embedding.weight[before] + every, state)
        expected += likelihood.out(state).log_softmax(-1)[0, word]
        before = word
    torch.testing.assert_close(
        likelihood(z).log_prob(torch.tensor(x, dtype=torch.float64)), expected[None]
    )
    assert (
        not likelihood(z)
        .support.check(
            torch.tensor([[2, 0, 1, 0, 0], [2.5, 0, 0, 0, 0], [4, 0, 0, 0, 0], [-1, 0, 0, 0, 0]])
        )
        .any()
    )


@pytest.mark.parametrize("window", [None, 2])
def test_draws_follow_the_masses_and_greedy_is_the_best_next_step(window, float64):
    likelihood = likelihood_of(window=window)
    with torch.no_grad():
        likelihood.out[1].weight.mul_(6)  # an uneven distribution
    p = likelihood(torch.randn(2, 2))
    states, mass = p.enumerate_support(), p.log_prob(p.enumerate_support()).exp()
    draws = p.sample((20_000,))
    counts = (draws.unsqueeze(0) == states.unsqueeze(1)).all(-1).double().mean(1)
    assert ((counts - mass).abs() < 5 * (mass * (1 - mass) / 20_000).sqrt() + 1e-4).all()
    for row, greedy in enumerate(p.mode):
        of_row = states[:, row]
        for t in range(3):
            begins = (of_row[:, :t] == greedy[:t]).all(1)
            by_next = torch.stack(
                [mass[begins & (of_row[:, t] == word), row].sum() for word in range(4)]
            )
            assert by_next.argmax() == greedy[t]


def test_dropped_words_are_those_before_and_in_training_only():
    likelihood, z = likelihood_of(4, 5, word_dropout=0.5), torch.zeros(20_000, 2)
    x = torch.tensor([1.0, 2.0, 3.0, 0.0]).expand(len(z), -1)
    scored = likelihood(z).log_prob(x)
    assert len(scored.unique()) == 2**4, (
        "each of the end before the first word and three words is seen or not"
    )
    kept = likelihood_of(4, 5)
    kept.load_state_dict(likelihood.state_dict())
    torch.testing.assert_close(likelihood.eval()(z).log_prob(x), kept(z).log_prob(x))


def test_what_is_refused():
    with pytest.raises(InvalidInput, match=r"event_shape: got \(1, 4, 4\)"):
        pv.likelihoods.AutoregressiveCategorical((1, 4, 4), MLP(2, []))
    with pytest.raises(InvalidInput, match="in_shape"):
        pv.networks.Recurrent((2, 5), categories=3)


def test_categories_are_embedded(float64):
    network = pv.networks.Recurrent(6, width=3, hidden=[], categories=4)
    x = torch.randint(0, 4, (2, 5, 6)).double()
    plain = pv.networks.Recurrent((3, 6), width=3, hidden=[])
    plain.recurrence.load_state_dict(network.recurrence.state_dict())
    torch.testing.assert_close(network(x), plain(network.embedding(x.long()).transpose(-1, -2)))


def small_program(data, latent=2):
    count = len(data.vocabulary)
    return pv.VAE(
        pv.priors.StandardNormal(latent),
        pv.likelihoods.AutoregressiveCategorical(
            data.event_shape, MLP(latent, []), count, width=24
        ),
        pv.posteriors.DiagonalNormal(
            latent, pv.networks.Recurrent(data.event_shape, 16, [16], categories=count)
        ),
    )


def test_a_program_of_sentences_learns_them(file):
    train, test = load(file)
    program = small_program(train)
    before = perplexity(pv.elbo(program, test, 20), test)
    pv.fit(
        program, train, epochs=60, batch_size=11, learning_rate=1e-2, progress=False, compile="off"
    )
    after = perplexity(pv.log_likelihood(program, test, 20), test)
    assert before > 10 and after < 4
    assert set(train.vocabulary.decode(pv.generate(program, 20))) & set(train.text)
    assert program.likelihood(torch.zeros(1, 2)).support.check(pv.reconstruct(program, test)).all()
    with pytest.raises(InvalidInput, match="text, whose numbers stand for words"):
        squared_error(program, test)
    decoder = Decoder(program)
    assert decoder(torch.zeros(3, 2)).shape == (3, *train.event_shape) and not decoder.is_smooth
    with pytest.raises(InvalidInput, match="without a mean, as that of sentences"):
        tangent_planes(decoder, torch.zeros(3, 2))


def test_perplexity_counts_words_and_ends():
    vocabulary = Vocabulary(["a", "b"])
    data = Dataset(
        torch.tensor([[2.0, 3.0, 0.0], [3.0, 3.0, 2.0]]), vocabulary=vocabulary
    )  # the second has no room for an end
    score = Score(torch.full((2,), -3 * math.log(5)), torch.zeros(2), 1)
    assert (
        perplexity(score, data) == pytest.approx(5.0) and perplexity(score, Dataset(data.x)) is None
    )


# the commands

TRAIN = [
    "--likelihood",
    "AutoregressiveCategorical",
    "--likelihood.width",
    "12",
    "--encoder",
    "Recurrent",
    "--encoder.width",
    "8",
    "--encoder.hidden",
    "[8]",
    "--decoder",
    "MLP",
    "--decoder.hidden",
    "[]",
    "--latent",
    "2",
    "--epochs",
    "2",
    "--num-samples",
    "20",
]


@pytest.mark.filterwarnings("ignore::pyro_vae.evaluation.UnreliableEstimate")
def test_all_commands_serve_text(file, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "--data", file, *TRAIN, "--out", str(run)]) == 0
    assert "perplexity of a word" in capsys.readouterr().out
    scores = json.loads((run / "evaluation.json").read_text())
    assert scores["bits_per_dim"] is None and scores["perplexity"] > 1
    assert (run / "vocabulary.txt").read_text().split("\n")[:-1] == load(file)[0].vocabulary.words
    assert main(["sample", str(run), "--num", "3"]) == 0
    written = (run / "samples.txt").read_text()
    assert written.count("\n") == 3 and written in capsys.readouterr().out
    for name in ("some.png", "some.npz"):
        assert main(["sample", str(run), "--num", "3", "--out", str(tmp_path / name)]) == 0
    assert np.load(tmp_path / "some.npz")["x"].shape == (3, 8)
    assert main(["inspect", str(run), "--reference", "0", "--num-samples", "5"]) == 0
    captions = json.loads((run / "inspection" / "inspection.json").read_text())["captions"]
    assert {"interpolation.png", "neighbours.png", "traversals.png"} <= set(
        captions
    ) and "tangent.png" not in captions
    assert main(["report", str(run)]) == 0
    assert "Perplexity of a word" in (run / "report.html").read_text()


def test_other_words_are_no_data_of_the_run(file, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "--data", file, *TRAIN, "--epochs", "1", "--out", str(run)]) == 0
    path = run / "vocabulary.txt"
    path.write_text(path.read_text().replace("attribute", "property"))
    for command in (["evaluate", str(run)], ["inspect", str(run)]):
        assert main(command) == 2
        assert "whose vocabulary differs from" in capsys.readouterr().err
    assert (
        main(
            [
                "train",
                "--data",
                "digits",
                "--epochs",
                "1",
                "--limit",
                "20",
                "--num-samples",
                "5",
                "--out",
                str(tmp_path / "images"),
            ]
        )
        == 0
    )
    assert main(["sample", str(tmp_path / "images"), "--out", "some.txt"]) == 2


def test_the_recipe_is_sized_by_the_vocabulary(file):
    from jsonargparse import ArgumentParser

    from pyro_vae.recipes.parser import RecipeParser

    recipes = RecipeParser(ArgumentParser(exit_on_error=False))
    recipe = recipes.recipe(
        recipes.parse(
            [f"--data={file}", "--likelihood=AutoregressiveCategorical", "--encoder=Recurrent"], {}
        )
    )
    program = build_program(recipe, load(file)[0])
    assert (
        program.likelihood.categories
        == program.posterior.network.categories
        == len(load(file)[0].vocabulary)
    )


def test_the_smoothed_trigrams_it_is_compared_with_are_distributions():
    script = runpy.run_path(str(Path(__file__).parents[2] / "experiments" / "systems" / "text.py"))
    generator = np.random.default_rng(0)
    sentences = [generator.geometric(0.2, size=6).clip(max=18).tolist() for _ in range(30)]
    for order in (1, 2, 3):
        model = script["KneserNey"](sentences, order, size=20)
        for history in ((END, END), (END, 1), (1, 2), (19, 19), (5, 1)):  # some seen, some not
            history = history[len(history) - order + 1 :]
            assert sum(model.probability((*history, word)) for word in range(20)) == pytest.approx(
                1
            )
        assert model.probability((*history, 1)) > model.probability((*history, 19)) > 0
