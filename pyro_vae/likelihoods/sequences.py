"""Likelihoods of sequences whose entries depend on one another given z."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.functional import pad

from pyro_vae.distributions import AutoregressiveSequences
from pyro_vae.networks import Head, Size, as_shape, features_of, out_shape_of
from pyro_vae.validation import InvalidInput, check_count, check_probability

__all__ = ["AutoregressiveCategorical"]


class AutoregressiveCategorical(nn.Module):
    r"""Words, or other categories, each given z and those before it, by a recurrent network.

    .. math:: P(x \mid z) = \prod_{t=1}^{n} \mathrm{softmax}(W h_t + b)_{x_t}, \quad
              h_t = \mathrm{GRU}(E_{x_{t-1}} + g(z), h_{t-1}), \quad h_0 = \tanh(f(z))

    with :math:`x_0 = 0`. Category 0 is the end: the product stops at the first 0, and the places
    behind it are 0 with certainty. `log_prob` is exact and takes one pass; a draw goes step by
    step. Categories have no mean: `pyro_vae.reconstruct` and `generate` give the mode that a greedy
    search finds, the most probable category one step after the other.

    A network that sees what was written so far can do without z, and then the posterior collapses
    to the prior. Words dropped from what it sees, in training only, work against that;
    `pyro_vae.objectives.FreeBits` rules it out. With a ``window`` the network sees the last words
    alone: h_t starts from :math:`h_0` anew and reads so many words, 0 for each before the first,
    and g(z) is added to it. What a long text is about is then left to z.

    Args:
        event_shape: (T,), the length of the longest sequence.
        network: from z to features, of which f and g are affine.
        categories: the number of categories C, the end among them.
        width: size of the state and of the embeddings.
        word_dropout: probability with which, in training, the embedding of a word before is
            replaced by zeros.
        dropout: probability with which, in training, a unit of what the output layer sees is
            dropped.
        window: how many words before the network sees; by default all of them.

    Raises:
        InvalidInput: if the event is no vector of at least two entries, there are fewer than two
            categories, or the window is empty.

    Source: Bowman et al. (2016), Generating Sentences from a Continuous Space; Yang et al. (2017),
    Improved Variational Autoencoders for Text Modeling, for decoders that see a few words.

    Example:
        >>> likelihood = AutoregressiveCategorical(5, pv.networks.MLP(2, [8]), categories=4)
        >>> p = likelihood(torch.zeros(1, 2))
        >>> p.log_prob(torch.tensor([3.0, 1.0, 0.0, 0.0, 0.0])).shape
        torch.Size([1])
        >>> p.support.check(torch.tensor([3.0, 0.0, 1.0, 0.0, 0.0]))
        tensor(False)
    """

    def __init__(
        self,
        event_shape: Size,
        network: nn.Module,
        categories: int = 10,
        width: int = 128,
        word_dropout: float = 0.0,
        dropout: float = 0.0,
        window: int | None = None,
    ):
        super().__init__()
        check_count("categories", categories, minimum=2)
        check_count("width", width)
        check_probability("word_dropout", word_dropout)
        check_probability("dropout", dropout)
        if window is not None:
            check_count("window", window)
        self.event_shape, self.network = as_shape(event_shape), network
        self.categories, self.width = categories, width
        self.word_dropout, self.dropout, self.window = word_dropout, dropout, window
        if len(self.event_shape) != 1 or self.event_shape[0] < 2:
            raise InvalidInput(
                "event_shape",
                got=str(self.event_shape),
                expected="(T,), a vector of at least two entries",
                fix="flatten x, or choose Categorical, whose entries are independent",
            )
        self.head = Head(out_shape_of(network), (width,), parameters=2)
        self.embedding = nn.Embedding(categories, width)
        self.recurrence = nn.GRU(width, width, batch_first=True)
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, categories))

    def forward(self, z: Tensor, *, context: Tensor | None = None) -> dist.TorchDistribution:
        start, every = self.head(features_of(self.network, z, context))
        return AutoregressiveSequences(self, torch.cat([torch.tanh(start), every], -1))

    def logits(self, x: Tensor, given: Tensor) -> Tensor:
        """Log-odds (M, T, C) of each category of x (M, T), given those before and (M, 2 width)."""
        start, every = given.chunk(2, -1)
        before = self.embedding(pad(x, (self.window or 1, 0))[:, :-1])
        if self.training and self.word_dropout:
            before = torch.where(torch.rand_like(before[..., :1]) < self.word_dropout, 0.0, before)
        steps = before + every.unsqueeze(1)
        if self.window is None:
            states, _ = self.recurrence(steps, start.unsqueeze(0).contiguous())
        else:
            each = steps.unfold(1, self.window, 1).transpose(-1, -2)  # (M, T, window, width)
            rows = start.unsqueeze(1).expand(-1, each.shape[1], -1).flatten(0, 1)
            _, last = self.recurrence(each.flatten(0, 1), rows.unsqueeze(0).contiguous())
            states = last[0].unflatten(0, each.shape[:2]) + every.unsqueeze(1)
        return self.out(states).to(given.dtype)

    @torch.no_grad()
    def draw(self, given: Tensor, greedy: bool = False) -> Tensor:
        """Draw sequences (M, T) step by step, or take the most probable category at each step."""
        start, every = (part.contiguous() for part in given.chunk(2, -1))
        lag, state = self.window or 1, start.unsqueeze(0)
        words = [torch.zeros_like(given[:, 0], dtype=torch.long)] * lag  # len() would be exported
        running = torch.ones_like(words[0])
        for _ in range(*self.event_shape):
            seen = torch.stack(words[-lag:], -1)
            steps, after = self.recurrence(self.embedding(seen) + every.unsqueeze(1), state)
            state = after if self.window is None else state
            last = steps[:, -1] if self.window is None else steps[:, -1] + every
            logits = self.out(last)
            drawn = logits.argmax(-1) if greedy else Categorical(logits=logits).sample()
            words.append(running * drawn)
            running = running * (words[-1] != 0)
        return torch.stack(words[lag:], -1)
