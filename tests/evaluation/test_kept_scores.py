"""An evaluation that is ended goes on where it was, to the same numbers."""

import pytest
import torch
from common import small_vae

import pyro_vae as pv
from pyro_vae.cli.scores import _kept_scores
from pyro_vae.evaluation import kept_scores
from pyro_vae.evaluation.importance import evaluate
from pyro_vae.evaluation.kept_scores import KeptScores


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setattr("pyro_vae.runtime.blocks.BLOCK_BYTES", {"cpu": 2**18, "cuda": 2**18})


def kept(folder, key="a"):
    return KeptScores(folder, key, seconds=0.0)


def test_an_interrupted_evaluation_goes_on_to_the_bit(tmp_path, monkeypatch, blocks):
    program, data = small_vae(), pv.datasets.load("digits")[1][:40]
    whole = evaluate(program, data, 20, compile="off")
    folder = tmp_path / "parts"
    adding = KeptScores.add

    def interrupted(self, scores):
        adding(self, scores)
        if self.start > 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(kept_scores.KeptScores, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(program, data, 20, compile="off", kept=kept(folder))
    monkeypatch.setattr(kept_scores.KeptScores, "add", adding)
    again = kept(folder)
    assert 10 < again.start < 40
    went_on = evaluate(program, data, 20, compile="off", kept=again)
    for name, score in whole.items():
        assert score.per_datum.keys() == went_on[name].per_datum.keys()
        for entry, values in score.per_datum.items():
            torch.testing.assert_close(
                went_on[name].per_datum[entry], values, rtol=0, atol=0, equal_nan=True
            )
    done = kept(folder)
    assert done.start == 40 and 0 < done.start_of(40) < 40  # something is scored anew
    assert kept(folder, "b").start == 0  # other settings, other scores
    damaged = sorted(folder.glob("a-0-*.npz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert kept(folder).start == 0
    again.remove()
    assert not folder.exists()


def test_scores_of_another_program_of_equal_weights_are_not_gone_on_with(tmp_path):
    data = pv.datasets.load("digits")[1][:4]

    def key_of(steps):
        torch.manual_seed(0)
        program = pv.VAE(
            pv.priors.ContinuousFlow(2, steps=steps),
            pv.likelihoods.Bernoulli((1, 8, 8), pv.networks.MLP(2, [4])),
            pv.posteriors.DiagonalNormal(2, pv.networks.MLP((1, 8, 8), [4])),
        )
        return _kept_scores(program, data, 20, tmp_path, 0).key

    assert key_of(2) == key_of(2) != key_of(4)
