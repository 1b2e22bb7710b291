"""Networks for words of which the order does not matter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae.networks.dense import MLP
from pyro_vae.networks.maps import check_map_shape
from pyro_vae.networks.shapes import Size
from pyro_vae.validation import as_counts, check_count

__all__ = ["BagOfWords"]


class BagOfWords(nn.Module):
    r"""Dense layers on how often each word occurs, whatever the words' order.

    .. math:: h_0 = \log(1 + n), \quad n_c = \#\{t : x_t = c\}

    The end, category 0, is not counted. For what a text is about; `Recurrent` sees the order too.

    Args:
        in_shape: (length,), the length of the longest text.
        hidden: widths of the dense layers; the context joins in the first.
        context: number of context features, 0 for none.
        categories: how many categories there are, the end among them.
        dropout: probability of dropping a unit while training.

    Raises:
        InvalidInput: on an input that is no sequence of categories, or fewer than two categories.

    Source: Miao, Yu and Blunsom (2016), Neural Variational Inference for Text Processing.

    Example:
        >>> network = BagOfWords(5, [16], categories=4)
        >>> x = torch.tensor([[3.0, 1.0, 3.0, 0.0, 0.0], [1.0, 3.0, 3.0, 0.0, 0.0]])
        >>> network(x).shape, torch.equal(network(x[:1]), network(x[1:]))
        (torch.Size([2, 16]), True)
    """

    takes_draws = True

    def __init__(
        self,
        in_shape: Size,
        hidden: Sequence[int] = (128, 128),
        *,
        context: int = 0,
        categories: int = 10,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_count("categories", categories, minimum=2)
        self.in_shape = check_map_shape(in_shape, 1)
        self.hidden, self.context = as_counts("hidden", hidden), context
        self.categories, self.dropout = categories, dropout
        self.dense = MLP(categories - 1, self.hidden, context=context, dropout=dropout)
        self.out_shape = self.dense.out_shape

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        is_word = (x > 0) & (x < self.categories)
        number = torch.where(is_word, x, 0).long()
        counts = x.new_zeros(*x.shape[:-1], self.categories)
        counts = counts.scatter_add(-1, number, torch.ones_like(x))[..., 1:]
        return self.dense(torch.log1p(counts), context)
