"""Words given z and the last few words before them."""

import pytest
import torch

import pyro_vae as pv
from pyro_vae.validation import InvalidInput


def words(**arguments):
    return pv.likelihoods.AutoregressiveCategorical(
        6, pv.networks.MLP(2, [5]), categories=4, width=3, **arguments
    )


@pytest.mark.parametrize("window", [1, 2, 6])
def test_a_window_is_a_recurrent_network_on_the_last_words(window, float64):
    likelihood, z = words(window=window), torch.randn(1, 2)
    x = torch.tensor([2, 3, 3, 1, 2, 0])
    start, every = likelihood.head(likelihood.network(z))
    expected = 0.0
    for t, word in enumerate(x):
        seen = [0] * max(0, window - t) + x[max(0, t - window) : t].tolist()
        steps = likelihood.embedding(torch.tensor([seen])) + every
        _, last = likelihood.recurrence(steps, torch.tanh(start)[None])
        expected = expected + likelihood.out(last[0] + every).log_softmax(-1)[0, word]
    torch.testing.assert_close(likelihood(z).log_prob(x.double()), expected[None])


def test_words_beyond_the_window_change_nothing(float64):
    likelihood, given = words(window=2), torch.randn(1, 6)
    x = torch.randint(1, 4, (1, 6))
    other = x.clone()
    other[0, 1] = 1 + x[0, 1] % 3
    changed = (likelihood.logits(x, given) != likelihood.logits(other, given)).any(-1)[0]
    assert changed.tolist() == [False, False, True, True, False, False]


def test_an_empty_window_is_refused():
    with pytest.raises(InvalidInput, match="window: got 0"):
        words(window=0)
